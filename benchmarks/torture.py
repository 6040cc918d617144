"""
Compare a campaign that is killed at random with an undisturbed one: ``python benchmarks/torture.py --help``.

The potential is a stand-in (`standin.py`). Runner and workers get kill -9 at random times, a worker is suspended
for some seconds, the store is locked, and one candidate kills every process that computes it. At the
end, each candidate must have exactly one document, equal to that of the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import machine
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from standin import ELEMENTS, StandInMaker

from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.local.runner import run
from matris.stores.database import DATABASE_FILE
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

POISON = "Pb"
IGNORED = {"last_updated", "computed_at", "seconds", "job_uuid", "error", "hulls"}
"""Fields that depend on the run. The reason of a failure names the signal and a count; hulls have times."""


def candidates(number: int) -> Iterator[Candidate]:
    """Yield rock salt structures of binary compounds, each slightly larger than the last; one has `POISON`."""
    rng = random.Random(0)
    clean = [symbol for symbol in ELEMENTS if symbol != POISON]
    for i in range(number):
        pair = [POISON, "O"] if i == number // 3 else rng.sample(clean, 2)
        a = (5.5 + i * 1e-3) / 2
        cell = Lattice([[0, a, a], [a, 0, a], [a, a, 0]])
        yield Candidate.from_structure(Structure(cell, pair, [[0, 0, 0], [0.5, 0.5, 0.5]]), f"generated {i}")


def campaign(store: Path, seconds: float) -> Campaign:
    """Open the campaign in a store, with a reference hull, so that no elements are computed."""
    store.mkdir(parents=True, exist_ok=True)
    entries = [ComputedEntry(symbol, -4.0, parameters={"run_type": "PBE"}).as_dict() for symbol in ELEMENTS]
    file = store / "references.json"
    file.write_text(json.dumps(entries))
    os.utime(file, (0, 0))  # the date is part of the name of the reference set
    maker = StandInMaker(seconds=seconds, poison=POISON)
    return Campaign(store, maker, Funnel(sanity=False), chunk_size=25, references=file)


def start(store: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start a runner in its own process group."""
    here = Path(__file__).resolve()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])}
    arguments = ["--run", str(store), "--candidates", str(options.candidates), "--seconds", str(options.seconds)]
    return subprocess.Popen(
        [sys.executable, str(here), *arguments, "--workers", str(options.workers)],
        env=environment,
        stderr=(store.parent / "stderr.txt").open("ab"),
        start_new_session=True,
    )


def last_error(store: Path) -> str:
    """Return the last error line that a runner or a worker wrote to standard error."""
    lines = (store.parent / "stderr.txt").read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if "Error" in line), "no message")[:200]


def children(pid: int) -> list[int]:
    """Return the process ids of the workers of a runner."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def disturb(store: Path, options: argparse.Namespace) -> Counter[str]:
    """Inject faults until the number of kills is reached, then let the campaign end; count the faults."""
    rng = random.Random(options.seed)
    done: Counter[str] = Counter()
    runner = start(store, options)
    while done["kill -9 of the runner"] + done["kill -9 of a worker"] < options.kills:
        time.sleep(rng.uniform(0.5, options.pause))
        if runner.poll() is not None:
            if runner.returncode == 0:
                print("the campaign ended before all faults were injected: increase --candidates or --seconds")
                break
            done[f"the runner ended: {last_error(store)}"] += 1
            runner = start(store, options)
            continue
        workers = children(runner.pid)
        fault = rng.choice(["runner", "worker", "worker", "worker", "lock", "stop"])
        if fault == "runner":
            runner.kill()
            runner.wait()
            done["kill -9 of the runner"] += 1
            runner = start(store, options)
        elif fault == "lock" and (store / DATABASE_FILE).exists():
            with sqlite3.connect(store / DATABASE_FILE, timeout=30, isolation_level=None) as database:
                database.execute("BEGIN IMMEDIATE")
                time.sleep(rng.uniform(1, 4))
                database.execute("ROLLBACK")
            done["store locked"] += 1
        elif workers:
            victim = rng.choice(workers)
            try:
                if fault == "stop":
                    os.kill(victim, signal.SIGSTOP)
                    time.sleep(rng.uniform(1, 4))
                    os.kill(victim, signal.SIGCONT)
                    done["worker suspended"] += 1
                else:
                    os.kill(victim, signal.SIGKILL)
                    done["kill -9 of a worker"] += 1
            except ProcessLookupError:
                continue
    while runner.wait() != 0:
        done[f"the runner ended: {last_error(store)}"] += 1
        runner = start(store, options)
    return done


def documents(store: Path, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Return documents by candidate, without the fields that depend on the run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for document in campaign(store, options.seconds).store.docs.query({}):
        kept = {k: v for k, v in document.items() if k not in IGNORED and k != "_id"}
        found.setdefault(document["candidate_id"], []).append(json.loads(json.dumps(kept, default=str)))
    return found


def main() -> None:
    """Print the faults, and the differences between the documents of both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=0.3, help="time per candidate (s)")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--pause", type=float, default=12.0, help="maximum time between two faults (s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(campaign(options.run, options.seconds), candidates(options.candidates), ["cpu"] * options.workers)
        return
    print(f"{machine('cpu', 1)}; {options.candidates} candidates, {options.workers} workers, seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"
        begun = time.perf_counter()
        assert start(calm, options).wait() == 0, "the undisturbed run failed"
        print(f"undisturbed: {time.perf_counter() - begun:.0f} s", flush=True)
        begun = time.perf_counter()
        done = disturb(rough, options)
        print(
            f"disturbed: {time.perf_counter() - begun:.0f} s; " + ", ".join(f"{n} × {what}" for what, n in done.items())
        )
        expected, found = documents(calm, options), documents(rough, options)
        several = sum(len(each) != 1 for each in found.values())
        differing = [name for name, each in expected.items() if found.get(name) != each]
        states = Counter(each[0]["state"] for each in found.values())
        reasons = Counter(str(d["error"])[:120] for d in campaign(rough, options.seconds).store.query(state="failed"))
        print(f"reasons of failures: {dict(reasons)}")
        print(f"candidates with a document: {len(found)} of {len(expected)}; with several: {several}")
        print(f"documents that differ from the undisturbed run's: {len(differing)}; states: {dict(states)}")
        print(f"journals and chunks left behind: {sum(1 for _ in rough.glob('journal/*'))}")
        assert not several, "a candidate has several documents"
        assert not differing, f"documents differ: {differing[:3]}"


if __name__ == "__main__":
    main()
