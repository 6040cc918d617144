"""Train the embedded checkpoint's network: ``python -m recipes.embedded.train``; it resumes where it stopped."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from matris.model import checkpoints
from matris.model.network import MatRIS
from matris.training import batches
from matris.training.data.reading import read_frames
from matris.training.loss import LossWeights
from matris.training.processes import together
from matris.training.trainer import STATE, Joined, TrainSettings, train
from recipes.embedded.dimers import dimers
from recipes.embedded.labels import Chosen, Labels, divide, formulas_of_wbm, held_out, part_of, shards_in
from recipes.embedded.materials import ELEMENTS
from recipes.embedded.start import CONFIG, sample_of_elements, start
from recipes.embedded.variants import DFT_SETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.training.data.frame import Frame

logger = logging.getLogger(__name__)

SEED = 11
MAX_FORCE = 30.0
"""Frames with a larger force on an atom (eV/Å) are left out."""

MAX_COST = 2.4e8
"""Frames that keep more for the backward pass (bytes) are left out: the few that cost most."""

EACH = 60
"""Frames per element that fit the energies of the elements."""

VALIDATION = 400
"""Frames of a validation."""

WEIGHTS = LossWeights(magmom=0.0, atom_energy=1.0)


def dft_frames(data: Path) -> list[Frame]:
    """Return the DFT frames of formulas that are in the training part and not held out."""
    reserved = formulas_of_wbm(data)
    paths = [data / f"{name}.extxyz.gz" for name in DFT_SETS]
    return [
        frame
        for frame in read_frames(paths)
        if not held_out(frame.formula)
        and part_of(frame.formula, reserved) == "training"
        and frame.symbols <= set(ELEMENTS)
        and np.linalg.norm(frame.forces, axis=1).max() < MAX_FORCE
    ]


def train_embedded(
    shards: Sequence[Path], data: Path, output: Path, initial: Path, settings: TrainSettings, calm: float, times: int
) -> None:
    """
    Train the network.

    Parameters
    ----------
    shards
        Labels, as `recipes.embedded.labels.write_shard` writes them.
    data
        Folder of reference data: DFT frames to train on, dimers, and the formulas that are reserved.
    output
        Folder of the training state and log.
    initial
        An earlier checkpoint, or the folder of the stage before.
    settings
        Settings of the training.
    calm
        Frames in which no atom has a larger force (eV/Å) are taken twice.
    times
        How often DFT frames are taken; they are few, and the only ones of most crystals with molecular ions.
    """
    labels = Labels(shards)
    chosen, aside = divide(labels, formulas_of_wbm(data), MAX_FORCE)
    forces = labels.largest_forces()
    chosen += [i for i in chosen if forces[i] < calm]
    costs = batches.costs(Chosen(labels, chosen), CONFIG)
    chosen = [i for i, cost in zip(chosen, costs, strict=True) if cost <= MAX_COST]
    others = [*(times * dft_frames(data)), *dimers(data / "diatomics_dft.json.gz", ELEMENTS)]
    others = [f for f, cost in zip(others, batches.costs(others, CONFIG), strict=True) if cost <= MAX_COST]
    aside = [aside[i] for i in np.random.default_rng(SEED).permutation(len(aside))[:VALIDATION]]
    logger.info("%d labelled and %d other frames, %d for validation", len(chosen), len(others), len(aside))
    torch.manual_seed(SEED)
    if initial.is_dir():
        network = MatRIS(CONFIG, magmoms=False)
        network.load_state_dict(checkpoints.load_plain(initial / STATE)["average"])
    else:
        known = Chosen(labels, chosen)
        names = labels.formulas()
        sample = sample_of_elements(known, [names[i] for i in chosen], EACH, SEED)
        network = start(initial, ELEMENTS, Chosen(known, sample))
    with together(None) as (device, _):
        network.to(device)
        train(network, Joined(Chosen(labels, chosen), others), Chosen(labels, aside), settings, output)


def main() -> None:
    """Train."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)  # torch-sim sets its own
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="folders of shards")
    parser.add_argument("--data", type=Path, required=True, help="folder of reference data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training state and log")
    parser.add_argument("--initial", type=Path, required=True, help="earlier checkpoint, or folder of the stage before")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--calm", type=float, default=0.0, help="frames with smaller forces (eV/Å) are taken twice")
    parser.add_argument("--dft-times", type=int, default=1, help="how often DFT frames are taken")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile a step first, for minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = TrainSettings(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup=200,
        optimizer="muon",
        weight_decay=1e-3,
        ema_decay=arguments.ema_decay,
        weights=WEIGHTS,
        compiled_step=arguments.compile,
        validate_every=500,
    )
    shards = shards_in(arguments.labels)
    train_embedded(
        shards, arguments.data, arguments.output, arguments.initial, settings, arguments.calm, arguments.dft_times
    )


if __name__ == "__main__":
    main()
