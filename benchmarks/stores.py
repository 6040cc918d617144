"""
Measure query latencies on candidate documents, embedded and on a server: ``python benchmarks/stores.py --help``.

Documents have the fields of real ones, 2 to 5 kB each, in chemical systems of very different sizes, as in the Materials
Project. Collection and indexes are those of `matris.stores.CandidateStore`. Every query reads all documents that match.
Both stores are queried in alternation and must return the same documents; a store that takes more than a second is
queried five times only. The default server is that of the tests. Unlike MongoDB, it fetches all documents that match a
filter before it returns a page; ``--uri`` names another server.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from datetime import timedelta
from itertools import batched
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import bson
from cells import rocksalt
from maggma.stores import MongoStore
from peers import machine
from pymongo import MongoClient

from matris.stores.candidate_store import CandidateStore
from matris.stores.database import DATABASE_FILE
from matris.stores.documents.documents import CHUNK_FORMAT, ChunkDocument, unwind, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    type Question = Callable[[CandidateStore], Iterable[dict[str, Any]]]

ELEMENTS = "O Li Fe Mn P S Si Mg Na Co Ni F Cl K Ca Ti V Cu Zn Al N C H B Sr Ba Zr Nb Mo La".split()  # noqa: SIM905
PAGE = 50
ENOUGH = 5


def template() -> dict[str, Any]:
    """Make the document of one candidate, as a build does."""
    structure = rocksalt()
    record = {"candidate_id": "c", "source": "generated", "state": "converged", "energy": -4.0 * len(structure)}
    chunk = ChunkDocument.model_validate(
        {
            "chunk_format": CHUNK_FORMAT,
            "records": [record | {"n_steps": 40, "fmax": 0.04, "nsites": len(structure), "seconds": 1.5}],
            "structures": [{"candidate_id": "c", "structure": structure.as_dict()}],
            "checkpoint": {"key": "matris_10m_oam", "sha256": "ab" * 32, "energy_scale": "omat24"},
            "settings": {"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "cd" * 32},
            "versions": {"matris-flows": "0.1.0", "torch": "2.11.0", "pymatgen": "2026.1.1"},
            "device": "cpu",
            "dtype": "float32",
        }
    )
    document, _ = next(iter(unwind(chunk, "job")))
    return document.model_dump()


def documents(number: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield variants of the document: chemical system, distance to the hull, state, size."""
    plain = template()
    now = utc_now()
    weights = [1 / (i + 2) for i in range(len(ELEMENTS))]
    for i in range(number):
        elements = sorted(set(rng.choices(ELEMENTS, weights, k=rng.choice([2, 3, 3, 3, 4, 4, 5]))))
        energy = round(rng.expovariate(8), 6) if rng.random() < 0.97 else None
        notes = {f"parameter {k}": rng.random() for k in range(rng.randint(20, 90))}
        yield plain | {
            "document_id": f"{i:016x}-abababab-cdcdcdcd",
            "candidate_id": f"{i:016x}",
            "formula_pretty": "".join(f"{symbol}{rng.randint(2, 9)}" for symbol in elements),
            "chemsys": "-".join(elements),
            "elements": elements,
            "nelements": len(elements),
            "energy_above_hull": energy,
            "is_stable": energy is not None and energy < 0.001,
            "state": "failed" if energy is None else "converged",
            "decomposes_to": [{"document_id": f"{rng.randint(0, number):016x}", "amount": 0.25} for _ in range(4)],
            "provenance": {"source_file": f"inputs/{i}.cif", "notes": notes},
            "last_updated": now + timedelta(seconds=i),
        }


def questions(chemical_systems: list[str], number: int, rng: random.Random) -> dict[str, Callable[[], Question]]:
    """Return functions that draw a random query, by name; systems are drawn in proportion to their documents."""

    def by_id() -> Question:
        identity = f"{rng.randrange(number):016x}-abababab-cdcdcdcd"
        return lambda store: store.documents([identity])

    def of_a_system() -> Question:
        system = rng.choice(chemical_systems)
        return lambda store: store.query(chemsys=system, below=0.05).sort("energy_above_hull").limit(PAGE)

    def with_elements() -> Question:
        symbols = rng.sample(ELEMENTS[:12], 2)
        return lambda store: store.query(elements=symbols, below=0.05).sort("energy_above_hull").limit(PAGE)

    def later_page() -> Question:
        return lambda store: (
            store.query(state="converged", checkpoint="matris_10m_oam").sort("energy_above_hull").skip(1000).limit(PAGE)
        )

    return {
        "by id": by_id,
        "chemical system, at most 50 meV above the hull": of_a_system,
        f"first {PAGE} of all, by hull distance": lambda: lambda s: s.query().sort("energy_above_hull").limit(PAGE),
        f"{PAGE} after 1000 of a state and checkpoint, by hull distance": later_page,
        f"{PAGE} with two elements, within 50 meV, by hull distance": with_elements,
        f"latest {PAGE}": lambda: lambda store: store.query().sort("-last_updated").limit(PAGE),
    }


def start_server(folder: Path, stack: ExitStack) -> str | None:
    """Start the tests' server of MongoDB's protocol, with durable commits; return None if it is not installed."""
    program = shutil.which("secantusd-rs", path=str(Path(sys.executable).parent))
    if program is None:
        return None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(folder / "server"), "--standalone"]
    options = ["--sync-on-commit", "--log-file-max", "64MB", "--cache-size", "256M", "--log-level", "WARNING"]
    server = subprocess.Popen([program, *address, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(server.wait)
    stack.callback(server.kill)
    return f"mongodb://127.0.0.1:{port}"


def fill(store: CandidateStore, number: int) -> float:
    """Store documents in batches of 1,000; return the time (s). On a server they are inserted, not upserted."""
    start = time.perf_counter()
    for batch in batched(documents(number, random.Random(0)), 1000):
        if isinstance(store.docs, MongoStore):
            store.docs._collection.insert_many(batch)  # noqa: SLF001
        else:
            store.docs.update(list(batch))
    return time.perf_counter() - start


def ask(store: CandidateStore, question: Question) -> tuple[float, list[str]]:
    """Query a store; return the time (ms) and the ids."""
    start = time.perf_counter()
    matches = list(question(store))
    return 1000 * (time.perf_counter() - start), [document["document_id"] for document in matches]


def slow(times: Sequence[float]) -> bool:
    """Return whether a store takes more than a second and was queried often enough."""
    return len(times) >= ENOUGH and median(times) > 1000


def row(name: str, times: Sequence[float], n_documents: float) -> str:
    """Format a row of the table."""
    p95 = quantiles(times, n=20)[-1]
    return f"| {name} | {median(times):.1f} | {p95:.1f} | {max(times):.1f} | {n_documents:.0f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--uri", help="mongodb://HOST of a server; default: start the tests' server")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {"embedded": CandidateStore.open(folder / "embedded")}
        if uri := options.uri or start_server(folder, stack):
            database = f"matris-benchmark-{uuid.uuid4().hex[:8]}"
            stack.callback(MongoClient(uri).drop_database, database)
            stores["server"] = CandidateStore.open(f"{uri}/{database}")
        size = median(len(bson.encode(document)) for document in documents(100, random.Random(0)))
        print(
            f"{machine('cpu', 1)}; {options.documents} documents, median {size / 1000:.1f} kB, {options.rounds} rounds"
        )
        filled = {name: fill(store, options.documents) for name, store in stores.items()}
        systems = [document["chemsys"] for document in documents(options.documents, random.Random(0))]
        print("\n| store: query | p50, ms | p95, ms | maximum, ms | documents, mean |\n|---|---|---|---|---|")
        for question, choose in questions(systems, options.documents, random.Random(1)).items():
            times: dict[str, list[float]] = {name: [] for name in stores}
            n_documents = 0
            for _ in range(options.rounds):
                asked = choose()
                answers = {name: ask(store, asked) for name, store in stores.items() if not slow(times[name])}
                for name, (milliseconds, _) in answers.items():
                    times[name].append(milliseconds)
                ids = [answer for _, answer in answers.values()]
                assert all(answer == ids[0] for answer in ids), f"the stores differ: {question}"
                n_documents += len(ids[0])
            for name, taken in times.items():
                print(row(f"{name}: {question}", taken, n_documents / options.rounds), flush=True)
        for name, seconds in filled.items():
            print(
                f"\n{name}: stored {options.documents / seconds:.0f} documents/s, in batches of 1,000, all indexes",
                flush=True,
            )
        megabytes = (folder / "embedded" / DATABASE_FILE).stat().st_size / 1e6
        print(f"\nembedded: {megabytes:.0f} MB, documents alone {size * options.documents / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
