"""
Li–Fe–O: generated candidates and known stable phases, relaxed and placed on two hulls.

``python benchmarks/li_fe_o.py ENTRIES`` takes the ComputedStructureEntries of the system. The known phases are also
relaxed from their own structures. A phase is rediscovered if a generated candidate relaxes to the same crystal.
Distances refer to the hull of the entries, and to the self-consistent hull of this checkpoint.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import machine
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from matris.duplicates import Duplicates
from matris.flows.campaign.campaign import Campaign
from matris.flows.local.runner import run
from matris.flows.sources.known_phases import known_phases
from matris.flows.sources.prototypes import generate_candidates
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.hull.references import load_references
from matris.stores.report.discovery import discovery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

WINDOW = 0.05
"""Maximum distance to the hull that counts as close (eV/atom)."""


def shown(distance: float | None) -> str:
    """Format a distance to a hull (meV/atom)."""
    return "–" if distance is None else f"{1000 * distance:.0f}"


def place(document: Mapping[str, Any] | None, kind: str) -> float | None:
    """Return the distance of a document to one of its hulls (eV/atom)."""
    found = (document or {}).get("hulls", {}).get(kind)
    return None if found is None else found["energy_above_hull"]


def main() -> None:
    """Print a table of the known phases, and a summary of the generated candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--max-steps", type=int, default=300)
    options = parser.parse_args()
    maker = BatchRelaxMaker(checkpoint=options.checkpoint, device="cpu", max_steps=options.max_steps)
    references = load_references(options.entries, maker.card().energy_scale)
    stable = {str(entry.entry_id) for entry in PhaseDiagram(references.entries).stable_entries}
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(folder, maker, title="Li-Fe-O")
        phases = known_phases(options.entries, ["Fe-Li-O"])
        known = [phase for phase in phases if phase.provenance["entry_id"] in stable]
        generated = list(generate_candidates("Li-Fe-O"))
        print(f"{machine('cpu', 1)}; checkpoint {campaign.card.key}; references {references.label}")
        print(f"{len(generated)} generated candidates, {len(known)} of {len(stable)} stable known phases", flush=True)
        start = time.perf_counter()
        run(campaign, chain(generated, known), ())
        campaign.store.update_hulls(references)
        documents = {document["candidate_id"]: document for document in campaign.documents()}
        print(f"relaxed in {time.perf_counter() - start:.0f} s\n")
        made = Duplicates()
        for candidate in generated:
            document = documents[candidate.candidate_id]
            structure = campaign.store.structure(document["document_id"])
            if document["state"] == "converged" and structure is not None:
                made.remember(document["document_id"], structure)
        print(
            "| known phase | space group | state | reference hull, meV/atom | self-consistent hull, meV/atom "
            "| generated: self-consistent hull, meV/atom |"
        )
        print("|---|---|---|---|---|---|")
        within = dict.fromkeys(("reference", "self-consistent", "generated"), 0)
        by_id = {document["document_id"]: document for document in documents.values()}
        for candidate in sorted(known, key=lambda c: c.structure.composition.reduced_formula):  # type: ignore[union-attr]
            structure = candidate.structure
            assert structure is not None
            document = documents[candidate.candidate_id]
            document = documents[document["duplicate_of"]] if document["state"] == "duplicate" else document
            like = by_id.get(made.like(structure) or "")
            distances = {kind: place(document, kind) for kind in ("reference", "self-consistent")}
            distances["generated"] = place(like, "self-consistent")
            for kind, distance in distances.items():
                within[kind] += distance is not None and distance <= WINDOW
            cells = [
                structure.composition.reduced_formula,
                group(structure),
                document["state"],
                *map(shown, distances.values()),
            ]
            print(f"| {' | '.join(cells)} |")
        print(f"\nwithin {1000 * WINDOW:.0f} meV/atom: " + ", ".join(f"{n} ({kind})" for kind, n in within.items()))
        found = discovery(
            documents.values(), campaign.store.structure, [phase.structure for phase in known if phase.structure]
        )
        print(f"{found.n_candidates} candidates, {found.n_converged} converged, ", end="")
        print(f"{found.n_unique} unique, {found.n_novel} novel")
        intruders = sorted(
            (place(d, "self-consistent"), d["formula_pretty"], d["symmetry"]["symbol"])
            for d in documents.values()
            if d["state"] == "converged" and (place(d, "self-consistent") or 0) <= 0 and d["source"].endswith(" type")
        )
        print(
            "generated candidates on the self-consistent hull: "
            + (", ".join(f"{f} {s}" for _, f, s in intruders) or "none")
        )


def group(structure: Structure) -> str:
    """Return the symbol of the space group."""
    return str(SpacegroupAnalyzer(structure, symprec=0.1).get_space_group_symbol())


if __name__ == "__main__":
    main()
