"""Records of candidates, as chunks hold them, from the records of relaxations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.stores.documents.documents import ChunkArrays, ChunkRecord, State, hull_fields

if TYPE_CHECKING:
    from collections.abc import Collection

    from matris.relaxation.records import RelaxRecord
    from matris.stores.documents.candidate import Candidate


def refusal(candidate: Candidate, elements: Collection[str]) -> tuple[State, str] | None:
    """
    State and reason of a candidate that is not to be computed.

    Parameters
    ----------
    candidate
        Candidate with or without a structure.
    elements
        Elements that the potential knows.

    Returns
    -------
    tuple or None
        ``"rejected"`` and what is wrong with the input, or ``"failed"`` and the reason of an earlier attempt; None if
        it can be computed.

    Examples
    --------
    >>> from matris.stores.documents.candidate import Candidate
    >>> refusal(Candidate.unreadable("empty.cif", "the file is empty", b""), ["Fe"])
    ('rejected', 'the file is empty')
    """
    problem = candidate.problem(elements)
    if problem is None:
        return None
    has_failed = candidate.structure is not None and candidate.error is not None
    return ("failed" if has_failed else "rejected"), problem


def record_of(
    candidate: Candidate,
    state: State,
    error: str | None,
    energy_scale: str,
    record: RelaxRecord | None = None,
    *,
    pressure: float = 0.0,
    tags: list[str] | None = None,
) -> tuple[ChunkRecord, ChunkArrays]:
    """
    Make the record and the arrays of one candidate.

    Parameters
    ----------
    candidate
        Candidate with or without a structure.
    state, error
        Its state, and the reason if it failed or was rejected.
    energy_scale
        Energy scale of the checkpoint.
    record
        Record of its relaxation; None if it was not computed.
    pressure
        Pressure at which it was relaxed, GPa.
    tags
        Labels for the provenance.

    Examples
    --------
    >>> from matris.stores.documents.candidate import Candidate
    >>> small, large = record_of(Candidate.unreadable("a.cif", "the file is empty", b""), "rejected", "empty", "mp")
    >>> small.source, small.state, large.structure
    ('a.cif', 'rejected', None)
    """
    start = candidate.structure
    small = ChunkRecord(
        candidate_id=candidate.candidate_id,
        source=candidate.source,
        provenance=candidate.provenance | ({"tags": tags} if tags else {}),
        state=state,
        error=error,
        energy=record.energy if record else None,
        n_steps=record.n_steps if record else None,
        fmax=record.fmax if record else None,
        smax=record.smax if record else None,
        extrapolation=record.extrapolation if record else None,
        mean_extrapolation=record.mean_extrapolation if record else None,
        seconds=record.seconds if record else None,
        nsites=len(start) if start is not None else None,
        formula=start.composition.reduced_formula if start is not None and len(start) else None,
        hull=None
        if record is None or record.structure is None or record.energy is None
        else hull_fields(record.structure, record.energy, energy_scale, pressure),
    )
    large = ChunkArrays(
        candidate_id=candidate.candidate_id,
        initial_structure=start,
        structure=record.structure if record else None,
        forces=_plain(record.forces) if record else None,
        stress=_plain(record.stress) if record else None,
        magmoms=_plain(record.magmoms) if record else None,
    )
    return small, large


def _plain(array: Any) -> list[Any] | None:
    """Nested lists of a numpy array."""
    return None if array is None else array.tolist()
