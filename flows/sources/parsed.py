"""One crystal of a file, or the reason why there is none."""

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
"""What the parsers of pymatgen and ASE raise on malformed text; numpy's LinAlgError is a ValueError."""

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
    One crystal of a file, or why there is none.

    Attributes
    ----------
    structure
        Without oxidation states and site properties, or None.
    error
        One line, or None.
    where
        Place in the file, such as ``{"block": "NaCl"}``.
    text
        What was parsed, or its beginning, for the identity of an item without a structure.
    """

    structure: Structure | None
    error: str | None
    location: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def attempt(read: Callable[[], Structure], location: dict[str, Any], text: str, kind: str) -> Parsed:
    """
    Call a reader; turn what goes wrong into a reason of one line.

    Parameters
    ----------
    read
        Gives a structure, which may have oxidation states and site properties.
    where
        Place in the file.
    text
        What it parses.
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
    """Only species, lattice and coordinates: what an identity is made of, and what a potential sees."""
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
