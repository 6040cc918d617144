"""
Reference sets: known phases with energies corrected for one energy scale.

A set comes from a file, from the Materials Project, or from documents that a checkpoint has computed. It is identified
by name, energy scale, date and the hash of its phases. Every distance to a reference hull names its reference set.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from lzma import LZMAError
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from monty.io import zopen
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.stores.documents.corrections import (
    MP2020,
    NO_CORRECTION,
    UNDECIDED,
    CorrectionError,
    apply_scheme,
    correction_scheme,
    mp_parameters,
)
from matris.stores.documents.documents import pressure_of
from matris.stores.documents.entries import PRESSURE, SCALE, add_work, uncorrected_entry
from matris.stores.hull.phase_space import Phase, PhaseSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

API_KEY = "MP_API_KEY"
"""Environment variable with the API key of the Materials Project."""

_RUN_TYPES = {"mp": {"GGA", "GGA+U"}, "matpes-pbe": {"PBE"}, "matpes-r2scan": {"R2SCAN"}}
_THERMO_TYPES = {"mp": "GGA_GGA+U", "matpes-r2scan": "R2SCAN"}
_MAX_ENERGY = 1e3  # eV/atom, absolute value; energies by pseudopotentials are below 100
_MAX_ENERGY_ALL_ELECTRON = 1e7  # eV/atom, on a scale of the user's own, which may count the core electrons
_MAX_ATOMS = 1e6
_NAMED = 5  # entries in a message


class Omitted(NamedTuple):
    """An entry that is not in a reference set, by its id or its place in the file, and the reason."""

    entry: str
    reason: str


@dataclass(frozen=True)
class References:
    """
    Reference phases of one energy scale.

    Attributes
    ----------
    name
        Origin of the set.
    energy_scale
        Energy scale whose corrections were applied.
    entries
        Corrected entries.
    omitted
        Entries that were left out, each with the reason: they do not belong on this scale, have other pseudopotentials
        or another Hubbard U, occur twice, or are broken.
    date
        Date of the newest phase, of the file or of the database release; None if unknown.
    pressure
        External pressure under which the phases were relaxed, GPa; at another one than zero the energies of the entries
        are enthalpies.

    Examples
    --------
    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> entries = (ComputedEntry("Li", -1.9), ComputedEntry("Cl", -1.8), ComputedEntry("LiCl", -7.3))
    >>> References("my phases", "matpes-pbe", entries).label
    'my phases (matpes-pbe, sha256 ..., 3 entries)'
    """

    name: str
    energy_scale: str
    entries: tuple[ComputedEntry, ...]
    omitted: tuple[Omitted, ...] = ()
    date: str | None = None
    pressure: float = 0.0

    @property
    def left_out(self) -> int:
        """Number of entries that were left out."""
        return len(self.omitted)

    @property
    def reasons(self) -> Counter[str]:
        """Number of entries that were left out, by reason."""
        return Counter(reason for _, reason in self.omitted)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Ids of the entries whose corrections are undecided, see `apply_scheme`."""
        return tuple(str(entry.entry_id) for entry in self.entries if entry.data.get("correction_state") == UNDECIDED)

    @cached_property
    def sha256(self) -> str:
        """Hash of the ids, compositions and corrected energies; it does not depend on the order of the entries."""
        rows = sorted(
            json.dumps([str(e.entry_id), sorted(e.composition.get_el_amt_dict().items()), round(e.energy, 8)])
            for e in self.entries
        )
        return hashlib.sha256("\n".join([self.energy_scale, *rows]).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Text that identifies the set in documents (`hull_reference`)."""
        date = f"{self.pressure:g} GPa, " if self.pressure else ""
        date += "" if self.date is None else f"{self.date}, "
        return f"{self.name} ({self.energy_scale}, {date}sha256 {self.sha256[:12]}, {len(self.entries)} entries)"

    @cached_property
    def space(self) -> PhaseSpace:
        """Convex hulls of the phases; computed hulls are cached."""
        return PhaseSpace.of(
            Phase(str(entry.entry_id), entry.composition.get_el_amt_dict(), float(entry.energy_per_atom))
            for entry in self.entries
        )

    def write(self, path: str | Path) -> None:
        """
        Write the set and its energy scale to a file for `load_references`.

        Parameters
        ----------
        path
            JSON file; compressed if its name ends in ``.gz``.
        """
        # load_references corrects the energies again
        entries = [entry.as_dict() | {"energy_adjustments": []} for entry in self.entries]
        content: dict[str, Any] = {"name": self.name, SCALE: self.energy_scale, "date": self.date, "entries": entries}
        if self.pressure:
            content[PRESSURE] = self.pressure
        with zopen(Path(path), "wb") as stream:
            stream.write(json.dumps(content, default=str).encode())


def load_references(
    path: str | Path, energy_scale: str, *, pressure: float = 0.0, broken: Literal["raise", "omit"] = "raise"
) -> References:
    """
    Read ComputedEntries or ComputedStructureEntries, and correct their energies.

    Energies and amounts must be finite numbers, and a composition must contain an atom. Entries that occur twice are
    read once.

    Parameters
    ----------
    path
        JSON file, possibly compressed: a list of entries, a mapping to entries, or a file by `References.write`.
    energy_scale
        Energy scale of the checkpoint to compare with.
    pressure
        External pressure of the candidates to compare with, GPa.
    broken
        Whether an entry without a valid composition or energy, or with the id of another entry, is an error, or is left
        out and counted.

    Returns
    -------
    :
        Phases that belong on the scale, see `correct_references`. `References.omitted` lists the others.

    Raises
    ------
    MatrisError
        If the file cannot be read, an entry is broken, or no entry belongs on this energy scale and at this pressure.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> phases = References("my phases", "matpes-pbe", (ComputedEntry("Li", -1.9), ComputedEntry("LiCl", -7.3)))
    >>> with TemporaryDirectory() as folder:
    ...     phases.write(Path(folder, "phases.json.gz"))
    ...     references = load_references(Path(folder, "phases.json.gz"), "matpes-pbe")
    >>> references.name, len(references.entries), references.sha256 == phases.sha256
    ('my phases', 2, True)
    """
    path = Path(path)
    items, modified = _content(path)
    header: dict[str, Any] = {}
    if isinstance(items, dict) and SCALE in items:
        header, items = items, items.get("entries", [])
        if header[SCALE] != energy_scale:
            raise MatrisError(
                f"the references in {path} are on the energy scale {header[SCALE]!r}; they cannot be compared with "
                f"energies on {energy_scale!r}"
            )
    items = _listed(items)
    entries, damaged, dates = [], [], []
    for number, item in enumerate(items, start=1):
        try:
            entries.append(_entry(item, header, energy_scale))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            damaged.append(Omitted(_label(item, number), f"broken: {_sentence(error)}"))
        else:
            dates.append(_day((item.get("data") or {}).get("last_updated")))
    corrected, omitted = correct_references(entries, energy_scale, pressure)
    corrected, doubled = _each_once(corrected)
    damaged += [each for each in doubled if each.reason.startswith("broken")]
    if damaged and broken == "raise":
        names = "; ".join(f"{each.entry}, {each.reason.removeprefix('broken: ')}" for each in damaged[:_NAMED])
        raise MatrisError(
            f"{len(damaged)} of the {len(items)} entries in {path} are broken: {names}"
            f"{'; …' if len(damaged) > _NAMED else ''}. Correct or remove them; "
            "load_references(…, broken='omit') leaves them out"
        )
    if not corrected:
        raise MatrisError(
            f"none of the {len(items)} entries in {path} belongs on the energy scale {energy_scale!r}"
            + (f" at {pressure:g} GPa" if pressure else "")
            + _first_reasons([*omitted, *damaged])
        )
    return References(
        name=header.get("name") or path.name,
        energy_scale=energy_scale,
        entries=tuple(corrected),
        omitted=(*omitted, *damaged, *(each for each in doubled if each not in damaged)),
        date=header.get("date") or max(filter(None, dates), default=modified),
        pressure=pressure,
    )


def check_mp(energy_scale: str, pressure: float = 0.0) -> None:
    """
    Check that references can be fetched from the Materials Project, without a connection.

    Raises
    ------
    MatrisError
        If the Materials Project has no energies on the scale or at the pressure (GPa), mp-api is not installed, or
        there is no API key.

    Examples
    --------
    >>> check_mp("omat24")
    Traceback (most recent call last):
    matris.errors.MatrisError: the Materials Project has no energies on the scale 'omat24', only on ...
    """
    if pressure:
        raise MatrisError(
            f"the Materials Project has no enthalpies at {pressure:g} GPa: give known phases with their structures "
            "(--known-phases FILE), which are relaxed at that pressure"
        )
    _mp_thermo_type(energy_scale)
    _mp_client_class()
    _mp_key()


def references_from_mp(
    chemsys: str | Sequence[str], energy_scale: str = "mp", client: Any = None, *, systems: Sequence[str] = ()
) -> References:
    """
    Fetch the phases of a chemical system, and of all its subsystems, from the Materials Project.

    Parameters
    ----------
    chemsys
        Chemical system, as ``"Li-Fe-O"``, or a list of elements.
    energy_scale
        ``"mp"`` for GGA and GGA+U, ``"matpes-r2scan"`` for r2SCAN.
    client
        Open ``mp_api.client.MPRester``. By default a client is made with the API key in the environment variable
        ``MP_API_KEY``.
    systems
        Further chemical systems.

    Returns
    -------
    :
        Reference set, dated by the database release.

    Raises
    ------
    MatrisError
        If the Materials Project has no energies on this scale or no phases in this system, mp-api is not installed,
        there is no API key, or the Materials Project cannot be reached.

    Examples
    --------
    >>> references = references_from_mp("Li-Fe-O")  # doctest: +SKIP
    >>> references.write("li-fe-o.json.gz")  # doctest: +SKIP
    """
    elements = sorted(chemsys.split("-") if isinstance(chemsys, str) else chemsys)
    criteria = {"thermo_types": [_mp_thermo_type(energy_scale)]}
    if client is None:
        try:
            with _mp_client() as opened:
                return references_from_mp(elements, energy_scale, opened, systems=systems)
        except MatrisError:
            raise
        except Exception as error:
            raise MatrisError(
                f"the Materials Project cannot be reached, or does not answer: {str(error)[:300] or error!r}. Check "
                f"the network and {API_KEY}, or fetch the references on another machine with "
                "matris.stores.hull.references.references_from_mp, and give their file"
            ) from error
    by_id: dict[str, ComputedEntry] = {}
    for parts in dict.fromkeys([tuple(elements), *(tuple(sorted(system.split("-"))) for system in systems)]):
        fetched = client.get_entries_in_chemsys(list(parts), additional_criteria=criteria)
        by_id |= {str(entry.entry_id): entry for entry in fetched}
    entries = list(by_id.values())
    corrected, omitted = correct_references(entries, energy_scale)
    if not corrected:
        raise MatrisError(
            f"the Materials Project has no phases of {'-'.join(elements)} on {energy_scale!r}{_first_reasons(omitted)}"
        )
    more = len({*systems} - {"-".join(elements)})
    name = f"Materials Project {'-'.join(elements)}" + (f" and {more} more systems" if more else "")
    return References(name, energy_scale, tuple(corrected), tuple(omitted), _day(client.db_version))


def references_from_documents(documents: Iterable[Mapping[str, Any]], name: str | None = None) -> References:
    """
    Make a reference set of phases that a checkpoint has computed, for example in another store.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint and one set of settings. Only converged documents with a corrected energy
        become references.
    name
        Name of the set. By default it names the checkpoint and the settings.

    Returns
    -------
    :
        Reference set on the energy scale of the checkpoint.

    Raises
    ------
    MatrisError
        If there is no such document, or the documents mix checkpoints or settings.

    Examples
    --------
    >>> lithium = {
    ...     "document_id": "li",
    ...     "state": "converged",
    ...     "composition": {"Li": 1},
    ...     "energy_per_atom": -1.9,
    ...     "uncorrected_energy_per_atom": -1.9,
    ...     "checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "matpes-pbe"},
    ...     "settings": {"digest": "0" * 12},
    ... }
    >>> references_from_documents([lithium], name="elements").label
    'elements (matpes-pbe, sha256 ..., 1 entries)'
    """
    all_documents = list(documents)
    reasons = [_not_a_reference(document) for document in all_documents]
    usable = [document for document, reason in zip(all_documents, reasons, strict=True) if reason is None]
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in usable}
    if len(origins) != 1:
        raise MatrisError(
            f"a reference set takes converged documents of one checkpoint and one set of settings; "
            f"there are {len(usable)}, of {len(origins)}"
        )
    checkpoint = usable[0]["checkpoint"]
    if name is None:
        name = f"{checkpoint['key']} sha256 {checkpoint['sha256'][:12]} settings {usable[0]['settings']['digest']}"
    pressure = pressure_of(usable[0]["settings"])
    entries = [uncorrected_entry(document) for document in usable]
    corrected, omitted = correct_references(entries, checkpoint[SCALE], pressure)
    unusable = [
        Omitted(document["document_id"], reason)
        for document, reason in zip(all_documents, reasons, strict=True)
        if reason is not None
    ]
    dates = [day for document in usable if (day := _day(document.get("last_updated")))]
    left_out = (*unusable, *omitted)
    return References(name, checkpoint[SCALE], tuple(corrected), left_out, max(dates, default=None), pressure)


def _not_a_reference(document: Mapping[str, Any]) -> str | None:
    """Reason why a document is no reference; None if it is one."""
    if document["state"] != "converged":
        return str(document["state"])
    if document.get("vacuum"):
        return "a cell with vacuum"
    return "no corrected energy" if document["energy_per_atom"] is None else None


def read_entries(path: str | Path) -> list[dict[str, Any]]:
    """
    Read entries of any energy scale as dictionaries.

    Parameters
    ----------
    path
        File as in `load_references`.

    Raises
    ------
    MatrisError
        If the file cannot be read.
    """
    items, _ = _content(Path(path))
    return _listed(items.get("entries", []) if isinstance(items, dict) and SCALE in items else items)


def correct_references(
    entries: Iterable[ComputedEntry], energy_scale: str, pressure: float = 0.0
) -> tuple[list[ComputedEntry], list[Omitted]]:
    """
    Apply the corrections of an energy scale, and omit entries that do not belong on it.

    The parameter ``energy_scale`` of an entry decides. Without it, ``run_type`` decides: GGA and GGA+U with the Hubbard
    U of the Materials Project belong on ``mp``; PBE and R2SCAN belong on the MatPES scales, as do entries without a
    ``run_type``. On any other scale, entries must have the parameter ``energy_scale``. Where an entry on ``mp`` names
    its pseudopotentials (``potcar_spec`` or ``potcar_symbols``), they must be those of MPRelaxSet, as pymatgen's
    MaterialsProject2020Compatibility demands by default.

    The parameter ``pressure`` of an entry (GPa; zero where it lacks) must be the pressure of the candidates. Under a
    pressure, the energy of an entry becomes its enthalpy by the ``volume`` (Å³) in its data.

    Parameters
    ----------
    entries
        Entries; their energy adjustments are replaced.
    energy_scale
        Energy scale of the checkpoint.
    pressure
        External pressure of the candidates, GPa.

    Returns
    -------
    corrected : list of ComputedEntry
        Corrected entries.
    omitted : list of Omitted
        The other entries, with reasons.
    """
    corrected, omitted = [], []
    for entry in entries:
        name = str(entry.entry_id if entry.entry_id is not None else entry.reduced_formula)
        if not _belongs(entry, energy_scale):
            omitted.append(Omitted(name, _foreign(entry, energy_scale)))
            continue
        if (own := entry.parameters.get(PRESSURE) or 0.0) != pressure:
            omitted.append(Omitted(name, f"relaxed at {own} GPa, but the candidates at {pressure:g} GPa"))
            continue
        try:
            _check_numbers(entry.composition.get_el_amt_dict(), entry.uncorrected_energy, energy_scale)
            scheme = correction_scheme(energy_scale, entry.composition)
            if scheme != NO_CORRECTION and "run_type" not in entry.parameters:
                entry.parameters |= mp_parameters(entry.composition)
            if scheme == MP2020:
                _check_pseudopotentials(entry)
            apply_scheme(entry, scheme)
            if pressure:
                add_work(entry, pressure)
        except (CorrectionError, ValueError) as error:
            omitted.append(Omitted(name, str(error)))
            continue
        corrected.append(entry)
    return corrected, omitted


def entry_composition(item: Any) -> Composition:
    """
    Read the composition of an entry of a file.

    Parameters
    ----------
    item
        Entry as a dictionary, with a composition (amounts by element, or a formula) or a structure.

    Returns
    -------
    Composition
        Amounts of the elements.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no composition, or it is empty, or has amounts that are no positive, finite numbers.

    Examples
    --------
    >>> entry_composition({"composition": {"Li": 1, "Cl": 1}}).reduced_formula
    'LiCl'
    >>> entry_composition({"composition": {"Li": float("nan")}})
    Traceback (most recent call last):
    ValueError: the amount of Li is nan
    """
    if not isinstance(item, dict):
        raise TypeError(f"{str(item)[:50]!r} is no entry, but {type(item).__name__}")
    given = item.get("composition")
    if given is None and item.get("structure"):
        return _structure_composition(item["structure"])
    if given is None:
        raise ValueError("it has no composition")
    if isinstance(given, str):
        composition = Composition(given)
    elif isinstance(given, dict):
        for symbol, amount in given.items():
            if not _is_number(amount) or amount < 0:
                raise ValueError(f"the amount of {symbol} is {amount!r}")
        composition = Composition(given)
    else:
        raise TypeError(f"the composition is {given!r}")
    composition = composition.element_composition
    if unknown := [str(each) for each in composition if not isinstance(each, Element)]:
        raise ValueError(f"{', '.join(unknown)} is no element")
    _check_amounts(composition.get_el_amt_dict())
    return composition


def _structure_composition(content: Mapping[str, Any]) -> Composition:
    """Read the composition of the dictionary of a structure."""
    amounts: Counter[str] = Counter()
    for site in content["sites"]:
        for species in site["species"]:
            amounts[Composition({species["element"]: 1}).elements[0].symbol] += species["occu"]
    return Composition(amounts)


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number; text and booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE and isfinite(value)


def _check_amounts(amounts: Mapping[str, float]) -> None:
    """Raise ValueError if amounts do not describe a number of atoms."""
    for symbol, amount in amounts.items():
        if not 0 <= amount <= _MAX_ATOMS:
            raise ValueError(f"the amount of {symbol} is {amount}")
    if not sum(amounts.values()) > 0:
        raise ValueError("its composition is empty")


def _check_numbers(amounts: Mapping[str, float], energy: float, energy_scale: str) -> None:
    """Raise ValueError if an energy (eV) or amounts of atoms cannot be right."""
    _check_amounts(amounts)
    bound = _MAX_ENERGY if energy_scale in _KNOWN_SCALES else _MAX_ENERGY_ALL_ELECTRON
    per_atom = energy / sum(amounts.values())
    if not abs(per_atom) <= bound:
        raise ValueError(f"the energy is {per_atom:.6g} eV/atom, beyond {bound:.0e} eV/atom")


def _check_pseudopotentials(entry: ComputedEntry) -> None:
    """Raise CorrectionError if an entry names other pseudopotentials than those of the Materials Project."""
    from pymatgen.entries.compatibility import CompatibilityError, PotcarCorrection
    from pymatgen.io.vasp.sets import MPRelaxSet

    parameters = entry.parameters
    if parameters.get("software", "vasp") != "vasp" or not any(parameters.get(name) for name in _POTCARS):
        return
    try:
        PotcarCorrection(MPRelaxSet).get_correction(entry)
    except CompatibilityError:
        expected = sorted(str(MPRelaxSet.CONFIG["POTCAR"].get(element.symbol)) for element in entry.elements)
        raise CorrectionError(f"other pseudopotentials than {', '.join(expected)}") from None
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise CorrectionError(f"its pseudopotentials cannot be read: {error!r}") from error


def _foreign(entry: ComputedEntry, energy_scale: str) -> str:
    """Reason why an entry does not belong on a scale."""
    own = entry.parameters.get(SCALE)
    what = f"run type {entry.parameters.get('run_type')}" if own is None else f"energy scale {own}"
    return f"{what}, but {_requirement(energy_scale)}"


def _each_once(entries: Sequence[ComputedEntry]) -> tuple[list[ComputedEntry], list[Omitted]]:
    """Drop entries with the id of an earlier one; the second list says whether they are its copies."""
    first: dict[str, ComputedEntry] = {}
    kept, omitted = [], []
    for entry in entries:
        identity = None if entry.entry_id is None else str(entry.entry_id)
        other = None if identity is None else first.setdefault(identity, entry)
        if other is None or other is entry:
            kept.append(entry)
        elif other.composition == entry.composition and other.energy == entry.energy:
            omitted.append(Omitted(str(identity), "a copy of another entry"))
        else:
            omitted.append(
                Omitted(
                    f"entry {identity} ({entry.reduced_formula})",
                    f"broken: another entry ({other.reduced_formula}) with another composition or energy has its id",
                )
            )
    return kept, omitted


def _first_reasons(omitted: Sequence[Omitted]) -> str:
    """End of a message: the commonest reasons why entries were left out."""
    reasons = Counter(each.reason for each in omitted).most_common(_NAMED)
    return ": " + "; ".join(f"{count} × {reason}" for reason, count in reasons) if reasons else ""


def _label(item: Any, number: int) -> str:
    """Name an entry of a file: its place, and its id if it has one."""
    identity = item.get("entry_id") if isinstance(item, dict) else None
    return f"entry {number}" if identity is None else f"entry {number} ({str(identity)[:60]})"


def _sentence(error: Exception) -> str:
    """Return the message of an exception; that of a KeyError is only the key."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)[:200] or repr(error)


def _content(path: Path) -> tuple[Any, str]:
    """Read a file and the date of its last modification."""
    try:
        with zopen(path, "rb") as stream:
            content = json.loads(stream.read())
        return content, datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except (OSError, EOFError, zlib.error, LZMAError, ValueError, RecursionError) as error:
        raise MatrisError(f"cannot read reference entries from {path}: {error}") from error


def _listed(items: Any) -> list[Any]:
    if isinstance(items, dict):
        return [items] if "composition" in items else list(items.values())
    return items if isinstance(items, list) else [items]


def _belongs(entry: ComputedEntry, energy_scale: str) -> bool:
    if (own_scale := entry.parameters.get(SCALE)) is not None:
        return str(own_scale) == energy_scale
    run_type = entry.parameters.get("run_type")
    if run_type is None:
        return energy_scale.startswith("matpes-")
    return str(run_type).upper() in _RUN_TYPES.get(energy_scale, ())


def _requirement(energy_scale: str) -> str:
    """Second half of an error message: which entries belong on a scale."""
    if energy_scale in _RUN_TYPES:
        return f"this scale takes {' or '.join(sorted(_RUN_TYPES[energy_scale]))}"
    return f"this scale takes only entries with the parameter {{{SCALE!r}: {energy_scale!r}}}"


def _entry(item: Any, header: Mapping[str, Any], energy_scale: str) -> ComputedEntry:
    """
    Read the fields that corrections and hulls need; classes named in the file are not instantiated.

    Raises KeyError, TypeError or ValueError if the entry is broken.
    """
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry  # slow import

    composition = entry_composition(item)
    energy = item.get("energy")
    if not _is_number(energy):
        raise ValueError("it has no energy" if "energy" not in item else f"the energy is {energy!r}")
    parts = {name: item.get(name) or {} for name in ("data", "parameters")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise TypeError(f"its {name} are {type(part).__name__}, not a dictionary")
    data = {key: parts["data"][key] for key in _DATA if key in parts["data"]}
    parameters = {key: value for key, value in parts["parameters"].items() if key in _PARAMETERS}
    if not isinstance(parameters.get("hubbards") or {}, dict):
        raise TypeError(f"its Hubbard U are {parameters['hubbards']!r}, not a dictionary")
    if (data.get("sulfide_type") or "none") not in _SULFIDE_TYPES:
        raise ValueError(f"its sulfide_type is {data['sulfide_type']!r}")
    parameters |= {name: header[name] for name in (SCALE, PRESSURE) if name in header}
    if "volume" not in data and parameters.get(PRESSURE) and item.get("structure"):
        structure = decode_structure(item["structure"])
        data["volume"] = structure.volume / len(structure) * composition.num_atoms
    _check_numbers(composition.get_el_amt_dict(), energy, energy_scale)
    if item.get("structure") and not _same_fractions(_structure_composition(item["structure"]), composition):
        raise ValueError(f"its structure is not {composition.reduced_formula}")
    common: dict[str, Any] = {"parameters": parameters, "data": data, "entry_id": item.get("entry_id")}
    symbols = composition.chemical_system_set
    needs_structure = ("O" in symbols and not data.get("oxide_type")) or (
        "S" in symbols and not data.get("sulfide_type")
    )
    if needs_structure and item.get("structure"):
        structure = decode_structure(item["structure"])
        structure.remove_oxidation_states()
        return ComputedStructureEntry(structure, energy, composition=composition, **common)
    return ComputedEntry(composition, energy, **common)


def _same_fractions(one: Composition, other: Composition) -> bool:
    symbols = one.chemical_system_set | other.chemical_system_set
    return all(abs(one.get_atomic_fraction(s) - other.get_atomic_fraction(s)) < _SAME for s in symbols)


_SAME = 1e-4  # fraction of the atoms
_HUGE = 1e300  # of a number in JSON; larger integers do not become floats
_KNOWN_SCALES = {"mp", "omat24", "matpes-pbe", "matpes-r2scan"}
_SULFIDE_TYPES = ("sulfide", "polysulfide", "none", "None")  # of pymatgen, and of an element or a sulphate
_POTCARS = ("potcar_spec", "potcar_symbols")
_DATA = ("oxide_type", "sulfide_type", "oxidation_states", "volume")
_PARAMETERS = ("run_type", "hubbards", "software", *_POTCARS, SCALE, PRESSURE)


def _day(moment: Any) -> str | None:
    """Date of a time in any of the stored forms; a database release is named by its date."""
    if isinstance(moment, dict):  # monty's form of a datetime
        moment = moment.get("string") or moment.get("$date")
    if isinstance(moment, datetime):
        return moment.date().isoformat()
    return None if not moment else str(moment).replace("_", "-").replace("T", " ").split(" ")[0]


def _mp_client() -> Any:
    """Make a client of the Materials Project."""
    return _mp_client_class()(_mp_key())


def _mp_thermo_type(energy_scale: str) -> str:
    if energy_scale not in _THERMO_TYPES:
        raise MatrisError(
            f"the Materials Project has no energies on the scale {energy_scale!r}, only on "
            f"{' and '.join(sorted(_THERMO_TYPES))}; compute the competing phases with the same checkpoint"
        )
    return _THERMO_TYPES[energy_scale]


def _mp_client_class() -> Any:
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise MatrisError("the Materials Project's client is not installed: pip install 'matris-flows[mp]'") from error
    return MPRester


def _mp_key() -> str:
    if not (key := os.environ.get(API_KEY)):
        raise MatrisError(f"set {API_KEY} to your API key from https://materialsproject.org/api")
    return key
