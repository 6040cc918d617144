"""What is stored: the output of a chunk job, and one document per candidate, checkpoint and settings."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from moyopy import Cell, MoyoDataset, SpaceGroupType
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from scipy.constants import atomic_mass

from matris.stores.documents.corrections import CorrectionError, corrected_entry, correction_scheme
from matris.stores.documents.summaries import (  # noqa: TC001 - pydantic needs them
    DynamicsSummary,
    ElasticSummary,
    EosSummary,
    PhononSummary,
    QhaSummary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.stores.documents.candidate import Candidate

CHUNK_FORMAT = "matris-chunk-1"
"""Marks a job output as a chunk, so that a builder finds it among the other outputs of a job store."""

SCHEMA_VERSION = 1
"""Version of `CandidateDocument`. `matris.stores.CandidateStore` refuses stores with documents of another version."""

ERROR_LENGTH = 1000
"""Characters kept of an error message, so that documents stay small."""

SYMPREC = 0.1
"""Tolerance of the symmetry search (Å), the value of emmet and the Materials Project."""

DROPPED_AT = {"rejected": "sanity", "failed": "relaxation", "max_steps": "relaxation"}
"""Stage of a campaign at which a job's result of some state leaves it."""

logging.getLogger("moyo").setLevel(logging.ERROR)  # it warns about orbits, which nobody asks for here

_DENSITY = atomic_mass * 1e3 / 1e-24  # g/cm³ of 1 u/Å³
_ID_PART = 8

type State = Literal["converged", "max_steps", "failed", "rejected", "duplicate"]


def _plain_structure(value: Any) -> Any:
    """Accept a pymatgen structure where its dictionary is stored."""
    return value.as_dict() if isinstance(value, Structure) else value


StructureDict = Annotated[dict[str, Any] | None, BeforeValidator(_plain_structure)]


class CheckpointTag(BaseModel):
    """Which checkpoint computed something."""

    key: str = Field(description="Registry key or file name.")
    sha256: str = Field(description="Hash of the weights file.")
    energy_scale: str = Field(description="Which reference energies and corrections are legal: mp, matpes-pbe, …")


class RelaxTag(BaseModel):
    """How a chunk was relaxed."""

    fmax: float = Field(description="Convergence threshold of the forces (eV/Å).")
    max_steps: int = Field(description="Most optimisation steps.")
    relax_cell: bool = Field(description="Whether the cell moved too.")
    digest: str = Field(description="Hash of the settings.")
    first: dict[str, Any] | None = Field(default=None, description="Checkpoint and settings of a relaxation before.")


class ChunkRecord(BaseModel):
    """The small part of one candidate's result."""

    candidate_id: str
    source: str
    provenance: dict[str, Any] = Field(default_factory=dict)
    state: State
    error: str | None = Field(default=None, description="Why it failed or was rejected.")
    energy: float | None = Field(default=None, description="Total energy (eV) on the energy scale of the checkpoint.")
    n_steps: int | None = None
    first_steps: int | None = Field(default=None, description="Of the relaxation before, with another checkpoint.")
    fmax: float | None = Field(default=None, description="Largest force on an atom at the end (eV/Å).")
    smax: float | None = Field(default=None, description="Largest stress component at the end (eV/Å³).")
    extrapolation: float | None = Field(default=None, description="See `CandidateDocument`.")
    mean_extrapolation: float | None = None
    nsites: int | None = None
    formula: str | None = Field(default=None, description="Reduced formula of the input; None if it could not be read.")
    seconds: float | None = None
    hull: dict[str, Any] | None = Field(default=None, description="What a hull takes of it, see `hull_fields`.")


class ChunkArrays(BaseModel):
    """The per-atom part of one candidate's result."""

    candidate_id: str
    initial_structure: StructureDict = None
    structure: StructureDict = Field(default=None, description="Relaxed structure.")
    forces: list[list[float]] | None = Field(default=None, description="Shape (n, 3), eV/Å.")
    stress: list[list[float]] | None = Field(default=None, description="Shape (3, 3), eV/Å³, positive under tension.")
    magmoms: list[float] | None = Field(default=None, description="Shape (n,), Bohr magnetons.")


class ChunkDocument(BaseModel):
    """
    Output of one chunk job.

    `structures` runs parallel to `records` and belongs in the additional store named ``data``, because one
    document of a MongoDB may not pass 16 MB.
    """

    chunk_format: Literal["matris-chunk-1"] = "matris-chunk-1"
    records: list[ChunkRecord]
    structures: list[ChunkArrays]
    checkpoint: CheckpointTag
    settings: RelaxTag
    versions: dict[str, str] = Field(default_factory=dict)
    device: str
    dtype: str
    ran_on: dict[str, str | None] = Field(
        default_factory=dict, description="Host, job of the scheduler, and CUDA_VISIBLE_DEVICES there."
    )
    started: str | None = Field(default=None, description="ISO 8601, UTC.")
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(), description="ISO 8601, UTC; at its end."
    )

    @model_validator(mode="after")
    def _parallel(self) -> Self:
        if [r.candidate_id for r in self.records] != [a.candidate_id for a in self.structures]:
            raise ValueError("records and structures of a chunk must name the same candidates in the same order")
        return self


class Symmetry(BaseModel):
    """Space group of a structure."""

    crystal_system: str
    symbol: str
    number: int
    symprec: float = Field(SYMPREC, description="Tolerance (Å).")


class HullPlace(BaseModel):
    """Where a candidate lies on one hull; empty from `formation_energy_per_atom` on unless `hull_state` is ``"ok"``."""

    hull_reference: str = Field(description="Set of competing phases, with its hash.")
    hull_state: str = Field(description="'ok', or why there is no hull distance.")
    formation_energy_per_atom: float | None = Field(default=None, description="eV/atom.")
    energy_above_hull: float | None = Field(default=None, description="eV/atom.")
    is_stable: bool | None = None
    decomposes_to: list[dict[str, Any]] | None = None
    references_sha256: str | None = Field(default=None, description="Hash of the reference set, on a reference hull.")
    taken_at: datetime | None = Field(default=None, description="UTC.")


class CandidateDocument(BaseModel):
    """
    One candidate computed by one checkpoint with one set of settings.

    Field names follow emmet where emmet has the field. `energy_per_atom` is corrected,
    `uncorrected_energy_per_atom` is what the potential gave. Arrays and structures are kept apart, under the
    same `document_id`. The hull fields are those of the hull that was taken last; `hulls` has both kinds.
    """

    schema_version: int = SCHEMA_VERSION
    document_id: str
    candidate_id: str
    source: str
    provenance: dict[str, Any] = Field(default_factory=dict)
    state: State
    error: str | None = Field(default=None, description="Why it failed or was rejected.")
    stage: str | None = Field(default=None, description="Stage of the campaign at which it was dropped.")
    duplicate_of: str | None = Field(default=None, description="Candidate it equals.")

    formula_pretty: str | None = None
    chemsys: str | None = None
    elements: list[str] = Field(default_factory=list)
    nelements: int = 0
    nsites: int | None = None
    composition: dict[str, float] = Field(default_factory=dict)
    composition_reduced: dict[str, float] = Field(default_factory=dict)
    volume: float | None = Field(default=None, description="Of the cell (Å³).")
    volume_change: float | None = Field(default=None, description="On relaxing, relative.")
    density: float | None = Field(default=None, description="g/cm³.")
    symmetry: Symmetry | None = Field(default=None, description="Of the relaxed structure.")

    energy: float | None = Field(default=None, description="Total, uncorrected (eV).")
    uncorrected_energy_per_atom: float | None = Field(default=None, description="eV/atom.")
    energy_per_atom: float | None = Field(default=None, description="eV/atom, corrected for the energy scale.")
    corrections: dict[str, float] = Field(default_factory=dict, description="Name to energy (eV per cell).")
    correction_scheme: str | None = Field(default=None, description="Scheme applied, or why none could be.")

    hull_type: Literal["self-consistent", "reference"] | None = None
    hull_reference: str | None = Field(default=None, description="Set of competing phases.")
    hull_state: str | None = Field(default=None, description="'ok', or why there is no hull distance.")
    formation_energy_per_atom: float | None = Field(default=None, description="eV/atom.")
    energy_above_hull: float | None = Field(
        default=None, description="eV/atom; see matris.stores.hull.hull for negative values."
    )
    is_stable: bool | None = None
    decomposes_to: list[dict[str, Any]] | None = None
    hulls: dict[Literal["self-consistent", "reference"], HullPlace] = Field(default_factory=dict)

    elastic: ElasticSummary | None = None
    eos: EosSummary | None = None
    phonon: PhononSummary | None = None
    qha: QhaSummary | None = None
    md: DynamicsSummary | None = None

    n_steps: int | None = None
    first_steps: int | None = Field(default=None, description="Of the relaxation before, with another checkpoint.")
    fmax: float | None = Field(default=None, description="Largest force on an atom at the end (eV/Å).")
    smax: float | None = Field(default=None, description="Largest stress component at the end (eV/Å³).")
    extrapolation: float | None = Field(
        default=None,
        description="How far its atoms are from those the checkpoint was trained on, the largest; up to 1 known.",
    )
    mean_extrapolation: float | None = Field(default=None, description="Mean over the atoms.")
    is_extrapolating: bool | None = Field(default=None, description="None if the checkpoint does not know.")
    seconds: float | None = None
    checkpoint: CheckpointTag
    settings: RelaxTag
    versions: dict[str, str] = Field(default_factory=dict)
    device: str | None = Field(default=None, description="None if it was not computed.")
    dtype: str | None = Field(default=None, description="None if it was not computed.")
    job_uuid: str | None = Field(default=None, description="Job whose output this is; its structures are in `data`.")
    computed_at: str | None = Field(default=None, description="ISO 8601, UTC.")
    last_updated: datetime = Field(description="UTC.")


def document_id(candidate_id: str, checkpoint_sha256: str, settings_digest: str) -> str:
    """Key of a candidate's document: candidate, checkpoint and settings."""
    return f"{candidate_id}-{checkpoint_sha256[:_ID_PART]}-{settings_digest[:_ID_PART]}"


def utc_now() -> datetime:
    """
    Time as BSON keeps it: UTC, without zone, in milliseconds.

    Returns
    -------
    datetime
        The same value before and after a round trip through a store.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def make_document(
    record: ChunkRecord, arrays: ChunkArrays, chunk: ChunkDocument, job_uuid: str | None = None
) -> CandidateDocument:
    """
    Turn one result of a chunk into the document people query.

    Its energy is corrected for the energy scale; the hull fields are left to `matris.stores.hull.hull`.

    Parameters
    ----------
    record, arrays
        The two parts of the result.
    chunk
        The chunk they come from, for checkpoint, settings, versions and device.
    job_uuid
        Job whose output the chunk is.

    Returns
    -------
    CandidateDocument
    """
    relaxed = arrays.structure is not None
    known = arrays.structure or arrays.initial_structure
    structure = Structure.from_dict(known) if known else None
    crystal = describe(structure, relaxed=relaxed) if structure is not None else {}
    if relaxed and structure is not None and arrays.initial_structure is not None:
        before = Lattice(arrays.initial_structure["lattice"]["matrix"]).volume
        crystal["volume_change"] = float(structure.volume / before - 1)
    energy: dict[str, Any] = {}
    if relaxed and structure is not None and record.energy is not None:
        known = record.hull or hull_fields(structure, record.energy, chunk.checkpoint.energy_scale)
        energy = {name: known[name] for name in ("energy_per_atom", "corrections", "correction_scheme")}
        energy["uncorrected_energy_per_atom"] = record.energy / len(structure)
    kept = record.model_dump(exclude={"nsites", "formula", "error", "hull"})
    kept["is_extrapolating"] = None if record.extrapolation is None else record.extrapolation > 1
    return CandidateDocument(
        document_id=document_id(record.candidate_id, chunk.checkpoint.sha256, chunk.settings.digest),
        error=record.error[:ERROR_LENGTH] if record.error else None,
        stage=DROPPED_AT.get(record.state),
        checkpoint=chunk.checkpoint,
        settings=chunk.settings,
        versions=chunk.versions,
        device=chunk.device,
        dtype=chunk.dtype,
        job_uuid=job_uuid,
        computed_at=chunk.created,
        last_updated=utc_now(),
        **kept,
        **crystal,
        **energy,
    )


def make_dropped(
    candidate: Candidate,
    stage: str,
    reason: str,
    *,
    checkpoint: CheckpointTag,
    settings: RelaxTag,
    state: State = "rejected",
    duplicate_of: str | None = None,
) -> CandidateDocument:
    """
    Document a candidate that no job has computed.

    Parameters
    ----------
    candidate
        With a structure or without.
    stage, reason
        Where and why it was dropped.
    checkpoint, settings
        With which it would have been computed.
    state
        What became of it.
    duplicate_of
        Candidate it equals.

    Returns
    -------
    CandidateDocument
    """
    crystal: dict[str, Any] = {}
    if candidate.structure is not None and len(candidate.structure):
        crystal = describe(candidate.structure, relaxed=False)
    return CandidateDocument(
        document_id=document_id(candidate.candidate_id, checkpoint.sha256, settings.digest),
        candidate_id=candidate.candidate_id,
        source=candidate.source,
        provenance=candidate.provenance,
        state=state,
        error=reason[:ERROR_LENGTH],
        stage=stage,
        duplicate_of=duplicate_of,
        checkpoint=checkpoint,
        settings=settings,
        last_updated=utc_now(),
        **crystal,
    )


def unwind(chunk: ChunkDocument, job_uuid: str | None = None) -> Iterator[tuple[CandidateDocument, ChunkArrays]]:
    """Yield the document and the arrays of each candidate of a chunk."""
    for record, arrays in zip(chunk.records, chunk.structures, strict=True):
        yield make_document(record, arrays, chunk, job_uuid), arrays


def hull_fields(structure: Structure, energy: float, energy_scale: str) -> dict[str, Any]:
    """
    Give what a hull takes of a relaxed structure.

    Parameters
    ----------
    structure, energy
        Relaxed structure and its total energy (eV).
    energy_scale
        Of the checkpoint.

    Returns
    -------
    dict
        ``chemsys``, ``composition``, ``energy_per_atom`` (eV, corrected; None if no correction is known),
        ``corrections`` and ``correction_scheme``, as in `CandidateDocument`.
    """
    composition = structure.composition
    fields: dict[str, Any] = {
        "chemsys": composition.chemical_system,
        "composition": composition.get_el_amt_dict(),
        "energy_per_atom": None,
        "corrections": {},
    }
    try:
        entry = corrected_entry(structure, energy, energy_scale)
    except CorrectionError as error:
        return fields | {"correction_scheme": str(error)}
    return fields | {
        "energy_per_atom": entry.energy_per_atom,
        "corrections": {adjustment.name: float(adjustment.value) for adjustment in entry.energy_adjustments},
        "correction_scheme": correction_scheme(energy_scale, composition),
    }


def describe(structure: Structure, *, relaxed: bool) -> dict[str, Any]:
    """
    Fields that describe a structure, in emmet's names.

    Parameters
    ----------
    structure
        The structure.
    relaxed
        Whether volume, density and symmetry say something, and are to be given.

    Returns
    -------
    dict
        ``formula_pretty``, ``chemsys``, ``elements``, …
    """
    composition = structure.composition
    fields: dict[str, Any] = {
        "formula_pretty": composition.reduced_formula,
        "chemsys": composition.chemical_system,
        "elements": sorted(composition.chemical_system_set),
        "nelements": len(composition.chemical_system_set),
        "nsites": len(structure),
        "composition": composition.get_el_amt_dict(),
        "composition_reduced": composition.reduced_composition.get_el_amt_dict(),
    }
    if relaxed:
        volume = structure.volume
        mass = sum(amount * _mass(symbol) for symbol, amount in fields["composition"].items())
        fields |= {"volume": volume, "density": _DENSITY * mass / volume, "symmetry": _symmetry(structure)}
    return fields


@cache
def _mass(symbol: str) -> float:
    """Of an atom (u); pymatgen's carries its unit along, which takes longer than all else here."""
    return float(Element(symbol).atomic_mass)


def _symmetry(structure: Structure) -> Symmetry | None:
    """Space group; None where moyo finds none, as in a cell that has collapsed."""
    cell = Cell(
        structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), [specie.Z for specie in structure.species]
    )
    try:
        group = SpaceGroupType(MoyoDataset(cell, symprec=SYMPREC).number)
    except ValueError:
        return None
    return Symmetry(
        crystal_system=group.crystal_system,
        symbol=group.hm_short.replace(" ", ""),
        number=group.number,
        symprec=SYMPREC,
    )
