"""
Compare an OPTIMADE server on a folder with OPTIMADE's in-memory backend: ``python benchmarks/serving.py --help``.

Prints times to publish, export and start (s), then the first page of some queries, fastest of three (ms).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cells import rocksalt
from fastapi.testclient import TestClient
from peers import machine

from matris.stores.documents.documents import CandidateDocument, describe, utc_now
from matris.stores.optimade.export import export_optimade, server_config
from matris.stores.optimade.server import make_app, open_published, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI
    from pymatgen.core.structure import Structure

    from matris.stores.candidate_store import CandidateStore

ELEMENTS = ("Li", "Na", "Mg", "Fe", "Mn", "Co", "O", "S", "F", "Cl")
QUERIES = (
    "",
    'elements HAS ALL "Fe","O" AND nelements=2',
    "_matris_energy_above_hull<0.05",
    'chemical_formula_reduced="Fe2O3"',
    "nsites>=8",
    'elements HAS ONLY "Fe","O"',
    'chemical_formula_descriptive CONTAINS "Li"',
)


def candidates(number: int) -> Iterator[tuple[CandidateDocument, Structure]]:
    """Yield rock salt cells of two or three random elements, with documents as from a build, without symmetry."""
    rng = random.Random(0)
    for place in range(number):
        structure = rocksalt()
        chosen = rng.sample(ELEMENTS, rng.choice([2, 3]))
        for site in range(len(structure)):
            structure.replace(site, rng.choice(chosen))
        document = CandidateDocument(
            document_id=f"{place:020x}-01234567-ba987654",
            candidate_id=f"{place:020x}",
            source="generated",
            state="converged",
            energy_above_hull=rng.expovariate(1 / 0.15),
            checkpoint={"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
            settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "ba9876543210"},
            device="cpu",
            dtype="float32",
            last_updated=utc_now(),
            **describe(structure, relaxed=False),
        )
        yield document, structure


def fill(store: CandidateStore, number: int) -> None:
    """Store candidate documents and structures."""
    for batch in batched(candidates(number), 1000):
        arrays = [{"document_id": d.document_id, "structure": structure.as_dict()} for d, structure in batch]
        store.data.update(arrays, key="document_id")
        store.upsert(document for document, _ in batch)


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function; return the time (s) and its result."""
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def in_memory(lines: Path, name: str) -> FastAPI:
    """Make OPTIMADE's server with its in-memory backend, filled from an export."""
    from optimade.server.create_app import create_app  # after our import, which stops it from logging to /var/log

    config = server_config()
    config.mongo_database = name
    config.insert_from_jsonl = lines
    return create_app(config)


def ask(app: FastAPI) -> list[tuple[float, int]]:
    """Return time (ms) and number of results of each query."""
    client = TestClient(app)
    answers = []
    for text in QUERIES:
        parameters = {"filter": text} if text else {}
        tries = [seconds(lambda given=parameters: client.get("/v1/structures", params=given)) for _ in range(3)]
        answers.append((1e3 * min(t for t, _ in tries), tries[0][1].json()["meta"]["data_returned"]))
    return answers


def main() -> None:
    """Print a table per number of candidates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 10000], help="numbers of structures")
    for number in parser.parse_args().candidates:
        with tempfile.TemporaryDirectory() as folder:
            store, published = open_published(folder)
            fill(store, number)
            lines = Path(folder, "all.jsonl")
            exporting, _ = seconds(lambda store=store, lines=lines: export_optimade(store, lines))
            publishing, _ = seconds(lambda store=store, published=published: publish(store, published))
            again, _ = seconds(lambda store=store, published=published: publish(store, published))
            ours_ready, ours = seconds(lambda published=published: make_app(published))
            theirs_ready, theirs = seconds(lambda lines=lines, number=number: in_memory(lines, f"memory{number}"))
            print(f"\n{number} structures, {machine('cpu', 1)}:")
            print(
                f"exported in {exporting:.1f} s, published in {publishing:.1f} s, "
                f"published without changes in {again:.2f} s,"
            )
            print(f"server started in {ours_ready:.1f} s, in-memory server in {theirs_ready:.1f} s")
            print("\n| filter | results | folder, ms | in memory, ms |\n|---|---|---|---|")
            for text, (one, found), (other, same) in zip(QUERIES, ask(ours), ask(theirs), strict=True):
                assert found == same, text
                print(f"| `{text or 'none'}` | {found} | {one:.0f} | {other:.0f} |")


if __name__ == "__main__":
    main()
