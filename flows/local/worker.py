"""
A process that computes chunks of a campaign or of a property on one device; `matris.flows.local.runner` starts it.

It takes chunks from the queue, runs their jobs, and reports events to its parent process as JSON lines. It ends when
the parent says that no more chunks will come, or when the parent is gone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from matris.errors import DeviceError, MatrisError
from matris.flows.campaign.chunks import chunk_job, keep_candidates, kept_candidates
from matris.flows.campaign.poison import CHUNK_DEATHS, LOCAL_DEATHS, compute_one_by_one, mark_poison
from matris.flows.queue.heartbeat import Heartbeat
from matris.flows.queue.retry import MAX_ATTEMPTS, with_retries
from matris.makers.decoding import decode_maker
from matris.masking import masked
from matris.relaxation.journal import JournalInUseError
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matris.flows.campaign.computation import Computation
    from matris.flows.queue.queue import WorkItem
    from matris.makers.batch import BatchMaker

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # other chunks would fail in the same way
_POLL_INTERVAL, _MAX_POLL_INTERVAL = 0.3, 5.0  # seconds between looks at an empty queue: at first, and later
_PAUSES = (2.0, 10.0, 30.0)  # seconds before the next attempt at a job that raised an error

logger = logging.getLogger(__name__)

type Emit = Callable[..., None]


class Stopped(BaseException):
    """The parent process ends this one. No subclass of `Exception`, so that it is not recorded for a structure."""


def work(campaign: Computation, device: str | None, emit: Emit, is_over: Callable[[float], bool]) -> None:
    """
    Take chunks and run their jobs until there are none left.

    Parameters
    ----------
    campaign
        Open campaign, or other work in chunks.
    device
        Device; None for the device of its Maker.
    emit
        Function that is called with the name of each event, and its fields as keywords.
    is_over
        Function that is called when the queue is empty. It returns True once no more chunks will come, or False after
        the seconds that it is given.
    """
    pause = _POLL_INTERVAL
    while True:
        item = with_retries(lambda: campaign.queue.take(campaign.name), _waiting(emit))
        if item is not None:
            _run(campaign, item, device, emit)
            pause = _POLL_INTERVAL
        elif is_over(pause):
            return
        else:
            pause = min(2 * pause, _MAX_POLL_INTERVAL)  # the looks of hundreds of processes are a load


def _run(campaign: Computation, item: WorkItem, device: str | None, emit: Emit) -> None:
    """Run the job of one chunk, and record its end in the queue."""
    emit("took", work_id=item.work_id, stage=item.stage, n=item.n)
    maker = campaign.stage_maker(item.stage, item.work_id, device)
    start = time.perf_counter()
    with Heartbeat(campaign.queue, item) as heartbeat, _candidate_events(emit, heartbeat):
        try:
            if item.deaths >= CHUNK_DEATHS:
                _one_by_one(campaign, item, maker)
            _run_job(campaign, item, maker, emit)
        except (KeyboardInterrupt, SystemExit, Stopped):
            campaign.queue.give_back(item)
            raise
        except OSError as error:
            if error.errno in _FATAL:
                campaign.queue.give_back(item)
                raise
            _failed(campaign, item, error, emit)
            return
        except DeviceError as error:
            if item.attempts >= MAX_ATTEMPTS:  # the next chunk would fail too, and no structure is to blame
                campaign.queue.give_back(item)
                raise
            _failed(campaign, item, error, emit)
            return
        except Exception as error:  # noqa: BLE001 - an error affects this chunk only
            _failed(campaign, item, error, emit)
            return
    finished = with_retries(lambda: campaign.queue.finish(item), _waiting(emit))
    emit("done" if finished else "lost", work_id=item.work_id, stage=item.stage, n=item.n, seconds=_since(start))


def _run_job(campaign: Computation, item: WorkItem, maker: BatchMaker, emit: Emit) -> None:
    """Run the job of a chunk; use a separate journal if another process keeps the chunk's journal locked."""
    try:
        with_retries(lambda: chunk_job(maker, item.work_id).run(campaign.job_store), _waiting(emit))
    except JournalInUseError:  # the former holder of the chunk is suspended
        journal = campaign.journal(item.work_id) / str(os.getpid())
        separate = replace(maker, journal_dir=str(journal))  # type: ignore[call-arg]
        with_retries(lambda: chunk_job(separate, item.work_id).run(campaign.job_store), _waiting(emit))


def _failed(campaign: Computation, item: WorkItem, error: Exception, emit: Emit) -> None:
    """Give a failed chunk back to the queue after a pause, or give it up after too many attempts."""
    reason = masked(f"{type(error).__name__}: {error}")
    logger.warning("chunk %s: %s", item.work_id, reason, exc_info=error)
    given_up = item.attempts >= MAX_ATTEMPTS
    if not given_up:
        time.sleep(_PAUSES[min(item.attempts, len(_PAUSES)) - 1])
    (campaign.queue.give_up if given_up else campaign.queue.give_back)(item, reason)
    emit("failed", work_id=item.work_id, stage=item.stage, n=item.n, error=reason, given_up=given_up)


def _one_by_one(campaign: Computation, item: WorkItem, maker: BatchMaker) -> None:
    """
    Compute the candidates of a chunk one by one, to find the one that kills its process.

    The queue notes each candidate before it is computed. The journal keeps the results, and candidates that killed too
    many processes get an error.
    """
    before = [Candidate.model_validate(content) for content in kept_candidates(campaign.job_store, item.work_id)]
    deaths: dict[str, int] = dict(item.payload.get("blamed", {}))
    if suspect := item.payload.get("suspect"):
        deaths[suspect] = deaths.get(suspect, 0) + 1
    candidates = mark_poison(before, deaths, LOCAL_DEATHS, item.error or "killed")
    if candidates != before:
        keep_candidates(campaign.job_store, item.work_id, candidates)
    compute_one_by_one(maker, candidates, lambda suspect: campaign.queue.note(item, suspect=suspect, blamed=deaths))
    campaign.queue.note(item, suspect=None, blamed=deaths)


@contextmanager
def _candidate_events(emit: Emit, heartbeat: Heartbeat) -> Iterator[None]:
    """Emit an event for every candidate that a job finishes, and count them in its heartbeat."""
    from matris.makers.batch_relax import logger as job_logger

    class EmitHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (result := getattr(record, "record", None)) is not None:
                heartbeat.finished += 1
                is_reference = result.source in REFERENCE_SOURCES
                emit("candidate", state=result.state, error=result.error, is_reference=is_reference)

    handler = EmitHandler(logging.INFO)
    level, propagate = job_logger.level, job_logger.propagate
    job_logger.addHandler(handler)
    job_logger.setLevel(logging.INFO)
    job_logger.propagate = False
    try:
        yield
    finally:
        job_logger.removeHandler(handler)
        job_logger.setLevel(level)
        job_logger.propagate = propagate


def _waiting(emit: Emit) -> Callable[[str], None]:
    """Return a function that emits an event while the store is unavailable."""
    return lambda error: emit("waiting", error=error)


def _since(start: float) -> float:
    """Return the seconds since a value of `time.perf_counter`, rounded to ms."""
    return round(time.perf_counter() - start, 3)


def _opened(task: dict[str, Any]) -> Computation:
    """Open the work that a task describes."""
    from matris.flows.campaign.campaign import Campaign
    from matris.flows.local.property_queue import PropertyQueue

    if "campaign" in task:
        return Campaign.open(task["location"], task["campaign"])
    return PropertyQueue(task["location"], decode_maker(task["maker"]), task["materials"])


def main() -> None:
    """Work for the parent process, which sends the task in JSON as the first line of standard input."""
    first = sys.stdin.readline()
    if not first:  # the parent is gone
        sys.exit(0)
    task = json.loads(first)
    events: IO[str] = os.fdopen(task["events"], "w", buffering=1)
    finish = threading.Event()

    def emit(event: str, **fields: Any) -> None:
        try:
            events.write(json.dumps({"event": event, **fields}) + "\n")
        except BrokenPipeError:  # the parent is gone
            raise Stopped from None

    def stop(*_: object) -> None:
        raise Stopped

    def listen() -> None:
        if sys.stdin.readline():
            finish.set()
        else:  # the parent is gone
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal; the parent gets it too
    threading.Thread(target=listen, name="listen", daemon=True).start()
    try:
        work(_opened(task), task["device"], emit, finish.wait)
    except Stopped:
        sys.exit(0)
    except (MatrisError, OSError, PyMongoError) as error:
        emit("error", error=masked(str(error)) or type(error).__name__)
        sys.exit(1)
