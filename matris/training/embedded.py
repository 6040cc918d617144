"""The embedded checkpoint, from labels to a file: ``python -m matris.training.embedded train|package``.

The labels come from ``python -m matris.training.distill``; docs/embedded-checkpoint.md has the whole recipe.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from matris.config import ModelConfig
from matris.network import MatRIS
from matris.training.data import read_frames, regress_reference_energies
from matris.training.trainer import TrainSettings, train

logger = logging.getLogger(__name__)

CONFIG = ModelConfig(
    num_layers=2,
    node_feat_dim=64,
    edge_feat_dim=32,
    three_body_feat_dim=32,
    mlp_hidden_dims=(64, 64),
    three_body_expansion="fourier",
    norm_type="layer",
    pairwise_cutoff=5.5,
    three_body_cutoff=3.3,
    use_smoothed_for_delta_edge=True,
    reference_energy="ridge",
)
"""Small enough for two CPU cores: angles, the cost driver, end at 3.3 Å."""

SEED = 11


def train_embedded(labels: Path, output: Path, settings: TrainSettings, device: str = "cpu") -> MatRIS:
    """
    Train the embedded checkpoint's network on shards of labelled frames; goes on where it stopped.

    Parameters
    ----------
    labels
        Folder of ``shard-*.extxyz.gz``.
    output
        Folder of the training state and log.
    settings
        How to train.
    device
        Where.
    """
    frames = list(read_frames(sorted(labels.glob("shard-*.extxyz.gz"))))
    training = [f for f in frames if not f.validation]
    validation = [f for f in frames if f.validation]
    logger.info("%d training and %d validation frames", len(training), len(validation))
    torch.manual_seed(SEED)
    network = MatRIS(CONFIG, magmoms=False)
    network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(training)))
    network.to(device)
    chosen = np.random.default_rng(SEED).permutation(len(validation))[:400]
    train(network, training, [validation[i] for i in chosen], settings, output)
    return network


def main() -> None:
    """Run one stage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("train", help="train on labelled shards; run again to go on")
    stage.add_argument("--labels", type=Path, required=True)
    stage.add_argument("--output", type=Path, required=True)
    stage.add_argument("--steps", type=int, default=8000)
    stage.add_argument("--batch-size", type=int, default=16)
    stage.add_argument("--learning-rate", type=float, default=3e-3)
    stage.add_argument("--device", default="cpu")
    stage.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = TrainSettings(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate
    )
    train_embedded(arguments.labels, arguments.output, settings, arguments.device)


if __name__ == "__main__":
    main()
