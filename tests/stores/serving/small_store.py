"""A store with a few candidates, one of them with all properties, and text that must never become markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.documents.documents import ChunkDocument, utc_now
from tests.stores.report.campaign_documents import structure
from tests.stores.report.test_property_page import DOCUMENTS, sound

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too' {{ 7 * 7 }}"
CHECKPOINT = {"key": "tiny", "sha256": "ab" * 32, "energy_scale": "matpes-pbe", "is_demonstrator": True}
SETTINGS = {"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "0" * 12}
ENERGIES = {"FeO": -9.0, "Li2O": -6.0, "LiFeO3": -6.5, "Fe": -8.0, "Li": -1.9, "O": -4.9}  # eV/atom
REFERENCES = ("Fe", "Li", "O")
LARGE = ("phonon_bandstructure", "phonon_dos", "series", "radial_distribution")


def fill(location: Path | str) -> CandidateStore:
    """Write the outputs of jobs, and build the documents of their candidates."""
    job_store = open_job_store(location)
    records: list[dict[str, Any]] = [
        {
            "candidate_id": formula.lower(),
            "source": "elemental reference" if formula in REFERENCES else f"in/{formula}.cif",
            "state": "converged",
            "energy": energy * len(structure(formula)),
            "extrapolation": 2.5 if formula == "Li2O" else 0.5,
            "n_steps": 12,
        }
        for formula, energy in ENERGIES.items()
    ]
    arrays = [
        {"candidate_id": f.lower(), "initial_structure": structure(f), "structure": structure(f)} for f in ENERGIES
    ]
    records += [
        {"candidate_id": "broken", "source": HOSTILE, "state": "failed", "error": f"exploded: {HOSTILE}"},
        {"candidate_id": "slow", "source": "slow.cif", "state": "max_steps", "energy": -30.0, "n_steps": 500},
    ]
    arrays += [{"candidate_id": "broken", "initial_structure": structure("FeO")}]
    arrays += [{"candidate_id": "slow", "initial_structure": structure("FeO"), "structure": structure("FeO")}]
    chunk = ChunkDocument(
        records=records, structures=arrays, checkpoint=CHECKPOINT, settings=SETTINGS, device="cpu", dtype="float32"
    )
    outputs = {"chunk": chunk.model_dump()}
    for kind in DOCUMENTS:
        document = sound(kind, candidate_id="feo", checkpoint=CHECKPOINT, warnings=[f"beware of {HOSTILE}"])
        outputs[kind] = {"property_format": "matris-properties-1", "kind": kind, "documents": [document]}
    jobs = [
        {"uuid": uuid, "index": 1, "output": o, "completed_at": utc_now().isoformat()} for uuid, o in outputs.items()
    ]
    job_store.update(jobs, save={"data": ["structures", *LARGE]})
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert not built.refused
    store.update_hulls()
    return store


def add_campaign(location: Path | str, done: int) -> None:
    """Write the record of a campaign of ten candidates, some of them done, as the runner does."""
    job_store = open_job_store(location)
    record = {
        "campaign_id": "c" * 12,
        "title": f"Oxides {HOSTILE}",
        "checkpoint": CHECKPOINT,
        "settings": SETTINGS,
        "intake": {"read": 10, "identical": 0, "known": 0, "dropped": {}},
        "last_updated": utc_now(),
    }
    sibling_store(job_store, "campaigns", "campaign_id").update([record], key="campaign_id")
    items = [
        {
            "work_id": f"{n}",
            "campaign": "c" * 12,
            "stage": "relax",
            "state": "done" if n < done else "waiting",
            "n": 1,
            "cost": 1.0,
            "added_at": utc_now(),
            "taken_at": utc_now(),
            "ended_at": utc_now(),
        }
        for n in range(10)
    ]
    sibling_store(job_store, "work_queue", "work_id").update(items, key="work_id")
