"""
Measure a campaign without its model: time, memory, documents: ``python benchmarks/campaign.py --help``.

A stand-in (`standin.py`) replaces the model. `overhead.py` measures the overhead with a real checkpoint.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from peers import machine
from pymatgen.core import Lattice, Structure
from standin import ELEMENTS, StandInMaker

from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.local.runner import run
from matris.flows.sources.prototypes import generate_candidates
from matris.flows.sources.swap import swap_elements
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SYSTEMS = ("Li-Mg-O", "Na-Fe-O", "K-Mn-F", "Ca-Ti-O", "Al-Si-O", "Li-Co-O", "Na-Zr-S", "Sc-Ni-Al", "Li-Al-F")


def tiny(number: int) -> Iterator[Candidate]:
    """Yield distinct binary compounds of two atoms."""
    n = len(ELEMENTS)
    for i in range(number):
        first, second = ELEMENTS[i % n], ELEMENTS[(i // n + i % n + 1) % n]
        a = (5.2 + (i // (n * (n - 1))) * 0.02 + i % 7 * 1e-3) / 2
        cell = Lattice([[0, a, a], [a, 0, a], [a, a, 0]])
        kinds = [first, second if second != first else "O"]
        yield Candidate.from_structure(Structure(cell, kinds, [[0, 0, 0], [0.5, 0.5, 0.5]]), f"tiny {i}")


def generated(elements: Collection[str] | None = None) -> Iterator[Candidate]:
    """Yield filled prototypes of ternary systems, and variants with other elements of the same groups."""
    prototypes = chain.from_iterable(map(generate_candidates, SYSTEMS))
    return swap_elements(prototypes, "group", at_once=3, only=elements)


class Memory:
    """Resident memory of this process and of its children, sampled in the background."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(2.0):
            own = resident(os.getpid())
            pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            self.samples.append((time.monotonic() - self._start, own, max([resident(int(p)) for p in pids], default=0)))

    def table(self, rows: int = 10) -> str:
        """Return a table of evenly spaced samples."""
        step = max(1, len(self.samples) // rows)
        lines = ["| time, s | runner, MB | largest worker, MB |", "|---|---|---|"]
        return "\n".join(lines + [f"| {t:.0f} | {a:.0f} | {b:.0f} |" for t, a, b in self.samples[::step]])


def resident(pid: int) -> float:
    """Return the resident memory of a process (MB)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(campaign: Campaign, number: int, wall: float) -> None:
    """Print time, states of the candidates, and size of the store."""
    states = Counter(document["state"] for document in campaign.documents(["state"]))
    size = sum(f.stat().st_size for f in Path(str(campaign.location)).rglob("*") if f.is_file())
    print(f"{wall:.0f} s, {1000 * wall / number:.1f} ms per candidate; documents: {dict(states)}; {size / 1e6:.0f} MB")


def main() -> None:
    """Run a campaign; print wall time, documents, and memory over time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=5000)
    parser.add_argument("--tiny", action="store_true", help="use compounds of two atoms instead of filled prototypes")
    parser.add_argument("--chunk-size", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )  # workers
    with tempfile.TemporaryDirectory() as folder, Memory() as memory:
        source = tiny(options.candidates) if options.tiny else generated()
        funnel = Funnel(duplicates=not options.tiny, sanity=not options.tiny)
        campaign = Campaign(folder, StandInMaker(), funnel, chunk_size=options.chunk_size)
        print(f"{machine('cpu', 1)}; {options.candidates} candidates, chunks of {options.chunk_size}", flush=True)
        start = time.perf_counter()
        run(campaign, islice(source, options.candidates), ["cpu"] * options.workers)
        report(campaign, options.candidates, time.perf_counter() - start)
        print(memory.table())


if __name__ == "__main__":
    main()
