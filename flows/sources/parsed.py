"""A crystal of a file, or the reason why it could not be read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymatgen.core.periodic_table import DummySpecies
from pymatgen.core.structure import Structure, StructureError

if TYPE_CHECKING:
    from collections.abc import Callable

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


@dataclass(frozen=True)
class Parsed:
    """
    A crystal of a file, or the reason why it could not be read.

    Attributes
    ----------
    structure
        The crystal without oxidation states and site properties, or None.
    error
        The reason in one line, or None.
    where
        Location in the file, such as ``{"block": "NaCl"}``.
    text
        Text that was parsed, or its beginning: the identity of an item without a structure is made of it.
    """

    structure: Structure | None
    error: str | None
    location: dict[str, Any] = field(default_factory=dict)
    text: str = ""


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
            return Parsed(_bare(read()), None, location, text)
        except _PARSE_ERRORS as error:
            message = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    message = message.removeprefix("No structure parsed for section 1 in CIF.\n")
    message = next((plain for odd, plain in _ODD_MESSAGES.items() if odd in message), message)
    hints = [str(w.message) for w in caught if "Defaulting to P1" not in str(w.message)]
    message = "; ".join(dict.fromkeys([message, *hints]))
    return Parsed(None, " ".join(f"unreadable {kind}: {message}".split())[:500], location, text)


def _bare(structure: Structure) -> Structure:
    """Keep species, lattice and coordinates only, which the identity and the potential depend on."""
    if len(structure) == 0:
        raise ValueError("it lists no atom sites")
    for site in structure:
        for species in site.species:
            if isinstance(species, DummySpecies):
                raise ValueError(f"unknown element {species.symbol}")  # noqa: TRY004
    structure = structure.copy()
    for name in list(structure.site_properties):
        structure.remove_site_property(name)
    structure.properties = {}
    structure.remove_oxidation_states()
    return structure
