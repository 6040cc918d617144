"""Phases that limit the chemical potentials of defects: of a file, of the store, or the elements."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pymatgen.entries.computed_entries import ComputedEntry

from matris.flows.sources.files import read_candidates
from matris.flows.sources.prototypes import elemental_references
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.documents import pressure_of
from matris.stores.hull.chemical_systems import within
from matris.stores.hull.references import load_references, references_from_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from matris.makers.batch_defects import BatchDefectsMaker
    from matris.stores.hull.references import References


def with_references(
    maker: BatchDefectsMaker,
    sources: Iterable[str | Path],
    location: str | Path | None = None,
    references: str | Path | None = None,
) -> BatchDefectsMaker:
    """
    Give a Maker of defects the phases that compete with some materials.

    Parameters
    ----------
    maker
        The Maker.
    sources
        Files and folders of the materials, as for `matris.flows.sources.files.read_candidates`.
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`. Without `references`, its converged phases by
        the same checkpoint at the same pressure compete: those of one set of settings, the one with the most phases.
        The job itself computes crystals of the elements that it lacks.
    references
        File of computed entries, as for `matris.stores.hull.references.load_references`.

    Returns
    -------
    BatchDefectsMaker
        With `competing`, and `references` which names them.

    Raises
    ------
    MatrisError
        If a file cannot be read, or no entry of it belongs on the energy scale of the checkpoint.
    """
    structures = [c.structure for c in read_candidates(sources) if c.structure is not None and c.error is None]
    systems = {structure.composition.element_composition.chemical_system for structure in structures}
    elements = {symbol for system in systems for symbol in system.split("-")}
    if references is not None:
        known: References | None = load_references(references, maker.card().energy_scale, pressure=maker.pressure)
        lacking: list[str] = []
    else:
        known = _computed(maker, systems, location)
        lacking = sorted(elements - {str(e.elements[0]) for e in (known.entries if known else ()) if e.is_element})
    entries = [
        entry for entry in (known.entries if known else ()) if within(systems, [entry.composition.chemical_system])
    ]
    crystals = [c.structure.as_dict() for c in elemental_references(lacking) if c.structure is not None]
    names = [known.label] if known else []
    if lacking:
        names.append(f"elements by the same checkpoint ({', '.join(lacking)})")
    plain = [ComputedEntry(e.composition, e.energy, entry_id=e.entry_id).as_dict() for e in entries]
    return replace(
        maker,
        competing=[json.dumps(phase) for phase in (*plain, *crystals)],
        references="; ".join(names) or "the material itself",
    )


def _computed(maker: BatchDefectsMaker, systems: Iterable[str], location: str | Path | None) -> References | None:
    """Phases of some chemical systems and their subsystems that the checkpoint has computed; None without any."""
    parts = {
        "-".join(part)
        for system in systems
        for size in range(1, system.count("-") + 2)
        for part in combinations(system.split("-"), size)
    }
    if not parts:
        return None
    store = CandidateStore.beside(open_job_store(location))
    by_settings: dict[str, list[Mapping[str, Any]]] = {}
    for document in store.query(
        chemsys=sorted(parts), checkpoint=maker.card().sha256, state="converged", with_references=True
    ):
        settings = document["settings"]
        if (
            settings["relax_cell"]
            and pressure_of(settings) == maker.pressure
            and document["energy_per_atom"] is not None
        ):
            by_settings.setdefault(settings["digest"], []).append(document)
    if not by_settings:
        return None
    most = max(by_settings.values(), key=len)
    return references_from_documents(most)
