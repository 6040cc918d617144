"""
A process that works through the chunks of a campaign on one device; `matris.flows.local.runner` starts it.

It takes chunk after chunk from the queue, runs its job, and tells what happens in JSON lines to whoever started it. It
ends when it is told that there is nothing more to come, or when whoever started it is gone.
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

from matris.errors import MatrisError
from matris.flows.campaign.chunks import chunk_job, keep_candidates, kept_candidates
from matris.flows.campaign.poison import CHUNK_DEATHS, LOCAL_DEATHS, compute_one_by_one, mark_poison
from matris.flows.queue.heartbeat import Heartbeat
from matris.flows.queue.retry import MAX_ATTEMPTS, with_retries
from matris.relaxation.journal import JournalInUseError
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matris.flows.campaign.campaign import Campaign
    from matris.flows.queue.queue import WorkItem
    from matris.makers.batch import BatchMaker

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # no other chunk would fare better
_IDLE = 0.3  # seconds between looks into an empty queue
_PAUSES = (2.0, 10.0, 30.0)  # seconds before a job is tried again that raised an error

logger = logging.getLogger(__name__)

type Tell = Callable[..., None]


class Stopped(BaseException):
    """Whoever started this process wants it to end; no error, which a structure could be blamed for."""


def work(campaign: Campaign, device: str | None, tell: Tell, more: Callable[[], bool]) -> None:
    """
    Take chunks and run their jobs until there are none left.

    Parameters
    ----------
    campaign
        Open.
    device
        Where to compute.
    tell
        Called with the name of an event and what belongs to it.
    more
        Whether there may be more chunks later, when there is none now.
    """
    with _announced(tell):
        while True:
            item = with_retries(lambda: campaign.queue.take(campaign.name), _waiting(tell))
            if item is not None:
                _run(campaign, item, device, tell)
            elif more():
                time.sleep(_IDLE)
            else:
                return


def _run(campaign: Campaign, item: WorkItem, device: str | None, tell: Tell) -> None:
    """Run the job of one chunk, and say in the queue how it ended."""
    tell("took", work_id=item.work_id, stage=item.stage, n=item.n)
    maker = campaign.stage_maker(item.stage, item.work_id, device)
    start = time.perf_counter()
    with Heartbeat(campaign.queue, item):
        try:
            if item.deaths >= CHUNK_DEATHS:
                _one_by_one(campaign, item, maker)
            _run_job(campaign, item, maker, tell)
        except (KeyboardInterrupt, SystemExit, Stopped):
            campaign.queue.give_back(item)
            raise
        except OSError as error:
            if error.errno in _FATAL:
                campaign.queue.give_back(item)
                raise
            _failed(campaign, item, error, tell)
            return
        except Exception as error:  # noqa: BLE001 - a job that breaks costs only itself
            _failed(campaign, item, error, tell)
            return
    kept = with_retries(lambda: campaign.queue.finish(item), _waiting(tell))
    tell("done" if kept else "lost", work_id=item.work_id, stage=item.stage, n=item.n, seconds=_since(start))


def _run_job(campaign: Campaign, item: WorkItem, maker: BatchMaker, tell: Tell) -> None:
    """Run the job of a chunk; with a journal of its own if another process does not let go of the chunk's."""
    try:
        with_retries(lambda: chunk_job(maker, item.work_id).run(campaign.job_store), _waiting(tell))
    except JournalInUseError:  # the former holder of the chunk is suspended
        own = campaign.journal(item.work_id) / str(os.getpid())
        apart = replace(maker, journal_dir=str(own))  # type: ignore[call-arg]
        with_retries(lambda: chunk_job(apart, item.work_id).run(campaign.job_store), _waiting(tell))


def _failed(campaign: Campaign, item: WorkItem, error: Exception, tell: Tell) -> None:
    """Give a chunk back, or up."""
    reason = f"{type(error).__name__}: {error}"
    logger.warning("chunk %s: %s", item.work_id, reason, exc_info=error)
    given_up = item.attempts >= MAX_ATTEMPTS
    if not given_up:
        time.sleep(_PAUSES[min(item.attempts, len(_PAUSES)) - 1])
    (campaign.queue.give_up if given_up else campaign.queue.give_back)(item, reason)
    tell("failed", work_id=item.work_id, stage=item.stage, n=item.n, error=reason, given_up=given_up)


def _one_by_one(campaign: Campaign, item: WorkItem, maker: BatchMaker) -> None:
    """
    Compute the candidates of a chunk alone, each announced in the queue before, to find the one that kills.

    What survives is in the journal afterwards; what has killed often enough becomes a candidate with an error.
    """
    before = [Candidate.model_validate(each) for each in kept_candidates(campaign.job_store, item.work_id)]
    deaths: dict[str, int] = dict(item.payload.get("blamed", {}))
    if suspect := item.payload.get("suspect"):
        deaths[suspect] = deaths.get(suspect, 0) + 1
    candidates = mark_poison(before, deaths, LOCAL_DEATHS, item.error or "killed")
    if candidates != before:
        keep_candidates(campaign.job_store, item.work_id, candidates)
    compute_one_by_one(maker, candidates, lambda name: campaign.queue.note(item, suspect=name, blamed=deaths))
    campaign.queue.note(item, suspect=None, blamed=deaths)


@contextmanager
def _announced(tell: Tell) -> Iterator[None]:
    """Tell of every candidate that a job finishes."""
    from matris.makers.batch_relax import logger as finished

    class Announce(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (result := getattr(record, "record", None)) is not None:
                tell("candidate", state=result.state)

    handler = Announce(logging.INFO)
    level, propagate = finished.level, finished.propagate
    finished.addHandler(handler)
    finished.setLevel(logging.INFO)
    finished.propagate = False
    try:
        yield
    finally:
        finished.removeHandler(handler)
        finished.setLevel(level)
        finished.propagate = propagate


def _waiting(tell: Tell) -> Callable[[str], None]:
    return lambda error: tell("waiting", error=error)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


def main() -> None:
    """Work for the process that started this one, as the JSON on the command line says."""
    from matris.flows.campaign.campaign import Campaign

    task = json.loads(sys.argv[1])
    events: IO[str] = os.fdopen(task["events"], "w", buffering=1)
    finish = threading.Event()

    def tell(event: str, **about: Any) -> None:
        try:
            events.write(json.dumps({"event": event, **about}) + "\n")
        except BrokenPipeError:  # nobody listens any more
            raise Stopped from None

    def stop(*_: object) -> None:
        raise Stopped

    def listen() -> None:
        if sys.stdin.readline():
            finish.set()
        else:  # whoever started this process is gone
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; whoever started this process hears it too
    threading.Thread(target=listen, name="listen", daemon=True).start()
    try:
        campaign = Campaign.open(task["location"], task["campaign"])
        work(campaign, task["device"], tell, lambda: not finish.is_set())
    except Stopped:
        sys.exit(0)
    except (MatrisError, OSError, PyMongoError) as error:
        tell("error", error=str(error) or type(error).__name__)
        sys.exit(1)
