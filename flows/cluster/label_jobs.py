"""First-principles calculations of candidates as jobs of a cluster, beside those of the potential."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobflow import Flow
from jobflow_remote import set_run_config
from monty.json import MontyEncoder

from matris.errors import MatrisError
from matris.flows.cluster.check_results import last_line
from matris.flows.cluster.submission import LOST, Cluster, Submission, job_id
from matris.makers.label import NO_OUTPUT
from matris.stores.database.jobstore import PROJECT
from matris.stores.dft_method import MethodError
from matris.structures import content_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matris.flows.labels.choice import Chosen
    from matris.makers.label import LabelMaker

_NAMES = uuid.UUID("5f0c5d8e-7a59-4d0b-8f2b-0d0a2f2a6c11")  # namespace of the ids of jobs and flows
_STALE = timedelta(minutes=10)  # age of a flow without jobs after which its submission must have died
_BEGUN = {"UPLOADED", "SUBMITTED", "BATCH_SUBMITTED", "BATCH_RUNNING", "RUNNING", "RUN_FINISHED", "DOWNLOADED"}


@dataclass(frozen=True)
class LabelState:
    """
    State of a candidate's calculation.

    Attributes
    ----------
    candidate_id, formula
        Candidate.
    state
        ``"queued"``, ``"running"``, ``"labelled"``, ``"failed"`` or ``"refused"``.
    reason
        Why it failed or was refused.
    is_new
        Whether this call submitted it.
    """

    candidate_id: str
    formula: str
    state: str
    reason: str | None = None
    is_new: bool = False


def submit_labels(
    chosen: Iterable[Chosen], maker: LabelMaker, submission: Submission, *, retry: bool = False
) -> Iterator[LabelState]:
    """
    Submit the calculations of candidates that are neither under way nor finished.

    The ids of jobs and flows are hashes of candidate, geometry and Maker. A further call submits nothing twice, even if
    it runs at the same time.

    Parameters
    ----------
    chosen
        Candidates.
    maker
        Maker of the labels.
    submission
        Project and workers. Labels are made on the worker of supervising jobs, which sees the database.
    retry
        Whether to submit failed calculations again.

    Yields
    ------
    LabelState
        State of each candidate's calculation, in order.

    Raises
    ------
    MethodError
        If the calculations would not be on the energy scale; the candidates before are submitted.
    """
    with Cluster(submission) as cluster:
        for candidate in chosen:
            name = _name(candidate, maker)
            attempt = 0
            while (found := _state(cluster, job_id(name, attempt))) is not None:
                if not (retry and found["state"] == "failed"):
                    yield LabelState(candidate.candidate_id, candidate.formula, found["state"], found["reason"])
                    break
                attempt += 1
            else:
                try:
                    flow = _flow(candidate, maker, submission, name, attempt)
                except MethodError:
                    raise
                except (MatrisError, LookupError, ValueError, TypeError) as error:  # of pymatgen's input sets
                    reason = f"no inputs can be made: {error}"
                    yield LabelState(candidate.candidate_id, candidate.formula, "refused", reason)
                    continue
                is_new = _put(cluster, flow)
                yield LabelState(candidate.candidate_id, candidate.formula, "queued", is_new=is_new)


def label_states(submission: Submission) -> list[LabelState]:
    """
    Read the states of all calculations of labels in a project; of repeated ones, that of the last.

    Parameters
    ----------
    submission
        Project.
    """
    latest: dict[str, tuple[int, dict[str, Any]]] = {}
    with Cluster(submission) as cluster:
        for flow in cluster.controller.flows.find({"metadata.label_of": {"$exists": True}}):
            content = flow["metadata"]
            if content["attempt"] >= latest.get(content["label"], (-1, {}))[0]:
                latest[content["label"]] = content["attempt"], content
        states = []
        for attempt, content in latest.values():
            found = _state(cluster, job_id(content["label"], attempt))
            if found is not None:
                states.append(LabelState(content["label_of"], content["formula"], found["state"], found["reason"]))
    return sorted(states, key=lambda each: (each.state, each.formula, each.candidate_id))


def _name(candidate: Chosen, maker: LabelMaker) -> str:
    """Id of a calculation: it depends on candidate, geometry and Maker, but not on versions of packages."""
    content = json.dumps(_without_versions(json.loads(json.dumps(maker, cls=MontyEncoder))), sort_keys=True)
    text = f"{candidate.candidate_id} {content_id(candidate.structure)} {content}"
    return str(uuid.uuid5(_NAMES, hashlib.sha256(text.encode()).hexdigest()))


def _without_versions(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_versions(value) for key, value in content.items() if key != "@version"}
    return [_without_versions(value) for value in content] if isinstance(content, list) else content


def _flow_id(label_job: str) -> str:
    return str(uuid.uuid5(_NAMES, f"flow {label_job}"))


def _flow(candidate: Chosen, maker: LabelMaker, submission: Submission, name: str, attempt: int) -> Flow:
    """Make the flow of a candidate: calculations on the workers, the label beside the database."""
    made = maker.make(
        candidate.structure, candidate_id=candidate.candidate_id, location=f"{PROJECT}{submission.project}"
    )
    calculation, label = made.jobs
    label.set_uuid(job_id(name, attempt))
    worker = submission.workers[uuid.UUID(name).int % len(submission.workers)]
    set_run_config(calculation, worker=worker, resources=dict(submission.resources) or None)
    set_run_config(label, worker=submission.cpu_worker, resources={})
    about = {"label_of": candidate.candidate_id, "formula": candidate.formula, "label": name, "attempt": attempt}
    return Flow([made], name=made.name, uuid=_flow_id(label.uuid), metadata=about)


def _put(cluster: Cluster, flow: Flow) -> bool:
    """Add a flow to the queue; False if another process has done so meanwhile."""
    try:
        cluster.put(flow)
    except ValueError as error:
        if "duplicate key" not in str(error):
            raise
        return False
    return True


def _state(cluster: Cluster, label_job: str) -> dict[str, Any] | None:
    """State and reason of a calculation; None if it was not submitted."""
    flow = cluster.controller.flows.find_one({"uuid": _flow_id(label_job)})
    if flow is None:
        return None
    fields = ["uuid", "index", "state", "error", "remote.error", "job.name"]
    jobs = {}
    for each in cluster.controller.jobs.find({"uuid": {"$in": flow["jobs"]}}, fields).sort("index", 1):
        jobs[each["uuid"]] = each
    label = jobs.get(label_job)
    if label is not None and label["state"] != "COMPLETED":
        cluster.unlock([label_job])
    if label is None:
        created = flow["created_on"].replace(tzinfo=UTC)
        if datetime.now(UTC) - created > _STALE:  # the submitting process died between the flow and its jobs
            cluster.controller.flows.delete_one({"uuid": flow["uuid"]})
            return None
        return {"state": "queued", "reason": None}
    lost = [each for each in jobs.values() if each["state"] in LOST]
    reasons = [
        f"{each['job']['name']}: "
        + (last_line(each.get("error") or (each.get("remote") or {}).get("error") or "") or each["state"].lower())
        for each in lost
    ]
    if label["state"] == "COMPLETED":
        output = _output(cluster, label_job)
        error = output.get("error")
        if error == NO_OUTPUT and reasons:
            error = reasons[0]
        return {"state": output.get("state", "failed"), "reason": error}
    if lost:
        return {"state": "failed", "reason": reasons[0]}
    begun = any(each["state"] in _BEGUN or each["state"] == "COMPLETED" for each in jobs.values())
    return {"state": "running" if begun else "queued", "reason": None}


def _output(cluster: Cluster, label_job: str) -> dict[str, Any]:
    """Short output of the job that made the labels."""
    store = cluster.project.get_jobstore().docs_store
    store.connect()
    found = store.query_one({"uuid": label_job}, ["output.state", "output.error"], sort={"index": -1})
    return found["output"] if found else {"state": "failed", "error": "its output is not in the job store"}
