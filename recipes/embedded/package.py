"""Measure a trained network and write it with its card: ``python -m recipes.embedded.package``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matris.model import checkpoints
from matris.model.card_text import measured_errors
from matris.model.checkpoints import Card
from matris.model.network import MatRIS
from matris.model.potential import Potential
from matris.training.fit_domain import fit_domain, label_ranges
from matris.training.trainer import STATE, validate
from recipes.embedded.evaluate import evaluate
from recipes.embedded.labels import Labels, divide, formulas_of_wbm, shards_in
from recipes.embedded.start import CONFIG
from recipes.embedded.train import MAX_FORCE, SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

MIN_FRAMES = 40
"""An element is claimed if at least so many training frames contain it."""

ASIDE = 1000
"""Frames of the validation part on which the card's errors are measured."""

IN_DOMAIN = 6000
"""Frames of training and validation each that fit the domain."""

TARGET = Path(__file__).parents[2] / "matris" / "data" / f"{checkpoints.EMBEDDED}.safetensors"


def package(shards: Sequence[Path], state_folder: Path, data: Path, target: Path) -> Card:
    """
    Fit the domain of a trained network, measure its errors, and write it with its card.

    Parameters
    ----------
    shards
        The training labels, for counts, domain, and the errors on the validation part.
    state_folder
        Folder of the training state.
    data
        Folder of reference data.
    target
        The checkpoint to write.
    """
    labels = Labels(shards)
    chosen, aside = divide(labels, formulas_of_wbm(data), MAX_FORCE)
    random = np.random.default_rng(SEED)
    training, validation = (
        [labels[part[i]] for i in random.permutation(len(part))[:IN_DOMAIN]] for part in (chosen, aside)
    )
    state = checkpoints.load_plain(state_folder / STATE)
    network = MatRIS(CONFIG, magmoms=False)
    network.load_state_dict(state["average"])
    network.requires_grad_(False).eval()
    counts = Counter(symbol for index in chosen for symbol in labels.symbols(index))
    elements = tuple(sorted(symbol for symbol, count in counts.items() if count >= MIN_FRAMES))
    card = Card(
        key=checkpoints.EMBEDDED,
        energy_scale="mp",
        predicts="efs",
        elements=elements,
        description=(
            f"Demonstrator: a small, smooth MatRIS for {len(elements)} elements, distilled from nequix-oam-1-pft. For "
            "first screenings, demos and tests; use a published checkpoint for final results."
        ),
    )
    details = {
        "date": datetime.now(UTC).date().isoformat(),
        "teacher": "nequix-oam-1-pft (nequix 0.4.5; trained on OMat24, sAlex and MPtrj)",
        "data": (
            "prototypes and crystals of the literature with elements replaced, relaxed, strained and rattled, labelled "
            "by the teacher; DFT frames of MPtrj and Alexandria; PBE forces of dimers"
        ),
        "licences": (
            "teacher: MIT; DFT frames: benchmark sets of MatterSim, MIT, from MPtrj and Alexandria, CC BY 4.0; dimers: "
            "Matbench Discovery, MIT"
        ),
        "recipe": "recipes/embedded, docs/embedded-checkpoint.md",
        "training_frames": len(chosen),
        "training_materials": len({labels.material(index) for index in chosen}),
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": label_ranges(training),
        "training": {**state["settings"], "steps_done": state["step"], "seed_of_weights": SEED},
    }
    potential = Potential(network, card)
    domain = fit_domain(potential, [*training, *(replace(frame, validation=True) for frame in validation)])
    errors = evaluate(potential, data)
    errors["labels set aside"] = {"frames": min(ASIDE, len(validation)), **validate(network, validation[:ASIDE])}
    card = replace(card, details={**details, "domain": domain, "errors": errors})
    checkpoints.save(target, network, card)
    return card


def main() -> None:
    """Package, and print the errors."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)  # torch-sim sets its own
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="folders of shards")
    parser.add_argument("--data", type=Path, required=True, help="folder of reference data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training state")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    card = package(shards_in(arguments.labels), arguments.output, arguments.data, arguments.target)
    for row in measured_errors(card):
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
