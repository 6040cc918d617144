"""A crystal of a file, or the reason why it could not be read."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import DummySpecies, Element
from pymatgen.core.structure import Structure, StructureError

from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

_PARSE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    StructureError,
)
"""Errors of the parsers of pymatgen and ASE on malformed text; numpy's LinAlgError is a ValueError."""

_ISOTOPES = {"deuterium": float(Element("D").atomic_mass), "tritium": float(Element("T").atomic_mass)}  # u

_ODD_MESSAGES = {
    "integer modulo by zero": "a loop without values",
    "is longer than argument": "a loop whose values do not fill its columns; is the file truncated?",
    "is not a multiple of": "a loop whose values do not fill its columns; is the file truncated?",
    "NaN to integer": "a coordinate is not a number",
    "exceeded tolerance": "two atoms on one site, their occupancies sum to more than 1",
    "no structures": "it holds no structure",
    "at least 1 site": "it lists no atom sites",
    "_atom_site_label": "it lists no atom sites; is the file truncated?",
    "below threshold": "the cell is flat",
    "Singular matrix": "the cell has no volume",
    "could not convert string to float: ''": "a number is missing; is the file truncated?",
    "list index out of range": "a line or a column is missing; is the file truncated?",
    "into shape (3,3)": "the cell parameters are incomplete",
}


_SAME_MASS = 1e-3
"""Relative difference of two masses that is none: tables of the elements differ by as much."""


class SourceWarning(UserWarning):
    """What a reader did not take as the file has it; `attempt` collects such warnings in `Parsed.warnings`."""


@dataclass(frozen=True)
class Parsed:
    """
    A crystal of a file, or the reason why it could not be read.

    Attributes
    ----------
    structure
        The crystal without oxidation states, or None. Of site properties it has ``selective_dynamics`` if atoms may
        not move, and ``masses`` (u) if these are not those of the elements.
    error
        The reason in one line, or None.
    where
        Location in the file, such as ``{"block": "NaCl"}``.
    text
        Text that was parsed, or its beginning: the identity of an item without a structure is made of it.
    warnings
        What the structure does not have as the file has it, one line each.
    """

    structure: Structure | None
    error: str | None
    location: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    warnings: tuple[str, ...] = ()


def attempt(read: Callable[[], Structure], location: dict[str, Any], text: str, kind: str) -> Parsed:
    """
    Call a reader, and turn its error into a reason of one line.

    Parameters
    ----------
    read
        Returns a structure, which may have oxidation states and site properties.
    where
        Location in the file.
    text
        Text that the reader parses.
    kind
        Name of the format.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            structure = _bare(read())
            said = (" ".join(str(w.message).split()) for w in caught if issubclass(w.category, SourceWarning))
            return Parsed(structure, None, location, text, tuple(dict.fromkeys(said)))
        except _PARSE_ERRORS as error:
            message = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    message = message.removeprefix("No structure parsed for section 1 in CIF.\n")
    message = next((plain for odd, plain in _ODD_MESSAGES.items() if odd in message), message)
    hints = [str(w.message) for w in caught if "Defaulting to P1" not in str(w.message)]
    message = "; ".join(dict.fromkeys([message, *hints]))
    return Parsed(None, " ".join(f"unreadable {kind}: {message}".split())[:500], location, text)


def from_atoms(atoms: Atoms) -> Structure:
    """
    Convert ASE atoms.

    Raises
    ------
    ValueError
        If there is an atom X, or no periodicity in three directions.
    """
    if not np.all(atoms.numbers):
        raise ValueError("unknown element X")
    return to_structure(atoms)


def _bare(structure: Structure) -> Structure:
    """Keep what the identity, the potential and the properties depend on; warn of the rest."""
    if not all(structure.lattice.pbc):
        to_structure(structure)  # raises the one error for slabs; what else is wrong with a cell, `problem_with` says
    structure = structure.copy()
    if len(structure) == 0:
        raise ValueError("it lists no atom sites")
    for site in structure:
        for species in site.species:
            if isinstance(species, DummySpecies):
                raise ValueError(f"unknown element {species.symbol}")  # noqa: TRY004
    _warn_of_dropped(structure)
    masses = _masses(structure)
    free = structure.site_properties.get("selective_dynamics")
    for name in list(structure.site_properties):
        structure.remove_site_property(name)
    structure.properties = {}
    if structure.charge:
        structure.set_charge(0)
    structure.remove_oxidation_states()
    _join_isotopes(structure)
    if masses is not None:
        structure.add_site_property("masses", masses)
    if free is not None and any(flags is not None and not all(flags) for flags in free):
        structure.add_site_property(
            "selective_dynamics", [[True] * 3 if f is None else list(map(bool, f)) for f in free]
        )
    return structure


def _warn_of_dropped(structure: Structure) -> None:
    """Warn of what the file says of the crystal and nothing here uses."""
    for name in ("momenta", "velocities"):
        values = [v for v in structure.site_properties.get(name, ()) if v is not None]
        if values and np.any(np.asarray(values, dtype=float)):
            warnings.warn(f"the {name} of the atoms are not used", SourceWarning, stacklevel=2)
    if charge := structure._charge:  # noqa: SLF001 - the property adds up oxidation states
        message = f"the charge of the cell, {charge:g} e, is not used: potentials know neutral cells"
        warnings.warn(message, SourceWarning, stacklevel=2)


def _masses(structure: Structure) -> list[float] | None:
    """Masses of the sites (u) if they are not those of the elements; None otherwise."""
    given = structure.site_properties.get("masses") or [None] * len(structure)
    masses, natural = [], []
    for site, mass in zip(structure, given, strict=True):
        parts = _parts(site.species)
        n_atoms = sum(parts.values())
        masses.append(
            sum(float(e.atomic_mass) * x for e, x in parts.items()) / n_atoms if mass is None else float(mass)
        )
        natural.append(sum(float(Element.from_Z(e.Z).atomic_mass) * x for e, x in parts.items()) / n_atoms)
    other: Counter[str] = Counter()
    for site, mass, usual in zip(structure, masses, natural, strict=True):
        if not math.isclose(mass, usual, rel_tol=_SAME_MASS):
            name = next((n for n, m in _ISOTOPES.items() if math.isclose(mass, m, rel_tol=_SAME_MASS)), "")
            other[name or f"{site.species_string} of mass {mass:.4g}"] += 1
    if not other:
        return None
    names = ", ".join(f"{name} at {n} of {len(structure)} sites" for name, n in other.items())
    warnings.warn(f"{names}: the mass is kept, the energy does not depend on it", SourceWarning, stacklevel=2)
    return masses


def _join_isotopes(structure: Structure) -> None:
    """Write isotopes as their element, so that a site of D and H is one of hydrogen."""
    for index, site in enumerate(structure):
        if _has_isotopes(site.species):
            parts = {Element.from_Z(Z): x for Z, x in _by_number(site.species).items()}
            if len(parts) == 1 and math.isclose(sum(parts.values()), 1.0, abs_tol=1e-6):
                parts = dict.fromkeys(parts, 1.0)
            structure[index].species = parts


def _has_isotopes(composition: Composition) -> bool:
    return any(element != Element.from_Z(element.Z) for element in _parts(composition))


def _by_number(composition: Composition) -> dict[int, float]:
    """Amounts by atomic number, isotopes together."""
    amounts: dict[int, float] = {}
    for element, amount in _parts(composition).items():
        amounts[element.Z] = amounts.get(element.Z, 0.0) + amount
    return amounts


def _parts(composition: Composition) -> dict[Element, float]:
    """Amounts by element or isotope; ``items`` of pymatgen gives both D and H their sum, as their names are equal."""
    amounts: dict[Element, float] = {}
    for species, amount in composition._data.items():  # noqa: SLF001
        element = species if isinstance(species, Element) else species.element
        amounts[element] = amounts.get(element, 0.0) + amount
    return amounts


def element_composition(structure: Structure) -> Composition:
    """Count the atoms of a cell by element, isotopes and valences together."""
    return Composition({Element.from_Z(z): amount for z, amount in _by_number(structure.composition).items()})
