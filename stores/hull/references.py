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
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.io import zopen
from pymatgen.core.composition import Composition
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.stores.documents.corrections import (
    NO_CORRECTION,
    CorrectionError,
    apply_scheme,
    correction_scheme,
    mp_parameters,
)
from matris.stores.hull.phase_space import Phase, PhaseSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

SCALE = "energy_scale"
"""Parameter of an entry, and key of a file, that names the energy scale of the energies."""

API_KEY = "MP_API_KEY"
"""Environment variable with the API key of the Materials Project."""

_RUN_TYPES = {"mp": {"GGA", "GGA+U"}, "matpes-pbe": {"PBE"}, "matpes-r2scan": {"R2SCAN"}}
_THERMO_TYPES = {"mp": "GGA_GGA+U", "matpes-r2scan": "R2SCAN"}


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
    left_out
        Number of entries that were omitted because they do not belong on this scale.
    date
        Date of the newest phase, of the file or of the database release; None if unknown.

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
    left_out: int = 0
    date: str | None = None

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
        date = "" if self.date is None else f"{self.date}, "
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
        content = {"name": self.name, SCALE: self.energy_scale, "date": self.date, "entries": entries}
        with zopen(Path(path), "wb") as stream:
            stream.write(json.dumps(content, default=str).encode())


def load_references(path: str | Path, energy_scale: str) -> References:
    """
    Read ComputedEntries or ComputedStructureEntries, and correct their energies.

    Parameters
    ----------
    path
        JSON file, possibly compressed: a list of entries, a mapping to entries, or a file by `References.write`.
    energy_scale
        Energy scale of the checkpoint to compare with.

    Returns
    -------
    :
        Phases that belong on the scale, see `correct_references`.

    Raises
    ------
    MatrisError
        If the file cannot be read, or no entry belongs on this energy scale.

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
    try:
        entries = [_entry(item, header.get(SCALE)) for item in items]
        dates = [day for item in items if (day := _day(item.get("data", {}).get("last_updated")))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MatrisError(f"not all items in {path} are ComputedEntries: {error!r}") from error
    corrected = correct_references(entries, energy_scale)
    if not corrected:
        run_types = sorted({str(entry.parameters.get("run_type")) for entry in entries})
        raise MatrisError(
            f"none of the {len(entries)} entries in {path} belongs on the energy scale {energy_scale!r}: their "
            f"parameters name the run types {', '.join(run_types)}, but {_requirement(energy_scale)}"
        )
    return References(
        name=header.get("name") or path.name,
        energy_scale=energy_scale,
        entries=tuple(corrected),
        left_out=len(entries) - len(corrected),
        date=header.get("date") or max(dates, default=modified),
    )


def references_from_mp(chemsys: str | Sequence[str], energy_scale: str = "mp", client: Any = None) -> References:
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

    Returns
    -------
    :
        Reference set, dated by the database release.

    Raises
    ------
    MatrisError
        If the Materials Project has no energies on this scale or no phases in this system, mp-api is not installed,
        or there is no API key.

    Examples
    --------
    >>> references = references_from_mp("Li-Fe-O")  # doctest: +SKIP
    >>> references.write("li-fe-o.json.gz")  # doctest: +SKIP
    """
    if energy_scale not in _THERMO_TYPES:
        raise MatrisError(
            f"the Materials Project has no energies on the scale {energy_scale!r}, only on "
            f"{' and '.join(sorted(_THERMO_TYPES))}; compute the competing phases with the same checkpoint"
        )
    elements = sorted(chemsys.split("-") if isinstance(chemsys, str) else chemsys)
    if client is None:
        with _mp_client() as opened:
            return references_from_mp(elements, energy_scale, opened)
    criteria = {"thermo_types": [_THERMO_TYPES[energy_scale]]}
    entries = client.get_entries_in_chemsys(elements, additional_criteria=criteria)
    corrected = correct_references(entries, energy_scale)
    if not corrected:
        raise MatrisError(f"the Materials Project has no phases of {'-'.join(elements)} on {energy_scale!r}")
    name = f"Materials Project {'-'.join(elements)}"
    return References(name, energy_scale, tuple(corrected), len(entries) - len(corrected), _day(client.db_version))


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
    usable = [d for d in all_documents if d["state"] == "converged" and d["energy_per_atom"] is not None]
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in usable}
    if len(origins) != 1:
        raise MatrisError(
            f"a reference set takes converged documents of one checkpoint and one set of settings; "
            f"there are {len(usable)}, of {len(origins)}"
        )
    checkpoint = usable[0]["checkpoint"]
    if name is None:
        name = f"{checkpoint['key']} sha256 {checkpoint['sha256'][:12]} settings {usable[0]['settings']['digest']}"
    corrected = correct_references([_computed_entry(document) for document in usable], checkpoint[SCALE])
    dates = [day for document in usable if (day := _day(document.get("last_updated")))]
    n_left_out = len(all_documents) - len(corrected)
    return References(name, checkpoint[SCALE], tuple(corrected), n_left_out, max(dates, default=None))


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


def correct_references(entries: Iterable[ComputedEntry], energy_scale: str) -> list[ComputedEntry]:
    """
    Apply the corrections of an energy scale, and omit entries that do not belong on it.

    The parameter ``energy_scale`` of an entry decides. Without it, ``run_type`` decides: GGA and GGA+U with the Hubbard
    U of the Materials Project belong on ``mp``; PBE and R2SCAN belong on the MatPES scales, as do entries without a
    ``run_type``. On any other scale, entries must have the parameter ``energy_scale``.

    Parameters
    ----------
    entries
        Entries; their energy adjustments are replaced.
    energy_scale
        Energy scale of the checkpoint.

    Returns
    -------
    list of ComputedEntry
        Corrected entries.
    """
    corrected = []
    for entry in entries:
        if not _belongs(entry, energy_scale):
            continue
        try:
            scheme = correction_scheme(energy_scale, entry.composition)
            if scheme != NO_CORRECTION and "run_type" not in entry.parameters:
                entry.parameters |= mp_parameters(entry.composition)
            apply_scheme(entry, scheme)
        except CorrectionError:
            continue
        corrected.append(entry)
    return corrected


def _content(path: Path) -> tuple[Any, str]:
    """Read a file and the date of its last modification."""
    try:
        with zopen(path, "rb") as stream:
            content = json.loads(stream.read())
        return content, datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except (OSError, EOFError, zlib.error, ValueError) as error:
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


def _entry(item: dict[str, Any], scale: str | None) -> ComputedEntry:
    """Read the fields that corrections and hulls need; classes named in the file are not instantiated."""
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry  # slow import

    composition = Composition(item["composition"])
    data = {key: item["data"][key] for key in _DATA if key in item.get("data", {})}
    parameters = {key: value for key, value in item.get("parameters", {}).items() if key in _PARAMETERS}
    if scale is not None:
        parameters[SCALE] = scale
    common: dict[str, Any] = {"parameters": parameters, "data": data, "entry_id": item.get("entry_id")}
    symbols = composition.chemical_system_set
    needs_structure = ("O" in symbols and not data.get("oxide_type")) or (
        "S" in symbols and not data.get("sulfide_type")
    )
    if needs_structure and item.get("structure"):
        structure = Structure.from_dict(item["structure"])
        return ComputedStructureEntry(structure, item["energy"], composition=composition, **common)
    return ComputedEntry(composition, item["energy"], **common)


_DATA = ("oxide_type", "sulfide_type", "oxidation_states")
_PARAMETERS = ("run_type", "hubbards", SCALE)


def _computed_entry(document: Mapping[str, Any]) -> ComputedEntry:
    """Make an entry of a document. The names of its corrections give the types of its anions."""
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(document["composition"])
    kinds = {name.rpartition("(")[2].rstrip(")") for name in document.get("corrections", {}) if "anion" in name}
    oxides = kinds & {"oxide", "peroxide", "superoxide", "ozonide"}
    data: dict[str, Any] = {
        "sulfide_type": "sulfide" if "S" in kinds else "none",
        "oxide_type": next(iter(oxides), None),
    }
    energy = document["uncorrected_energy_per_atom"] * composition.num_atoms
    parameters = {SCALE: document["checkpoint"][SCALE]}
    return ComputedEntry(composition, energy, parameters=parameters, data=data, entry_id=document["document_id"])


def _day(moment: Any) -> str | None:
    """Date of a time in any of the stored forms; a database release is named by its date."""
    if isinstance(moment, dict):  # monty's form of a datetime
        moment = moment.get("string") or moment.get("$date")
    if isinstance(moment, datetime):
        return moment.date().isoformat()
    return None if not moment else str(moment).replace("_", "-").replace("T", " ").split(" ")[0]


def _mp_client() -> Any:
    """Make a client of the Materials Project."""
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise MatrisError("the Materials Project's client is not installed: pip install 'matris-flows[mp]'") from error
    if not (key := os.environ.get(API_KEY)):
        raise MatrisError(f"set {API_KEY} to your API key from https://materialsproject.org/api")
    return MPRester(key)
