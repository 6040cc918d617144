"""
Measure the share of a chunk's time outside the model: ``python benchmarks/overhead.py --help``.

Rattled candidates go through a campaign in this process; the time of a job runs from taking it from the queue to
finishing it. Wall time and processor time are printed; on a shared machine, use processor time. One-time costs of a
process are measured separately: imports and loading in a process of its own, the rest by a small first campaign.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from campaign import generated
from peers import machine
from single_call import CONFIG
from weights import write_random

from matris import load
from matris.flows.campaign.campaign import Campaign
from matris.flows.local.runner import run
from matris.flows.sources.rattle import rattle
from matris.makers.batch_relax import BatchRelaxMaker
from matris.torchsim import MatRISTorchSimModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from matris.stores.documents.candidate import Candidate

FIRST = 10
"""Number of candidates of the first campaign, which has the one-time costs of the process."""

WORKER = """
import sys
from matris.flows.campaign.campaign import Campaign
from matris.flows.local.worker import main
from matris import load
load(sys.argv[1], device=sys.argv[2])
"""
"""Start of a worker process before it takes its first chunk, without opening the store."""


def now() -> NDArray[np.float64]:
    """Return wall and processor time of this process (s)."""
    return np.array([time.perf_counter(), time.process_time()])


class Stopwatch:
    """Measures wall and processor time (s) in jobs and in calls of the model."""

    def __init__(self) -> None:
        self.jobs, self.model = np.zeros(2), np.zeros(2)
        self.n_jobs = self.n_calls = 0
        self._taken = now()
        original = MatRISTorchSimModel.forward

        def timed(model: MatRISTorchSimModel, *args: Any) -> Any:
            wall, spent = time.perf_counter(), time.process_time()
            try:
                return original(model, *args)
            finally:
                self.model += time.perf_counter() - wall, time.process_time() - spent
                self.n_calls += 1

        MatRISTorchSimModel.forward = timed  # type: ignore[method-assign]

    def hear(self, event: dict[str, Any]) -> None:
        """Handle an event of a campaign."""
        if event["event"] == "took":
            self._taken = now()
        elif event["event"] == "done":
            self.jobs += now() - self._taken
            self.n_jobs += 1

    def clear(self) -> NDArray[np.float64]:
        """Reset; return the time in jobs outside the model (s)."""
        beside = self.jobs - self.model
        self.jobs, self.model, self.n_jobs, self.n_calls = np.zeros(2), np.zeros(2), 0, 0
        return beside


def relax(maker: BatchRelaxMaker, candidates: Iterable[Candidate], chunk_size: int, watch: Stopwatch) -> Counter[str]:
    """Run a campaign in a temporary store; count the states of its documents."""
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(folder, maker, chunk_size=chunk_size)
        run(campaign, candidates, [], watch.hear)
        return Counter(document["state"] for document in campaign.documents(["state"]))


def start_of_process(checkpoint: str, device: str) -> NDArray[np.float64]:
    """Return wall and processor time (s) of a worker process that starts, loads the model and ends."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-W", "ignore", "-c", WORKER, checkpoint, device], check=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime])


def main() -> None:
    """Print the time outside the model, once per process and per candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", default="matris_embedded", help="key or file; random: random weights of the 10M configuration"
    )
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--chunk-size", type=int, default=1000)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint
        if checkpoint == "random":
            checkpoint = str(Path(folder) / "random.safetensors")
            write_random(Path(checkpoint), CONFIG, load(device="cpu").card.elements)
        maker = BatchRelaxMaker(
            checkpoint=checkpoint,
            device=options.device,
            max_steps=options.max_steps,
            fmax=options.fmax,
        )
        print(f"{machine(options.device, options.threads)}; {options.candidates} candidates", flush=True)
        start, watch = start_of_process(checkpoint, options.device), Stopwatch()
        source = rattle(generated(maker.card().elements), amplitude=0.1, strain=0.03)
        relax(maker, islice(source, FIRST), options.chunk_size, watch)
        first = watch.clear()
        states = relax(maker, islice(source, options.candidates), options.chunk_size, watch)
        number, model, calls, jobs = states.total(), watch.model, watch.n_calls, watch.n_jobs
        beside = watch.clear()
    print(f"documents {dict(states)}; {jobs} jobs, {calls} calls of the model")
    print("| s | wall | processor |\n|---|---|---|")
    rows = {
        "process: imports, loading": start,
        f"outside the model, first job ({FIRST} candidates)": first,
        "in the model": model,
        "outside the model, in the jobs": beside,
    }
    for name, (wall, spent) in rows.items():
        print(f"| {name} | {wall:.2f} | {spent:.2f} |")
    for name, k in (("wall", 0), ("processor", 1)):
        once = start[k] + first[k]
        each, model_each = beside[k] / number, model[k] / number
        shares = [each / model_each, (each + once / 1000) / model_each]
        print(
            f"{name}: {1000 * each:.2f} ms outside and {1000 * model_each:.1f} ms in the model per candidate, "
            f"{100 * shares[0]:.1f} %; {100 * shares[1]:.1f} % including the start of a process that computes 1,000"
        )


if __name__ == "__main__":
    main()
