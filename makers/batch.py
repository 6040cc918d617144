"""Base classes of the Makers that compute many materials in one job."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jobflow import Maker
from pymatgen.core import Element, Structure

from matris.errors import MatrisError, StructureError
from matris.makers.chunk_records import record_of, refusal
from matris.makers.current_job import check_store, own_folder
from matris.model.checkpoints import locate, read_file
from matris.model.potential import load
from matris.properties.groups import attempt
from matris.relaxation.journal import JournalInUseError
from matris.relaxation.records import RelaxSettings
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import CheckpointTag, RelaxTag, describe
from matris.stores.documents.properties import Start, StartArrays
from matris.structures import is_one, masses_of, to_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from matris.model.checkpoints import Card
    from matris.model.potential import DispersionName, Potential
    from matris.properties.groups import PropertyRecord
    from matris.relaxation.records import OptimizerName, RelaxRecord
    from matris.stores.documents.properties import PropertyOutput

NOT_SETTINGS = {"name", "checkpoint", "device", "dtype", "journal_dir", "trajectory_dir", "hdf5", "competing"}
"""
Fields of a Maker that are not among a document's settings: without effect on the result, or fields of their own, or
long and named by another field.
"""

STRUCTURES = ("structure", "arrays")
"""Large fields of all property documents, which jobs put into the additional store ``data``."""

_SAME_MASS = 1e-3  # relative: tables of masses differ by as much

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
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
    """

    name: str = "batch"
    checkpoint: str | None = None
    device: str | None = None
    dtype: str | None = None
    dispersion: DispersionName | None = None

    def card(self) -> Card:
        """Read the card of the checkpoint, without loading it onto a device; with dispersion, that of both."""
        card = read_file(locate(self.checkpoint))[1]
        if self.dispersion is None:
            return card
        from matris.model.dispersion import dispersed_card

        return dispersed_card(card)

    def potential(self) -> Potential:
        """Load the potential; it stays in memory for the next job of this process."""
        return load(self.checkpoint, device=self.device, dtype=self.dtype, dispersion=self.dispersion)


@dataclass
class PropertyMaker(BatchMaker):
    """
    A job that computes a property of many materials: one document each.

    Subclasses name the schema of their output, wrap `make` as a job, and define `compute` and `fields`.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
    """

    name: str = "batch property"
    output_schema: ClassVar[type[PropertyOutput]]

    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> PropertyOutput:
        """
        Compute the property of each candidate.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Part of every Maker's signature; without effect.

        Returns
        -------
        PropertyOutput
            One document for each candidate, in order; its large fields go to the additional store ``data``.
        """
        return self.output(candidates)

    def compute(
        self, structures: Sequence[Structure], potential: Potential, *given: Any, **_: Any
    ) -> Sequence[PropertyRecord]:
        """
        Compute a record for each structure.

        Parameters
        ----------
        structures
            The structures of all candidates that have one.
        potential
            The loaded potential.
        *given
            Further input: sequences with an entry for each structure.
        """
        raise NotImplementedError

    def fields(self, record: Any, *given: Any, **_: Any) -> dict[str, Any]:
        """
        Fields that a document has besides those of all properties.

        Parameters
        ----------
        record
            Record of the material, or None if it has no structure.
        *given
            Further input of this material.
        """
        raise NotImplementedError

    def start_settings(self) -> RelaxSettings:
        """Return the settings with which a material itself was computed; by default it was evaluated as it is."""
        return RelaxSettings(max_steps=0, relax_cell=False)

    def start_record(self, record: Any, structure: Structure) -> RelaxRecord | None:  # noqa: ARG002
        """
        Return the record of the material itself; None if it has none.

        Parameters
        ----------
        record
            Record of the property.
        structure
            Structure of the candidate.
        """
        start: RelaxRecord | None = record.start
        return start

    def output(
        self, candidates: Sequence[Candidate | Structure | dict[str, Any]], *given: Sequence[Any]
    ) -> PropertyOutput:
        """
        Compute the candidates that have a structure, and write a document for every candidate.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        *given
            Further input for `compute` and `fields`: sequences with an entry for each candidate.

        Raises
        ------
        ValueError
            If a sequence of `given` and `candidates` differ in length.
        """
        check_store()
        chunk = [as_candidate(candidate) for candidate in candidates]
        potential = self.potential()
        for entries in given:
            if len(entries) != len(chunk):
                raise ValueError(f"{len(entries)} entries for {len(chunk)} candidates: give None where unknown")
        structures = {
            index: c.structure for index, c in enumerate(chunk) if c.structure is not None and c.error is None
        }
        selected = [[entries[index] for index in structures] for entries in given]
        computed = self._computed(list(structures.values()), potential, *selected)
        records = dict(zip(structures, computed, strict=True))
        settings = {key: value for key, value in asdict(self).items() if key not in NOT_SETTINGS}
        common = {**provenance(potential), "settings": settings, "pressure": self.start_settings().pressure}
        documents = [
            common
            | _outcome(candidate, records.get(index))
            | self._start(candidate, records.get(index), potential)
            | self._fields(records.get(index), *(entries[index] for entries in given))
            for index, candidate in enumerate(chunk)
        ]
        return self.output_schema.model_validate({"documents": documents})

    def _fields(self, record: PropertyRecord | None, *given: Any) -> dict[str, Any]:
        """Fields of one material; the state and reason of a failure where they cannot be computed."""
        found, error = attempt(self.fields, record, *given)
        return {"state": "failed", "error": error, "is_reliable": False} if found is None else found

    def _start(self, candidate: Candidate, record: PropertyRecord | None, potential: Potential) -> dict[str, Any]:
        """Fields from which the store makes a candidate document of the material."""
        settings = self.start_settings()
        state, error = refusal(candidate, potential.elements) or (None, None)
        start = None
        if state is None and record is not None and candidate.structure is not None:
            start = self.start_record(record, candidate.structure)
            if start is None:
                state, error = "failed", record.error
            else:
                evaluated = start.state != "failed" and not settings.max_steps
                state, error = "converged" if evaluated else start.state, start.error
        scale = potential.card.energy_scale
        small, large = record_of(candidate, state or "failed", error, scale, start, pressure=settings.pressure)
        arrays = StartArrays(**large.model_dump(exclude={"candidate_id", "structure"}))
        tag = RelaxTag(**settings.to_dict(), digest=settings.digest())
        return {"start": Start(record=small, settings=tag, arrays=arrays)}

    def _computed(self, structures: Sequence[Structure], potential: Potential, *given: Any) -> Sequence[PropertyRecord]:
        """Compute, with journals of the job's own if another job in the current folder holds them."""
        try:
            return self.compute(structures, potential, *given)
        except JournalInUseError:
            if getattr(self, "journal_dir", "") is not None:
                raise
            own = replace(self, journal_dir=str(own_folder()))  # type: ignore[call-arg]
            return own.compute(structures, potential, *given)


@dataclass
class RelaxedPropertyMaker(PropertyMaker):
    """
    A job that computes a property of many materials; each material is relaxed first.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
        Single precision is enough for derivatives of forces and stresses: see docs/properties.md.
    fmax
        Bound on the forces on atoms and on the cell in all relaxations, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    pressure
        External pressure on the materials, GPa.
    journal_dir
        Folder in which finished cells are kept; by default the folder in which the job runs.
    """

    fmax: float = 1e-4
    max_steps: int = 2000
    optimizer: OptimizerName = "lbfgs"
    pressure: float = 0.0
    journal_dir: str | None = None

    def start_settings(self) -> RelaxSettings:
        """Return the settings with which the materials are relaxed."""
        return RelaxSettings(fmax=self.fmax, max_steps=self.max_steps, optimizer=self.optimizer, pressure=self.pressure)

    def relaxation(self) -> dict[str, Any]:
        """Return the keywords of the relaxations, as all functions of `matris.properties` take them."""
        return {
            "fmax": self.fmax,
            "max_steps": self.max_steps,
            "optimizer": self.optimizer,
            "pressure": self.pressure,
            "journal_dir": Path(self.journal_dir or "."),
        }


def _outcome(candidate: Candidate, record: PropertyRecord | None) -> dict[str, Any]:
    """State and description of one material."""
    structure = (record and record.structure) or candidate.structure
    relaxed = record is not None and record.structure is not None
    return {
        "candidate_id": candidate.candidate_id,
        "state": record.state if record else "failed",
        "error": record.error if record else candidate.error or "no structure",
        "warnings": list(record.warnings) if record else [],
        "is_reliable": record.is_reliable if record else False,
        "crossings": [asdict(crossing) for crossing in record.crossings] if record else [],
        "structure": record.structure if record else None,
        **(describe(structure, relaxed=relaxed) if structure is not None else {}),
    }


def unusual_masses(structure: Structure) -> list[float] | None:
    """Masses of the atoms (u), if they are not those of the elements: isotopes, or masses that the input gives."""
    masses = masses_of(structure)
    natural = [float(Element.from_Z(site.specie.Z).atomic_mass) for site in structure]
    return None if np.allclose(masses, natural, rtol=_SAME_MASS, atol=0) else [float(mass) for mass in masses]


def provenance(potential: Potential) -> dict[str, Any]:
    """Fields of a document with checkpoint, versions, device, precision and host."""
    card = potential.card
    return {
        "checkpoint": CheckpointTag(
            key=card.key,
            sha256=card.sha256,
            energy_scale=card.energy_scale,
            is_demonstrator=card.is_demonstrator,
        ),
        "versions": versions(),
        "device": str(potential.device),
        "dtype": arithmetic_of(potential),
        "ran_on": ran_on(),
    }


def ran_on() -> dict[str, str | None]:
    """Host, scheduler job and visible GPUs of this process."""
    jobs = (os.environ.get(name) for name in _SCHEDULER_JOBS)
    return {
        "host": socket.gethostname(),
        "scheduler_job": next(filter(None, jobs), None),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def as_candidate(obj: Candidate | Structure | Atoms | dict[str, Any], source: str = "structure") -> Candidate:
    """
    Turn a candidate, its dictionary, or a bare structure into a candidate.

    ASE's atoms that are no crystal become a candidate that cannot be computed, with the reason.

    Raises
    ------
    MatrisError
        If the object is nothing of this kind.

    Examples
    --------
    >>> from ase.build import bulk, molecule
    >>> as_candidate(bulk("MgO", "rocksalt", a=4.2)).structure.formula
    'Mg1 O1'
    >>> as_candidate(molecule("H2O")).error
    'OH2 is not periodic in three directions (pbc FFF): ...'
    >>> as_candidate("MgO")
    Traceback (most recent call last):
    matris.errors.MatrisError: expected a Candidate, pymatgen's Structure or ASE's Atoms, got str
    """
    if is_one(obj):
        try:
            return Candidate.from_structure(to_structure(obj), source)
        except StructureError as error:
            content = f"{obj!r} {obj.positions.tolist()}" if hasattr(obj, "positions") else repr(obj)
            return Candidate.unreadable(source, str(error), content.encode())
    if isinstance(obj, Candidate | dict):
        return Candidate.model_validate(obj)
    raise MatrisError(f"expected a Candidate, pymatgen's Structure or ASE's Atoms, got {type(obj).__name__}")


def arithmetic_of(potential: Potential) -> str:
    """Name what decides the digits of results: `Potential.arithmetic`, or the floating-point type of a stand-in."""
    return getattr(potential, "arithmetic", str(potential.dtype).removeprefix("torch."))


def versions() -> dict[str, str]:
    """Versions of the packages on which the numbers depend."""
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:  # e.g. a source tree on the path, not installed
            installed[package] = "unknown"
    return installed


def temperatures(t_min: float, t_max: float, t_step: float) -> tuple[float, ...]:
    """Temperatures from `t_min` to `t_max`, both included, in steps of `t_step`, K."""
    return tuple(t_min + i * t_step for i in range(round((t_max - t_min) / t_step) + 1))
