"""Crystal prototypes whose sites are filled with other elements to make training structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.core import Composition, Lattice, Structure

ANION_CHARGES = {
    "O": -2, "S": -2, "Se": -2, "Te": -2,
    "F": -1, "Cl": -1, "Br": -1, "I": -1,
    "N": -3, "P": -3, "As": -3, "Sb": -3,
}  # fmt: skip
"""Anions and their charges (e)."""


@dataclass(frozen=True)
class Prototype:
    """A structure type with one representative compound.

    Attributes
    ----------
    label
        AFLOW label, or the name of the representative.
    structure
        Primitive cell of the representative.
    charges
        Oxidation state (e) of each element of the representative; empty for metals and elements.
    """

    label: str
    structure: Structure
    charges: dict[str, float] = field(default_factory=dict)

    @property
    def anions(self) -> tuple[str, ...]:
        """Elements of the representative that are anions."""
        return tuple(symbol for symbol, charge in self.charges.items() if charge < 0)

    @property
    def cations(self) -> tuple[str, ...]:
        """Elements of the representative that are cations."""
        return tuple(symbol for symbol, charge in self.charges.items() if charge > 0)


# (label, space group, (a, b, c, alpha, beta, gamma) in Å and degrees, [(element, x, y, z), ...]): common structure
# types that the AFLOW library lacks. Idealised textbook parameters: the labelling relaxes them anyway.
_FURTHER: tuple[tuple[str, str, tuple[float, ...], tuple[tuple[str, float, float, float], ...]], ...] = (
    ("olivine LiFePO4", "Pnma", (10.33, 6.01, 4.69, 90, 90, 90), (
        ("Li", 0, 0, 0), ("Fe", 0.2822, 0.25, 0.9747), ("P", 0.0948, 0.25, 0.4182), ("O", 0.0968, 0.25, 0.7428),
        ("O", 0.4571, 0.25, 0.2060), ("O", 0.1656, 0.0465, 0.2848))),
    ("delafossite CuAlO2", "R-3m", (2.857, 2.857, 16.94, 90, 90, 120), (
        ("Cu", 0, 0, 0), ("Al", 0, 0, 0.5), ("O", 0, 0, 0.11))),
    ("K2NiF4", "I4/mmm", (4.01, 4.01, 13.07, 90, 90, 90), (
        ("Ni", 0, 0, 0), ("K", 0, 0, 0.352), ("F", 0, 0.5, 0), ("F", 0, 0, 0.153))),
    ("double perovskite Sr2MgWO6", "Fm-3m", (7.92, 7.92, 7.92, 90, 90, 90), (
        ("Sr", 0.25, 0.25, 0.25), ("Mg", 0.5, 0.5, 0.5), ("W", 0, 0, 0), ("O", 0.24, 0, 0))),
    ("K2PtCl6-type K2SnCl6", "Fm-3m", (10.0, 10.0, 10.0, 90, 90, 90), (
        ("K", 0.25, 0.25, 0.25), ("Sn", 0, 0, 0), ("Cl", 0.243, 0, 0))),
    ("molybdite MoO3", "Pnma", (13.86, 3.70, 3.96, 90, 90, 90), (
        ("Mo", 0.1016, 0.25, 0.0867), ("O", 0.2214, 0.25, 0.0373), ("O", 0.4351, 0.25, 0.4994),
        ("O", 0.0866, 0.25, 0.5212))),
    ("Li2MnO3", "C2/m", (4.937, 8.532, 5.03, 90, 109.46, 90), (
        ("Mn", 0, 0.167, 0), ("Li", 0, 0.5, 0), ("Li", 0, 0, 0.5), ("Li", 0, 0.6606, 0.5),
        ("O", 0.2189, 0, 0.2273), ("O", 0.254, 0.3213, 0.2233))),
    ("zabuyelite Li2CO3", "C2/c", (8.359, 4.973, 6.197, 90, 114.83, 90), (
        ("Li", 0.1965, 0.4486, 0.8344), ("C", 0, 0.0657, 0.25), ("O", 0, 0.317, 0.25), ("O", 0.1459, -0.0664, 0.3131))),
    ("beta Li3PO4", "Pmn2_1", (6.115, 5.239, 4.855, 90, 90, 90), (
        ("Li", 0.248, 0.328, 0.986), ("Li", 0.5, 0.843, 0.989), ("P", 0, 0.8243, 0), ("O", 0.2086, 0.6863, 0.8985),
        ("O", 0, 0.1055, 0.8998), ("O", 0, 0.8223, 0.3149))),
    ("hexagonal perovskite BaNiO3", "P6_3/mmc", (5.58, 5.58, 4.83, 90, 90, 120), (
        ("Ba", 1 / 3, 2 / 3, 0.75), ("Ni", 0, 0, 0), ("O", 0.1462, 0.2924, 0.25))),
    ("post-perovskite MgSiO3", "Cmcm", (2.47, 8.04, 6.1, 90, 90, 90), (
        ("Mg", 0, 0.253, 0.25), ("Si", 0, 0, 0), ("O", 0, 0.923, 0.25), ("O", 0, 0.636, 0.063))),
    ("wolframite MgWO4", "P2/c", (4.69, 5.68, 4.92, 90, 90.8, 90), (
        ("Mg", 0.5, 0.668, 0.25), ("W", 0, 0.1805, 0.25), ("O", 0.22, 0.1081, 0.9375), ("O", 0.257, 0.3766, 0.399))),
    ("KAl(MoO4)2", "P-3m1", (5.54, 5.54, 7.07, 90, 90, 120), (
        ("K", 0, 0, 0.5), ("Al", 0, 0, 0), ("Mo", 1 / 3, 2 / 3, 0.23), ("O", 1 / 3, 2 / 3, 0.47),
        ("O", 0.165, 0.835, 0.16))),
    ("CdCl2", "R-3m", (3.85, 3.85, 17.46, 90, 90, 120), (("Cd", 0, 0, 0), ("Cl", 0, 0, 0.25))),
    ("ThCr2Si2-type CaNi2Ge2", "I4/mmm", (4.0, 4.0, 10.1, 90, 90, 90), (
        ("Ca", 0, 0, 0), ("Ni", 0, 0.5, 0.25), ("Ge", 0, 0, 0.375))),
    ("ThCr2Si2-type BaZn2P2", "I4/mmm", (4.02, 4.02, 13.2, 90, 90, 90), (
        ("Ba", 0, 0, 0), ("Zn", 0, 0.5, 0.25), ("P", 0, 0, 0.375))),
    ("TiNiSi", "Pnma", (6.15, 3.67, 7.02, 90, 90, 90), (
        ("Ti", 0.02, 0.25, 0.68), ("Ni", 0.14, 0.25, 0.06), ("Si", 0.77, 0.25, 0.62))),
    ("ZrNiAl", "P-62m", (6.92, 6.92, 3.47, 90, 90, 120), (
        ("Zr", 0.591, 0, 0.5), ("Ni", 0, 0, 0.5), ("Ni", 1 / 3, 2 / 3, 0), ("Al", 0.25, 0, 0))),
)  # fmt: skip


def _charges(composition: Composition) -> dict[str, float]:
    """Oxidation states of a compound of an anion; empty for metals and elements."""
    symbols = [element.symbol for element in composition]
    anion = max(symbols, key=_electronegativity)
    if len(symbols) == 1 or anion not in ANION_CHARGES:
        return {}
    guesses = composition.reduced_composition.oxi_state_guesses()
    if guesses and guesses[0][anion] < 0:
        charges = {symbol: float(charge) for symbol, charge in guesses[0].items()}
        if all(charge != 0 for charge in charges.values()):
            return charges
    # a compound such as FeS2 or Ag8 Se4 without a neutral guess: one anion, the rest shares its charge
    total = -ANION_CHARGES[anion] * composition[anion] / sum(composition[s] for s in symbols if s != anion)
    return {symbol: float(ANION_CHARGES[anion]) if symbol == anion else max(1.0, round(total)) for symbol in symbols}


def _electronegativity(symbol: str) -> float:
    return float(Composition(symbol).elements[0].X)


@cache
def prototypes(max_sites: int = 28) -> tuple[Prototype, ...]:
    """All prototypes of up to ``max_sites`` atoms in the primitive cell, in a fixed order.

    Parameters
    ----------
    max_sites
        Largest number of atoms.

    Returns
    -------
    tuple of Prototype
        pymatgen's AFLOW library without hydrogen compounds, then the further common types listed here.
    """
    found: list[tuple[str, Structure]] = []
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure = entry["snl"].structure
        found.append(
            (entry["tags"]["aflow"] + (f" {entry['tags']['mineral']}" if entry["tags"]["mineral"] else ""), structure)
        )
    for label, group, cell, sites in _FURTHER:
        structure = Structure.from_spacegroup(
            group, Lattice.from_parameters(*cell), [site[0] for site in sites], [site[1:] for site in sites]
        )
        found.append((label, structure.get_primitive_structure()))
    return tuple(
        Prototype(label, structure, _charges(structure.composition))
        for label, structure in found
        if len(structure) <= max_sites and "H" not in structure.composition
    )
