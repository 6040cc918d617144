"""Reference phases: computed entries in a file, corrected for the energy scale they are compared on."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.io import zopen
from pymatgen.core.composition import Composition
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.stores.corrections import MP2020, NO_CORRECTION, CorrectionError, apply_mp2020, correction_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.entries.computed_entries import ComputedEntry

_RUN_TYPES = {
    "mp": {"GGA", "GGA+U"},
    "matpes-pbe": {"GGA", "PBE"},
    "matpes-r2scan": {"R2SCAN"},
}


@dataclass(frozen=True)
class References:
    """
    Reference phases of one energy scale.

    Attributes
    ----------
    name
        File name, its hash and the number of phases: what a hull names as its reference.
    energy_scale
        Scale whose corrections were applied.
    entries
        Corrected entries.
    left_out
        Number of entries that do not belong on this scale.
    """

    name: str
    energy_scale: str
    entries: tuple[ComputedEntry, ...]
    left_out: int = 0


def load_references(path: str | Path, energy_scale: str) -> References:
    """
    Read ComputedEntries or ComputedStructureEntries, and correct them anew.

    Parameters
    ----------
    path
        JSON, also compressed: a list of entries, or a mapping to entries.
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
    try:
        with zopen(path, "rb") as stream:
            content: bytes = stream.read()
        items = json.loads(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise MatrisError(f"cannot read reference entries from {path}: {error}") from error
    if isinstance(items, dict):
        items = [items] if "composition" in items else list(items.values())
    try:
        entries = [_entry(item) for item in items]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MatrisError(f"{path} holds something that is no ComputedEntry: {error!r}") from error
    kept = correct_references(entries, energy_scale)
    if not kept:
        found = sorted({str(entry.parameters.get("run_type")) for entry in entries})
        raise MatrisError(
            f"none of the {len(entries)} entries in {path} belongs on the energy scale {energy_scale!r}; their "
            f"parameters name the run types {', '.join(found)}, and {_wanted(energy_scale)}"
        )
    name = f"{path.name} (sha256 {hashlib.sha256(content).hexdigest()[:12]}, {len(kept)} entries)"
    return References(name, energy_scale, tuple(kept), len(entries) - len(kept))


def correct_references(entries: Iterable[ComputedEntry], energy_scale: str) -> list[ComputedEntry]:
    """
    Apply the corrections of an energy scale, and leave out what does not belong on it.

    Parameters
    ----------
    entries
        With ``run_type`` (and ``hubbards``) among their parameters; without it an entry belongs on a MatPES scale,
        where nothing depends on it, but not on ``mp``. Their adjustments are replaced.
    energy_scale
        Of the checkpoint.

    Returns
    -------
    list of ComputedEntry
    """
    kept = []
    for entry in entries:
        try:
            scheme = correction_scheme(energy_scale, entry.composition)
            if not _belongs(entry.parameters.get("run_type"), energy_scale):
                continue
            entry.energy_adjustments = []
            if scheme == MP2020:
                apply_mp2020(entry)
        except CorrectionError:
            continue
        kept.append(entry)
    return kept


def _belongs(run_type: Any, energy_scale: str) -> bool:
    if energy_scale not in _RUN_TYPES:
        return True
    if run_type is None:
        return correction_scheme(energy_scale, Composition("O2")) == NO_CORRECTION
    return str(run_type) in _RUN_TYPES[energy_scale] or str(run_type).upper() in _RUN_TYPES[energy_scale]


def _wanted(energy_scale: str) -> str:
    if energy_scale in _RUN_TYPES:
        return f"this scale takes {' or '.join(sorted(_RUN_TYPES[energy_scale]))}"
    return "no corrections are known for this scale"


def _entry(item: dict[str, Any]) -> ComputedEntry:
    """Read only what corrections and hulls need, and build no class that the file names."""
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry  # slow: not for every query

    composition = Composition(item["composition"])
    data = {key: item["data"][key] for key in _DATA if key in item.get("data", {})}
    parameters = {key: value for key, value in item.get("parameters", {}).items() if key in _PARAMETERS}
    common: dict[str, Any] = {"parameters": parameters, "data": data, "entry_id": item.get("entry_id")}
    symbols = composition.chemical_system_set
    by_structure = ("O" in symbols and not data.get("oxide_type")) or ("S" in symbols and not data.get("sulfide_type"))
    if by_structure and item.get("structure"):
        structure = Structure.from_dict(item["structure"])
        return ComputedStructureEntry(structure, item["energy"], composition=composition, **common)
    return ComputedEntry(composition, item["energy"], **common)


_DATA = ("oxide_type", "sulfide_type", "oxidation_states")
_PARAMETERS = ("run_type", "hubbards")
