"""
Document models: the output of a chunk job, and one document per candidate, checkpoint and relaxation settings.

The descriptions of the fields are user documentation, and `matris.stores.documents.fields` takes units from them.
"""

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

from matris.files.stored_objects import decode_structure
from matris.files.structure_files import SYMPREC
from matris.stores.documents.corrections import CorrectionError, corrected_entry, correction_scheme
from matris.stores.documents.learning import Choice, DftEnergy  # noqa: TC001 - pydantic needs them
from matris.stores.documents.summaries import (  # noqa: TC001 - pydantic needs them
    DefectsSummary,
    DiffusionSummary,
    DynamicsSummary,
    ElasticSummary,
    EosSummary,
    KappaSummary,
    NebSummary,
    PhononSummary,
    QhaSummary,
    SurfacesSummary,
)
from matris.units import GPA
from matris.vacuum import vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matris.stores.documents.candidate import Candidate

CHUNK_FORMAT = "matris-chunk-1"
"""Format mark of a chunk. The builder finds chunks in a job store by it."""

SCHEMA_VERSION = 1
"""Version of `CandidateDocument`. `matris.stores.CandidateStore` refuses stores with documents of another version."""

ERROR_LENGTH = 1000
"""Characters kept of an error message, so that documents stay small."""

DROPPED_AT = {"rejected": "sanity", "failed": "relaxation", "max_steps": "relaxation"}
"""State of a job's result to the campaign stage at which such a candidate is dropped."""

logging.getLogger("moyo").setLevel(logging.ERROR)  # moyo warns about orbits, which are not used here

_DENSITY = atomic_mass * 1e3 / 1e-24  # 1 u/Å³ in g/cm³
_CORRECTED = (
    "energy_per_atom",
    "enthalpy_per_atom",
    "corrections",
    "correction_scheme",
    "correction_state",
    "oxidation_states",
    "vacuum",
)
_ID_PART = 8  # digits of each hash in a document id

type State = Literal["converged", "max_steps", "failed", "rejected", "duplicate"]


def _plain_structure(value: Any) -> Any:
    """Convert a pymatgen structure to its dictionary; pass other values on."""
    return value.as_dict() if isinstance(value, Structure) else value


StructureDict = Annotated[dict[str, Any] | None, BeforeValidator(_plain_structure)]


class CheckpointTag(BaseModel):
    """Checkpoint that computed a result."""

    key: str = Field(description="Registry key or file name of the checkpoint.")
    sha256: str = Field(description="SHA-256 hash of the weights file.")
    energy_scale: str = Field(
        description="Energy scale: mp, omat24, matpes-pbe, …; it decides which references and corrections apply."
    )
    is_demonstrator: bool | None = Field(
        default=None, description="Whether the checkpoint is a demonstrator; None in documents that do not say."
    )


class RelaxTag(BaseModel):
    """Relaxation settings of a chunk."""

    fmax: float = Field(description="Convergence threshold of the forces (eV/Å).")
    max_steps: int = Field(description="Maximum number of optimisation steps.")
    relax_cell: bool = Field(description="Whether the cell was relaxed, not only the atoms.")
    optimizer: str = Field(default="fire", description="lbfgs or fire; documents that do not say used fire.")
    pressure: float = Field(default=0.0, description="External pressure on the cell (GPa).")
    fix_symmetry: bool = Field(default=False, description="Whether the symmetry of the input was kept.")
    symprec: float = Field(default=0.01, description="Tolerance for that symmetry (Å).")
    cell_mask: str | list[bool] | None = Field(default=None, description="How the cell could deform; None: freely.")
    digest: str = Field(description="Hash of the settings.")
    first: dict[str, Any] | None = Field(
        default=None, description="Checkpoint and settings of the preceding relaxation, if there was one."
    )


class ChunkRecord(BaseModel):
    """Scalar results of one candidate."""

    candidate_id: str = Field(description="Hash of the input structure.")
    source: str = Field(description="File that the input came from, or the name of a generator.")
    provenance: dict[str, Any] = Field(default_factory=dict, description="Place in the source, parent structures, ….")
    state: State = Field(description="As in `CandidateDocument`.")
    error: str | None = Field(default=None, description="Why the candidate failed or was rejected.")
    energy: float | None = Field(default=None, description="Total energy (eV) on the energy scale of the checkpoint.")
    n_steps: int | None = Field(default=None, description="Number of optimisation steps.")
    first_steps: int | None = Field(
        default=None, description="Number of optimisation steps of the preceding relaxation."
    )
    fmax: float | None = Field(default=None, description="Largest force on an atom at the end (eV/Å).")
    smax: float | None = Field(default=None, description="Largest stress component at the end (eV/Å³).")
    extrapolation: float | None = Field(default=None, description="As in `CandidateDocument`.")
    mean_extrapolation: float | None = Field(default=None, description="As in `CandidateDocument`.")
    nsites: int | None = Field(default=None, description="Number of atoms in the cell.")
    formula: str | None = Field(default=None, description="Reduced formula of the input; None if it is unreadable.")
    seconds: float | None = Field(
        default=None, description="Wall time that the candidate spent in its batch, in seconds."
    )
    hull: dict[str, Any] | None = Field(default=None, description="Input of the convex hull, see `hull_fields`.")


class ChunkArrays(BaseModel):
    """Structures and per-atom results of one candidate."""

    candidate_id: str
    initial_structure: StructureDict = Field(default=None, description="Input structure.")
    structure: StructureDict = Field(default=None, description="Relaxed structure.")
    forces: list[list[float]] | None = Field(default=None, description="Shape (n, 3), eV/Å.")
    stress: list[list[float]] | None = Field(default=None, description="Shape (3, 3), eV/Å³, positive under tension.")
    magmoms: list[float] | None = Field(default=None, description="Shape (n,), Bohr magnetons.")


class ChunkDocument(BaseModel):
    """
    Output of one chunk job.

    `structures` runs parallel to `records`. It belongs in the additional store named ``data``, because MongoDB limits
    a document to 16 MB.
    """

    chunk_format: Literal["matris-chunk-1"] = "matris-chunk-1"
    records: list[ChunkRecord]
    structures: list[ChunkArrays]
    checkpoint: CheckpointTag
    settings: RelaxTag
    versions: dict[str, str] = Field(default_factory=dict)
    device: str = Field(description="Device of the potential: cpu, cuda, …")
    dtype: str = Field(description="As in `CandidateDocument`.")
    ran_on: dict[str, str | None] = Field(
        default_factory=dict, description="Host name, scheduler job id and CUDA_VISIBLE_DEVICES of the job."
    )
    started: str | None = Field(default=None, description="Start of the job, ISO 8601, UTC.")
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(), description="End of the job, ISO 8601, UTC."
    )

    @model_validator(mode="after")
    def _parallel(self) -> Self:
        if [r.candidate_id for r in self.records] != [a.candidate_id for a in self.structures]:
            raise ValueError("records and structures of a chunk must name the same candidates in the same order")
        return self


class Symmetry(BaseModel):
    """Space group of a structure."""

    crystal_system: str = Field(description="Crystal system, such as Cubic.")
    symbol: str = Field(description="Hermann–Mauguin symbol of the space group.")
    number: int = Field(description="Number of the space group, 1 to 230.")
    symprec: float = Field(SYMPREC, description="Distance tolerance of the symmetry search (Å).")


class HullPlace(BaseModel):
    """Place of a candidate on one hull. The fields from the formation energy on are None if there is no place."""

    hull_reference: str = Field(description="Name and hash of the set of competing phases.")
    hull_state: str = Field(description="'ok', or the reason why there is no hull distance.")
    formation_energy_per_atom: float | None = Field(
        default=None, description="Formation energy from the elements (eV/atom)."
    )
    energy_above_hull: float | None = Field(default=None, description="Distance to the convex hull (eV/atom).")
    is_stable: bool | None = Field(default=None, description="Whether `energy_above_hull` is at most zero.")
    decomposes_to: list[dict[str, Any]] | None = Field(
        default=None,
        description="Competing phases of the lowest-energy mixture, with their fractions of the atoms; empty for a "
        "phase on its own hull.",
    )
    equilibrium_reaction_energy_per_atom: float | None = Field(
        default=None,
        description="For a stable phase, its energy minus that of the hull of the other stable phases (eV/atom): at "
        "most 0; 0 for elements.",
    )
    only_elements_compete: bool | None = Field(
        default=None,
        description="Whether no compound of another composition competes in its chemical system and the subsystems.",
    )
    hull_lacks: list[str] | None = Field(
        default=None,
        description="Two-element subsystems, and the system itself, in which no compound of another composition "
        "competes.",
    )
    references_sha256: str | None = Field(
        default=None, description="SHA-256 hash of the reference set; None on a self-consistent hull."
    )
    taken_at: datetime | None = Field(default=None, description="When the place was computed, UTC.")


class CandidateDocument(BaseModel):
    """
    One candidate computed by one checkpoint with one set of settings.

    Field names follow emmet where emmet has the field. `energy_per_atom` is corrected for the energy scale of the
    checkpoint; `uncorrected_energy_per_atom` is the energy of the potential. Structures and per-atom arrays are in
    another collection, under the same `document_id`. The hull fields of the document describe the hull that was
    computed last; `hulls` keeps the place on both kinds of hull.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this document model.")
    document_id: str = Field(description="Key: candidate, checkpoint and settings, see `document_id`.")
    candidate_id: str = Field(description="Hash of the input structure, the same under every checkpoint.")
    source: str = Field(description="File that the input came from, or the name of a generator.")
    provenance: dict[str, Any] = Field(default_factory=dict, description="Place in the source, parent structures, ….")
    state: State = Field(
        description="converged; max_steps: not converged; failed; rejected or duplicate: dropped without a calculation."
    )
    error: str | None = Field(default=None, description="Why the candidate failed or was rejected.")
    stage: str | None = Field(default=None, description="Stage of the campaign at which the candidate was dropped.")
    duplicate_of: str | None = Field(default=None, description="`candidate_id` of the candidate it duplicates.")

    formula_pretty: str | None = Field(default=None, description="Reduced formula.")
    chemsys: str | None = Field(default=None, description="Chemical system: its elements, sorted, as Fe-Li-O.")
    elements: list[str] = Field(default_factory=list, description="Symbols of the elements, sorted.")
    nelements: int = Field(default=0, description="Number of elements.")
    nsites: int | None = Field(default=None, description="Number of atoms in the cell.")
    composition: dict[str, float] = Field(default_factory=dict, description="Number of atoms in the cell, by element.")
    composition_reduced: dict[str, float] = Field(
        default_factory=dict, description="Number of atoms in the reduced formula, by element."
    )
    pressure: float = Field(default=0.0, description="External pressure under which the cell was relaxed (GPa).")
    volume: float | None = Field(default=None, description="Volume of the relaxed cell (Å³).")
    volume_change: float | None = Field(default=None, description="Relative change of the volume on relaxation.")
    density: float | None = Field(default=None, description="Density of the relaxed structure (g/cm³).")
    symmetry: Symmetry | None = Field(default=None, description="Space group of the relaxed structure.")

    energy: float | None = Field(default=None, description="Total energy of the cell (eV), uncorrected.")
    uncorrected_energy_per_atom: float | None = Field(
        default=None, description="Energy of the potential (eV/atom), uncorrected."
    )
    energy_per_atom: float | None = Field(default=None, description="Energy corrected for the energy scale (eV/atom).")
    enthalpy_per_atom: float | None = Field(
        default=None,
        description="`energy_per_atom` + pV at `pressure` (eV/atom), which hulls compare; None at zero pressure, where "
        "it is the energy.",
    )
    corrections: dict[str, float] = Field(default_factory=dict, description="Energy corrections by name (eV per cell).")
    correction_scheme: str | None = Field(
        default=None, description="Name of the correction scheme, or the reason why none applies."
    )
    correction_state: Literal["decided", "undecided"] | None = Field(
        default=None,
        description="undecided: the oxidation states are not known, and the correction depends on them; "
        "None without a corrected energy.",
    )
    oxidation_states: dict[str, float] | None = Field(
        default=None,
        description="Mean oxidation state of each element that the correction used; empty if none balance.",
    )
    vacuum: float | None = Field(
        default=None,
        description="Widest gap without atoms, if it is wider than 6 Å (a slab, wire or molecule in vacuum), Å; such a "
        "cell is on no hull.",
    )

    hull_type: Literal["self-consistent", "reference"] | None = Field(
        default=None,
        description="self-consistent: competing phases by the same checkpoint; reference: from a reference set.",
    )
    hull_reference: str | None = Field(default=None, description="Name and hash of the set of competing phases.")
    hull_state: str | None = Field(default=None, description="'ok', or the reason why there is no hull distance.")
    formation_energy_per_atom: float | None = Field(
        default=None, description="Formation energy from the elements (eV/atom)."
    )
    energy_above_hull: float | None = Field(
        default=None,
        description="Distance to the convex hull (eV/atom). Negative only on a reference hull: the energy by which the "
        "candidate lies below the known phases.",
    )
    is_stable: bool | None = Field(default=None, description="Whether `energy_above_hull` is at most zero.")
    decomposes_to: list[dict[str, Any]] | None = Field(
        default=None,
        description="Competing phases of the lowest-energy mixture, with their fractions of the atoms; empty for a "
        "phase on its own hull.",
    )
    equilibrium_reaction_energy_per_atom: float | None = Field(
        default=None,
        description="For a stable phase, its energy minus that of the hull of the other stable phases (eV/atom): at "
        "most 0; 0 for elements.",
    )
    only_elements_compete: bool | None = Field(
        default=None,
        description="Whether no compound of another composition competes in its chemical system and the subsystems.",
    )
    hull_lacks: list[str] | None = Field(
        default=None,
        description="Two-element subsystems, and the system itself, in which no compound of another composition "
        "competes.",
    )
    hulls: dict[Literal["self-consistent", "reference", "dft"], HullPlace] = Field(
        default_factory=dict,
        description="Place on the last hull of each type; dft: the hull on which first-principles energies replace "
        "predictions where there are some.",
    )
    dft: DftEnergy | None = Field(default=None, description="First-principles energy that `hulls.dft` has for it.")
    chosen: Choice | None = Field(default=None, description="Why it was chosen for a first-principles calculation.")

    elastic: ElasticSummary | None = Field(default=None, description="Elastic constants.")
    eos: EosSummary | None = Field(default=None, description="Equation of state.")
    phonon: PhononSummary | None = Field(default=None, description="Harmonic phonons.")
    qha: QhaSummary | None = Field(default=None, description="Quasi-harmonic thermodynamics.")
    kappa: KappaSummary | None = Field(default=None, description="Lattice thermal conductivity.")
    neb: NebSummary | None = Field(default=None, description="Migration barriers.")
    defects: DefectsSummary | None = Field(default=None, description="Point defects.")
    surfaces: SurfacesSummary | None = Field(default=None, description="Surfaces.")
    md: DynamicsSummary | None = Field(default=None, description="Molecular dynamics.")
    diffusion: DiffusionSummary | None = Field(default=None, description="Diffusion and ionic conductivity.")

    n_steps: int | None = Field(default=None, description="Number of optimisation steps.")
    first_steps: int | None = Field(
        default=None, description="Number of optimisation steps of the preceding relaxation."
    )
    fmax: float | None = Field(default=None, description="Largest force on an atom at the end (eV/Å).")
    smax: float | None = Field(default=None, description="Largest stress component at the end (eV/Å³).")
    extrapolation: float | None = Field(
        default=None,
        description="Distance of the atomic environments from the training data, maximum over the atoms; values up to "
        "1 are inside the training domain.",
    )
    mean_extrapolation: float | None = Field(
        default=None, description="Distance from the training data as in `extrapolation`, mean over the atoms."
    )
    is_extrapolating: bool | None = Field(
        default=None, description="Whether `extrapolation` exceeds 1; None if the checkpoint has no training domain."
    )
    seconds: float | None = Field(
        default=None, description="Wall time that the candidate spent in its batch, in seconds."
    )
    checkpoint: CheckpointTag = Field(description="Checkpoint that computed the candidate.")
    settings: RelaxTag = Field(description="Relaxation settings.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the packages, by name.")
    device: str | None = Field(default=None, description="Device of the potential; None if nothing was computed.")
    dtype: str | None = Field(
        default=None,
        description="Floating-point type of the potential, float32-bf16x3 if a GPU multiplied with fewer digits; None "
        "if nothing was computed.",
    )
    job_uuid: str | None = Field(default=None, description="Job that computed the candidate; None if no job did.")
    computed_at: str | None = Field(default=None, description="End of the job, ISO 8601, UTC.")
    last_updated: datetime = Field(description="Last change of this document, UTC.")


def document_id(candidate_id: str, checkpoint_sha256: str, settings_digest: str) -> str:
    """
    Build the key of a candidate's document.

    Parameters
    ----------
    candidate_id
        Hash of the input structure.
    checkpoint_sha256
        SHA-256 hash of the weights.
    settings_digest
        Hash of the relaxation settings.

    Examples
    --------
    >>> document_id("6ae1f0", "0123456789abcdef", "fedcba9876543210")
    '6ae1f0-01234567-fedcba98'
    """
    return f"{candidate_id}-{checkpoint_sha256[:_ID_PART]}-{settings_digest[:_ID_PART]}"


def utc_now() -> datetime:
    """
    Return the current time as BSON stores it: UTC without a time zone, in whole milliseconds.

    Returns
    -------
    datetime
        A store returns the same value.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def make_document(
    record: ChunkRecord, arrays: ChunkArrays, chunk: ChunkDocument, job_uuid: str | None = None
) -> CandidateDocument:
    """
    Convert one result of a chunk to the document that users query.

    The energy is corrected for the energy scale. The hull fields stay empty until `matris.stores.hull.placing` sets
    them.

    Parameters
    ----------
    record, arrays
        Scalar and per-atom results of the candidate.
    chunk
        Chunk of the result; gives checkpoint, settings, versions and device.
    job_uuid
        Job that computed the chunk.

    Returns
    -------
    CandidateDocument
    """
    relaxed, pressure = arrays.structure is not None, pressure_of(chunk.settings.model_dump())
    stored = arrays.structure or arrays.initial_structure
    structure = decode_structure(stored) if stored else None
    crystal = describe(structure, relaxed=relaxed) if structure is not None else {}
    if relaxed and structure is not None and arrays.initial_structure is not None:
        initial_volume = Lattice(arrays.initial_structure["lattice"]["matrix"]).volume
        crystal["volume_change"] = float(structure.volume / initial_volume - 1)
    energy: dict[str, Any] = {}
    if relaxed and structure is not None and record.energy is not None:
        corrected = record.hull or hull_fields(structure, record.energy, chunk.checkpoint.energy_scale, pressure)
        energy = {name: corrected.get(name) for name in _CORRECTED}
        energy["uncorrected_energy_per_atom"] = record.energy / len(structure)
    scalars = record.model_dump(exclude={"nsites", "formula", "error", "hull"})
    scalars["is_extrapolating"] = is_extrapolating(record.extrapolation)
    return CandidateDocument(
        document_id=document_id(record.candidate_id, chunk.checkpoint.sha256, chunk.settings.digest),
        error=(record.error or _unconverged(record) or "")[:ERROR_LENGTH] or None,
        stage=DROPPED_AT.get(record.state),
        checkpoint=chunk.checkpoint,
        settings=chunk.settings,
        versions=chunk.versions,
        device=chunk.device,
        dtype=chunk.dtype,
        job_uuid=job_uuid,
        computed_at=chunk.created,
        pressure=pressure,
        last_updated=utc_now(),
        **scalars,
        **crystal,
        **energy,
    )


def unconverged(n_steps: int | None, fmax: float | None, smax: float | None) -> str:
    """
    Say how far from convergence a relaxation ended.

    Parameters
    ----------
    n_steps, fmax, smax
        Number of steps; largest force (eV/Å) and stress (eV/Å³) at the end, None if not known.

    Examples
    --------
    >>> unconverged(500, 0.31, 0.0125)
    'not converged after 500 steps, largest force 0.31 eV/Å, largest stress 2.0 GPa'
    """
    force = "" if fmax is None else f", largest force {fmax:.2f} eV/Å"
    stress = "" if smax is None else f", largest stress {smax * GPA:.1f} GPa"
    return f"not converged after {n_steps} steps{force}{stress}"


def _unconverged(record: ChunkRecord) -> str | None:
    return unconverged(record.n_steps, record.fmax, record.smax) if record.state == "max_steps" else None


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
    Build the document of a candidate that was dropped before any job computed it.

    Parameters
    ----------
    candidate
        Candidate, with or without a structure.
    stage, reason
        Stage of the campaign at which the candidate was dropped, and why.
    checkpoint, settings
        Checkpoint and settings of the campaign.
    state
        ``"rejected"`` or another state without results.
    duplicate_of
        `candidate_id` of the candidate it duplicates.

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
        pressure=pressure_of(settings.model_dump()),
        last_updated=utc_now(),
        **crystal,
    )


def is_extrapolating(extrapolation: float | None) -> bool | None:
    """Whether the largest extrapolation of the atoms is outside the domain of the potential; None if unknown."""
    return None if extrapolation is None else extrapolation > 1


def pressure_of(settings: Mapping[str, Any]) -> float:
    """
    Pressure under which a cell was relaxed, GPa.

    Parameters
    ----------
    settings
        Fields of a `RelaxTag`. An evaluation has the pressure of the preceding relaxation.

    Examples
    --------
    >>> relaxation = {"max_steps": 500, "pressure": 10.0}
    >>> pressure_of(relaxation), pressure_of({"max_steps": 0, "pressure": 0.0, "first": relaxation})
    (10.0, 10.0)
    """
    first = settings.get("first")
    if settings.get("max_steps") == 0 and first:
        return pressure_of(first)
    return float(settings.get("pressure") or 0.0)


def competing_energy(document: Mapping[str, Any]) -> float | None:
    """
    Energy by which a candidate competes with others, corrected, eV/atom: under a pressure the enthalpy.

    Parameters
    ----------
    document
        Candidate document with ``energy_per_atom`` and ``enthalpy_per_atom``.

    Examples
    --------
    >>> competing_energy({"energy_per_atom": -3.0}), competing_energy({"energy_per_atom": -3.0, "enthalpy_per_atom": 1})
    (-3.0, 1)
    """
    enthalpy: float | None = document.get("enthalpy_per_atom")
    return document.get("energy_per_atom") if enthalpy is None else enthalpy


def unwind(chunk: ChunkDocument, job_uuid: str | None = None) -> Iterator[tuple[CandidateDocument, ChunkArrays]]:
    """Yield the document and the arrays of each candidate in a chunk."""
    for record, arrays in zip(chunk.records, chunk.structures, strict=True):
        yield make_document(record, arrays, chunk, job_uuid), arrays


def hull_fields(structure: Structure, energy: float, energy_scale: str, pressure: float = 0.0) -> dict[str, Any]:
    """
    Compute the fields of a relaxed structure that a convex hull needs.

    Parameters
    ----------
    structure, energy
        Relaxed structure and its total energy (eV).
    energy_scale
        Energy scale of the checkpoint.
    pressure
        Pressure under which the structure was relaxed, GPa. Corrections do not depend on it.

    Returns
    -------
    dict
        ``chemsys``, ``composition``, ``energy_per_atom`` (eV, corrected; None if no correction is known),
        ``enthalpy_per_atom`` (eV, None also at zero pressure), ``corrections``, ``correction_scheme``,
        ``correction_state``, ``oxidation_states`` and ``vacuum``, as in `CandidateDocument`.

    Examples
    --------
    >>> from pymatgen.core import Lattice
    >>> iron_oxide = Structure(Lattice.cubic(4.2), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> hull_fields(iron_oxide, -14.0, "matpes-pbe")["energy_per_atom"]  # MatPES energies need no correction
    -7.0
    >>> round(hull_fields(iron_oxide, -14.0, "matpes-pbe", 10.0)["enthalpy_per_atom"], 3)
    -4.688
    """
    composition = structure.composition
    fields: dict[str, Any] = {
        "chemsys": composition.chemical_system,
        "composition": composition.get_el_amt_dict(),
        "energy_per_atom": None,
        "enthalpy_per_atom": None,
        "corrections": {},
        "vacuum": vacuum(structure),
    }
    try:
        entry = corrected_entry(structure, energy, energy_scale)
    except CorrectionError as error:
        return fields | {"correction_scheme": str(error)}
    return fields | {
        "energy_per_atom": entry.energy_per_atom,
        "enthalpy_per_atom": entry.energy_per_atom + pressure / GPA * structure.volume / len(structure)
        if pressure
        else None,
        "corrections": {adjustment.name: float(adjustment.value) for adjustment in entry.energy_adjustments},
        "correction_scheme": correction_scheme(energy_scale, composition),
        "correction_state": entry.data["correction_state"],
        "oxidation_states": entry.data.get("oxidation_states"),
    }


def describe(structure: Structure, *, relaxed: bool) -> dict[str, Any]:
    """
    Describe a structure by emmet's fields.

    Parameters
    ----------
    structure
        Structure to describe.
    relaxed
        Whether to include volume, density and symmetry.

    Returns
    -------
    dict
        ``formula_pretty``, ``chemsys``, ``elements``, ``nelements``, ``nsites``, ``composition`` and
        ``composition_reduced``; for a relaxed structure also ``volume`` (Å³), ``density`` (g/cm³) and ``symmetry``.

    Examples
    --------
    >>> from pymatgen.core import Lattice
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> fields = describe(salt, relaxed=True)
    >>> fields["formula_pretty"], fields["chemsys"], fields["symmetry"].symbol, round(fields["density"], 2)
    ('CsCl', 'Cl-Cs', 'Pm-3m', 4.0)
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
    """Atomic mass (u) as a plain float: arithmetic with pymatgen's `FloatWithUnit` is slow."""
    return float(Element(symbol).atomic_mass)


def _symmetry(structure: Structure) -> Symmetry | None:
    """Find the space group; None where moyo finds none, as in a collapsed cell."""
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
