"""Known phases as candidates of a campaign, which compete on its self-consistent hulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.stores.documents.candidate import KNOWN_PHASE_SOURCE, Candidate
from matris.stores.hull.chemical_systems import within
from matris.stores.hull.references import entry_composition, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pymatgen.entries.computed_entries import ComputedStructureEntry


def known_phases(entries: str | Path | Iterable[ComputedStructureEntry], systems: Iterable[str]) -> Iterator[Candidate]:
    """
    Yield the known phases that compete with candidates, to be computed with the same checkpoint.

    Parameters
    ----------
    entries
        Entries with structures; their energies are not used, so any energy scale will do. Or a file of such entries, as
        `matris.stores.hull.references.load_references` reads it.
    systems
        Chemical systems of the candidates, as ``"Li-Fe-O"``.

    Returns
    -------
    Iterator of Candidate
        Phases of these systems and of their subsystems in the order of the entries, each structure once, with the
        source ``"references"`` and ``entry_id`` in the provenance. An entry with a missing or broken structure becomes
        a candidate with an error.

    Raises
    ------
    MatrisError
        If the file cannot be read, or holds something else or no structures.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from pymatgen.entries.computed_entries import ComputedStructureEntry
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> entry = ComputedStructureEntry(salt, -27.0, entry_id="salt")
    >>> [candidate.provenance for candidate in known_phases([entry], ["Na-Cl-O"])]
    [{'entry_id': 'salt'}]
    """
    if isinstance(entries, str | Path):
        name, items = str(entries), read_entries(entries)
    else:
        name, items = "the references", [entry.as_dict() for entry in entries]
    by_system = []
    for number, item in enumerate(items, start=1):
        try:
            by_system.append(entry_composition(item).chemical_system)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            identity = item.get("entry_id") if isinstance(item, dict) else None
            raise MatrisError(
                f"entry {number} ({identity}) in {name} is no ComputedStructureEntry: {error}; correct or remove it"
            ) from error
    if items and not any(item.get("structure") for item in items):
        raise MatrisError(f"{name} holds entries without structures, which cannot be computed")
    wanted = within(systems, set(by_system))
    return _distinct(_candidate(item) for item, chemsys in zip(items, by_system, strict=True) if chemsys in wanted)


def _distinct(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    seen = set()
    for candidate in candidates:
        if candidate.candidate_id not in seen:
            seen.add(candidate.candidate_id)
            yield candidate


def _candidate(item: dict[str, Any]) -> Candidate:
    """Read the structure of an entry."""
    identity = str(item.get("entry_id"))
    try:
        structure = decode_structure(item["structure"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no structure in the reference entry {identity}: {error!r}"
        content = json.dumps(item, sort_keys=True, default=str).encode()
        return Candidate.unreadable(KNOWN_PHASE_SOURCE, reason, content, entry_id=identity)
    return Candidate.from_structure(structure, KNOWN_PHASE_SOURCE, entry_id=identity)
