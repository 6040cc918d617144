"""Known structure types filled with the elements of a chemical system."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, Any
from unicodedata import lookup, normalize

import numpy as np
from ase.collections import dcdft
from pymatgen.analysis.ewald import EwaldSummation
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from matris.flows.sources.sizes import atomic_volume, ionic_radius
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE, Candidate
from matris.stores.query.values import element, elements_of
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pymatgen.core.composition import Composition

PROTOTYPE_SOURCE = "prototype"

_CLOSE_PACKED = ("A_cF4_225_a", "A_cI2_229_a", "A_hP2_194_c")  # fcc, bcc, hcp
_DOUBLE_HCP = "A_hP4_194_ac"
_COULOMB = 14.399645  # e²/(4πε₀), eV Å (CODATA 2018)
_ROCK_SALT = 1.747565  # Madelung constant of rock salt
_SOFTNESS = 0.33  # ρ of Born and Mayer (Å), the usual value of ionic crystals
_BOND_RANGE = 1.2  # ions within this multiple of the shortest distance count as nearest neighbours
_PER_COORDINATION = 2
_SHORTEST_BOND = 0.9  # Å; the tabulated radius of H+ is negative
_INTERMETALLIC = frozenset(
    {
        "AB_cP2_221_b_a",  # B2, CsCl
        "AB_tP2_123_a_d",  # L1_0, CuAu
        "AB_cF16_227_a_b",  # B32, NaTl
        "AB3_cP4_221_a_c",  # L1_2, Cu3Au
        "AB3_cF16_225_a_bc",  # D0_3, BiF3
        "A2B_cF24_227_d_a",  # C15, cubic Laves
        "AB2C_cF16_225_a_c_b",  # L2_1, Heusler
        "ABC_cF12_216_b_c_a",  # C1_b, half-Heusler
    }
)


def generate_candidates(
    chemsys: str | Iterable[str], *, max_sites: int = 14, per_formula: int = 6
) -> Iterator[Candidate]:
    """
    Fill the AFLOW prototypes of pymatgen with the elements of a chemical system and of its subsystems.

    Compounds with anions must be charge-balanced with common oxidation states, and the nearest neighbour of every ion
    must have the opposite charge. Of each formula, the crystals of lowest energy per atom in a model of charged, soft
    spheres are kept, at the volume of the model. Elements and intermetallics come in a few common structure types, at
    the sum of the elements' atomic volumes. The result is deterministic.

    Parameters
    ----------
    chemsys
        Elements, as ``"Li-Fe-O"`` or a list of symbols.
    max_sites
        Largest number of atoms in a cell.
    per_formula
        Largest number of crystals of one formula with anions.

    Yields
    ------
    Candidate
        With a source that names the prototype, and provenance ``generator`` (``"prototype"``), ``prototype`` (name),
        ``aflow`` (label), ``mapping`` (old to new element) and, for compounds with
        anions, ``oxidation_states``; in the order of the number of elements.

    Raises
    ------
    MatrisError
        If an element does not exist.

    References
    ----------
    Prototypes: Mehl et al., Comput. Mater. Sci. 136, S1 (2017).

    Examples
    --------
    >>> for candidate in generate_candidates("Na-Cl", max_sites=2, per_formula=1):
    ...     print(candidate.structure.formula, candidate.provenance["aflow"])
    Na1 A_cF4_225_a
    Na1 A_cI2_229_a
    Na2 A_hP2_194_c
    Na1 Cl1 AB_cF8_225_a_b
    """
    elements = _elements(chemsys)
    return (
        candidate
        for size in range(1, len(elements) + 1)
        for subsystem in combinations(elements, size)
        for candidate in _of_subsystem(subsystem, max_sites, per_formula)
    )


def elemental_references(elements: Iterable[str]) -> Iterator[Candidate]:
    """
    Yield crystals of the elements as references of a self-consistent hull.

    The crystal is the ground state in the Delta project (ASE's collection ``dcdft``) if it has the element. Otherwise
    fcc, bcc, hcp and double hcp are candidates, and the hull takes the lowest.

    Parameters
    ----------
    elements
        Symbols.

    Yields
    ------
    Candidate
        With the source ``"elemental reference"``.

    Raises
    ------
    MatrisError
        If an element does not exist.

    References
    ----------
    Lejaeghere et al., Science 351, aad3000 (2016).

    Examples
    --------
    >>> [candidate.structure.formula for candidate in elemental_references(["Si", "Fe"])]
    ['Fe1', 'Si2']
    """
    return (candidate for symbol in _elements(elements) for candidate in _references(symbol))


def _references(symbol: str) -> Iterator[Candidate]:
    if symbol in dcdft.names:
        structure = to_structure(dcdft[symbol])
        for name in list(structure.site_properties):
            structure.remove_site_property(name)
        yield Candidate.from_structure(
            structure.get_primitive_structure(), ELEMENTAL_REFERENCE_SOURCE, collection="ase.collections.dcdft"
        )
        return
    for label in (*_CLOSE_PACKED, _DOUBLE_HCP):
        yield from _metallic(_prototype(label), (symbol,), source=ELEMENTAL_REFERENCE_SOURCE)


def _elements(chemsys: str | Iterable[str]) -> list[str]:
    return sorted(set(elements_of(chemsys) if isinstance(chemsys, str) else map(element, chemsys)))


@dataclass(frozen=True)
class Prototype:
    """
    A crystal structure type of the AFLOW library.

    Attributes
    ----------
    tags
        ``aflow``, ``mineral``, ``pearson`` and ``strukturbericht``, its names.
    structure
        A crystal of this type.
    """

    tags: Mapping[str, str]
    structure: Structure


@cache
def library() -> tuple[Prototype, ...]:
    """
    Read the AFLOW library that pymatgen ships; a label may occur several times with different parameters.

    The file is read directly: pymatgen's loader checks the literature references of every entry, which takes seconds.

    References
    ----------
    Mehl et al., Comput. Mater. Sci. 136, S1 (2017).
    """
    packed = files("pymatgen.analysis") / "prototypes" / "aflow_prototypes.json.gz"
    entries = json.loads(gzip.decompress(packed.read_bytes()))
    return tuple(Prototype(entry["tags"], Structure.from_dict(entry["snl"])) for entry in entries)


def _prototype(label: str) -> Prototype:
    return next(prototype for prototype in library() if prototype.tags["aflow"] == label)


def _of_subsystem(elements: tuple[str, ...], max_sites: int, per_formula: int) -> Iterator[Candidate]:
    """Yield the candidates with exactly these elements."""
    if len(elements) == 1:
        if Element(elements[0]).is_metal:
            for label in _CLOSE_PACKED:
                yield from _metallic(_prototype(label), elements)
        return
    fitting = [
        prototype
        for prototype in library()
        if len(prototype.structure) <= max_sites and len(prototype.structure.composition) == len(elements)
    ]
    ionic: dict[str, list[tuple[_Ionic, Candidate]]] = {}
    for prototype in fitting:
        for model, candidate in _ionic(prototype, elements):
            formula = candidate.structure.composition.reduced_formula  # type: ignore[union-attr]
            ionic.setdefault(formula, []).append((model, candidate))
    for formula in sorted(ionic):
        yield from _best(ionic[formula], per_formula)
    if not any(_forms_anions(Element(symbol)) for symbol in elements):
        seen: set[str] = set()
        for prototype in fitting:
            label = prototype.tags["aflow"]
            if label in _INTERMETALLIC and label not in seen:
                seen.add(label)
                yield from _metallic(prototype, elements)


def _forms_anions(element: Element) -> bool:
    if element.is_halogen or element.is_chalcogen:
        return True
    return not (element.is_metal or element.is_metalloid)


def _fillings(prototype: Prototype, elements: tuple[str, ...]) -> Iterator[tuple[Structure, dict[str, str]]]:
    """Fill the sites of a prototype with the elements in every order."""
    structure = prototype.structure
    old = sorted(element.symbol for element in structure.composition.elements)
    for new in permutations(elements):
        mapping = dict(zip(old, new, strict=True))
        filled = structure.copy(site_properties={})
        filled.replace_species(mapping)
        yield filled, mapping


def _metallic(prototype: Prototype, elements: tuple[str, ...], source: str | None = None) -> Iterator[Candidate]:
    """Fill a prototype at the sum of the atomic volumes; yield nothing if a volume is not known."""
    accepted: list[Structure] = []
    matcher = StructureMatcher()
    for filled, mapping in _fillings(prototype, elements):
        volumes = [atomic_volume(site.specie.symbol) for site in filled]
        if None in volumes:
            return
        filled.scale_lattice(sum(volume for volume in volumes if volume))
        if not any(matcher.fit(filled, other) for other in accepted):
            accepted.append(filled)
            tags = _tags(prototype, mapping)
            yield Candidate.from_structure(filled, source or f"{tags['prototype']} type", **tags)


def _ionic(prototype: Prototype, elements: tuple[str, ...]) -> Iterator[tuple[_Ionic, Candidate]]:
    """Fill a prototype in all charge-balanced ways."""
    for filled, mapping in _fillings(prototype, elements):
        charges = _charges(filled.composition)
        if charges is None:
            continue
        model = _ionic_model(filled, charges)
        if model is None:
            continue
        filled.scale_lattice(filled.volume * model.scale**3)
        tags = _tags(prototype, mapping) | {"oxidation_states": charges}
        yield model, Candidate.from_structure(filled, f"{tags['prototype']} type", **tags)


@dataclass(frozen=True)
class _Ionic:
    """A crystal in the ionic model."""

    scale: float  # factor of length
    energy: float  # eV/atom at this scale
    coordination: tuple[int, ...]  # mean number of nearest neighbours of each element


def _charges(composition: Composition) -> dict[str, float] | None:
    """
    Find oxidation states that balance: common ones, or a mean between those of one cation.

    Anions must be more electronegative than cations. Of several solutions, the one with the lowest sum of
    electronegativity times charge is returned; None if there is none.
    """
    amounts = composition.get_el_amt_dict()
    symbols = sorted(amounts, key=lambda symbol: (Element(symbol).X, symbol))
    states = {symbol: [q for q in Element(symbol).common_oxidation_states or () if q] for symbol in symbols}
    balanced = [
        charges
        for combination in product(*states.values())
        if _is_polar(charges := dict(zip(symbols, map(float, combination), strict=True)))
        and sum(amounts[symbol] * charges[symbol] for symbol in symbols) == 0
    ]
    for mixed in () if balanced else symbols:
        others = [symbol for symbol in symbols if symbol != mixed]
        cation = [q for q in states[mixed] if q > 0]
        for combination in product(*(states[symbol] for symbol in others)):
            charges = dict(zip(others, map(float, combination), strict=True))
            charges[mixed] = -sum(amounts[symbol] * charges[symbol] for symbol in others) / amounts[mixed]
            if cation and min(cation) < charges[mixed] < max(cation) and _is_polar({s: charges[s] for s in symbols}):
                balanced.append(charges)
    best = min(balanced, key=lambda charges: sum(Element(s).X * q * amounts[s] for s, q in charges.items()), default={})
    return {symbol: best[symbol] for symbol in sorted(best)} or None


def _is_polar(charges: dict[str, float]) -> bool:
    """Whether there are cations and anions, and all anions are more electronegative; charges in that order."""
    signs = [charge > 0 for charge in charges.values()]
    return any(signs) and not all(signs) and signs == sorted(signs, reverse=True)


def _ionic_model(structure: Structure, charges: dict[str, float]) -> _Ionic | None:
    """
    Scale and energy of a crystal of charged, soft spheres (Born and Mayer, Z. Phys. 75, 1, 1932).

    E = E_Ewald + Σ_pairs b exp(-r/ρ). The parameter b of a pair is such that a rock salt with its charges has the bond
    length of its radii (ionic radii for six neighbours, or atomic radii where an ion has no tabulated radius).

    Parameters
    ----------
    structure
        The crystal, at any volume.
    charges
        Charge of each element (e).

    Returns
    -------
    _Ionic or None
        None if the nearest neighbour of an ion has a charge of the same sign, or if a radius is not known.
    """
    symbols = [site.specie.symbol for site in structure]
    charge = np.array([charges[symbol] for symbol in symbols])
    radii = [ionic_radius(symbol, charges[symbol]) for symbol in symbols]
    if None in radii:
        radii = [Element(symbol).atomic_radius for symbol in symbols]
    if None in radii:
        return None
    radius = np.array(radii, dtype=float)
    cutoff = 2.0 * (structure.volume / len(structure)) ** (1 / 3)
    centers, neighbors, _, distances = structure.get_neighbor_list(cutoff)
    opposite = charge[centers] * charge[neighbors] < 0
    nearest = np.full((2, len(structure)), np.inf)
    for row, mask in enumerate((opposite, ~opposite)):
        np.minimum.at(nearest[row], centers[mask], distances[mask])
    if not np.isfinite(nearest[0]).all() or (nearest[0] > nearest[1]).any():
        return None
    bond = np.maximum(radius[centers] + radius[neighbors], _SHORTEST_BOND)
    attraction = _ROCK_SALT * _COULOMB * np.abs(charge[centers] * charge[neighbors]) / bond**2  # eV/Å, at bond length
    decorated = structure.copy()
    decorated.add_oxidation_state_by_site(charge.tolist())
    coulomb = float(EwaldSummation(decorated).total_energy)  # type: ignore[no-untyped-call]

    def energy(scale: float) -> float:
        repulsion = attraction * _SOFTNESS / 6 * np.exp((bond - scale * distances) / _SOFTNESS)
        return (coulomb / scale + 0.5 * float(repulsion.sum())) / len(structure)

    start = float(np.max((bond / distances)[opposite]))
    minimum = minimize_scalar(energy, bounds=(0.7 * start, 1.3 * start), method="bounded", options={"xatol": 1e-6})
    bonded = opposite & (distances < _BOND_RANGE * nearest[0][centers])
    number = np.bincount(centers[bonded], minlength=len(structure))
    species = np.array(symbols)
    coordination = {symbol: round(float(number[species == symbol].mean())) for symbol in sorted(charges)}
    return _Ionic(float(minimum.x), float(minimum.fun), tuple(coordination.values()))


def _best(ranked: list[tuple[_Ionic, Candidate]], count: int) -> list[Candidate]:
    """
    Choose the lowest energies, with each prototype and each structure once.

    At most two crystals with equal coordination numbers are chosen, since they differ little. Where their energies are
    nearly the same, as between polytypes, the smallest cells come first.
    """
    alike: dict[tuple[int, ...], list[tuple[_Ionic, Candidate]]] = {}
    for model, candidate in ranked:
        alike.setdefault(model.coordination, []).append((model, candidate))
    chosen: list[tuple[float, str, Candidate]] = []
    for members in alike.values():
        lowest = min(model.energy for model, _ in members)
        members.sort(key=lambda pair: _order(pair[0], pair[1], lowest))
        picked = _different([candidate for _, candidate in members], _PER_COORDINATION)
        energies = {candidate.candidate_id: model.energy for model, candidate in members}
        chosen += [(round(energies[c.candidate_id], 6), c.candidate_id, c) for c in picked]
    return _different([candidate for *_, candidate in sorted(chosen, key=lambda item: item[:2])], count)


def _order(model: _Ionic, candidate: Candidate, lowest: float) -> tuple[int, int, float, str]:
    """Sort in steps of 0.1 eV/atom above the lowest, which the model does not resolve, and by size within one."""
    steps = int((model.energy - lowest) / 0.1 + 1e-6)
    return steps, len(candidate.structure or ()), round(model.energy, 6), candidate.candidate_id


def _different(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Keep the first ones; each prototype and each structure once."""
    matcher: Any = StructureMatcher()
    kept: list[Candidate] = []
    for candidate in candidates:
        if len(kept) == count:
            break
        label = candidate.provenance["aflow"]
        if not any(
            label == other.provenance["aflow"] or matcher.fit(candidate.structure, other.structure) for other in kept
        ):
            kept.append(candidate)
    return kept


def _tags(prototype: Prototype, mapping: dict[str, str]) -> dict[str, Any]:
    tags = prototype.tags
    names = [tags["strukturbericht"], tags["mineral"]]
    named = ", ".join(plain(name) for name in names if name and name != "None")
    return {
        "generator": PROTOTYPE_SOURCE,
        "prototype": named or tags["aflow"],
        "aflow": tags["aflow"],
        "mapping": mapping,
    }


def plain(name: str) -> str:
    r"""
    Write a name of the library without LaTeX.

    Examples
    --------
    >>> plain(r"Frank-Kasper $\mu$ Phase"), plain(r"Lavarevi\'{c}ite"), plain(r"L\'2")
    ('Frank-Kasper μ Phase', 'Lavarevićite', "L'2")
    """
    accented = re.sub(r"\\'\{?([A-Za-z])\}?", lambda found: normalize("NFC", f"{found[1]}\u0301"), name)
    greek = re.sub(r"\\([a-z]+)", lambda found: lookup(f"GREEK SMALL LETTER {found[1].upper()}"), accented)
    return re.sub(r"[${}\\]", "", greek)
