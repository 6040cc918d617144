"""Run a campaign on one machine: a worker process for each device or core, restarted when it dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from maggma.stores import MemoryStore

from matris.errors import MatrisError
from matris.flows.campaign.harvest import forget_incomplete, harvest, record_given_up
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.sharing import ALONE, Sharing
from matris.flows.campaign.survivors import advance, ranking_inputs
from matris.flows.local.first_failures import FirstFailures, RunStopped, forget_chunks
from matris.flows.local.processes import default_devices, environment_of, on_gpu
from matris.flows.local.worker import work
from matris.makers.decoding import environment_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matris.flows.campaign.campaign import Campaign
    from matris.flows.campaign.computation import Computation
    from matris.flows.campaign.events import Watch
    from matris.stores.documents.candidate import Candidate

MAX_FAILED_STARTS = 3
"""Times in a row that worker processes may die before they take a chunk."""

_WORKER = "from matris.flows.local.worker import main; main()"
_GRACE = 20.0  # seconds for a process that is told to stop to give its chunk back
_POLL_INTERVAL = 1.0  # seconds between looks at the queue
_CPU_CHUNK, _GPU_CHUNK = 4, 50  # candidates in the first chunks for several processes


def run(
    campaign: Campaign,
    candidates: Iterable[Candidate] = (),
    devices: Sequence[str | None] | None = None,
    watch: Watch = lambda _: None,
    *,
    keep_going: bool = False,
) -> None:
    """
    Run a campaign to its end: read, relax, rank, and compute properties of the survivors.

    A further run, with the same or with more candidates, computes what is missing. Several runners may share a
    campaign.

    Parameters
    ----------
    campaign
        Open campaign.
    candidates
        Candidates, read one by one while the devices work.
    devices
        Devices, with one worker process each; a device may be named twice. None is the device of the campaign's Maker.
        Default: the whole machine, see `matris.flows.local.processes.default_devices`. No more processes start than
        there are chunks. With an empty sequence the calling process computes, and a candidate that kills its process
        ends the run.
    watch
        Function that is called with every event: ``{"event": "candidate", "state": …, "error": …,
        "is_reference": …}``, ``"took"``, ``"done"``, ``"failed"``, ``"died"``, ``"waiting"``; ``{"event": "read", …}``
        with the counts of `matris.flows.campaign.intake.Intake`; ``{"event": "stage", "stage": …, "n": …}``;
        ``{"event": "started", "n": …}`` with the number of worker processes.
    keep_going
        Whether to go on if the first candidates all fail for one reason
        (`matris.makers.failing_alike.FAILED_ALIKE` of them).

    Raises
    ------
    MatrisError
        If no process can work: the disk is full, the checkpoint is missing, or processes die at their start. If the
        first candidates all fail for one reason; their results are not kept.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.flows import Campaign, Funnel, run
    >>> from matris.makers import BatchRelaxMaker
    >>> from matris.stores.documents.candidate import Candidate
    >>> iron = Candidate.from_structure(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]), "iron.cif")
    >>> campaign = Campaign("results", BatchRelaxMaker(device="cpu", max_steps=1), Funnel(hull=False), title="Iron")
    >>> events = []
    >>> run(campaign, [iron, iron], devices=(), watch=events.append)
    >>> [(event["read"], event["identical"]) for event in events if event["event"] == "read"][-1]
    (2, 1)
    """
    fills_cores = False
    if devices is None:
        devices = default_devices(campaign.maker.device)
        fills_cores = not on_gpu(devices)
    if devices and type(campaign.job_store.docs_store) is MemoryStore:
        raise MatrisError(
            "the job store of the jobflow configuration is in memory, which worker processes do not see: give a store, "
            "for example a folder"
        )
    first = FirstFailures()

    def see(event: dict[str, Any]) -> None:
        watch(event)
        if not keep_going:
            first.see(event)
        if event["event"] == "done":
            harvest(campaign, [event["work_id"]])

    try:
        _run(campaign, candidates, Workers(campaign, devices, see, fills_cores) if devices else Here(campaign, see))
    except RunStopped as stop:
        forget_chunks(campaign, first.chunks)
        campaign.keep(stopped=str(stop), reading=False)
        raise MatrisError(str(stop)) from None


def _run(campaign: Campaign, candidates: Iterable[Candidate], processes: Workers | Here) -> None:
    """Run a campaign to its end, with worker processes or in this process."""
    ranked = campaign.record().get("ranked")
    campaign.queue.revive(campaign.name)
    harvest(campaign)
    forget_incomplete(campaign)
    campaign.sharing = processes.sharing
    with processes as workers:
        for counts in take_in(campaign, candidates, workers.attend):
            workers.watch({"event": "read", **counts.to_dict()})
            workers.attend()
        while True:
            while campaign.queue.is_open(campaign.name):
                workers.attend(_POLL_INTERVAL)
            inputs = ranking_inputs(campaign)
            harvest(campaign)
            record_given_up(campaign)
            stages = advance(campaign, inputs, ranked)
            if not stages and not campaign.queue.is_open(campaign.name):
                break
            for stage, n in stages.items():
                workers.watch({"event": "stage", "stage": stage, "n": n})


@dataclass
class Here:
    """
    The calling process, with the methods of `Workers`.

    Parameters
    ----------
    campaign
        Open campaign.
    watch
        Function that is called with every event.
    """

    campaign: Campaign
    watch: Watch
    sharing: ClassVar[Sharing] = ALONE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def attend(self, poll_interval: float = 0.0) -> None:
        """Work through the queue; sleep for `poll_interval` seconds if other runners hold the rest."""

        def emit(event: str, **fields: Any) -> None:
            self.watch({"event": event, **fields})

        work(self.campaign, None, emit, lambda _: True)
        if self.campaign.queue.is_open(self.campaign.name):
            time.sleep(poll_interval)


@dataclass
class _Worker:
    """A worker process on a device."""

    device: str | None
    process: subprocess.Popen[str]
    took: bool = False
    busy: bool = False
    error: str | None = None


@dataclass
class Workers:
    """
    The worker processes of a campaign, or of other work in chunks.

    They start when there is work, at most one for each chunk, and stop with the context.

    Parameters
    ----------
    campaign
        Open campaign, or other work in chunks.
    devices
        Devices, with one process each.
    watch
        Function that is called with every event.
    fills_cores
        Whether the processes stand for the cores of the machine: where there are fewer chunks than processes, fewer
        start, and share the cores as threads.
    """

    campaign: Computation
    devices: Sequence[str | None]
    watch: Watch
    fills_cores: bool = False
    _running: list[_Worker] = field(default_factory=list)
    _events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = field(default_factory=queue.Queue)
    _failed_starts: int = 0
    _n_processes: int = 1

    @property
    def sharing(self) -> Sharing:
        """How chunks are cut for these processes."""
        names = [name or self.campaign.maker.device for name in self.devices]
        return Sharing(len(names), _GPU_CHUNK if on_gpu(names) else _CPU_CHUNK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop(at_once=kind is not None)

    def attend(self, poll_interval: float = 0.0) -> None:
        """
        Handle the events of the processes, and start processes if there is work.

        Parameters
        ----------
        poll_interval
            Seconds to wait for an event; 0 while candidates are read, when more chunks may come at any time.
        """
        if len(self._running) < len(self.devices):
            self._provide(reading=not poll_interval)
        try:
            self._handle(*self._events.get(timeout=poll_interval) if poll_interval else self._events.get_nowait())
            while True:
                self._handle(*self._events.get_nowait())
        except queue.Empty:
            return

    def _provide(self, *, reading: bool) -> None:
        """Start the processes that lack: one for each chunk, as far as there are devices."""
        if not self.campaign.queue.is_open(self.campaign.name):
            return
        n_busy = sum(worker.busy for worker in self._running)
        n_chunks = self.campaign.queue.n_waiting(self.campaign.name) + n_busy
        n = min(len(self.devices), max(1, n_chunks))  # none may wait because another runner holds the rest
        if n <= len(self._running):
            return
        if self.fills_cores:
            more_may_come = reading and n < len(self.devices)
            if n_busy or more_may_come:  # the number of threads of a process is fixed when it starts
                return
            self._stop(at_once=True)  # they are idle
        self._n_processes = n if self.fills_cores else len(self.devices)
        free = list(self.devices)
        for worker in self._running:
            free.remove(worker.device)
        for device in free[: n - len(self._running)]:
            self._start(device)
        self.watch({"event": "started", "n": len(self._running)})

    def _stop(self, *, at_once: bool = False) -> None:
        """End all processes: when they have computed what is left, or at once."""
        for worker in self._running:
            if at_once:
                worker.process.terminate()
            else:
                _send_line(worker.process, "finish\n")
                _close_input(worker.process)
        for worker in self._running:
            try:
                worker.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._running.clear()

    def _start(self, device: str | None) -> None:
        """Start a worker process, and a thread that reads its events."""
        reading, writing = os.pipe()
        task = {**self.campaign.task(), "device": device, "events": writing}
        sharers = self._n_processes if self.fills_cores else self.devices.count(device)
        variables = environment_for(self.campaign.maker.as_dict()) | environment_of(self._n_processes, sharers)
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-W", "ignore", "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=2,  # events go through a pipe of their own
            pass_fds=[writing],
            env=os.environ | variables,
            text=True,
        )
        os.close(writing)
        _send_line(process, json.dumps(task) + "\n")  # by a pipe: a command line would show the store's password to all
        worker = _Worker(device, process)
        self._running.append(worker)
        threading.Thread(target=self._listen, args=(worker, reading), daemon=True).start()

    def _listen(self, worker: _Worker, reading: int) -> None:
        """Put the events of a worker process into the queue of events; None at its end."""
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.endswith("\n"):  # a killed process may leave an incomplete line
                    self._events.put((worker, json.loads(line)))
        self._events.put((worker, None))

    def _handle(self, worker: _Worker, event: dict[str, Any] | None) -> None:
        """Handle one event of a worker process; None is its end."""
        if event is None:
            if worker in self._running:  # not told to stop
                self._restart(worker)
            return
        if event["event"] == "took":
            worker.took, worker.busy, self._failed_starts = True, True, 0
        elif event["event"] in {"done", "failed", "lost"}:
            worker.busy = False
        elif event["event"] == "error":
            worker.error = event["error"]
        self.watch(event)

    def _restart(self, worker: _Worker) -> None:
        """
        Start a new process in place of one that died; its chunk is free for the next process.

        Raises
        ------
        MatrisError
            If the process reported an error, or processes keep dying at their start.
        """
        self._running.remove(worker)
        code = worker.process.wait()
        if worker.error is not None:
            raise MatrisError(worker.error)
        if code == 0:
            return
        self._failed_starts += not worker.took
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.watch({"event": "died", "device": worker.device, "cause": cause})
        if self._failed_starts >= MAX_FAILED_STARTS:
            name = worker.device or "the device"
            raise MatrisError(
                f"the worker process for {name} died {MAX_FAILED_STARTS} times before it took a chunk ({cause}): "
                "see its messages above"
            )
        self._start(worker.device)


def _send_line(process: subprocess.Popen[str], line: str) -> None:
    """Send a line to the standard input of a process; a process that has ended is ignored."""
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    with suppress(BrokenPipeError):
        process.stdin.write(line)
        process.stdin.flush()


def _close_input(process: subprocess.Popen[str]) -> None:
    """Close the standard input of a process; a process that has ended is ignored."""
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    with suppress(BrokenPipeError):
        process.stdin.close()
