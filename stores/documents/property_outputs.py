"""From the summary of a property to the whole of it, in the job store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobflow import JobStore


def property_output(
    job_store: JobStore, kind: str, candidate: Mapping[str, Any], large: Sequence[str]
) -> dict[str, Any] | None:
    """
    Find the document of a candidate's property.

    Parameters
    ----------
    job_store
        Connected, with the output of the property's job.
    kind
        Such as ``"phonon"``.
    candidate
        Candidate document.
    large
        Fields to load from the additional store; the others that lie there stay references to it.

    Returns
    -------
    dict or None
        Fields of a `matris.stores.documents.properties.PropertyDocument`; None if the job store does not hold it, as
        when it was emptied.
    """
    uuid = (candidate.get(kind) or {}).get("job_uuid")
    if uuid is None:
        return None
    found = job_store.query_one({"uuid": uuid}, properties=["output.documents"], load=False) or {}
    documents = (found.get("output") or {}).get("documents") or []
    document = next((each for each in documents if each["candidate_id"] == candidate["candidate_id"]), None)
    if document is None:
        return None
    return {**document, **{name: _loaded(job_store, document.get(name)) for name in large}}


def _loaded(job_store: JobStore, value: Any) -> Any:
    """Value itself, or what it refers to in an additional store; None if that is gone."""
    if not isinstance(value, dict) or "blob_uuid" not in value:
        return value
    found = job_store.additional_stores[value["store"]].query_one({"blob_uuid": value["blob_uuid"]})
    return found["data"] if found else None
