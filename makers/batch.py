"""What the Makers of many materials have in common."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from jobflow import Maker
from pymatgen.core import Structure

from matris.model.checkpoints import locate, read_file
from matris.model.potential import load
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import CheckpointTag, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from matris.model.checkpoints import Card
    from matris.model.potential import Potential
    from matris.properties.dynamics import DynamicsRecord
    from matris.properties.elastic import ElasticRecord
    from matris.properties.eos import EosRecord
    from matris.properties.phonons import PhononRecord
    from matris.properties.qha import QhaRecord

    type PropertyRecord = DynamicsRecord | ElasticRecord | EosRecord | PhononRecord | QhaRecord

JOULE_PER_MOLE = 96485.332
"""In one eV."""

NOT_SETTINGS = {"name", "checkpoint", "device", "dtype", "journal_dir", "trajectory_dir"}
"""Fields of a Maker that do not decide the result, or stand apart."""
_SCHEDULER_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID")
_PACKAGES = ("matris-flows", "torch", "torch-sim-atomistic", "pymatgen", "phonopy")


@dataclass
class BatchMaker(Maker):
    """
    A job on many materials with one resident potential.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Where and in which precision the potential computes; by default what the machine and the checkpoint suggest.
    """

    name: str = "batch"
    checkpoint: str | None = None
    device: str | None = None
    dtype: str | None = None

    def card(self) -> Card:
        """Read what the checkpoint is, without loading it onto a device."""
        return read_file(locate(self.checkpoint))[1]

    def potential(self) -> Potential:
        """Load the potential; it stays resident, so that the next job of this process has it at once."""
        return load(self.checkpoint, device=self.device, dtype=self.dtype)

    def documents(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        compute: Callable[..., Sequence[PropertyRecord]],
        *given: Sequence[Any],
    ) -> list[tuple[dict[str, Any], Any]]:
        """
        Compute what can be computed, and describe every material.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        compute
            Gives a record for each structure; called with the structures, the potential, and what is `given` for them.
        *given
            Further input: a sequence with an entry for each candidate.

        Returns
        -------
        list of tuple
            In the order of the candidates: what all properties' documents have in common, and the record (None where
            there was no structure).

        Raises
        ------
        ValueError
            If a sequence `given` has another length than the candidates.
        """
        chunk = [as_candidate(candidate) for candidate in candidates]
        potential = self.potential()
        for entries in given:
            if len(entries) != len(chunk):
                raise ValueError(f"{len(entries)} entries for {len(chunk)} candidates: give None where unknown")
        there = {index: c.structure for index, c in enumerate(chunk) if c.structure is not None and c.error is None}
        more = [[entries[index] for index in there] for entries in given]
        records = dict(zip(there, compute(list(there.values()), potential, *more), strict=True))
        settings = {key: value for key, value in asdict(self).items() if key not in NOT_SETTINGS}
        common = {**provenance(potential), "settings": settings}
        return [
            (common | _outcome(candidate, records.get(index)), records.get(index))
            for index, candidate in enumerate(chunk)
        ]


@dataclass
class PropertyMaker(BatchMaker):
    """
    A job that computes a property of many materials; each is relaxed first.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Where and in which precision the potential computes; by default what the machine and the checkpoint suggest.
        Single precision is enough for derivatives of forces and stresses: see docs/properties.md.
    fmax
        Bound on forces and on the cell's in all relaxations, eV/Å.
    steps
        Most steps of a relaxation.
    journal_dir
        Folder in which finished cells are kept; by default the folder the job runs in.
    """

    name: str = "batch property"
    fmax: float = 1e-4
    steps: int = 2000
    journal_dir: str | None = None


def _outcome(candidate: Candidate, record: PropertyRecord | None) -> dict[str, Any]:
    """State and description of one material."""
    known = (record and record.structure) or candidate.structure
    relaxed = record is not None and record.structure is not None
    return {
        "candidate_id": candidate.candidate_id,
        "state": record.state if record else "failed",
        "error": record.error if record else candidate.error or "no structure",
        "warnings": list(getattr(record, "warnings", ())),
        "structure": record.structure if record else None,
        **(describe(known, relaxed=relaxed) if known is not None else {}),
    }


def provenance(potential: Potential) -> dict[str, Any]:
    """Tell what computed: checkpoint, versions, device and dtype, and where."""
    card = potential.card
    return {
        "checkpoint": CheckpointTag(key=card.key, sha256=card.sha256, energy_scale=card.energy_scale),
        "versions": versions(),
        "device": str(potential.device),
        "dtype": dtype_name(potential.dtype),
        "ran_on": ran_on(),
    }


def ran_on() -> dict[str, str | None]:
    """Tell where this process runs: host, job of the scheduler, the GPUs that it was given."""
    jobs = (os.environ.get(name) for name in _SCHEDULER_JOBS)
    return {
        "host": socket.gethostname(),
        "scheduler_job": next(filter(None, jobs), None),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def as_candidate(obj: Candidate | Structure | dict[str, Any]) -> Candidate:
    """Read a candidate from what a job gets: a candidate, its dictionary or a bare structure."""
    if isinstance(obj, Structure):
        return Candidate.from_structure(obj, source="structure")
    return Candidate.model_validate(obj)


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a floating-point type."""
    return str(dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # e.g. a source tree on the path, not installed
            found[package] = "unknown"
    return found


def temperatures(t_min: float, t_max: float, t_step: float) -> tuple[float, ...]:
    """Temperatures from `t_min` to `t_max`, both included, K."""
    return tuple(t_min + i * t_step for i in range(round((t_max - t_min) / t_step) + 1))
