"""
Compare trainings: uninterrupted, killed and resumed, and with two processes: ``python benchmarks/resume.py --help``.

Prints the loss curves side by side, and the differences of the final weights. The training that was killed (-9) and
resumed must be identical to the last bit. Two processes sum gradients in another order, so that their weights agree up
to rounding.
"""

from __future__ import annotations

import argparse
import csv
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import machine

from matris.model.checkpoints import load_plain
from matris.model.config import ModelConfig
from matris.model.network import MatRIS
from matris.training.data.element_energies import regress_reference_energies
from matris.training.data.reading import read_frames
from matris.training.processes import together
from matris.training.trainer import LOG, STATE, TrainSettings, train

SETTINGS = TrainSettings(steps=60, batch_size=6, learning_rate=1e-3, warmup=10, validate_every=6)
CONFIG = ModelConfig(
    num_layers=1, node_feat_dim=32, edge_feat_dim=16, three_body_feat_dim=16, mlp_hidden_dims=(32,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=5.0, three_body_cutoff=3.2,
)  # fmt: skip


def work(data: Path, directory: Path) -> None:
    """Train, as one of the processes of a training."""
    torch.set_num_threads(1)
    frames = [f for f in read_frames([data / "mptrj_random.extxyz.gz"]) if len(f.forces) <= 12][:80]
    with together("cpu"):
        torch.manual_seed(0)
        network = MatRIS(CONFIG, magmoms=False)
        network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(frames)))
        train(network, frames[:64], frames[64:], SETTINGS, directory)


def curve(directory: Path) -> list[dict[str, str]]:
    """Read the rows of the log."""
    with (directory / LOG).open(newline="") as stream:
        return list(csv.DictReader(stream))


def apart(a: Path, b: Path) -> float:
    """Return the largest difference between the averaged weights of two trainings."""
    first, second = (load_plain(path / STATE)["average"] for path in (a, b))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def main() -> None:
    """Train three times, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mptrj_random.extxyz.gz")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.data, options.worker)
        return
    script = [__file__, "--data", str(options.data), "--worker"]
    print(f"{machine('cpu', 1)}\n")
    with tempfile.TemporaryDirectory() as folder:
        alone, killed, two = (Path(folder) / name for name in ("alone", "killed", "two"))
        subprocess.run([sys.executable, *script, str(alone)], check=True)
        kills = 0
        while not (killed / STATE).exists() or load_plain(killed / STATE)["step"] < SETTINGS.steps:
            process = subprocess.Popen([sys.executable, *script, str(killed)])
            before = (killed / STATE).stat().st_mtime_ns if (killed / STATE).exists() else 0
            while kills < options.kills and process.poll() is None:
                if (killed / STATE).exists() and (killed / STATE).stat().st_mtime_ns > before:
                    time.sleep(random.uniform(0, 1))
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.01)
            if process.wait() not in (0, -signal.SIGKILL):
                raise SystemExit("the training failed")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*launch, *script, str(two)], check=True)
        print(f"| step | validation loss, uninterrupted | killed {kills} times | two processes |\n|---|---|---|---|")
        for rows in zip(curve(alone), curve(killed), curve(two), strict=True):
            print(f"| {rows[0]['step']} | " + " | ".join(f"{float(row['loss']):.7f}" for row in rows) + " |")
        print(
            f"\nlargest difference of the final weights: killed {apart(alone, killed):.1e}, "
            f"two processes {apart(alone, two):.1e}"
        )


if __name__ == "__main__":
    main()
