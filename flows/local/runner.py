"""Running a campaign on one machine: a process for each device, watched and started again when it dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from matris.errors import MatrisError
from matris.flows.campaign.harvest import harvest, record_given_up
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.survivors import advance
from matris.flows.local.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matris.flows.campaign.campaign import Campaign
    from matris.stores.documents.candidate import Candidate

MAX_FAILED_STARTS = 3
"""Times in a row that worker processes may die before they take a chunk."""

_WORKER = "from matris.flows.local.worker import main; main()"
_GRACE = 20.0  # seconds in which a process that is told to stop gives back what it has
_LOOK = 1.0  # seconds between looks at the queue

type Watch = Callable[[dict[str, Any]], None]


def run(
    campaign: Campaign,
    candidates: Iterable[Candidate] = (),
    devices: Sequence[str | None] = (None,),
    watch: Watch = lambda _: None,
) -> None:
    """
    Run a campaign to its end: read, relax, rank, compute properties of what survives.

    Run again, with the same or with more candidates, it computes what is missing. Several runners may share a campaign.

    Parameters
    ----------
    campaign
        Open.
    candidates
        Read one by one, while the devices work.
    devices
        A process each; a device may be named twice. None leaves the choice to the campaign's Maker. Without any, this
        process computes, and dies of what a candidate may do to it.
    watch
        Called with every event: ``{"event": "candidate", "state": …}``, ``"took"``, ``"done"``, ``"failed"``,
        ``"died"``, ``"waiting"``; with ``{"event": "read", …}`` and the counts of
        `matris.flows.campaign.intake.Intake`; and with ``{"event": "stage", "stage": …, "n": …}``.

    Raises
    ------
    MatrisError
        If the processes cannot work at all: the disk is full, the checkpoint is gone, they die before they begin.
    """
    campaign.queue.revive(campaign.name)
    harvest(campaign)
    with Workers(campaign, devices, watch) if devices else Here(campaign, watch) as workers:
        for counts in take_in(campaign, candidates):
            watch({"event": "read", **counts.to_dict()})
            workers.attend()
        while True:
            while campaign.queue.is_open(campaign.name):
                workers.attend(_LOOK)
            harvest(campaign)
            record_given_up(campaign)
            stages = advance(campaign)
            if not stages:
                break
            for stage, n in stages.items():
                watch({"event": "stage", "stage": stage, "n": n})


@dataclass
class Here:
    """
    The calling process in the place of `Workers`.

    Parameters
    ----------
    campaign
        Open.
    watch
        Called with every event.
    """

    campaign: Campaign
    watch: Watch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def attend(self, poll_interval: float = 0.0) -> None:
        """Work through what is in the queue; `poll_interval` seconds if that is with other runners."""

        def tell(event: str, **about: Any) -> None:
            self.watch({"event": event, **about})

        work(self.campaign, None, tell, lambda: False)
        harvest(self.campaign)
        if self.campaign.queue.is_open(self.campaign.name):
            time.sleep(poll_interval)


@dataclass
class _Worker:
    """A process on a device."""

    device: str | None
    process: subprocess.Popen[str]
    took: bool = False
    error: str | None = None


@dataclass
class Workers:
    """
    The processes of a campaign, started when there is work, stopped with the context.

    Parameters
    ----------
    campaign
        Open.
    devices
        A process each.
    watch
        Called with every event.
    """

    campaign: Campaign
    devices: Sequence[str | None]
    watch: Watch
    _running: list[_Worker] = field(default_factory=list)
    _events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = field(default_factory=queue.Queue)
    _failed_starts: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for worker in self._running:
            if kind is None:
                _say(worker.process, "finish\n")
            else:
                worker.process.terminate()
        for worker in self._running:
            try:
                worker.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

    def attend(self, poll_interval: float = 0.0) -> None:
        """
        Hear what the processes have to tell, and start those that are needed.

        Parameters
        ----------
        poll_interval
            Seconds to wait for something to be told.
        """
        if not self._running and self.campaign.queue.is_open(self.campaign.name):
            for device in self.devices:
                self._start(device)
        try:
            self._hear(*self._events.get(timeout=poll_interval) if poll_interval else self._events.get_nowait())
            while True:
                self._hear(*self._events.get_nowait())
        except queue.Empty:
            return

    def _start(self, device: str | None) -> None:
        reading, writing = os.pipe()
        campaign = self.campaign
        location = None if campaign.location is None else str(campaign.location)
        task = {"location": location, "campaign": campaign.name, "device": device, "events": writing}
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-W", "ignore", "-c", _WORKER, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=2,  # the pipe is for events
            pass_fds=[writing],
            env=os.environ | _share_of_cores(len(self.devices)),
            text=True,
        )
        os.close(writing)
        worker = _Worker(device, process)
        self._running.append(worker)
        threading.Thread(target=self._listen, args=(worker, reading), daemon=True).start()

    def _listen(self, worker: _Worker, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.endswith("\n"):  # a process that is killed may leave part of one
                    self._events.put((worker, json.loads(line)))
        self._events.put((worker, None))

    def _hear(self, worker: _Worker, event: dict[str, Any] | None) -> None:
        if event is None:
            self._ended(worker)
            return
        if event["event"] == "took":
            worker.took, self._failed_starts = True, 0
        elif event["event"] == "error":
            worker.error = event["error"]
        self.watch(event)
        if event["event"] == "done":
            harvest(self.campaign, [event["work_id"]])

    def _ended(self, worker: _Worker) -> None:
        """Start a process anew that has died; its chunk is free as soon as the next one looks."""
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
            raise MatrisError(
                f"the process for {worker.device or 'the device'} died {MAX_FAILED_STARTS} times before it took any work "
                f"({cause}): its messages are above"
            )
        self._start(worker.device)


def _say(process: subprocess.Popen[str], line: str) -> None:
    try:
        assert process.stdin is not None  # noqa: S101 - it was asked for
        process.stdin.write(line)
        process.stdin.close()
    except BrokenPipeError:
        pass


def _share_of_cores(n_processes: int) -> dict[str, str]:
    """Threads of a process that shares the machine with others, unless the user has chosen."""
    if n_processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // n_processes))}
