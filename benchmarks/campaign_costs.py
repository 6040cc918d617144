"""Costs of a campaign per chunk and candidate, measured with the stand-in in place of a potential; for `scale.py`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from campaign import generated
from hull import SYMBOLS, documents
from peers import machine
from pymongo import MongoClient
from standin import ELEMENTS, StandIn, StandInMaker

from matris import relax
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.harvest import harvest
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.survivors import advance
from matris.flows.local.worker import work
from matris.flows.sources.files import read_candidates
from matris.flows.sources.rattle import rattle
from matris.makers.decoding import environment_for
from matris.stores.database.atomic import set_fields
from matris.stores.documents.candidate import Candidate
from stores import start_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from command_meter import CommandMeter, Phase
    from torch_sim.state import SimState

    from matris.flows.campaign.funnel import Funnel

STEPS = ("read", "intake", "compute", "finish", "build", "rank")
EVALUATIONS = 15
HELD = 512
"""Chunks in work, of which the cost of a look at the queue is measured."""

_START = """
import sys
from matris.flows.local.worker import main
from matris.flows.campaign.campaign import Campaign
Campaign.open(sys.argv[1])
"""


@dataclass
class Run:
    """
    A campaign that was measured.

    Attributes
    ----------
    n, n_chunks
        Candidates and chunks of each step.
    phases
        Time and commands by step.
    sizes
        Bytes by place.
    """

    n: dict[str, int]
    n_chunks: int
    phases: dict[str, Phase]
    sizes: dict[str, int] = field(default_factory=dict)


def candidates(n: int, repeats: int) -> list[Candidate]:
    """Make candidates: rattled supercells of filled prototypes."""
    made = []
    for parent in islice(rattle(generated(ELEMENTS), amplitude=0.05, strain=0.02), n):
        assert parent.structure is not None
        structure = parent.structure * (repeats, 1, 1)
        made.append(Candidate.from_structure(structure, f"{len(made)}.cif"))
    return made


def write_files(made: Sequence[Candidate], folder: Path) -> Path:
    """Write candidates as CIF files."""
    folder.mkdir()
    for number, candidate in enumerate(made):
        assert candidate.structure is not None
        candidate.structure.to(filename=str(folder / f"{number:06d}.cif"))
    return folder


def measured_run(
    meter: CommandMeter, location: str | Path, files: Path, chunk_size: int, funnel: Funnel | None = None
) -> Run:
    """Run a campaign step by step in this process, as runner and worker do together."""
    meter.phases.clear()
    with meter.phase("read"):
        read = list(read_candidates([files]))
    with meter.phase("aside"):
        campaign = Campaign(location, StandInMaker(), funnel, chunk_size=chunk_size)
    sizes = {"journal": 0}

    def drop_journal(work_id: str, drop: Any = campaign.drop_journal) -> None:
        sizes["journal"] += folder_size(campaign.journal(work_id))
        drop(work_id)

    def emit(event: str, **fields: Any) -> None:
        if event == "done":
            with meter.phase("build"):
                harvest(campaign, [fields["work_id"]])
        assert event in {"done", "took", "candidate"}, f"{event}: {fields}"

    queue = campaign.queue
    queue.take = meter.timed("take", queue.take)  # type: ignore[method-assign]
    queue.finish = meter.timed("finish", queue.finish)  # type: ignore[method-assign]
    campaign.drop_journal = drop_journal  # type: ignore[method-assign]
    with meter.phase("intake"):
        counts = list(take_in(campaign, read))[-1]
    with meter.phase("aside"):
        sizes["waiting"] = _stored(location)
    with meter.phase("compute"):
        work(campaign, None, emit, lambda _: True)
    with meter.phase("rank"):
        advance(campaign)
    phases = dict(meter.phases)
    sizes |= _sizes(location)
    sizes["waiting"] -= sizes.get("campaign_members", 0)
    n_chunks = sum(stage["done"] for stage in queue.counts(campaign.name).values())
    n = dict.fromkeys(STEPS, counts.queued) | {"read": len(read), "intake": len(read), "rank": counts.members}
    return Run(n, n_chunks, phases, sizes)


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sizes(location: str | Path) -> dict[str, int]:
    """Return the bytes of the documents of each collection of a server, or of the embedded store with its indexes."""
    if not str(location).startswith("mongodb:"):
        return {"embedded": folder_size(Path(location))}
    with MongoClient(str(location)) as client:
        database = client.get_default_database()
        return {
            name: sum(map(len, database[name].find_raw_batches())) for name in sorted(database.list_collection_names())
        }


def _stored(location: str | Path) -> int:
    return sum(_sizes(location).values())


def costs_of(few: Run, many: Run, clock: str) -> dict[str, dict[str, tuple[float, float]]]:
    """
    Compute the costs of each step, as `simulated_campaign.Cost` has them.

    The commands of two runs tell those for a chunk from those for a candidate. Times are per candidate, from the run
    with large chunks.

    Parameters
    ----------
    few, many
        Runs of the same candidates with small chunks, and with large ones.
    clock
        ``"processor"``: processor times of host and server; ``"wall"``: what they take on this machine as it is now.
    """
    costs: dict[str, dict[str, tuple[float, float]]] = {}
    for step in STEPS:
        phase, n = many.phases[step], many.n[step]
        host, server = (
            (phase.processor, phase.service) if clock == "processor" else (phase.wall - phase.server, phase.server)
        )
        total = phase.commands.total()
        of_chunk = (few.phases[step].commands.total() - total) / (few.n_chunks - many.n_chunks)
        if step == "rank":
            of_chunk = 0.0
        costs[step] = {
            "host": (0.0, host / n),
            "commands": (of_chunk, max(total - of_chunk * many.n_chunks, 0.0) / n),
            "server": (0.0, server / n),
        }
    return costs


def look(meter: CommandMeter, location: str, clock: str) -> dict[str, float]:
    """Measure a look at a queue with chunks in work on other machines: time of the server, and of the process."""
    campaign = Campaign(location, StandInMaker(), title="looks")
    queue, store = campaign.queue, campaign.queue._store  # noqa: SLF001
    about = {"campaign": "looks", "stage": "relax", "cost": 1.0, "n": 500, "payload": {}}
    queue.put({"work_id": f"look {i}", **about} for i in range(HELD))
    while queue.take("looks"):
        pass
    set_fields(store, {f"look {i}": {"owner": f"elsewhere:1:{i}:boot/1"} for i in range(HELD)})
    rounds = 100
    for name in ("looks", "nothing"):
        meter.phases.pop(name, None)
        with meter.phase(name):
            for _ in range(rounds):
                queue.take(name)
    full, empty = meter.phases["looks"], meter.phases["nothing"]
    name = "service" if clock == "processor" else "server"
    return {
        "look": getattr(empty, name) / empty.commands.total(),
        "held": (getattr(full, name) - getattr(empty, name)) / rounds / HELD,
        "held_host": (full.processor - empty.processor) / rounds / HELD,
    }


class Pushed(StandIn):
    """Stand-in with forces that never vanish, so that relaxations take all their steps."""

    def forward(self, state: SimState, **options: Any) -> dict[str, torch.Tensor]:
        """Return zero stress, and forces of 0.1 eV/Å in alternating directions."""
        result = super().forward(state, **options)
        result["forces"][::2, 0] = 0.1
        result["forces"][1::2, 0] = -0.1
        return result


def evaluation(meter: CommandMeter, made: Sequence[Candidate]) -> float:
    """Measure the processor time of the host per evaluation and structure in batches of 1,000 atoms (s)."""
    structures = [candidate.structure for candidate in made]
    for steps in (0, EVALUATIONS):
        with meter.phase(f"{steps} steps"):
            records = list(relax(structures, Pushed(), max_steps=steps, max_batch_atoms=1000))
        assert all(record.n_steps == steps for record in records if record.state != "failed"), "other steps"
    taken = meter.phases[f"{EVALUATIONS} steps"].processor - meter.phases["0 steps"].processor
    return taken / EVALUATIONS / len(structures)


def hull_documents(number: int) -> list[dict[str, Any]]:
    """Make candidate documents of many chemical systems, as `hull.py` does, with the elements among them."""
    elements = [
        {"composition": {symbol: 1.0}, "chemsys": symbol, "energy_per_atom": -9.0, "document_id": f"element {symbol}"}
        for symbol in SYMBOLS
    ]
    made = documents(number - len(elements))
    return [{**made[0], **element} for element in elements] + made


def start(location: str) -> dict[str, float]:
    """Measure the start of a worker: imports, and opening the campaign."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _START, location],
        check=True,
        env=os.environ | environment_for(StandInMaker().as_dict()),
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"start": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure(meter: CommandMeter, n: int, chunk_sizes: tuple[int, int], repeats: int, clock: str) -> dict[str, Any]:
    """Measure all costs of campaigns of `n` candidates."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(os.chdir, Path.cwd())
        os.chdir(folder)  # for the journals
        uri = start_server(folder, stack)
        assert uri, "no server of MongoDB's protocol: pip install secantusdb==0.6.0b17"
        (meter.server_id,) = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
        stack.callback(setattr, meter, "server_id", None)
        made = candidates(n, repeats)
        files = write_files(made, folder / "files")
        measured_run(meter, f"{uri}/first", write_files(made[:10], folder / "few"), 10)  # one-time costs
        few, many = (measured_run(meter, f"{uri}/chunks{size}", files, size) for size in chunk_sizes)
        embedded = measured_run(meter, folder / "embedded", files, chunk_sizes[1])
        costs = {
            "machine": machine("cpu", 1),
            "load": os.getloadavg()[0],
            "chunk_size": chunk_sizes[1],
            "atoms": float(np.mean([len(c.structure or ()) for c in made])),
            "n": many.n,
            "n_chunks": [few.n_chunks, many.n_chunks],
            "steps": costs_of(few, many, clock),
            "embedded": {step: embedded.phases[step].processor / embedded.n[step] for step in STEPS},
            "take_commands": many.phases["take"].commands.total() / (many.n_chunks + 2),
            "evaluation": evaluation(meter, made[:200]),
            "bytes": {name: size / many.n["compute"] for name, size in (many.sizes | embedded.sizes).items()},
            "commands": {step: dict(sorted(many.phases[step].commands.items())) for step in (*STEPS, "take")},
            "documents": {step: many.phases[step].documents / many.n_chunks for step in STEPS},
        }
        with meter.phase("open"):
            Campaign.open(f"{uri}/chunks{chunk_sizes[0]}")
        opened = meter.phases["open"]
        costs["steps"]["open"] = {"commands": (opened.commands.total(), 0.0), "server": (opened.server, 0.0)}
        return costs | look(meter, f"{uri}/looks", clock) | start(f"{uri}/chunks{chunk_sizes[0]}")
