"""The larger embedded checkpoint, from a trained network to a file: ``python -m recipes.embedded.embedded package``."""

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
import torch

from matris.model import checkpoints
from matris.model.card_text import measured_errors
from matris.model.checkpoints import Card
from matris.model.config import ModelConfig
from matris.model.network import MatRIS
from matris.model.potential import Potential
from matris.training.data.reading import read_frames
from matris.training.fit_domain import label_ranges
from matris.training.recipe import domain_of
from matris.training.trainer import STATE, validate
from recipes.embedded.evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.training.data.frame import Frame

logger = logging.getLogger(__name__)

CONFIG = ModelConfig(
    num_layers=2,
    node_feat_dim=128,
    edge_feat_dim=64,
    three_body_feat_dim=32,
    mlp_hidden_dims=(128, 128),
    three_body_expansion="fourier",
    norm_type="layer",
    pairwise_cutoff=5.5,
    three_body_cutoff=3.3,
    use_smoothed_for_delta_edge=True,
    reference_energy="ridge",
)
"""As large as two CPU cores can train, and still quick: angles, the cost driver, are narrow and end at 3.3 Å."""

SEED = 11
MIN_FRAMES = 40
"""An element is claimed if at least so many training frames contain it."""

MAX_FORCE = 20.0
"""Frames with a larger force (eV/Å) are left out."""

TARGET = Path(__file__).parents[2] / "matris" / "data" / f"{checkpoints.LARGE}.safetensors"


def read_labels(labels: Sequence[Path]) -> tuple[list[Frame], list[Frame]]:
    """Training and validation frames of folders of ``shard-*.extxyz.gz``, without the wildest."""
    frames = [
        frame
        for frame in read_frames([path for folder in labels for path in sorted(folder.glob("shard-*.extxyz.gz"))])
        if np.linalg.norm(frame.forces, axis=1).max() < MAX_FORCE
    ]
    return [f for f in frames if not f.validation], [f for f in frames if f.validation]


def package(labels: Sequence[Path], output: Path, data: Path | None, target: Path) -> None:
    """
    Measure a trained network and write it with its card.

    Parameters
    ----------
    labels
        The training labels, for sizes, elements and the errors on the materials set aside.
    output
        Folder of the training state.
    data
        Folder of reference data, or None.
    target
        The checkpoint to write.
    """
    training, validation = read_labels(labels)
    state = checkpoints.load_plain(output / STATE)
    network = MatRIS(CONFIG, magmoms=True)
    network.load_state_dict(state["average"])
    network.requires_grad_(False).eval()
    counts = Counter(symbol for frame in training for symbol in frame.symbols)
    card = Card(
        key=checkpoints.LARGE,
        energy_scale="mp",
        predicts="efsm",
        elements=tuple(sorted(symbol for symbol, count in counts.items() if count >= MIN_FRAMES)),
        description=(
            "Demonstrator: a small MatRIS trained on labels of SevenNet-0 and CHGNet and on DFT frames, on the raw MP "
            "energy scale. For demos and tests; use a published checkpoint for results."
        ),
    )
    details = {
        "date": datetime.now(UTC).date().isoformat(),
        "teacher": (
            "SevenNet-0 (7net-0, sevenn 0.13, MIT); in hot and compressed crystals with CHGNet 0.3.0 (chgnet 0.4.2, "
            "BSD), where they agree"
        ),
        "data": (
            "prototypes and crystals of the literature, many with elements replaced, strained and rattled, labelled by "
            "the teachers; and DFT frames of MPtrj and Alexandria"
        ),
        "training_frames": len(training),
        "training_materials": len({frame.material for frame in training}),
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": label_ranges(training),
        "training": {**state["settings"], "steps_done": state["step"], "seed_of_weights": SEED},
    }
    _write_measured(target, network, replace(card, details=details), training, validation, data)


def measure(target: Path, labels: Sequence[Path], data: Path | None) -> None:
    """
    Measure a checkpoint again, and write its file with what was found.

    Parameters
    ----------
    target
        The checkpoint.
    labels
        For its domain, and the errors on the materials set aside.
    data
        Folder of reference data, or None.
    """
    network, card = checkpoints.read_file(target)
    training, validation = ([f for f in frames if f.symbols <= set(card.elements)] for frames in read_labels(labels))
    _write_measured(target, network, card, training, validation, data)


def _write_measured(
    target: Path, network: MatRIS, card: Card, training: Sequence[Frame], validation: Sequence[Frame], data: Path | None
) -> None:
    """Find domain and errors of a network, and write it with its card."""
    domain = domain_of(network, card, [*training, *validation])
    errors = evaluate(Potential(network, card), data)
    aside = [validation[i] for i in np.random.default_rng(SEED).permutation(len(validation))[:600]]
    errors["labels set aside"] = {"frames": len(aside), **validate(network, aside)}
    details = {**card.details, "domain": domain, "errors": errors}
    checkpoints.save(target, network, replace(card, details=details))


def error_table(card: Card) -> str:
    """Write the card's errors as a Markdown table, for docs/embedded-checkpoint.md."""
    rows = [f"| {' | '.join(row)} |" for row in measured_errors(card)]
    return "\n".join(["| set | what | value |", "|---|---|---|", *rows])


def main() -> None:
    """Run one stage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)  # torch-sim sets its own
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("package", help="measure and write the file")
    stage.add_argument("--labels", type=Path, nargs="+", required=True, help="folders of shards")
    stage.add_argument("--output", type=Path, required=True, help="folder of the training state and log")
    stage.add_argument("--threads", type=int, default=2)
    stage.add_argument("--data", type=Path, help="folder of reference data")
    stage.add_argument("--target", type=Path, default=TARGET)
    again = stages.add_parser("measure", help="measure a checkpoint again, and write what was found to its card")
    again.add_argument("--labels", type=Path, nargs="+", required=True, help="folders of shards")
    again.add_argument("--data", type=Path, help="folder of reference data")
    again.add_argument("--target", type=Path, required=True, help="the checkpoint")
    again.add_argument("--threads", type=int, default=2)
    shown = stages.add_parser("errors", help="print a shipped card's errors as a table")
    shown.add_argument("key", nargs="?", default=checkpoints.EMBEDDED)
    arguments = parser.parse_args()
    if arguments.stage == "errors":
        sys.stdout.write(error_table(checkpoints.read_file(checkpoints.locate(arguments.key))[1]) + "\n")
        return
    torch.set_num_threads(arguments.threads)
    if arguments.stage == "measure":
        measure(arguments.target, arguments.labels, arguments.data)
    else:
        package(arguments.labels, arguments.output, arguments.data, arguments.target)


if __name__ == "__main__":
    main()
