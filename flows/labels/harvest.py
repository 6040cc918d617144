"""Copy labels from the outputs of jobs into the collection of labels; a repeated call adds only new labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matris.errors import StoreError
from matris.stores.database.jobstore import read_output
from matris.stores.dft_labels import DftLabels, LabelDocument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jobflow import JobStore


@dataclass(frozen=True)
class Harvest:
    """
    Result of a harvest.

    Attributes
    ----------
    n_labels
        Number of labels that were added.
    failed
        Reasons why calculations gave no labels, by the id of their last job: those of this and of earlier harvests.
    """

    n_labels: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


def harvest_labels(job_store: JobStore) -> Harvest:
    """
    Add the labels in the outputs of `matris.makers.label.LabelMaker` to the candidates' labels.

    Labels that are there already are not read again. A process that is killed meanwhile loses nothing: the next harvest
    adds the rest.

    Parameters
    ----------
    job_store
        Connected store of the jobs' outputs, in the database of the candidates.

    Raises
    ------
    StoreError
        If the store does not answer.

    Examples
    --------
    >>> from matris.stores import open_job_store
    >>> harvest_labels(open_job_store("results"))  # no calculation has ended yet
    Harvest(n_labels=0, failed={})
    """
    labels = DftLabels(job_store)
    done = set(labels.store.distinct("source"))
    n_labels, failed = 0, {}
    for uuid, output in _outputs(job_store):
        if uuid in done:
            continue
        name = f"{output['formula_pretty']} (candidate {output['candidate_id']})"
        if output["state"] == "failed":
            failed[uuid] = f"{name}: {output['error']}"
            continue
        try:
            document = LabelDocument.model_validate(read_output(job_store, uuid))
            n_labels += labels.add(document.labels)
        except StoreError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, KeyError):
                raise  # the store is away; what it lacks is the fault of one job
            failed[uuid] = f"{name}: {error}"
    return Harvest(n_labels, failed)


def _outputs(job_store: JobStore) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the ids and short outputs of the jobs that make labels."""
    fields = ["uuid", *(f"output.{name}" for name in ("state", "error", "candidate_id", "formula_pretty"))]
    for document in job_store.docs_store.query({"output.label_format": {"$gte": 1}}, fields, sort={"uuid": 1}):
        yield document["uuid"], document["output"]
