"""Energies, forces and stresses of many candidates as they are, in one job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from matris.makers.batch_relax import BatchRelaxMaker

if TYPE_CHECKING:
    from matris.relaxation.records import RelaxRecord


@dataclass
class BatchStaticMaker(BatchRelaxMaker):
    """
    Evaluate a chunk of candidates as they are; in all else as `BatchRelaxMaker`, whose documents it gives.

    Nothing has to converge: what could be computed has the state ``converged``. How far it is from a minimum, its
    forces tell. With a relaxation before (`first`), its state is that of the relaxation: so are energies of relaxed
    crystals had in double precision, or from a better checkpoint.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Where and in which precision the potential computes; by default what the machine and the checkpoint suggest.
    first
        Maker of a relaxation, whose crystals are evaluated.
    journal_dir
        Folder of the journal; by default the folder the job runs in.
    tags
        Labels kept in the provenance of every candidate.
    """

    name: str = "batch static"
    relax_cell: bool = field(default=False, init=False)
    steps: int = field(default=0, init=False)
    relax_kwargs: dict[str, Any] = field(default_factory=dict, init=False)

    def outcome(self, record: RelaxRecord, first: RelaxRecord | None) -> RelaxRecord:
        """Give the result of an evaluation, with the state of the relaxation before."""
        if first is not None and first.structure is None:
            return first
        if record.state == "failed":
            return record
        return replace(record, state="converged" if first is None else first.state)
