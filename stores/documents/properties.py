"""Documents of properties that the batch Makers compute: one per material."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer

from matris.stores.documents.documents import (  # noqa: TC001 - pydantic needs them
    CheckpointTag,
    ChunkRecord,
    RelaxTag,
    StructureDict,
    Symmetry,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobflow import JobStore

PROPERTY_FORMAT = "matris-properties-1"
"""Format mark of property outputs. The builder finds them in a job store by it."""


def band_structure_of(value: Any) -> Any:
    """
    Read pymatgen's band structure from its dictionary; an object and None are returned as they are.

    No other class that a dictionary names is imported.
    """
    if not isinstance(value, dict):
        return value
    from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine  # slow import

    return PhononBandStructureSymmLine.from_dict(value)


def dos_of(value: Any) -> Any:
    """Read pymatgen's density of states from its dictionary, as `band_structure_of` does."""
    if not isinstance(value, dict):
        return value
    from pymatgen.phonon.dos import CompletePhononDos  # slow import

    return CompletePhononDos.from_dict(value)


_AS_DICT = PlainSerializer(lambda value: value and value.as_dict(), when_used="json")


class PropertyOutput(BaseModel):
    """Output of one job: a document per material, in the order of the input."""

    property_format: Literal["matris-properties-1"] = "matris-properties-1"
    kind: str = Field(
        description="Kind of property: elastic, eos, phonon, qha, kappa, neb, defects, surfaces, md or diffusion."
    )


class CrossingDocument(BaseModel):
    """A neighbor shell that crosses a cutoff of the potential, where energies and forces jump."""

    cutoff: float = Field(description="Cutoff, Å.")
    distance: float = Field(description="Distance of the shell in the relaxed cell, Å.")
    n_pairs: int = Field(description="Number of pairs of atoms that cross the cutoff.")


class StartArrays(BaseModel):
    """Input structure of a material, and per-atom results of its relaxation or evaluation."""

    initial_structure: StructureDict = Field(default=None, description="Input structure.")
    forces: list[list[float]] | None = Field(default=None, description="Shape (n, 3), eV/Å.")
    stress: list[list[float]] | None = Field(default=None, description="Shape (3, 3), eV/Å³, positive under tension.")
    magmoms: list[float] | None = Field(default=None, description="Shape (n,), Bohr magnetons.")


class Start(BaseModel):
    """Relaxation or evaluation of a material, from which the store makes the document of its candidate."""

    record: ChunkRecord = Field(description="State, energy and convergence; source and provenance of the candidate.")
    settings: RelaxTag = Field(description="Settings of the relaxation; an evaluation takes no steps.")
    arrays: StartArrays = Field(description="Structure and arrays.")


class PropertyDocument(BaseModel):
    """
    Fields that the documents of all properties have.

    Field names follow emmet where emmet has the field. The large fields (`structure`, and those that each kind of
    property names) belong in the additional store named ``data``.
    """

    candidate_id: str = Field(description="Hash of the input structure.")
    state: Literal["converged", "max_steps", "completed", "failed"] = Field(
        description="converged, max_steps or failed; for molecular dynamics completed or failed."
    )
    error: str | None = Field(default=None, description="Why the calculation failed.")
    warnings: list[str] = Field(default_factory=list, description="Reasons to be careful with the results.")
    is_reliable: bool | None = Field(
        default=None,
        description="Whether everything converged and the results passed all their checks; `warnings` name those that "
        "failed. None in documents made before there were checks.",
    )
    crossings: list[CrossingDocument] = Field(
        default_factory=list,
        description="Neighbor shells that cross a cutoff of the potential within the strains or displacements used.",
    )

    formula_pretty: str | None = Field(default=None, description="Reduced formula.")
    chemsys: str | None = Field(default=None, description="Chemical system: its elements, sorted, as Fe-Li-O.")
    elements: list[str] = Field(default_factory=list, description="Symbols of the elements, sorted.")
    nelements: int = Field(default=0, description="Number of elements.")
    nsites: int | None = Field(default=None, description="Number of atoms in the cell.")
    composition: dict[str, float] = Field(default_factory=dict, description="Number of atoms in the cell, by element.")
    composition_reduced: dict[str, float] = Field(
        default_factory=dict, description="Number of atoms in the reduced formula, by element."
    )
    pressure: float = Field(default=0.0, description="External pressure on the relaxed cell (GPa).")
    volume: float | None = Field(default=None, description="Volume of the relaxed cell (Å³).")
    density: float | None = Field(default=None, description="Density of the relaxed structure (g/cm³).")
    symmetry: Symmetry | None = Field(default=None, description="Space group of the relaxed structure.")
    structure: StructureDict = Field(
        default=None, description="Relaxed structure. Tensors are given in its Cartesian axes."
    )
    start: Start | None = Field(
        default=None,
        description="The relaxation that led to `structure`; for molecular dynamics the evaluation of the input.",
    )

    checkpoint: CheckpointTag = Field(description="Checkpoint that computed the property.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the Maker.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the packages, by name.")
    device: str = Field(description="Device of the potential: cpu, cuda, ….")
    dtype: str = Field(
        description="Floating-point type of the potential, float32-bf16x3 if a GPU multiplied with fewer digits."
    )
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(),
        description="When the document was made, ISO 8601, UTC.",
    )


class Averages(BaseModel):
    """Averages of a modulus over the orientations of a polycrystal (GPa)."""

    voigt: float = Field(description="Voigt average: upper bound, GPa.")
    reuss: float = Field(description="Reuss average: lower bound, GPa.")
    vrh: float = Field(description="Voigt–Reuss–Hill average, GPa.")


class ElasticDocument(PropertyDocument):
    """Elastic constants of one material; under a pressure, those of the Cauchy stress."""

    elastic_tensor: dict[str, list[list[float]]] | None = Field(
        default=None,
        description="Elastic tensor C in Voigt notation, (6, 6), GPa: `raw` in the axes of `structure`, `ieee_format` "
        "in the standard axes of the IEEE.",
    )
    bulk_modulus: Averages | None = Field(default=None, description="Bulk modulus, GPa.")
    shear_modulus: Averages | None = Field(default=None, description="Shear modulus, GPa.")
    young_modulus: float | None = Field(default=None, description="Young's modulus, GPa.")
    homogeneous_poisson: float | None = Field(default=None, description="Poisson's ratio of the polycrystal.")
    universal_anisotropy: float | None = Field(
        default=None, description="Universal anisotropy index; 0 if isotropic; None if infinite."
    )
    is_mechanically_stable: bool | None = Field(
        default=None, description="Whether C is positive definite (Born); None for a cell with vacuum."
    )
    eigenvalues: list[float] | None = Field(
        default=None, description="Eigenvalues of C in Voigt notation, GPa, ascending."
    )
    fit_residual: float | None = Field(default=None, description="Root-mean-square residual of the fit, GPa.")
    asymmetry: float | None = Field(
        default=None, description="Largest difference of C_ij and C_ji as fitted, before they are averaged, GPa."
    )
    nonlinearity: float | None = Field(
        default=None, description="Relative change of the elastic constants between small and large strains."
    )


class EosFitDocument(BaseModel):
    """Parameters of one equation of state."""

    equation: str = Field(description="Name of the equation, such as birch_murnaghan.")
    e0: float = Field(description="Energy, under a pressure enthalpy, at the volume `v0`, eV per cell.")
    v0: float = Field(description="Equilibrium volume at the pressure, Å³ per cell.")
    b0: float = Field(description="Bulk modulus, GPa.")
    b1: float = Field(description="Pressure derivative of the bulk modulus.")
    residual: float = Field(description="Root-mean-square residual of the fit, eV per atom.")


class EosDocument(PropertyDocument):
    """Equation of state of one material."""

    volumes: list[float] = Field(default_factory=list, description="Volumes, Å³ per cell.")
    energies: list[float] = Field(default_factory=list, description="Energies at `volumes`, eV per cell.")
    pressures: list[float] | None = Field(default=None, description="Pressures at `volumes`, GPa.")
    fits: list[EosFitDocument] = Field(default_factory=list, description="Fitted equations of state.")


class UnstableModeDocument(BaseModel):
    """Most unstable mode that is commensurate with the supercell, and the structure it leads to."""

    qpoint: list[float] = Field(description="Wave vector in reciprocal lattice vectors of the primitive cell.")
    frequency: float = Field(description="Frequency, THz; imaginary frequencies are negative.")
    eigenvector: list[list[list[float]]] = Field(
        description="Eigenvector, (primitive atoms, 3, real and imaginary part)."
    )
    structure: StructureDict = Field(
        default=None, description="Structure distorted along the mode and relaxed; None unless requested."
    )
    symmetry: Symmetry | None = Field(default=None, description="Space group of that structure.")
    energy_gain: float | None = Field(
        default=None,
        description="Change of the enthalpy by distortion and relaxation, eV/atom; negative if it is lowered.",
    )
    state: str | None = Field(default=None, description="State of that relaxation.")


class LinearityDocument(BaseModel):
    """Force constant of one atom for its own displacement, from two lengths of the displacement."""

    element: str = Field(description="Symbol of the displaced atom.")
    displacements: list[float] = Field(description="The two lengths, Å.")
    force_constants: list[float] = Field(description="Restoring force by displacement at each length, eV/Å².")
    frequencies: list[float] = Field(
        description="Frequency of the atom among fixed atoms at each length, THz; imaginary frequencies are negative."
    )
    disagreement: float = Field(description="Difference of the two force constants, relative to the larger one.")


class PhononDocument(PropertyDocument):
    """Harmonic phonons of one material. Bands, DOS and force constants are large fields."""

    masses: list[float] | None = Field(
        default=None, description="Masses of the atoms of `structure`, u; None if they are those of the elements."
    )
    linearity: LinearityDocument | None = Field(
        default=None, description="Check of one displacement at a second, shorter length."
    )
    mole_of: Literal["atoms"] = Field(
        default="atoms", description="What a mole counts in the thermal quantities: atoms."
    )

    supercell_matrix: list[list[int]] | None = Field(
        default=None, description="Supercell matrix in phonopy's convention."
    )
    primitive_matrix: list[list[float]] | None = Field(
        default=None, description="Primitive matrix in phonopy's convention."
    )
    n_displacements: int | None = Field(default=None, description="Number of displaced supercells.")
    min_frequency: float | None = Field(
        default=None, description="Lowest frequency, THz; imaginary frequencies are negative."
    )
    has_imaginary_modes: bool | None = Field(default=None, description="Whether the structure is dynamically unstable.")
    temperatures: list[float] = Field(default_factory=list, description="Temperatures, K.")
    free_energies: list[float] = Field(
        default_factory=list, description="Helmholtz free energies, J per mole of atoms."
    )
    entropies: list[float] = Field(default_factory=list, description="Entropies, J/K per mole of atoms.")
    heat_capacities: list[float] = Field(
        default_factory=list, description="Heat capacities at constant volume, J/K per mole of atoms."
    )
    nsites_primitive: int | None = Field(default=None, description="Number of atoms in the primitive cell.")
    phonon_bandstructure: Annotated[Any, BeforeValidator(band_structure_of), _AS_DICT] = Field(
        default=None,
        description="Bands along a path of high symmetry, THz: pymatgen's PhononBandStructureSymmLine.",
    )
    phonon_dos: Annotated[Any, BeforeValidator(dos_of), _AS_DICT] = Field(
        default=None,
        description="Density of states, in total and of each atom, states per THz and primitive cell: pymatgen's "
        "CompletePhononDos.",
    )
    force_constants: list[Any] | None = Field(
        default=None,
        description="Force constants in phonopy's compact form, (primitive atoms, supercell atoms, 3, 3), eV/Å².",
    )
    born: list[list[list[float]]] | None = Field(
        default=None,
        description="Born effective charges used for the non-analytic term correction, e, by atom of `structure`.",
    )
    epsilon_static: list[list[float]] | None = Field(
        default=None, description="High-frequency dielectric tensor used for the non-analytic term correction."
    )
    unstable_mode: UnstableModeDocument | None = Field(
        default=None, description="Most unstable mode, if there are imaginary modes."
    )


class QhaDocument(PropertyDocument):
    """Quasi-harmonic thermodynamics of one material at `pressure`, per cell of `structure` unless noted."""

    masses: list[float] | None = Field(
        default=None, description="Masses of the atoms of `structure`, u; None if they are those of the elements."
    )
    mole_of: Literal["atoms"] = Field(default="atoms", description="What a mole counts in heat capacities: atoms.")

    volumes: list[float] = Field(
        default_factory=list, description="Volumes of the cells whose phonons were computed, Å³."
    )
    energies: list[float] = Field(default_factory=list, description="Static energies at `volumes`, eV.")
    bulk_modulus: float | None = Field(default=None, description="Static bulk modulus, without vibrations, GPa.")
    temperatures: list[float] = Field(default_factory=list, description="Temperatures, K.")
    helmholtz_volume: list[list[float]] = Field(
        default_factory=list, description="Helmholtz free energies, (temperatures, volumes), eV."
    )
    volume_temperature: list[float] = Field(default_factory=list, description="Equilibrium volumes, Å³.")
    thermal_expansion: list[float] = Field(default_factory=list, description="Volumetric thermal expansion, 1/K.")
    gibbs_temperature: list[float] = Field(default_factory=list, description="Gibbs free energies, eV.")
    bulk_modulus_temperature: list[float] = Field(default_factory=list, description="Isothermal bulk moduli, GPa.")
    heat_capacity_p_numerical: list[float] = Field(
        default_factory=list, description="Heat capacities at constant pressure, J/K per mole of atoms."
    )
    gruneisen_temperature: list[float] = Field(
        default_factory=list, description="Thermal Grüneisen parameters, α B V / C_V."
    )
    average_gruneisen: float | None = Field(
        default=None,
        description="Mean mode Grüneisen parameter at the static volume, weighted by the heat capacities at 300 K.",
    )
    gruneisen_modes: dict[str, list[Any]] | None = Field(
        default=None,
        description="Mode Grüneisen parameters: `frequencies` (THz) and `parameters`, (q, modes); `weights` (q).",
    )


class KappaDocument(PropertyDocument):
    """
    Lattice thermal conductivity of one material, in the relaxation time approximation.

    Tensors are (temperatures, 6), W/m/K, in Voigt order xx yy zz yz xz xy. They and `modes` are large fields.
    """

    masses: list[float] | None = Field(
        default=None, description="Masses of the atoms of `structure`, u; None if they are those of the elements."
    )
    temperatures: list[float] = Field(default_factory=list, description="Temperatures, K.")
    kappa_mean: list[float] = Field(
        default_factory=list, description="Third of the trace of `kappa`: the conductivity of a polycrystal, W/m/K."
    )
    kappa_coherence_mean: list[float] = Field(
        default_factory=list, description="Part of `kappa_mean` that tunnelling between bands contributes, W/m/K."
    )
    kappa: list[list[float]] | None = Field(
        default=None, description="Conductivity by the Wigner transport equation, W/m/K."
    )
    kappa_particle: list[list[float]] | None = Field(
        default=None, description="Conductivity by the Boltzmann equation, W/m/K."
    )
    mesh: list[int] | None = Field(default=None, description="Numbers of wave vectors of the mesh.")
    coarse_mesh: list[int] | None = Field(default=None, description="Those of a second, coarser mesh.")
    kappa_mean_coarse: list[float] = Field(default_factory=list, description="`kappa_mean` on the coarser mesh, W/m/K.")
    mesh_change: float | None = Field(
        default=None, description="Relative difference of the conductivities on both meshes, next to 300 K."
    )
    supercell_matrix: list[list[int]] | None = Field(
        default=None, description="Supercell of the second-order force constants, in phonopy's convention."
    )
    supercell_matrix_third: list[list[int]] | None = Field(
        default=None, description="Supercell of the third-order force constants, in phonopy's convention."
    )
    primitive_matrix: list[list[float]] | None = Field(
        default=None, description="Primitive matrix in phonopy's convention."
    )
    n_displacements: int | None = Field(default=None, description="Number of displaced supercells, second order.")
    n_displacements_third: int | None = Field(default=None, description="Number of displaced supercells, third order.")
    min_frequency: float | None = Field(default=None, description="Lowest frequency on the mesh, THz.")
    modes: dict[str, Any] | None = Field(
        default=None,
        description="Modes of the irreducible wave vectors at `temperature` (K), next to 300 K: `qpoints` (q, 3), "
        "`weights` (q), and by (q, modes) `frequencies` (THz), `lifetimes` (ps) and `conductivities`, their "
        "contributions to `kappa_mean` (W/m/K).",
    )


class PathDocument(BaseModel):
    """Minimum-energy path between two structures."""

    name: str = Field(description="Name of the path: for a vacancy hop the element and the length.")
    state: str = Field(description="converged, max_steps or failed.")
    error: str | None = Field(default=None, description="Why the path failed.")
    warnings: list[str] = Field(default_factory=list, description="Reasons to be careful with the path.")
    forward: float | None = Field(default=None, description="Barrier seen from the start, eV.")
    backward: float | None = Field(default=None, description="Barrier seen from the end, eV.")
    energies: list[float] = Field(default_factory=list, description="Energies of the images above the start, eV.")
    distances: list[float] = Field(default_factory=list, description="Lengths of the path up to each image, Å.")
    fmax: float | None = Field(default=None, description="Largest force on the band, eV/Å.")
    n_steps: int | None = Field(default=None, description="Number of steps of the band.")


class NebDocument(PropertyDocument):
    """Migration barriers in one material; `images` is a large field."""

    paths: list[PathDocument] = Field(default_factory=list, description="Paths.")
    lowest_barrier: float | None = Field(default=None, description="Lowest barrier of all paths, eV.")
    images: list[Any] | None = Field(default=None, description="Structures along each path; None if it failed.")


class DiffusivityDocument(BaseModel):
    """Diffusion of one element: a coefficient, or why there is none."""

    coefficient: float | None = Field(default=None, description="Tracer diffusion coefficient, cm²/s.")
    error: float | None = Field(default=None, description="Its standard error, from five blocks of the run, cm²/s.")
    window: tuple[float, float] | None = Field(
        default=None, description="First and last time of the fit of the mean square displacement, fs."
    )
    n_hops: float | None = Field(default=None, description="About how many hops of 3 Å there were.")
    problem: str | None = Field(default=None, description="Why there is no coefficient; None if there is one.")


class DefectDocument(BaseModel):
    """A neutral point defect."""

    name: str = Field(
        description="Name: v_O is a vacancy of O, Na_Cl has Na on a site of Cl, Na_i an interstitial; numbered if "
        "several have one name."
    )
    kind: str = Field(description="vacancy, antisite or interstitial.")
    change: dict[str, int] = Field(description="Number of atoms added to the crystal, by element.")
    site: list[float] = Field(description="Fractional coordinates in `structure`.")
    multiplicity: int = Field(description="Number of equivalent sites in `structure`.")
    state: str = Field(description="converged, max_steps or failed.")
    error: str | None = Field(default=None, description="Why the defect failed.")
    warnings: list[str] = Field(default_factory=list, description="Reasons to be careful with the defect.")
    energy_change: float | None = Field(
        default=None, description="Energy of the supercell with the defect minus that without, uncorrected, eV."
    )
    formation_energies: list[float] = Field(
        default_factory=list, description="Formation energies, eV, in the order of `limits`."
    )
    displacement: float | None = Field(default=None, description="Largest displacement of an atom, Å.")


class LimitDocument(BaseModel):
    """Chemical potentials at which a crystal is in equilibrium with competing phases."""

    phases: list[str] = Field(description="Formulas of the other phases; empty if the crystal is an element.")
    potentials: dict[str, float] = Field(description="Chemical potentials by element, corrected, eV/atom.")


class DefectsDocument(PropertyDocument):
    """Neutral point defects of one material; `cells` is a large field."""

    defects: list[DefectDocument] = Field(default_factory=list, description="Defects.")
    lowest_formation_energy: float | None = Field(
        default=None, description="Lowest formation energy of all defects and limits, eV."
    )
    lowest_defect: str | None = Field(default=None, description="Name of its defect.")
    limits: list[LimitDocument] = Field(
        default_factory=list,
        description="Corners of the region of chemical potentials in which the material is stable.",
    )
    references: str | None = Field(default=None, description="Phases that limit the chemical potentials.")
    above_hull: float | None = Field(default=None, description="Energy above the hull of these phases, eV/atom.")
    corrections: dict[str, float] = Field(
        default_factory=dict,
        description="Correction of an atom of each element in the material, eV; added atoms have it too.",
    )
    supercell_matrix: list[list[int]] | None = Field(
        default=None, description="Vectors of the supercell in those of `structure`, as rows."
    )
    image_distance: float | None = Field(
        default=None, description="Shortest distance of a defect from its periodic image, Å."
    )
    nsites_supercell: int | None = Field(default=None, description="Number of atoms in the supercell without defect.")
    cells: list[Any] | None = Field(
        default=None, description="Relaxed supercells with the defects; None if one failed. They are no candidates."
    )


class SurfaceDocument(BaseModel):
    """A surface, on both sides of a slab."""

    name: str = Field(description="Miller indices, and the termination if it is not the first.")
    miller_index: list[int] = Field(description="Miller indices in `conventional_cell`.")
    termination: int = Field(description="Number of the termination, from 1.")
    state: str = Field(description="converged, max_steps or failed.")
    error: str | None = Field(default=None, description="Why the surface failed.")
    surface_energy: float | None = Field(default=None, description="Surface energy, J/m².")
    area_fraction: float | None = Field(
        default=None, description="Fraction of the equilibrium shape, with the equivalent faces."
    )
    area: float = Field(description="Area of one side of the slab, Å².")
    thickness: float = Field(description="Distance of the outermost planes of atoms, Å.")
    nsites: int = Field(description="Number of atoms in the slab.")
    displacement: float | None = Field(default=None, description="Largest displacement of an atom, Å.")


class SurfacesDocument(PropertyDocument):
    """Symmetric and stoichiometric surfaces of one material; `slabs` is a large field."""

    surfaces: list[SurfaceDocument] = Field(default_factory=list, description="Surfaces.")
    skipped: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Orientations without a symmetric and stoichiometric slab: `miller_index` and `reason`.",
    )
    lowest_surface_energy: float | None = Field(default=None, description="Lowest surface energy, J/m².")
    lowest_surface: str | None = Field(default=None, description="Name of its surface.")
    weighted_surface_energy: float | None = Field(
        default=None, description="Mean surface energy over the equilibrium shape (Wulff), J/m²."
    )
    surface_anisotropy: float | None = Field(
        default=None, description="Standard deviation of the surface energy over the shape, relative to the mean."
    )
    shape_factor: float | None = Field(
        default=None, description="Surface of the shape over its volume to the power of 2/3."
    )
    wulff_faces: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Faces of the shape: `miller_index`, and `corners` in the Cartesian axes of `conventional_cell`; "
        "their distance from the origin is the surface energy, J/m².",
    )
    conventional_cell: StructureDict = Field(default=None, description="Cell to which Miller indices refer.")
    slabs: list[Any] | None = Field(
        default=None, description="Relaxed slabs; None if one failed. They are no candidates."
    )


class DynamicsDocument(PropertyDocument):
    """Molecular dynamics of one material. `structure`, `volume` and `symmetry` describe the last step."""

    state: Literal["completed", "failed"] = Field(description="completed or failed.")
    masses: list[float] | None = Field(
        default=None, description="Masses of the atoms of `structure`, u; None if they are those of the elements."
    )
    n_steps: int = Field(default=0, description="Number of time steps, including those before a failure.")
    n_frames: int = Field(default=0, description="Number of frames in `series` and in the trajectory.")
    mean_temperature: float | None = Field(
        default=None, description="Temperature, K; all means are over the second half of the frames."
    )
    mean_potential_energy: float | None = Field(default=None, description="Potential energy, eV/atom.")
    mean_total_energy: float | None = Field(default=None, description="Total energy, eV/atom.")
    mean_volume: float | None = Field(default=None, description="Volume, Å³ per cell.")
    mean_pressure: float | None = Field(default=None, description="Pressure including the kinetic part, GPa.")
    energy_drift: float | None = Field(default=None, description="Drift of the total energy in NVE, eV/atom/ps.")
    trajectory: str | None = Field(
        default=None, description="Path of the extended XYZ file on the machine that ran the job."
    )
    series: dict[str, list[float] | None] | None = Field(
        default=None,
        description="Time series, one value per frame: `time` (fs), `temperature` (K), `potential_energy`, "
        "`total_energy` (eV/atom), `volume` (Å³), `pressure` (GPa).",
    )
    radial_distribution: dict[str, Any] | None = Field(
        default=None,
        description="Radial distribution functions over the second half of the frames: `distances` (Å) and `pairs`, by "
        "names such as Mg-O.",
    )
    mean_square_displacement: dict[str, Any] | None = Field(
        default=None,
        description="Mean square displacements over the second half of the frames: `times` (fs), `elements` (Å²) and "
        "`errors` (standard errors, Å²), by element; None for few frames.",
    )
    diffusion: dict[str, DiffusivityDocument] = Field(
        default_factory=dict, description="Diffusion coefficients over the second half of the frames, by element."
    )
    vibrational_dos: dict[str, Any] | None = Field(
        default=None,
        description="Vibrational density of states over the second half of the frames: `frequencies` (THz), `elements` "
        "(states per THz and atom, three for each atom) and `resolution` (THz); or the `problem` why there is none.",
    )
    extrapolation: float | None = Field(
        default=None,
        description="Largest distance of an atom from the training data in any frame: above 1 the potential "
        "extrapolates; None if the checkpoint has no training domain.",
    )


class ExtrapolatedDocument(BaseModel):
    """A quantity at 300 K, from an Arrhenius line, with the bounds of one standard error."""

    value: float = Field(description="The quantity.")
    low: float = Field(description="Lower bound.")
    high: float = Field(description="Upper bound.")


class ArrheniusDocument(BaseModel):
    """Diffusion of one element at several temperatures, D = D0 exp(-E/kT): a fit, or why there is none."""

    temperatures: list[float] = Field(default_factory=list, description="Temperatures with a coefficient, K.")
    activation_energy: float | None = Field(default=None, description="Activation energy E, eV.")
    error: float | None = Field(default=None, description="Its standard error, eV.")
    prefactor: float | None = Field(default=None, description="D0, cm²/s.")
    room: ExtrapolatedDocument | None = Field(default=None, description="D at 300 K, cm²/s.")
    probability: float | None = Field(
        default=None, description="Probability of a scatter about the line as large as that of the coefficients."
    )
    problem: str | None = Field(default=None, description="Why there is no fit; None if there is one.")


class DiffusionRun(BaseModel):
    """Molecular dynamics at one temperature."""

    temperature: float = Field(description="Temperature of the thermostat, K.")
    state: Literal["completed", "failed"] = Field(description="completed or failed.")
    error: str | None = Field(default=None, description="Reason of a failure.")
    n_steps: int = Field(default=0, description="Number of time steps, including those before a failure.")
    mean_volume: float | None = Field(default=None, description="Volume, Å³ per cell.")
    diffusion: dict[str, DiffusivityDocument] = Field(default_factory=dict, description="Diffusion by element.")
    conductivity: float | None = Field(
        default=None, description="Conductivity of the elements that diffuse, S/cm, as independent ions."
    )
    conductivity_error: float | None = Field(default=None, description="Its standard error, S/cm.")
    trajectory: str | None = Field(default=None, description="Path of the trajectory on the machine that ran the job.")


class DiffusionDocument(PropertyDocument):
    """
    Diffusion in one material; `structure` is the given cell.

    Conductivities are those of independent ions: the Nernst–Einstein equation with a Haven ratio of 1.
    """

    state: Literal["completed", "failed"] = Field(description="completed, or failed if all runs failed.")
    runs: list[DiffusionRun] = Field(default_factory=list, description="Runs, in rising order of temperature.")
    arrhenius: dict[str, ArrheniusDocument] | None = Field(
        default=None, description="Arrhenius lines by element; None if all runs failed."
    )
    charges: dict[str, float] = Field(default_factory=dict, description="Charges of the elements, e; empty if unknown.")
    charges_from: Literal["given", "input", "composition"] | None = Field(
        default=None,
        description="Whether charges were given, are the oxidation states of the input, or were guessed from the "
        "composition.",
    )
    haven_ratio: float = Field(default=1.0, description="Haven ratio, assumed.")
    conductivity: ExtrapolatedDocument | None = Field(default=None, description="Conductivity at 300 K, S/cm.")
    displacements: list[dict[str, Any] | None] | None = Field(
        default=None, description="`mean_square_displacement` of each run, see `DynamicsDocument`."
    )


def property_output(
    job_store: JobStore, kind: str, candidate: Mapping[str, Any], large: Sequence[str]
) -> dict[str, Any] | None:
    """
    Read the complete document of a candidate's property from the job store.

    Parameters
    ----------
    job_store
        Connected job store with the output of the property's job.
    kind
        Key of `matris.stores.documents.summaries.SUMMARIES`, such as ``"phonon"``.
    candidate
        Candidate document.
    large
        Large fields to load from the additional store. Other large fields remain references to it.

    Returns
    -------
    dict or None
        Fields of a `PropertyDocument`; None if the job store does not have it, for example because it was emptied.
    """
    uuid = (candidate.get(kind) or {}).get("job_uuid")
    if uuid is None:
        return None
    job = job_store.query_one({"uuid": uuid}, properties=["output.documents"], load=False) or {}
    documents = (job.get("output") or {}).get("documents") or []
    document = next((each for each in documents if each["candidate_id"] == candidate["candidate_id"]), None)
    if document is None:
        return None
    fields = {}
    for name in large:
        try:
            fields[name] = loaded(job_store, document.get(name))
        except MissingArraysError:
            fields[name] = None
    return {**document, **fields}


class MissingArraysError(LookupError):
    """The additional store of a job store lacks a field of an output."""


def loaded(job_store: JobStore, value: Any) -> Any:
    """
    Resolve a reference to an additional store, or those in a dictionary; other values are returned as they are.

    Raises
    ------
    MissingArraysError
        If the additional store lacks what the reference names.
    """
    if not isinstance(value, dict):
        return value
    if "blob_uuid" not in value:
        return {name: loaded(job_store, item) for name, item in value.items()}
    blob = job_store.additional_stores[value["store"]].query_one({"blob_uuid": value["blob_uuid"]})
    if blob is None:
        raise MissingArraysError(f"the store has no {value['blob_uuid']}")
    return blob["data"]
