"""Documents of properties computed by the batch Makers: one per material."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from matris.stores.documents.documents import CheckpointTag, StructureDict, Symmetry  # noqa: TC001 - pydantic needs them

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobflow import JobStore

PROPERTY_FORMAT = "matris-properties-1"
"""Marks a job output as properties, so that a builder finds it among the other outputs of a job store."""


class PropertyOutput(BaseModel):
    """Output of one job: a document per material, in the order given."""

    property_format: Literal["matris-properties-1"] = "matris-properties-1"
    kind: str = Field(description="Key of matris.stores.documents.summaries.SUMMARIES.")


class PropertyDocument(BaseModel):
    """
    What all properties have in common.

    Field names follow emmet where emmet has the field. The large fields (`structure`, and what a kind of property
    marks so) belong in the additional store named ``data``.
    """

    candidate_id: str = Field(description="Hash of the input structure.")
    state: Literal["converged", "max_steps", "completed", "failed"] = Field(
        description="Molecular dynamics does not converge: it is completed."
    )
    error: str | None = Field(default=None, description="Why it failed.")
    warnings: list[str] = Field(default_factory=list, description="What to know before using the results.")

    formula_pretty: str | None = None
    chemsys: str | None = None
    elements: list[str] = Field(default_factory=list)
    nelements: int = 0
    nsites: int | None = None
    composition: dict[str, float] = Field(default_factory=dict)
    composition_reduced: dict[str, float] = Field(default_factory=dict)
    volume: float | None = Field(default=None, description="Of the relaxed cell (Å³).")
    density: float | None = Field(default=None, description="g/cm³.")
    symmetry: Symmetry | None = Field(default=None, description="Of the relaxed cell.")
    structure: StructureDict = Field(default=None, description="Relaxed cell, to whose axes tensors refer.")

    checkpoint: CheckpointTag
    settings: dict[str, Any] = Field(default_factory=dict, description="Of the Maker.")
    versions: dict[str, str] = Field(default_factory=dict)
    device: str
    dtype: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(), description="ISO 8601, UTC.")


class Averages(BaseModel):
    """A modulus of the polycrystal, GPa."""

    voigt: float
    reuss: float
    vrh: float


class ElasticDocument(PropertyDocument):
    """Elastic constants of one material."""

    elastic_tensor: dict[str, list[list[float]]] | None = Field(
        default=None, description="GPa, (6, 6): `raw` in the axes of `structure`, `ieee_format` in standard ones."
    )
    bulk_modulus: Averages | None = None
    shear_modulus: Averages | None = None
    young_modulus: float | None = Field(default=None, description="GPa.")
    homogeneous_poisson: float | None = None
    universal_anisotropy: float | None = None
    is_mechanically_stable: bool | None = Field(default=None, description="C is positive definite.")
    eigenvalues: list[float] | None = Field(default=None, description="Of C in Voigt notation, GPa, ascending.")
    fit_residual: float | None = Field(default=None, description="Root mean square, GPa.")
    nonlinearity: float | None = Field(default=None, description="Change of constants between strains, relative.")


class EosFitDocument(BaseModel):
    """Parameters of one equation of state."""

    equation: str
    e0: float = Field(description="eV per cell.")
    v0: float = Field(description="Å³ per cell.")
    b0: float = Field(description="GPa.")
    b1: float
    residual: float = Field(description="Root mean square, eV per atom.")


class EosDocument(PropertyDocument):
    """Equation of state of one material."""

    volumes: list[float] = Field(default_factory=list, description="Å³ per cell.")
    energies: list[float] = Field(default_factory=list, description="eV per cell.")
    fits: list[EosFitDocument] = Field(default_factory=list)


class UnstableModeDocument(BaseModel):
    """The most imaginary mode among those that the supercell holds, and where it leads."""

    qpoint: list[float] = Field(description="In reciprocal vectors of the primitive cell.")
    frequency: float = Field(description="THz; negative: imaginary.")
    eigenvector: list[list[list[float]]] = Field(description="(primitive atoms, 3, real and imaginary part).")
    structure: StructureDict = Field(default=None, description="Distorted along the mode and relaxed, if asked for.")
    energy_gain: float | None = Field(default=None, description="By distorting and relaxing, eV/atom; negative: lower.")
    state: str | None = Field(default=None, description="Of that relaxation.")


class PhononDocument(PropertyDocument):
    """Harmonic phonons of one material; bands, DOS and force constants are large."""

    supercell_matrix: list[list[int]] | None = Field(default=None, description="phonopy's convention.")
    primitive_matrix: list[list[float]] | None = Field(default=None, description="phonopy's convention.")
    n_displacements: int | None = None
    min_frequency: float | None = Field(default=None, description="THz; imaginary ones are negative.")
    has_imaginary_modes: bool | None = None
    temperatures: list[float] = Field(default_factory=list, description="K.")
    free_energies: list[float] = Field(default_factory=list, description="J/mol of primitive cells.")
    entropies: list[float] = Field(default_factory=list, description="J/K/mol of primitive cells.")
    heat_capacities: list[float] = Field(default_factory=list, description="J/K/mol of primitive cells.")
    nsites_primitive: int | None = None
    phonon_bandstructure: dict[str, Any] | None = Field(
        default=None, description="`qpoints`, `distances`, `frequencies` (THz) by segment; `labels`, `connections`."
    )
    phonon_dos: dict[str, list[float]] | None = Field(
        default=None, description="`frequencies` (THz) and `densities` (states per THz and primitive cell)."
    )
    force_constants: list[Any] | None = Field(
        default=None, description="eV/Å², (primitive atoms, atoms of supercell, 3, 3): phonopy's compact form."
    )
    born: list[list[list[float]]] | None = Field(
        default=None, description="Born charges given for the non-analytic correction, e, by atom of `structure`."
    )
    epsilon_static: list[list[float]] | None = Field(
        default=None, description="High-frequency dielectric tensor given with them."
    )
    unstable_mode: UnstableModeDocument | None = None


class QhaDocument(PropertyDocument):
    """Quasi-harmonic thermodynamics of one material, at zero pressure; all per cell of `structure` unless said."""

    volumes: list[float] = Field(default_factory=list, description="Å³, of the cells whose phonons were used.")
    energies: list[float] = Field(default_factory=list, description="eV, static, at `volumes`.")
    bulk_modulus: float | None = Field(default=None, description="GPa, without vibrations.")
    temperatures: list[float] = Field(default_factory=list, description="K.")
    helmholtz_volume: list[list[float]] = Field(default_factory=list, description="eV, (temperatures, volumes).")
    volume_temperature: list[float] = Field(default_factory=list, description="Å³.")
    thermal_expansion: list[float] = Field(default_factory=list, description="Volumetric, 1/K.")
    gibbs_temperature: list[float] = Field(default_factory=list, description="eV.")
    bulk_modulus_temperature: list[float] = Field(default_factory=list, description="GPa.")
    heat_capacity_p_numerical: list[float] = Field(
        default_factory=list, description="At constant pressure, J/K/mol of cells."
    )
    gruneisen_temperature: list[float] = Field(
        default_factory=list, description="Thermal Grüneisen parameter, α B V / C_V."
    )
    average_gruneisen: float | None = Field(
        default=None, description="Of the modes' parameters at the static volume, by their heat capacities at 300 K."
    )
    gruneisen_modes: dict[str, list[Any]] | None = Field(
        default=None, description="`frequencies` (THz) and `parameters`, (q, modes); `weights` (q)."
    )


class DynamicsDocument(PropertyDocument):
    """Molecular dynamics of one material; `structure`, `volume` and `symmetry` are those after the last step."""

    state: Literal["completed", "failed"]
    n_steps: int = Field(default=0, description="Taken, also before a failure.")
    n_frames: int = Field(default=0, description="Of `series` and of the trajectory.")
    mean_temperature: float | None = Field(default=None, description="K; means are over the second half of the frames.")
    mean_potential_energy: float | None = Field(default=None, description="eV/atom.")
    mean_total_energy: float | None = Field(default=None, description="eV/atom.")
    mean_volume: float | None = Field(default=None, description="Å³ per cell.")
    mean_pressure: float | None = Field(default=None, description="GPa, the part of the motion included.")
    energy_drift: float | None = Field(default=None, description="Of the total energy under NVE, eV/atom/ps.")
    trajectory: str | None = Field(default=None, description="Extended XYZ file, on the machine that computed.")
    series: dict[str, list[float] | None] | None = Field(
        default=None,
        description="By frame: `time` (fs), `temperature` (K), `potential_energy`, `total_energy` (eV/atom), "
        "`volume` (Å³), `pressure` (GPa).",
    )


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
        Fields of a `PropertyDocument`; None if the job store does not hold it, as
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
