"""
Fine-tune on 500 frames of one chemistry, and measure forgetting: ``python benchmarks/finetune.py --data FOLDER``.

The new frames are oxides of MPtrj and Alexandria whose elements the checkpoint supports; formulas held out from its
training are set aside for validation. The old frames are those without oxygen, from the same sets. Fine-tuning runs
without and with replay of old frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from peers import machine

import matris
from matris.training.data.labelled import Labelled
from matris.training.data.reading import read_frames
from matris.training.data.writer import SetOptions, write_set
from matris.training.finetuning import GENTLE, finetune
from matris.training.trainer import validate
from recipes.embedded.labels import held_out
from recipes.embedded.variants import DFT_SETS

if TYPE_CHECKING:
    from matris.training.data.dataset import DataSet

COLUMNS = {"energy": (1e3, "meV/atom"), "force_component": (1e3, "meV/Å"), "stress": (1.0, "GPa")}


def make_sets(data: Path, folder: Path, elements: set[str], count: int, largest: int) -> tuple[DataSet, DataSet]:
    """Make two sets, oxides and others, with the formulas that `part_of` reserves as validation part."""
    frames = [f for f in read_frames([data / f"{name}.extxyz.gz" for name in DFT_SETS]) if f.symbols <= elements]
    frames = [f for f in frames if len(f.forces) <= largest]
    made = []
    for name, wanted in (("oxides", True), ("others", False)):
        chosen = [f for f in frames if ("O" in f.symbols) == wanted]
        order = np.random.default_rng(0).permutation(len(chosen))
        taken = [chosen[i] for i in order if not held_out(chosen[i].formula)][:count]
        aside = [chosen[i] for i in order if held_out(chosen[i].formula)][: count // 4]
        parts = [(f, "training") for f in taken] + [(f, "validation") for f in aside]
        labelled = [Labelled(replace(f, material=f.formula), f.material, "mp", part) for f, part in parts]
        made.append(write_set(folder / name, [(name, iter(labelled))], SetOptions(check_labels=False)))
    return made[0], made[1]


def row(name: str, errors: dict[str, float], old: dict[str, float], seconds: float | None) -> str:
    """Return a line of the table."""
    cells = [f"{factor * e[key]:.3g}" for e in (errors, old) for key, (factor, _) in COLUMNS.items()]
    return f"| {name} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.0f}'} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of reference data")
    parser.add_argument("--checkpoint", help="key or file; default: the embedded checkpoint")
    parser.add_argument("--count", type=int, default=500, help="number of new frames, and of old frames")
    parser.add_argument("--largest", type=int, default=40, help="maximum number of atoms in a cell")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    potential = matris.load(options.checkpoint)
    settings = replace(GENTLE, epochs=options.epochs, learning_rate=options.learning_rate, early_stopping=None)
    ways = {
        "plain": (settings, False),
        "replay of 40 %": (replace(settings, replay_share=0.4), True),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new, old = make_sets(options.data, folder, set(potential.elements), options.count, options.largest)
        print(f"{machine('cpu', options.threads)}; {potential.card.key} {potential.card.sha256[:12]}\n")
        print(f"{json.dumps({s.path.name: [s.meta['n_training'], s.meta['n_validation']] for s in (new, old)})}: "
              "training frames, validation frames\n")  # fmt: skip
        units = " | ".join(f"{key.replace('_', ' ')}, {unit}" for _ in range(2) for key, (_, unit) in COLUMNS.items())
        print(f"| | new: {units.replace(' | energy', ' | old: energy')} | s |\n|---|" + "---|" * 7)
        # forgetting is measured on old validation frames, with and without replay
        for number, (label, (chosen, with_old)) in enumerate(ways.items()):
            start = time.monotonic()
            tuned = finetune(options.checkpoint, new, folder / str(number), chosen, replay=old if with_old else None)
            if tuned is None:
                raise SystemExit("run this benchmark in one process")
            seconds = time.monotonic() - start
            forgotten = [errors_of(path, old) for path in (options.checkpoint, tuned.path)]
            if not number:
                print(row("before", tuned.before, forgotten[0], None))
            print(row(label, tuned.after, forgotten[1], seconds), flush=True)


def errors_of(checkpoint: str | Path | None, data: DataSet) -> dict[str, float]:
    """Return the errors of a checkpoint on the validation part of a set."""
    return validate(matris.load(checkpoint).network, data.part("validation"))


if __name__ == "__main__":
    main()
