"""Atom sites of a CIF: values that parsers misread, and what the file says of the whole cell."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from pymatgen.io.cif import str2float

from matris.flows.sources.parsed import SourceWarning

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, MutableMapping

_ABSENT = frozenset({"?", "."})
_HYDROGEN = re.compile(r"([HDT])(?![A-Za-z])")
_COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_ABOVE_ONE = 1e-3  # by rounding, where no uncertainty is given
_SIGMAS = 3  # uncertainties by which a refined occupancy may be above 1
_NEAR_WHOLE = 0.05  # formula units: vacancies within it are no other crystal
_MULTIPLICITY = ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity")


def as_columns(data: MutableMapping[str, Any]) -> None:
    """Make lists of the values of a single site, which a CIF may give without a loop."""
    for key, value in data.items():
        if key.startswith("_atom_site_") and isinstance(value, str):
            data[key] = [value]


def repair_sites(data: MutableMapping[str, Any]) -> dict[str, float]:
    """
    Give absent occupancies their default, full ones the value 1, and leave out dummy sites.

    An occupancy of 1.002(5) is 1, as is 0.998(4) of a site that no other one shares: the refined value agrees with it.
    Deuterium and tritium are written as hydrogen; at a place that they share with it, they become one site.

    Parameters
    ----------
    data
        One data block, which is changed.

    Returns
    -------
    dict of str to float
        Mean mass (u) of the sites with isotopes, by label.

    Raises
    ------
    ValueError
        If a site has no coordinates, or an occupancy above 1; the message names the site.
    """
    as_columns(data)
    _leave_out_dummies(data)
    labels = data.get("_atom_site_label", ())
    rows = list(zip(*(data[key] for key in _COORDINATES), strict=True)) if all(k in data for k in _COORDINATES) else []
    for label, row in zip(labels, rows, strict=False):
        if _ABSENT & set(row):
            raise ValueError(f"site {label} has the coordinates {' '.join(row)}: place the atom, or delete its row")
    shared = Counter(rows)
    occupancies = data.get("_atom_site_occupancy", ())
    for index, (label, text) in enumerate(zip(labels, occupancies, strict=False)):
        alone = not rows or shared[rows[index]] == 1
        occupancies[index] = "1" if text in _ABSENT else _occupancy(label, text, alone=alone)
    return _join_isotopes(data, rows)


def _join_isotopes(data: MutableMapping[str, Any], rows: list[tuple[str, ...]]) -> dict[str, float]:
    labels = data.get("_atom_site_label", ())
    found = [_HYDROGEN.match(symbol) for symbol in data.get("_atom_site_type_symbol", labels)]
    if not rows or not any(match and match[1] in "DT" for match in found):
        return {}
    symbols = data.setdefault("_atom_site_type_symbol", list(labels))
    occupancies = data.setdefault("_atom_site_occupancy", ["1"] * len(labels))
    places: dict[tuple[str, ...], list[int]] = {}
    for index, match in enumerate(found):
        if match:
            places.setdefault(rows[index], []).append(index)
    masses: dict[str, float] = {}
    joined: set[int] = set()
    for members in places.values():
        parts = [max(str2float(occupancies[index]), 0.0) for index in members]
        kinds = [Element(match[1]) for index in members if (match := found[index])]
        if all(kind.name == "H" for kind in kinds) or not sum(parts):
            continue
        first, *others = members
        mass = sum(float(kind.atomic_mass) * part for kind, part in zip(kinds, parts, strict=True)) / sum(parts)
        total = sum(parts)
        symbols[first], masses[labels[first]] = "H", mass
        occupancies[first] = "1" if math.isclose(total, 1.0, abs_tol=_ABOVE_ONE) else repr(total)
        joined.update(others)
    _leave_out(data, joined)
    return masses


def _leave_out(data: MutableMapping[str, Any], indices: Container[int]) -> None:
    n_sites = len(data.get("_atom_site_label", ()))
    for key, values in data.items():
        if key.startswith("_atom_site_") and isinstance(values, list) and len(values) == n_sites:
            data[key] = [value for index, value in enumerate(values) if index not in indices]


def _leave_out_dummies(data: MutableMapping[str, Any]) -> None:
    flags = data.get("_atom_site_calc_flag", ())
    dummies = [index for index, flag in enumerate(flags) if flag.lower() == "dum"]
    if not dummies:
        return
    names = ", ".join(data["_atom_site_label"][index] for index in dummies[:5])
    warnings.warn(f"dummy sites are left out: {names}", SourceWarning, stacklevel=2)
    _leave_out(data, set(dummies))


def _occupancy(label: str, text: str, *, alone: bool) -> str:
    """Return an occupancy, 1 if it agrees with 1."""
    match = re.fullmatch(r"\s*([+-]?\d*\.?\d*)(?:\((\d+)\)?)?\s*", text)
    if match is None or not match[1].strip("+-."):
        return text
    value = float(match[1])
    uncertainty = int(match[2]) * 10.0 ** -len(match[1].partition(".")[2]) if match[2] else 0.0
    if value > 1 + max(_SIGMAS * uncertainty, _ABOVE_ONE) + 1e-9:
        raise ValueError(f"site {label} has the occupancy {text}, more than 1")
    if value > 1 or (alone and 1 - uncertainty - 1e-9 <= value < 1):
        warnings.warn(f"the occupancy {text} of site {label} is taken as 1", SourceWarning, stacklevel=2)
        return "1"
    return text


def check_labels(data: Mapping[str, Any]) -> None:
    """
    Check labels that have to tell the element, as there are no types.

    Raises
    ------
    ValueError
        For T, which is tritium or a tetrahedral site.
    """
    if "_atom_site_type_symbol" in data:
        return
    for label in data.get("_atom_site_label", ()):
        letters = re.match(r"[A-Za-z]*", label)
        word = "" if letters is None else letters[0]
        if word == "T":
            raise ValueError(f"site {label} is tritium or any tetrahedral site: add a column _atom_site_type_symbol")
        pair = word[:2]
        if len(word) > 1 and pair.isupper() and Element.is_valid_symbol(pair.title()):
            others = [letter for letter in word[:1] if Element.is_valid_symbol(letter)]
            if others:
                message = (
                    f"site {label} is taken as {pair.title()}, not {others[0]}: there is no _atom_site_type_symbol"
                )
                warnings.warn(message, SourceWarning, stacklevel=2)


def multiplicities(data: Mapping[str, Any]) -> Iterator[tuple[int, str, int]]:
    """Yield the position, the label and the multiplicity of sites whose multiplicity the file gives."""
    values = next((data[key] for key in _MULTIPLICITY if key in data), ())
    labels = data.get("_atom_site_label", ())
    for index, (label, text) in enumerate(zip(labels, values, strict=False)):
        if text.isdecimal():
            yield index, label, int(text)


def contents_problem(data: Mapping[str, Any], composition: Composition) -> str | None:
    """
    Compare the atoms in the cell with the formula and the number of formula units that a CIF gives.

    Parameters
    ----------
    data
        One data block: names to texts, or to lists of texts.
    composition
        Contents of the cell.

    Returns
    -------
    str or None
        The contradiction, in one line; None if there is none.

    Examples
    --------
    >>> from pymatgen.core import Composition
    >>> data = {"_chemical_formula_sum": "Cu2 O", "_cell_formula_units_Z": "2"}
    >>> print(contents_problem(data, Composition("Cu4 O2")))
    None
    >>> contents_problem(data, Composition("Cu8 O4"))
    'the cell holds Cu8 O4, and the file says 2 formula units of Cu2 O1'
    """
    formula, z = _formula(data.get("_chemical_formula_sum")), _whole(data.get("_cell_formula_units_Z"))
    held = composition.formula
    if formula is None:
        counts = [amount for amount in composition.values() if math.isclose(amount, round(amount), abs_tol=1e-3)]
        if z and any(round(amount) % z for amount in counts):
            return f"the cell holds {held}, and the file says {z} formula units"
        return None
    units = composition.num_atoms / formula.num_atoms
    if z is None:
        is_whole = units > 1 - _NEAR_WHOLE and abs(units - round(units)) < _NEAR_WHOLE * max(1, units)
        return None if is_whole else f"the cell holds {held}, no multiple of {formula.formula}"
    per_reduced = formula.num_atoms / formula.reduced_composition.num_atoms  # some files count the reduced formula
    if any(abs(n - z) < _NEAR_WHOLE * z for n in (units, units * per_reduced)):
        return None
    return f"the cell holds {held}, and the file says {z} formula units of {formula.formula}"


def _formula(text: Any) -> Composition | None:
    if not isinstance(text, str) or text.strip("'\" ") in {*_ABSENT, ""}:
        return None
    try:
        return Composition(Composition(text.strip("'\" ")).as_dict())  # deuterium has the name of hydrogen there
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def _whole(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() and int(text) else None
