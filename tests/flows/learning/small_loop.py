"""A small loop: alloys of copper and gold by an untrained network, and EMT in the place of first principles."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.calculators.emt import EMT
from jobflow import Maker, job
from pymatgen.core import Structure  # noqa: TC002 - jobflow reads the annotation

import matris
from matris.flows import Campaign, Funnel, open_source, run
from matris.flows.learning.loop import Learning
from matris.flows.learning.plan import Plan
from matris.flows.learning.teacher import Teacher
from matris.makers import BatchStaticMaker
from matris.model.checkpoints import Card, save
from matris.stores.documents.candidate import Candidate
from matris.training import trainer
from tests.conftest import untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.stores.dft_labels import DftLabel

PLAN = Plan(per_round=4, budget=8, spread=1.0, epochs=20, batch_size=4, learning_rate=3e-3, patience=5)


def checkpoint_of(path: Path, energy_scale: str = "emt") -> Path:
    """Write an untrained network as a checkpoint."""
    save(path, untrained(magmoms=False), Card(key="untrained", energy_scale=energy_scale, elements=("Ag", "Cu", "Au")))
    return path


def screened(folder: Path, checkpoint: Path) -> Campaign:
    """Run the first campaign: twelve alloys as they are, and the elements."""
    maker = BatchStaticMaker(checkpoint=str(checkpoint), device="cpu")
    campaign = Campaign(folder, maker, Funnel(duplicates=False), title="Alloys")
    run(campaign, open_source("prototypes:Au-Cu?max_sites=6&limit=12"), devices=())
    return campaign


def teacher(energy_scale: str = "emt") -> Teacher:
    return Teacher(matris.AseModel(EMT()), "EMT", energy_scale, max_steps=20)


def learning(folder: Path, plan: Plan = PLAN, labeller: Any = None, **options: Any) -> Learning:
    return Learning(folder, None, plan, labeller or teacher(), devices=(), **options)


@dataclass
class EmtLabelMaker(Maker):
    """EMT behind the interface of Makers of first-principles labels; it cannot compute some formula."""

    name: str = "label"
    energy_scale: str = "emt"
    refuses: str | None = None

    @job
    def make(self, structure: Structure, candidate_id: str) -> dict[str, Any]:
        """Label a structure."""
        document = {"label_format": 1, "candidate_id": candidate_id, "energy_scale": self.energy_scale}
        if structure.composition.reduced_formula == self.refuses:
            return document | {"state": "failed", "error": "the electronic steps do not converge", "labels": []}
        candidate = Candidate(candidate_id=candidate_id, structure=structure, source="chosen")
        labels = [label.model_dump() for label in teacher(self.energy_scale)(candidate)]
        return document | {"state": "labelled", "error": None, "labels": labels}


def stops_at(step: str, wanted: str) -> None:
    """Wait to be killed if a step is the wanted one; the test sees that it is reached."""
    if step == wanted:
        sys.stdout.write("here\n")
        sys.stdout.flush()
        time.sleep(600)


def main(folder: str, wanted: str) -> None:
    """Go on with the loop of a folder up to a step, and wait there to be killed."""
    labelled = 0
    label, save_state = teacher(), trainer._Run.save

    def labeller(candidate: Candidate) -> Sequence[DftLabel]:
        nonlocal labelled
        labelled += 1
        stops_at(f"label {labelled}", wanted)
        return label(candidate)

    def saved(training: Any) -> None:
        save_state(training)
        stops_at("state of training", wanted)

    loop = learning(Path(folder), labeller=labeller)
    keep = loop._records.keep

    def told(record: Any) -> None:
        keep(record)
        stops_at(f"{len(record.rounds)} {record.rounds[-1].state if record.rounds else None}", wanted)

    trainer._Run.save = saved  # type: ignore[method-assign]
    loop._records.keep = told  # type: ignore[method-assign]
    loop.go_on()


if __name__ == "__main__":
    main(*sys.argv[1:])
