"""
Measure training sets: making one, reading random frames, and building graphs within a training step.

Run ``python benchmarks/training_data.py``. The frames are perovskites with random displacements and random labels, in
cells of 5 and 40 atoms. Times are processor times on one thread.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.spacegroup import crystal

from matris.model import checkpoints
from matris.model.graph import Geometry
from matris.model.network import MatRIS
from matris.training.data.dataset import DataSet
from matris.training.data.frame import Frame, collate
from matris.training.data.labelled import Labelled
from matris.training.data.writer import SetOptions, write_set
from matris.training.loss import LossWeights, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.model.config import ModelConfig

_CATIONS = ("Ca", "Sr", "Ba", "La", "Na", "K")
_METALS = ("Ti", "Zr", "V", "Cr", "Mn", "Fe", "Nb", "Mo")
_READ = 5000


def frames(n: int) -> Iterator[Frame]:
    """Yield n frames, a hundred of each compound."""
    dice = np.random.default_rng(0)
    for number in range(n):
        kind, repeat = number // 100, 1 + (number // 100) % 2
        symbols = [_CATIONS[kind % len(_CATIONS)], _METALS[kind // len(_CATIONS) % len(_METALS)], "O"]
        places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
        atoms = crystal(symbols, places, spacegroup=221, cellpar=[3.9] * 3 + [90] * 3).repeat(repeat)
        positions = atoms.positions + dice.normal(scale=0.05, size=atoms.positions.shape)
        geometry = Geometry(atoms.numbers.astype(np.int64), positions, np.array(atoms.cell), np.ones(3, dtype=bool))
        forces = dice.normal(size=positions.shape)
        yield Frame(geometry, -7.0 * len(forces) + dice.normal(), forces, np.zeros((3, 3)), f"compound {kind}")


def megabytes() -> float:
    """Return the peak memory of this process (MB)."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def of_set(n: int, folder: Path) -> list[str]:
    """Make a set, and read random frames; return a row of the table."""
    made = list(frames(200))
    before, began = megabytes(), time.process_time()
    taken = (Labelled(made[i % len(made)], f"frame {i}") for i in range(n))
    data = write_set(folder / str(n), [("made", taken)], SetOptions(check_labels=False))
    writing, growth = time.process_time() - began, megabytes() - before
    size = sum(path.stat().st_size for path in data.path.iterdir())
    chosen = np.random.default_rng(1).integers(len(data), size=_READ).tolist()
    began = time.process_time()
    n_atoms = sum(len(data[i].forces) for i in chosen)
    reading, after = time.process_time() - began, megabytes() - before
    row = (
        n, n_atoms / _READ, 1e6 * writing / n, growth, size / n, 1e6 * reading / _READ, after
    )  # fmt: skip
    return [f"{row[0]:d}", *(f"{value:.0f}" for value in row[1:])]


def of_step(config: ModelConfig, data: DataSet, batch_size: int, n_batches: int) -> list[str]:
    """Return times of reading, graphs and the rest of a training step (ms per frame), and the share of graphs."""
    torch.manual_seed(0)
    network = MatRIS(config, magmoms=False)
    spent = np.zeros((n_batches + 1, 3))
    for number in range(n_batches + 1):
        started = time.process_time()
        chosen = [data[(number * batch_size + i) * 37 % len(data)] for i in range(batch_size)]
        read = time.process_time()
        batch = collate(chosen, config)
        built = time.process_time()
        errors(network, batch, differentiable=True).loss(LossWeights()).sum().backward()
        spent[number] = read - started, built - read, time.process_time() - built
    per_frame = 1e3 * spent[1:] / batch_size  # the first step is a warm-up
    share = per_frame[:, 1] / per_frame.sum(axis=1)
    return [*(f"{value:.2f}" for value in per_frame.mean(axis=0)), f"{share.min():.2%}–{share.max():.2%}"]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(
            "| frames | atoms per frame | write, µs per frame | memory, MB added | bytes per frame "
            "| read, µs per frame | memory after reading, MB added |"
        )
        print("|---|---|---|---|---|---|---|")
        for n in options.frames:
            print("|", " | ".join(of_set(n, Path(folder))), "|", flush=True)
        data = DataSet(Path(folder) / str(options.frames[0]))
        print(
            "\n| network | read, ms per frame | graphs | the rest of a step | share of graphs |\n|---|---|---|---|---|"
        )
        embedded = checkpoints.read_file(checkpoints.locate())[0].config
        print("|", " | ".join(["embedded", *of_step(embedded, data, 12, options.batches)]), "|")


if __name__ == "__main__":
    main()
