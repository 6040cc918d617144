"""
Measure what a campaign costs beside its model, and simulate large ones: ``python benchmarks/scale.py --help``.

``measure`` runs small campaigns with the stand-in (`standin.py`) on the tests' server of MongoDB's protocol and in the
embedded store. It prints the costs of each step, and writes them as JSON. ``needs`` multiplies them by numbers of
candidates. ``simulate`` simulates campaigns with 1 to 512 workers by discrete events (`simulated_campaign.py`).
``check`` compares the simulation with worker processes that share a queue and sleep for each chunk; ``check
--campaign`` with a whole campaign in which only the potential sleeps, and which needs a quiet machine. ``hull``
measures the hulls of many documents in one process.
Times are processor times, but for those of ``check``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from command_meter import FOLDER, CommandMeter, count_here
from simulated_campaign import LOOK, Cost, Setup, simulate

if TYPE_CHECKING:
    from matris.flows.queue.queue import WorkQueue

WORKERS = (1, 8, 64, 512)
TOLERANCE = 0.15
"""Largest relative difference of the check's throughput and number of commands from the simulation's."""

COUNTING_WORKER = "from scale import counted_worker; counted_worker()"


def setup_of(costs: dict[str, Any], **options: Any) -> Setup:
    """Make the setup of a simulation from measured costs."""
    steps = {name: Cost(**{key: tuple(pair) for key, pair in cost.items()}) for name, cost in costs["steps"].items()}
    return Setup(steps=steps, look=costs["look"], held=costs["held"], start=costs["start"], **options)


def stored_bytes(costs: dict[str, Any]) -> float:
    """Return the bytes that a candidate keeps in the database, without indexes."""
    return sum(size for name, size in costs["bytes"].items() if name not in {"journal", "waiting", "embedded"})


def print_costs(costs: dict[str, Any]) -> None:
    """Print the measured costs."""
    print(
        f"{costs['machine']}; load {costs['load']:.1f}; {costs['n']['read']} candidates of {costs['atoms']:.1f} atoms; "
        f"chunks of {costs['chunk_size']}"
    )
    row("step", "host, ms per candidate", "with the embedded store, ms", "commands per chunk", "and per candidate",
        "server, ms per candidate")  # fmt: skip
    row(*["---"] * 6)
    for step, own in costs["embedded"].items():
        cost = costs["steps"][step]
        chunk, each = cost["commands"]
        row(step, f"{1e3 * cost['host'][1]:.2f}", f"{1e3 * own:.2f}", f"{chunk:.0f}", f"{each:.2f}",
            f"{1e3 * cost['server'][1]:.2f}")  # fmt: skip
    print(
        f"\nstart of a worker: {costs['start']:.1f} s and {costs['steps']['open']['commands'][0]:.0f} commands\n"
        f"taking a chunk: {costs['take_commands']:.0f} commands of {1e3 * costs['look']:.2f} ms, and of one of them "
        f"{1e6 * costs['held']:.0f} µs for each chunk in work\n"
        f"host per evaluation beyond the first: {1e6 * costs['evaluation']:.0f} µs\n"
        f"in the database, without indexes: {stored_bytes(costs):.0f} bytes per candidate\n"
    )
    row("place", "bytes per candidate")
    row("---", "---")
    for name, size in costs["bytes"].items():
        row(name, f"{size:.0f}")


def row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def print_needs(costs: dict[str, Any], options: argparse.Namespace) -> None:
    """Print what campaigns need, and how many workers one reader supplies."""
    steps = setup_of(costs, candidates=0).steps
    host = {name: step.of(options.chunk_size)[0] / options.chunk_size for name, step in steps.items()}
    server = {name: steps[name].of(options.chunk_size)[2] / options.chunk_size for name in costs["embedded"]}
    asked = sum(steps[name].of(options.chunk_size)[1] for name in costs["embedded"]) + costs["take_commands"]
    worker = host["compute"] + costs["evaluation"] * (options.evaluations - 1)
    reader = host["read"] + host["intake"] + server["intake"]
    row("", *(f"{n:.0e} candidates" for n in options.candidates))
    row(*["---"] * (1 + len(options.candidates)))
    needs = {f"hours of devices, at {1e3 * seconds:g} ms each": seconds / 3600 for seconds in options.seconds} | {
        f"hours of the workers' hosts, at {1e3 * worker:.1f} ms": worker / 3600,
        f"hours of one reader, at {1e3 * reader:.1f} ms": reader / 3600,
        "hours of building documents": (host["build"] + server["build"]) / 3600,
        "hours of one ranking process": (host["rank"] + server["rank"]) / 3600,
        "hours of one core of the database": (sum(server.values()) + costs["look"] * 5 / options.chunk_size) / 3600,
        f"millions of commands, in chunks of {options.chunk_size}": asked / options.chunk_size / 1e6,
        "GB in the database, without indexes": stored_bytes(costs) / 1e9,
        "GB in the embedded store, with indexes": costs["bytes"]["embedded"] / 1e9,
    }
    for name, each in needs.items():
        row(name, *(f"{each * n:.2g}" if each * n < 100 else f"{each * n:,.0f}" for n in options.candidates))
    print("\nworkers that one reader supplies: " + ", ".join(
        f"{(seconds + worker) / reader:.0f} at {1e3 * seconds:g} ms" for seconds in options.seconds))  # fmt: skip


def print_simulations(costs: dict[str, Any], options: argparse.Namespace) -> None:
    """Simulate campaigns of growing numbers of workers, and print a table."""
    print(
        f"{options.candidates} candidates in chunks of {options.chunk_size}, {1e3 * options.seconds:g} ms of a device "
        f"each; {options.machine} workers per machine; {options.deaths:g} deaths per worker and hour, time limit "
        f"{options.walltime / 3600:g} h; database: {options.connections} commands at once; "
        f"{stored_bytes(costs) * options.candidates / 1e9:.1f} GB without indexes"
    )
    row("workers", "candidates/s", "hours: read", "built", "ranked", "commands/s", "wait, ms", "database busy",
        "devices busy", "first runner busy", "bottleneck", "deaths", "time limits", "took, s")  # fmt: skip
    row(*["---"] * 14)
    for workers in options.workers:
        begin = time.perf_counter()
        out = simulate(setup_of(costs, candidates=options.candidates, chunk_size=options.chunk_size, workers=workers,
                                workers_per_machine=options.machine, seconds=options.seconds, beside=options.beside,
                                deaths=options.deaths, walltime=options.walltime,
                                connections=options.connections))  # fmt: skip
        assert out.n_computed == out.n_finished == options.candidates, out
        bottleneck = max((name for name in out.busy if name != "devices"), key=lambda name: out.busy[name])
        row(f"{workers}", f"{options.candidates / out.built:.0f}",
            *(f"{seconds / 3600:.2f}" for seconds in (out.read, out.built, out.ranked)),
            f"{out.commands / out.built:.0f}", f"{1e3 * out.waited:.2f}", f"{out.busy['database']:.1%}",
            f"{out.busy['devices']:.0%}", f"{out.busy['first runner']:.0%}", bottleneck, f"{out.deaths}",
            f"{out.endings}", f"{time.perf_counter() - begin:.0f}")  # fmt: skip


def sleeping_worker(worker: ModuleType, address: str, ready: Any, over: Any, tell: Any) -> None:
    """Work as a worker process does, but sleep for the cost of each chunk; tell the number of commands."""
    meter = CommandMeter()
    worker._run_job = lambda _, item, *__: time.sleep(item.cost)  # noqa: SLF001
    nothing = SimpleNamespace(queue=open_queue(address), name="check", stage_maker=lambda *_: None)
    ready.wait()
    meter.phases.clear()
    worker.work(nothing, None, lambda *_, **__: None, over.wait)
    tell.put(sum(phase.commands.total() for phase in meter.phases.values()))


def open_queue(address: str) -> WorkQueue:
    """Open a work queue on a server."""
    from matris.flows.queue.queue import WorkQueue
    from matris.stores.database.mongo import ResultsMongoStore

    store = ResultsMongoStore.from_uri(address, "work_queue", "check", key="work_id")
    store.connect()
    return WorkQueue(store)


def check_queue(options: argparse.Namespace, meter: CommandMeter) -> bool:
    """Share chunks among workers that sleep, with a reader that sleeps too; simulate it; whether both agree."""
    from campaign_costs import look
    from peers import machine

    from matris.flows.local import worker
    from stores import start_server

    processes, n = multiprocessing.get_context("fork"), options.workers  # before this process has connections
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = start_server(folder, stack)
        assert address, "no server of MongoDB's protocol: pip install secantusdb==0.6.0b17"
        ready, over, tell = processes.Barrier(n + 1), processes.Event(), processes.Queue()
        for _ in range(n):
            arguments = (worker, address, ready, over, tell)
            processes.Process(target=sleeping_worker, args=arguments, daemon=True).start()
        queue, costs = open_queue(address), look(meter, f"{address}/looks", "wall")
        one = Cost(commands=(1, 0), server=(costs["look"], 0))
        steps = {"read": Cost(host=(0, options.read)), "intake": one, "finish": one}
        setup = Setup(options.candidates, options.chunk_size, n, seconds=options.seconds, start=0.0, steps=steps,
                      look=costs["look"], held=costs["held"], connections=2)  # fmt: skip
        times = random.Random(0)
        ready.wait()
        meter.phases.clear()
        begin = time.perf_counter()
        for first in range(0, options.candidates, options.chunk_size):
            size = min(options.chunk_size, options.candidates - first)
            time.sleep(size * options.read)
            cost = size * options.seconds * max(times.gauss(1.0, setup.spread), 0.05)
            about = {"campaign": "check", "stage": "relax", "cost": cost, "n": size, "payload": {}}
            queue.put([{"work_id": f"{first}", **about}])
        while queue.is_open("check"):
            time.sleep(LOOK)
        spent = time.perf_counter() - begin
        over.set()
        commands = sum(tell.get() for _ in range(n)) + sum(phase.commands.total() for phase in meter.phases.values())
    outs = [simulate(replace(setup, seed=seed)) for seed in range(10)]
    print(
        f"{machine('cpu', 1)}; load {os.getloadavg()[0]:.1f}; {options.candidates} candidates, chunks of "
        f"{options.chunk_size}, {n} workers that sleep {1e3 * options.seconds:g} ms per candidate, a reader that "
        f"sleeps {1e3 * options.read:g} ms; simulation: mean of {len(outs)}\n"
    )
    rate, simulated = "candidates/s", mean(options.candidates / out.built for out in outs)
    return compared(
        {rate: (options.candidates / spent, simulated), "commands": (commands, mean(out.commands for out in outs))}
    )


def check_campaign(options: argparse.Namespace, meter: CommandMeter) -> bool:
    """Run a campaign whose potential sleeps, and simulate it; whether both agree within the tolerance."""
    from campaign_costs import candidates, measure
    from standin import StandInMaker

    from matris.flows.campaign.campaign import Campaign
    from matris.flows.local import runner
    from stores import start_server

    sizes = (options.chunk_size // 2, options.chunk_size)
    costs = measure(meter, min(options.candidates, 400), sizes, 2, "wall")
    costs["steps"]["read"] = {}  # the candidates of the run are in memory
    made = candidates(options.candidates, 2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(os.chdir, Path.cwd())
        os.chdir(folder)
        maker = StandInMaker(seconds=options.seconds)
        campaign = Campaign(f"{start_server(folder, stack)}/check", maker, chunk_size=options.chunk_size)
        os.environ[FOLDER] = str(folder / "counts")
        (folder / "counts").mkdir()
        runner._WORKER = COUNTING_WORKER  # noqa: SLF001
        done: list[float] = []
        meter.phases.clear()
        begin = time.perf_counter()
        with meter.phase("run"):
            runner.run(campaign, made, ["cpu"] * options.workers,
                       lambda event: done.append(time.perf_counter() - begin) if event["event"] == "done" else None,
                       )  # fmt: skip
        commands = meter.phases["run"].commands.total()
        for file in (folder / "counts").iterdir():
            commands += sum(sum(counts.values()) for counts in json.loads(file.read_text(encoding="utf-8")).values())
        n = campaign.record()["intake"]["queued"]
    out = simulate(setup_of(costs, candidates=n, chunk_size=options.chunk_size, workers=options.workers, spread=0.0,
                            seconds=options.seconds, connections=2, cores=os.cpu_count() or 1))  # fmt: skip
    print(
        f"{costs['machine']}; load {costs['load']:.1f} and {os.getloadavg()[0]:.1f}; {n} candidates, chunks of "
        f"{options.chunk_size}, {options.workers} workers that sleep {1e3 * options.seconds:g} ms per candidate\n"
    )
    rate = "candidates/s, with the start of workers"
    return compared({rate: (n / done[-1], n / out.computed), "commands": (commands, out.commands)})


def counted_worker() -> None:
    """Work as a worker process of `check_campaign` does, and count the commands."""
    count_here()
    from matris.flows.local.worker import main as work

    work()


def compared(results: dict[str, tuple[float, float]]) -> bool:
    """Print what was measured and what was simulated; whether they agree within the tolerance."""
    row("", "measured", "simulated", "difference")
    row(*["---"] * 4)
    agree = True
    for name, (measured, simulated) in results.items():
        difference = simulated / measured - 1
        agree &= abs(difference) <= TOLERANCE
        row(name, f"{measured:.1f}", f"{simulated:.1f}", f"{difference:+.1%}")
    print(f"\nTolerance {TOLERANCE:.0%}: " + ("they agree." if agree else "they differ."))
    return agree


def print_hulls(options: argparse.Namespace) -> None:
    """Place growing numbers of documents on a self-consistent hull, and print time and memory."""
    from campaign_costs import hull_documents

    from matris.stores.candidate_store import CandidateStore

    def placed(store: CandidateStore) -> float:
        begin = time.process_time()
        store.update_hulls()
        return time.process_time() - begin

    row("documents", "s", "ms per document", "growth of the peak of memory, MB", "after one more document, s")
    row(*["---"] * 5)
    for number in options.documents:
        with tempfile.TemporaryDirectory() as folder:
            store, made = CandidateStore.open(folder), hull_documents(number + 1)
            store.docs.update(made[:-1], key="document_id")
            before = peak_mb()
            first, grown = placed(store), peak_mb() - before
            store.docs.update(made[-1:], key="document_id")
            row(f"{number}", f"{first:.1f}", f"{1e3 * first / number:.2f}", f"{grown:.0f}", f"{placed(store):.2f}")


def peak_mb() -> float:
    """Return the peak memory of this process (MB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="costs of small campaigns")
    measuring.add_argument("file", type=Path, help="JSON file for the costs")
    measuring.add_argument("--candidates", type=int, default=1000)
    measuring.add_argument("--chunk-size", type=int, default=500)
    measuring.add_argument("--repeats", type=int, default=2, help="cells of a prototype in a candidate")
    needing = commands.add_parser("needs", help="hours, commands and bytes of large campaigns")
    needing.add_argument("file", type=Path, help="costs from measure")
    needing.add_argument("--candidates", type=float, nargs="+", default=[1e6, 1e8])
    needing.add_argument("--chunk-size", type=int, default=500)
    needing.add_argument("--evaluations", type=float, default=15.0, help="of a relaxation, see optimizers.py")
    needing.add_argument("--seconds", type=float, nargs="+", default=[0.005, 0.03, 0.1, 1.3],
                         help="times of a device per candidate")  # fmt: skip
    simulating = commands.add_parser("simulate", help="large campaigns")
    simulating.add_argument("file", type=Path, help="costs from measure")
    simulating.add_argument("--candidates", type=int, default=1_000_000)
    simulating.add_argument("--chunk-size", type=int, default=500)
    simulating.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    simulating.add_argument("--machine", type=int, default=8, help="workers per machine")
    simulating.add_argument("--seconds", type=float, default=0.03, help="time of a device per candidate")
    simulating.add_argument("--beside", action="store_true", help="the host does its part while the device works")
    simulating.add_argument("--deaths", type=float, default=0.01, help="deaths per worker and hour")
    simulating.add_argument("--walltime", type=float, default=math.inf, help="time limit of a worker (s)")
    simulating.add_argument("--connections", type=int, default=8, help="commands that the database serves at once")
    checking = commands.add_parser("check", help="the simulation against processes")
    checking.add_argument("--campaign", action="store_true", help="a whole campaign, on a quiet machine")
    checking.add_argument("--candidates", type=int, default=3000)
    checking.add_argument("--chunk-size", type=int, default=50)
    checking.add_argument("--workers", type=int, default=4)
    checking.add_argument("--seconds", type=float, default=0.05, help="sleep of a worker per candidate")
    checking.add_argument("--read", type=float, default=0.01, help="sleep of the reader per candidate")
    placing = commands.add_parser("hull", help="hulls of many documents")
    placing.add_argument("--documents", type=int, nargs="+", default=[10_000, 30_000])
    return parser.parse_args()


def main() -> None:
    """Run one of the commands."""
    options = parsed()
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])  # of workers
    if options.command == "needs":
        print_needs(json.loads(options.file.read_text(encoding="utf-8")), options)
    elif options.command == "simulate":
        print_simulations(json.loads(options.file.read_text(encoding="utf-8")), options)
    elif options.command == "hull":
        print_hulls(options)
    elif options.command == "check":
        sys.exit(not (check_campaign if options.campaign else check_queue)(options, CommandMeter()))
    else:
        meter = CommandMeter()
        from campaign_costs import measure

        sizes = (options.chunk_size // 2, options.chunk_size)
        costs = measure(meter, options.candidates, sizes, options.repeats, "processor")
        options.file.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
        print_costs(costs)


if __name__ == "__main__":
    main()
