"""
Reference sets: known phases, corrected for the energy scale they are compared on.

A set comes from a file, from the Materials Project, or from documents that a checkpoint has computed, and says what it
is: name, energy scale, date, and the hash of its phases. Every distance to a hull names the set it was measured from.
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
"""Parameter by which an entry, or key by which a file, says on which scale its energies are."""

API_KEY = "MP_API_KEY"
"""Environment variable with the key of the Materials Project."""

_RUN_TYPES = {"mp": {"GGA", "GGA+U"}, "matpes-pbe": {"PBE"}, "matpes-r2scan": {"R2SCAN"}}
_THERMO_TYPES = {"mp": "GGA_GGA+U", "matpes-r2scan": "R2SCAN"}


@dataclass(frozen=True)
class References:
    """
    Reference phases of one energy scale.

    Attributes
    ----------
    name
        Where they come from.
    energy_scale
        Scale whose corrections were applied.
    entries
        Corrected entries.
    left_out
        Number of entries that do not belong on this scale.
    date
        Of the newest phase, the file or the database release, as far as known.
    """

    name: str
    energy_scale: str
    entries: tuple[ComputedEntry, ...]
    left_out: int = 0
    date: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of identities, compositions and corrected energies, in any order of the entries."""
        rows = sorted(
            json.dumps([str(e.entry_id), sorted(e.composition.get_el_amt_dict().items()), round(e.energy, 8)])
            for e in self.entries
        )
        return hashlib.sha256("\n".join([self.energy_scale, *rows]).encode()).hexdigest()

    @property
    def label(self) -> str:
        """What a hull names as its reference."""
        date = "" if self.date is None else f"{self.date}, "
        return f"{self.name} ({self.energy_scale}, {date}sha256 {self.sha256[:12]}, {len(self.entries)} entries)"

    @cached_property
    def space(self) -> PhaseSpace:
        """Hulls over the phases; what is found out about them is kept."""
        return PhaseSpace.of(
            Phase(str(entry.entry_id), entry.composition.get_el_amt_dict(), float(entry.energy_per_atom))
            for entry in self.entries
        )

    def write(self, path: str | Path) -> None:
        """
        Write the set to a file that `load_references` reads, and that says which energy scale it is on.

        Parameters
        ----------
        path
            JSON; compressed if its name ends in ``.gz``.
        """
        entries = [entry.as_dict() | {"energy_adjustments": []} for entry in self.entries]  # made anew when read
        content = {"name": self.name, SCALE: self.energy_scale, "date": self.date, "entries": entries}
        with zopen(Path(path), "wb") as stream:
            stream.write(json.dumps(content, default=str).encode())


def load_references(path: str | Path, energy_scale: str) -> References:
    """
    Read ComputedEntries or ComputedStructureEntries, and correct them anew.

    Parameters
    ----------
    path
        JSON, also compressed: a list of entries, a mapping to entries, or what `References.write` wrote.
    energy_scale
        Of the checkpoint that will be compared with them.

    Returns
    -------
    :
        The phases that belong on the scale.

    Raises
    ------
    MatrisError
        If the file cannot be read, or no entry belongs on this energy scale.
    """
    path = Path(path)
    items, changed = _content(path)
    about: dict[str, Any] = {}
    if isinstance(items, dict) and SCALE in items:
        about, items = items, items.get("entries", [])
        if about[SCALE] != energy_scale:
            raise MatrisError(
                f"the references in {path} are on the energy scale {about[SCALE]!r}, and are to be compared with "
                f"energies on {energy_scale!r}"
            )
    items = _listed(items)
    try:
        entries = [_entry(item, about.get(SCALE)) for item in items]
        dates = [day for item in items if (day := _day(item.get("data", {}).get("last_updated")))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MatrisError(f"{path} holds something that is no ComputedEntry: {error!r}") from error
    kept = correct_references(entries, energy_scale)
    if not kept:
        found = sorted({str(entry.parameters.get("run_type")) for entry in entries})
        raise MatrisError(
            f"none of the {len(entries)} entries in {path} belongs on the energy scale {energy_scale!r}; their "
            f"parameters name the run types {', '.join(found)}, and {_wanted(energy_scale)}"
        )
    return References(
        name=about.get("name") or path.name,
        energy_scale=energy_scale,
        entries=tuple(kept),
        left_out=len(entries) - len(kept),
        date=about.get("date") or max(dates, default=changed),
    )


def references_from_mp(chemsys: str | Sequence[str], energy_scale: str = "mp", client: Any = None) -> References:
    """
    Fetch the phases of a chemical system, and of all its subsystems, from the Materials Project.

    Parameters
    ----------
    chemsys
        As ``"Li-Fe-O"``, or a list of elements.
    energy_scale
        ``"mp"`` for GGA and GGA+U, ``"matpes-r2scan"`` for r2SCAN.
    client
        Open ``mp_api.client.MPRester``. By default one is made, with the key in the environment
        variable ``MP_API_KEY``.

    Returns
    -------
    :
        Dated by the release of the database.

    Raises
    ------
    MatrisError
        If the Materials Project has no energies on this scale, mp-api is not installed, there is no key, or the
        answer holds no phase.
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
    found = client.get_entries_in_chemsys(elements, additional_criteria={"thermo_types": [_THERMO_TYPES[energy_scale]]})
    kept = correct_references(found, energy_scale)
    if not kept:
        raise MatrisError(f"the Materials Project names no phases of {'-'.join(elements)} on {energy_scale!r}")
    name = f"Materials Project {'-'.join(elements)}"
    return References(name, energy_scale, tuple(kept), len(found) - len(kept), _day(client.db_version))


def references_from_documents(documents: Iterable[Mapping[str, Any]], name: str | None = None) -> References:
    """
    Take phases that a checkpoint has computed as reference: of another store, or known phases computed for the purpose.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint and one set of settings. Those that are converged, with an energy that
        can be compared, are taken.
    name
        Of the set; by default that of the checkpoint and the settings.

    Returns
    -------
    :
        On the energy scale of the checkpoint.

    Raises
    ------
    MatrisError
        If there is no such document, or they are of several checkpoints or settings.
    """
    listed = list(documents)
    taken = [d for d in listed if d["state"] == "converged" and d["energy_per_atom"] is not None]
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in taken}
    if len(origins) != 1:
        raise MatrisError(
            f"a reference set takes converged documents of one checkpoint and one set of settings; "
            f"there are {len(taken)}, of {len(origins)}"
        )
    checkpoint = taken[0]["checkpoint"]
    if name is None:
        name = f"{checkpoint['key']} sha256 {checkpoint['sha256'][:12]} settings {taken[0]['settings']['digest']}"
    kept = correct_references([_computed(document) for document in taken], checkpoint[SCALE])
    dates = [day for document in taken if (day := _day(document.get("last_updated")))]
    return References(name, checkpoint[SCALE], tuple(kept), len(listed) - len(kept), max(dates, default=None))


def read_entries(path: str | Path) -> list[dict[str, Any]]:
    """
    Read the dictionaries of entries, of whatever energy scale.

    Parameters
    ----------
    path
        As for `load_references`.

    Raises
    ------
    MatrisError
        If the file cannot be read.
    """
    items, _ = _content(Path(path))
    return _listed(items.get("entries", []) if isinstance(items, dict) and SCALE in items else items)


def correct_references(entries: Iterable[ComputedEntry], energy_scale: str) -> list[ComputedEntry]:
    """
    Apply the corrections of an energy scale, and leave out what does not belong on it.

    An entry belongs on a scale if its parameter ``energy_scale`` says so. Without that, ``run_type`` decides: GGA and
    GGA+U with the Hubbard U of the Materials Project are on ``mp``, PBE and R2SCAN on the MatPES scales, as are
    entries that say nothing. On any other scale an entry must say that it belongs there.

    Parameters
    ----------
    entries
        Their adjustments are replaced.
    energy_scale
        Of the checkpoint.

    Returns
    -------
    list of ComputedEntry
    """
    kept = []
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
        kept.append(entry)
    return kept


def _content(path: Path) -> tuple[Any, str]:
    """Read a file, and the day it was changed."""
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
    if (said := entry.parameters.get(SCALE)) is not None:
        return str(said) == energy_scale
    run_type = entry.parameters.get("run_type")
    if run_type is None:
        return energy_scale.startswith("matpes-")
    return str(run_type).upper() in _RUN_TYPES.get(energy_scale, ())


def _wanted(energy_scale: str) -> str:
    if energy_scale in _RUN_TYPES:
        return f"this scale takes {' or '.join(sorted(_RUN_TYPES[energy_scale]))}"
    return f"this scale takes entries that name it: parameters {{{SCALE!r}: {energy_scale!r}}}"


def _entry(item: dict[str, Any], scale: str | None) -> ComputedEntry:
    """Read only what corrections and hulls need, and build no class that the file names."""
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry  # slow: not for every query

    composition = Composition(item["composition"])
    data = {key: item["data"][key] for key in _DATA if key in item.get("data", {})}
    parameters = {key: value for key, value in item.get("parameters", {}).items() if key in _PARAMETERS}
    if scale is not None:
        parameters[SCALE] = scale
    common: dict[str, Any] = {"parameters": parameters, "data": data, "entry_id": item.get("entry_id")}
    symbols = composition.chemical_system_set
    by_structure = ("O" in symbols and not data.get("oxide_type")) or ("S" in symbols and not data.get("sulfide_type"))
    if by_structure and item.get("structure"):
        structure = Structure.from_dict(item["structure"])
        return ComputedStructureEntry(structure, item["energy"], composition=composition, **common)
    return ComputedEntry(composition, item["energy"], **common)


_DATA = ("oxide_type", "sulfide_type", "oxidation_states")
_PARAMETERS = ("run_type", "hubbards", SCALE)


def _computed(document: Mapping[str, Any]) -> ComputedEntry:
    """Entry of a document, with what its corrections tell of its anions."""
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
    """Day of a time in any of the forms it is kept in; of a database release, its name."""
    if isinstance(moment, dict):  # as monty writes a datetime
        moment = moment.get("string") or moment.get("$date")
    if isinstance(moment, datetime):
        return moment.date().isoformat()
    return None if not moment else str(moment).replace("_", "-").replace("T", " ").split(" ")[0]


def _mp_client() -> Any:
    """Open a client of the Materials Project."""
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise MatrisError("the Materials Project's client is not installed: pip install 'matris-flows[mp]'") from error
    if not (key := os.environ.get(API_KEY)):
        raise MatrisError(f"set {API_KEY} to your key, from https://materialsproject.org/api")
    return MPRester(key)
