"""Commands that this process sends to a server of MongoDB's protocol, and the time of each phase of a program."""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = "MATRIS_COMMAND_COUNTS"
"""Environment variable with the folder in which `count_here` leaves its counts."""

_NOT_COUNTED = {"hello", "ismaster", "ping", "endSessions", "buildInfo"}  # of the driver itself


@dataclass
class Phase:
    """
    What a phase took, without the phases inside it.

    Attributes
    ----------
    wall, processor, service
        Time, and processor time of this process and of the server (s).
    server
        Time that its commands took, from sending to the answer (s).
    commands
        Number of commands by name and collection.
    documents
        Number of documents that commands returned.
    """

    wall: float = 0.0
    processor: float = 0.0
    service: float = 0.0
    server: float = 0.0
    commands: Counter[str] = field(default_factory=Counter)
    documents: int = 0


class CommandMeter(monitoring.CommandListener):
    """
    Listener of pymongo, which must exist before the first connection.

    Commands of heartbeat threads belong to the phase ``"heartbeat"``, all others to the innermost phase.

    Attributes
    ----------
    phases
        Phases by name.
    server_id
        Process id of the server, if it runs on this machine.
    """

    def __init__(self) -> None:
        self.server_id: int | None = None
        self.phases: dict[str, Phase] = {}
        self._inside = ["outside"]
        self._since = self._now()
        monitoring.register(self)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Context of a phase, in the main thread."""
        self._charge()
        self._inside.append(name)
        try:
            yield
        finally:
            self._charge()
            self._inside.pop()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are a phase."""

        def within(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        return within

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Count a command."""
        if event.command_name not in _NOT_COUNTED:
            self._here().commands[f"{event.command_name} {event.command.get(event.command_name)}"] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Add the time of a command, and the documents of its answer."""
        self._ended(event)
        cursor = event.reply.get("cursor") or {}
        self._here().documents += len(cursor.get("firstBatch") or cursor.get("nextBatch") or ())

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Add the time of a command."""
        self._ended(event)

    def _ended(self, event: monitoring.CommandSucceededEvent | monitoring.CommandFailedEvent) -> None:
        if event.command_name not in _NOT_COUNTED:
            self._here().server += event.duration_micros / 1e6

    def _here(self) -> Phase:
        is_heartbeat = threading.current_thread().name == "heartbeat"
        return self.phases.setdefault("heartbeat" if is_heartbeat else self._inside[-1], Phase())

    def _charge(self) -> None:
        """Add the time since the last change of the phase to the current phase."""
        now = self._now()
        phase = self.phases.setdefault(self._inside[-1], Phase())
        phase.wall += now[0] - self._since[0]
        phase.processor += now[1] - self._since[1]
        phase.service += now[2] - self._since[2]
        self._since = now

    def _now(self) -> tuple[float, float, float]:
        service = 0.0 if self.server_id is None else processor_time(self.server_id)
        return time.perf_counter(), time.process_time(), service


def processor_time(process_id: int) -> float:
    """Return the processor time that a process has used (s)."""
    times = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def count_here() -> None:
    """Count the commands of this process from now on, and leave the counts in the folder of `FOLDER` at its end."""
    meter = CommandMeter()

    def leave() -> None:
        counts = {name: phase.commands for name, phase in meter.phases.items()}
        (Path(os.environ[FOLDER]) / f"{os.getpid()}.json").write_text(json.dumps(counts), encoding="utf-8")

    atexit.register(leave)
