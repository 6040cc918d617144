"""
Simulate a campaign by discrete events: a reader, a queue in a database, workers, and runners that build documents.

Every process is a generator that yields the seconds until it goes on. What it does between two yields takes no time.
`scale.py` measures the costs, and compares the simulation with campaigns that run.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import insort
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

type Process = Generator[float]

BEAT, LOOK = 50.0, 1.0  # s between heartbeats of a worker, and between looks of a runner without work
FIRST_PAUSE, MAX_PAUSE = 0.3, 5.0  # s between looks of an idle worker
SILENCE = 300.0  # s after which another machine takes the chunk of a worker that died
_SLICE = 0.1  # s of processor time for which a process keeps a core


@dataclass(frozen=True)
class Cost:
    """
    Cost of a step: for a chunk, and for each of its candidates.

    Attributes
    ----------
    host
        Time of the process (s).
    commands, server
        Number of commands to the database, and the time that they take it (s).
    """

    host: tuple[float, float] = (0.0, 0.0)
    commands: tuple[float, float] = (0.0, 0.0)
    server: tuple[float, float] = (0.0, 0.0)

    def of(self, n: float) -> tuple[float, int, float]:
        """Return host time, commands and server time for a chunk of `n` candidates."""
        host, commands, server = (chunk + n * each for chunk, each in (self.host, self.commands, self.server))
        return host, max(round(commands), 1 if server else 0), server


@dataclass(frozen=True)
class Setup:
    """
    Campaign, machines and costs.

    Attributes
    ----------
    candidates, chunk_size, workers, workers_per_machine
        Numbers. Each machine has a runner, which builds the documents of its workers' chunks; the first one also reads.
    seconds, spread
        Time of the device per candidate (s), and the standard deviation of a chunk's time as a part of it.
    beside
        Whether the device works while the host does its part.
    start, restart
        Time from the start of a worker to its first look at the queue, and from its end to its next start (s).
    deaths, walltime
        Deaths of a worker per hour, and the time after which it is ended and gives its chunk back (s).
    connections
        Commands that the database serves at once.
    cores
        Cores of a machine, which its processes share; infinite: one for each process.
    steps
        Costs of ``open`` (by a worker that starts), ``read``, ``intake``, ``compute`` (without the device), ``finish``,
        ``build`` and ``rank``.
    look, held
        Time of the database for a command at the queue, and for each chunk in work that it returns (s).
    seed
        Seed of all random numbers.
    """

    candidates: int
    chunk_size: int = 500
    workers: int = 1
    workers_per_machine: int = 8
    seconds: float = 0.03
    spread: float = 0.2
    beside: bool = False
    start: float = 10.0
    restart: float = 5.0
    deaths: float = 0.0
    walltime: float = math.inf
    connections: int = 8
    cores: float = math.inf
    steps: Mapping[str, Cost] = field(default_factory=dict)
    look: float = 0.0
    held: float = 0.0
    seed: int = 0


class Clock:
    """Time, and the processes by the time at which they go on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Process]] = []
        self._ticket: dict[Process, int] = {}
        self._tickets = count()

    def plan(self, process: Process, seconds: float = 0.0) -> None:
        """Let a process go on after some seconds, whatever was planned for it before."""
        self._ticket[process] = next(self._tickets)
        heapq.heappush(self._due, (self.now + seconds, self._ticket[process], process))

    def drop(self, process: Process) -> None:
        """End a process."""
        del self._ticket[process]

    def run(self) -> None:
        """Run until no process is left."""
        while self._due:
            time, ticket, process = heapq.heappop(self._due)
            if self._ticket.get(process) != ticket:
                continue
            self.now = time
            seconds = next(process, None)
            if seconds is None:
                del self._ticket[process]
            else:
                self.plan(process, seconds)


class Station:
    """Servers that serve one request each, in the order of arrival."""

    def __init__(self, clock: Clock, servers: int) -> None:
        self._clock = clock
        self._free = [0.0] * servers
        self.n, self.busy, self.waited = 0, 0.0, 0.0

    def visit(self, seconds: float) -> float:
        """Return the time until a request that arrives now is served."""
        begin = max(self._clock.now, self._free[0])
        heapq.heapreplace(self._free, begin + seconds)
        self.n, self.busy, self.waited = self.n + 1, self.busy + seconds, self.waited + begin - self._clock.now
        return begin + seconds - self._clock.now


@dataclass
class Chunk:
    """A chunk of the queue."""

    number: int
    n: int
    left: int
    seconds: float
    state: str = "waiting"
    machine: int = -1
    since: float = 0.0

    @property
    def cost(self) -> float:
        """Expected cost; the costliest chunk is taken first."""
        return self.seconds * self.n


@dataclass
class Outcome:
    """
    Outcome of a simulation.

    Attributes
    ----------
    read, taken, computed, built, ranked
        Times at which the last candidate was read, the first chunk taken, the last one finished, its documents built,
        all ranked (s).
    n_computed, n_finished, n_chunks
        Candidates that were computed, candidates in finished chunks, and chunks.
    commands, waited
        Commands, and mean time that one waits for the database (s).
    lost_swaps, deaths, endings
        Chunks that another worker took first; workers that died, and that reached their time limit.
    busy
        Part of the time until `built` in which ``devices``, ``workers`` (device or host), the ``database``, the
        ``first runner`` and the busiest of the ``other runners`` work.
    """

    read: float = 0.0
    taken: float = math.inf
    computed: float = 0.0
    built: float = 0.0
    ranked: float = 0.0
    n_computed: int = 0
    n_finished: int = 0
    n_chunks: int = 0
    commands: int = 0
    waited: float = 0.0
    lost_swaps: int = 0
    deaths: int = 0
    endings: int = 0
    busy: dict[str, float] = field(default_factory=dict)


def simulate(setup: Setup) -> Outcome:
    """Simulate a campaign to its end."""
    return _Simulation(setup).run()


class _Simulation:
    def __init__(self, setup: Setup) -> None:
        self.setup, self.random, self.clock, self.out = setup, random.Random(setup.seed), Clock(), Outcome()
        self.database = Station(self.clock, setup.connections)
        n_machines = math.ceil(setup.workers / setup.workers_per_machine)
        self.cores = (
            [Station(self.clock, int(setup.cores)) for _ in range(n_machines)] if setup.cores < math.inf else []
        )
        self.inboxes: list[list[Chunk]] = [[] for _ in range(n_machines)]
        self.runners: dict[int, Process] = {}
        self.parked: set[int] = set()
        self.runner_busy, self.device_busy, self.worker_busy = [0.0] * n_machines, 0.0, 0.0
        self.waiting: list[tuple[float, int]] = []  # by cost, the costliest last
        self.taken: dict[int, Chunk] = {}
        self.chunks: list[Chunk] = []
        self.n_built, self.reading, self.over = 0, True, False

    def run(self) -> Outcome:
        setup, out = self.setup, self.out
        for machine in range(len(self.inboxes)):
            self.runners[machine] = self._runner(machine)
            self.clock.plan(self.runners[machine])
        for worker in range(setup.workers):
            self.clock.plan(self._worker(worker // setup.workers_per_machine))
        self.clock.run()
        host, commands, server = self._step("rank").of(setup.candidates)
        out.ranked = out.built + host + server
        out.n_chunks, out.commands = len(self.chunks), self.database.n + commands
        out.waited = self.database.waited / max(self.database.n, 1)
        busy = {
            "devices": self.device_busy / setup.workers,
            "workers": self.worker_busy / setup.workers,
            "database": self.database.busy / setup.connections,
            "first runner": self.runner_busy[0],
            "other runners": max(self.runner_busy[1:], default=0.0),
        }
        out.busy = {name: seconds / out.built for name, seconds in busy.items()}
        return out

    def _step(self, name: str) -> Cost:
        return self.setup.steps.get(name, Cost())

    def _ask(self, commands: int, server: float) -> Process:
        """Send commands, one after the other."""
        for _ in range(commands):
            yield self.database.visit(server / commands)

    def _work(self, machine: int, seconds: float) -> Process:
        """Use a core of a machine, in slices that other processes of the machine interrupt."""
        if not self.cores:
            yield seconds
            return
        while seconds > 0:
            yield self.cores[machine].visit(min(seconds, _SLICE))
            seconds -= _SLICE

    def _do(self, name: str, n: int, machine: int) -> Process:
        host, commands, server = self._step(name).of(n)
        yield from self._work(machine, host)
        yield from self._ask(commands, server)

    def _runner(self, machine: int) -> Process:
        if machine == 0:
            yield from self._read()
        while not self.over:
            if self.inboxes[machine]:
                yield from self._build(machine)
            else:
                yield from self._ask(1, self.setup.look)
                if not self.inboxes[machine]:
                    self.parked.add(machine)
                    yield LOOK
                    self.parked.discard(machine)

    def _read(self) -> Process:
        setup, left = self.setup, self.setup.candidates
        while left:
            n = min(setup.chunk_size, left)
            left -= n
            begin = self.clock.now
            yield from self._do("read", n, 0)
            yield from self._do("intake", n, 0)
            self.runner_busy[0] += self.clock.now - begin
            factor = max(self.random.gauss(1.0, setup.spread), 0.05) if setup.spread else 1.0
            chunk = Chunk(len(self.chunks), n, n, setup.seconds * factor)
            self.chunks.append(chunk)
            insort(self.waiting, (chunk.cost, chunk.number))
            while self.inboxes[0]:
                yield from self._build(0)
        self.reading, self.out.read = False, self.clock.now
        self._end_if_built()

    def _build(self, machine: int) -> Process:
        begin = self.clock.now
        yield from self._do("build", self.inboxes[machine].pop(0).n, machine)
        self.runner_busy[machine] += self.clock.now - begin
        self.n_built += 1
        self._end_if_built()

    def _end_if_built(self) -> None:
        if not self.reading and self.n_built == len(self.chunks) and not self.over:
            self.over, self.out.built = True, self.clock.now

    def _worker(self, machine: int) -> Process:
        setup = self.setup
        while not self.over:
            yield from self._work(machine, setup.start * (self.random.uniform(0.9, 1.1) if setup.spread else 1.0))
            yield from self._do("open", 1, machine)
            death = self.random.expovariate(setup.deaths / 3600) if setup.deaths else math.inf
            ends, pause = self.clock.now + min(death, setup.walltime), FIRST_PAUSE
            while self.clock.now < ends and not self.over:
                chunk = yield from self._take(machine)
                if chunk is None:
                    yield pause
                    pause = min(2 * pause, MAX_PAUSE)
                else:
                    yield from self._compute(chunk, machine, ends, dies=death < setup.walltime)
                    pause = FIRST_PAUSE
            if not self.over:
                self.out.deaths += death < setup.walltime
                self.out.endings += death >= setup.walltime
                yield setup.restart

    def _take(self, machine: int) -> Generator[float, None, Chunk | None]:
        """Take a chunk as `matris.flows.queue.queue.WorkQueue.take` does."""
        look, n_choice = self.setup.look, 1
        yield from self._ask(1, look + self.setup.held * len(self.taken))
        left = (chunk for chunk in self.taken.values() if chunk.state == "left")
        chunk = next((c for c in left if c.machine == machine or self.clock.now - c.since > SILENCE), None)
        while True:
            if chunk is None:
                yield from self._ask(1, look)
                if not self.waiting:
                    return None
                chunk = self.chunks[self.random.choice(self.waiting[-n_choice:])[1]]
            expected = chunk.state
            yield from self._ask(1, look)
            if chunk.state == expected and expected != "taken":
                break
            self.out.lost_swaps += 1
            chunk, n_choice = None, 2 * n_choice
        if chunk.state == "waiting":
            self.waiting.remove((chunk.cost, chunk.number))
        chunk.state, chunk.machine, self.taken[chunk.number] = "taken", machine, chunk
        yield from self._ask(1, look)
        self.out.taken = min(self.out.taken, self.clock.now)
        return chunk

    def _compute(self, chunk: Chunk, machine: int, ends: float, *, dies: bool) -> Process:
        """Compute what is left of a chunk, or as much of it as the worker's end allows: the journal keeps that."""
        begin, left = self.clock.now, chunk.left
        host, commands, server = self._step("compute").of(left)
        device = chunk.seconds * left
        seconds = max(host, device) if self.setup.beside else host + device
        heartbeat = self._beat()
        self.clock.plan(heartbeat, BEAT)
        if begin + seconds < ends:
            yield from self._work(machine, host)
            yield seconds - host
        else:
            yield ends - begin
            left = int(left * (ends - begin) / seconds)
        self.clock.drop(heartbeat)
        self.worker_busy += self.clock.now - begin
        chunk.left -= left
        self.device_busy += chunk.seconds * left
        self.out.n_computed += left
        if self.clock.now >= ends and begin + seconds >= ends:
            yield from self._leave(chunk, dies=dies)
            return
        yield from self._ask(commands, server)
        yield from self._do("finish", chunk.n, machine)
        chunk.state, self.out.computed = "done", self.clock.now
        del self.taken[chunk.number]
        self.out.n_finished += chunk.n
        self.inboxes[machine].append(chunk)
        if machine in self.parked:
            self.clock.plan(self.runners[machine])

    def _leave(self, chunk: Chunk, *, dies: bool) -> Process:
        """Leave a chunk: without a word, or giving it back to the queue."""
        chunk.state, chunk.since = "left", self.clock.now
        if not dies:
            yield from self._ask(1, self.setup.look)
            if chunk.state == "left":
                chunk.state = "waiting"
                del self.taken[chunk.number]
                insort(self.waiting, (chunk.cost, chunk.number))

    def _beat(self) -> Process:
        while True:
            yield from self._ask(1, self.setup.look)
            yield BEAT
