"""Harmonic phonons of many materials, from the forces in displaced supercells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import spglib
from phonopy import Phonopy
from phonopy.phonon.dos import ProjectedDos
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import guess_primitive_matrix
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon
from pymatgen.core import Element, Structure
from scipy.constants import N_A, e

from matris.constraints import freedom_of
from matris.properties.band_path import band_path
from matris.properties.crossings import crossings_of_displacements, cutoffs_of
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, check_cells, convergence, derive
from matris.properties.instability import UnstableMode, follow, worst_mode
from matris.properties.linearity import Linearity, linearity, second_length
from matris.structures import MASSES, masses_of, one_or_many

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.properties.band_path import BandPath
    from matris.relaxation.records import OptimizerName, RelaxRecord

TOLERANCE = 0.1
"""Imaginary frequencies up to this (THz) count as zero: rounding of float32 forces (1e-6 eV/Å) gives a third of it."""

JOULE_PER_MOLE = float(e * N_A)
"""J/mol in one eV."""

MESH = 60.0
"""Length (Å) that phonopy divides by lattice vectors to get the mesh of wave vectors.

Free energies are converged to 1e-4 eV at 300 K."""

_DISPLACEMENTS = (1e-3, 0.3)  # Å: below, forces are noise; above, atoms are in another place
_SAME_MASS = 1e-6  # relative difference of two masses that are one
_NOTHING = 1e-9  # eV/Å
_NO_FORCES = (
    "no forces: no atom feels the displacement of another one, so there are no phonons; the atoms are farther apart "
    "than the cutoff of the potential"
)
_SMEARING = 0.01  # of the range of frequencies; the tetrahedron method misses part of a narrow peak on this mesh


@dataclass(frozen=True)
class PhononSettings:
    """
    Settings of a phonon calculation.

    Attributes
    ----------
    min_length
        Minimum distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å. With 0.01 Å, forces of MatRIS networks are not linear in crystals with straight
        bond angles, see `matris.properties.linearity`.
    symprec
        Tolerance for symmetry, Å.
    temperatures
        Temperatures of the thermal properties, K.

    Raises
    ------
    ValueError
        If the displacement is not between 0.001 and 0.3 Å, or another length is not positive.
    """

    min_length: float = 12.0
    displacement: float = 0.03
    symprec: float = 1e-3
    temperatures: tuple[float, ...] = tuple(float(t) for t in range(0, 1001, 10))

    def __post_init__(self) -> None:
        """Check the lengths."""
        low, high = _DISPLACEMENTS
        if not low <= self.displacement <= high:
            raise ValueError(f"displacement must be from {low:g} to {high:g} Å, got {self.displacement}")
        if not 0 < self.min_length < inf:
            raise ValueError(f"min_length must be a positive length (Å), got {self.min_length}")
        if not 0 < self.symprec < inf:
            raise ValueError(f"symprec must be a positive length (Å), got {self.symprec}")


@dataclass(frozen=True, eq=False)
class BornCharges:
    """
    Response of a crystal to electric fields, for the non-analytic correction at long wavelengths.

    Attributes
    ----------
    born
        Born effective charges of the atoms of the input cell, shape (n, 3, 3), e; rows: direction of the field.
    epsilon_static
        Dielectric tensor of clamped ions, shape (3, 3).
    """

    born: NDArray[np.float64]
    epsilon_static: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Phonons:
    """
    Harmonic phonons of one material.

    Attributes
    ----------
    phonopy
        Phonopy's object with force constants (eV/Å²), for further analysis.
    qpoints, distances, frequencies
        Bands, segment by segment: wave vectors (q, 3), distances along the path (q,), frequencies (q, 3 n), THz;
        imaginary frequencies are negative.
    labels
        Names of the ends of the segments.
    connections
        For each segment, whether the next segment starts at its end.
    dos_frequencies, dos
        Density of states: frequencies (THz) and states per THz and primitive cell, a Gaussian for each mode of the
        mesh.
    projected_dos
        Contribution of each atom of the primitive cell to `dos`, shape (atoms, frequencies).
    temperatures, free_energy, entropy, heat_capacity
        K; eV, eV/K and eV/K per primitive cell.
    min_frequency
        Lowest frequency on mesh and path, THz.
    unstable_mode
        The most imaginary mode at the wave vectors that are commensurate with the supercell; None if none is imaginary.
    """

    phonopy: Phonopy
    qpoints: list[NDArray[np.float64]]
    distances: list[NDArray[np.float64]]
    frequencies: list[NDArray[np.float64]]
    labels: list[str]
    connections: list[bool]
    dos_frequencies: NDArray[np.float64]
    dos: NDArray[np.float64]
    projected_dos: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    free_energy: NDArray[np.float64]
    entropy: NDArray[np.float64]
    heat_capacity: NDArray[np.float64]
    min_frequency: float
    unstable_mode: UnstableMode | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the primitive cell."""
        return len(self.phonopy.primitive)

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether a frequency is imaginary by more than `TOLERANCE`."""
        return self.min_frequency < -TOLERANCE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PhononRecord(PropertyRecord):
    """
    Phonons of one material.

    Attributes
    ----------
    energy
        Energy of `structure`, eV.
    phonons
        The results; None if failed.
    linearity
        Force constant of one atom from two lengths of its displacement; None if failed.
    """

    energy: float | None = None
    phonons: Phonons | None = None
    linearity: Linearity | None = None

    @classmethod
    def failed(cls, start: RelaxRecord, error: str | None) -> Self:
        """Record of a material whose phonons could not be computed, with the energy of its relaxed cell."""
        return replace(super().failed(start, error), energy=start.energy)


def phonons(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-4,
    max_steps: int = 2000,
    optimizer: OptimizerName = "lbfgs",
    settings: PhononSettings | None = None,
    born: Sequence[BornCharges | None] | None = None,
    follow: bool = False,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[PhononRecord]:
    """
    Harmonic phonons of many materials, all displaced supercells of all materials computed together.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on the forces on atoms and cell when the materials are relaxed, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    settings
        Supercells, displacements and temperatures.
    born
        Born charges of each material, in order, for the non-analytic correction; None where unknown.
    follow
        Whether unstable materials are distorted along their most imaginary mode and relaxed.
    pressure
        External pressure on the materials, GPa.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error: of the materials, and of the cells derived from them.

    Returns
    -------
    list of PhononRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If `born` and `structures` differ in length.

    Examples
    --------
    Copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> settings = PhononSettings(min_length=6.0, temperatures=(0.0, 300.0))
    >>> (record,) = phonons([bulk("Cu")], matris.AseModel(EMT()), settings=settings, fmax=1e-3)
    >>> record.phonons.has_imaginary_modes
    False
    >>> print(f"{1e3 * record.phonons.heat_capacity[1]:.3f} meV/K per primitive cell at 300 K")
    0.242 meV/K per primitive cell at 300 K
    """
    chosen = settings or PhononSettings()
    structures = list(one_or_many(structures))
    charges = [None] * len(structures) if born is None else list(born)
    if len(charges) != len(structures):
        raise ValueError(f"born has {len(charges)} entries for {len(structures)} structures: give None where unknown")
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure)

    def plan(start: RelaxRecord) -> _Plan:
        phonopy, cells = displaced(cast("Structure", start.structure), chosen)
        second, cell = second_length(phonopy)
        if (given := charges[start.index]) is not None:
            correct_long_waves(phonopy, given, chosen.symprec)
        return phonopy, [*cells, cell], second

    def compute(plans: Sequence[_Plan | None]) -> list[list[RelaxRecord]]:
        return replace(relaxer, max_steps=0).groups([plan[1] if plan else [] for plan in plans])

    def analyse(start: RelaxRecord, plan: _Plan, cells: Sequence[RelaxRecord]) -> PhononRecord:
        return _record(start, plan, cells, chosen, cutoffs_of(potential))

    records = derive(PhononRecord, relaxer.materials(structures), plan, compute, analyse)
    return _followed(records, relaxer) if follow else records


type _Plan = tuple[Phonopy, list[Structure], int]


def displaced(
    structure: Structure, settings: PhononSettings, matrix: NDArray[np.int64] | None = None
) -> tuple[Phonopy, list[Structure]]:
    """
    Make the displaced supercells of a material.

    Parameters
    ----------
    structure
        The relaxed cell.
    settings
        Supercell, displacements and tolerance for symmetry.
    matrix
        Supercell matrix, shape (3, 3); by default that of `supercell_matrix`.

    Returns
    -------
    Phonopy
        Phonopy's object with displacements.
    list of Structure
        The perfect supercell, then one supercell for each symmetrically distinct displacement.
    """
    if matrix is None:
        matrix = supercell_matrix(structure, settings.min_length, settings.symprec)
    cell = to_phonopy(structure)
    phonopy = Phonopy(
        cell,
        supercell_matrix=matrix,
        # phonopy's symmetry does not see masses
        primitive_matrix=np.eye(3) if has_mixed_isotopes(cell) else guess_primitive_matrix(cell, settings.symprec),
        symprec=settings.symprec,
    )
    phonopy.generate_displacements(distance=settings.displacement)
    cells = [phonopy.supercell, *(phonopy.supercells_with_displacements or [])]
    return phonopy, [to_structure(cell) for cell in cells]


def supercell_matrix(structure: Structure, min_length: float, symprec: float) -> NDArray[np.int64]:
    """
    Smallest diagonal supercell of the conventional cell with a minimum distance between opposite faces.

    Parameters
    ----------
    structure
        The cell.
    min_length
        Minimum distance between opposite faces, Å.
    symprec
        Tolerance for symmetry, Å.

    Returns
    -------
    ndarray
        Shape (3, 3), in phonopy's convention: columns are the vectors of the supercell in those of the structure, all
        reversed if the structure is left-handed.
    """
    lattice, frac_coords = _right_handed(structure)
    cell = (lattice, frac_coords, [site.specie.Z for site in structure])
    symmetry = spglib.get_symmetry_dataset(cell, symprec=symprec)
    conventional = np.eye(3) if symmetry is None else np.linalg.inv(symmetry.transformation_matrix)
    if np.abs(conventional - conventional.round()).max() > 1e-3 or abs(np.linalg.det(conventional)) < 0.5:  # noqa: PLR2004
        conventional = np.eye(3)  # the structure is itself a supercell
    vectors = conventional.T @ lattice
    heights = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)
    repeats = np.ceil(min_length / heights - 1e-6).clip(min=1)
    return (conventional * repeats).round().astype(np.int64)


def correct_long_waves(phonopy: Phonopy, charges: BornCharges, symprec: float) -> None:
    """
    Add the non-analytic correction, which splits longitudinal from transverse optical modes.

    Charges and dielectric tensor are symmetrised and made to obey the acoustic sum rule of charges. The correction is
    that of X. Gonze and C. Lee, Phys. Rev. B 55, 10355 (1997), by phonopy.

    Parameters
    ----------
    phonopy
        Phonopy's object; changed in place.
    charges
        Charges of the atoms of its unit cell.
    symprec
        Tolerance for symmetry, Å.

    Raises
    ------
    ValueError
        If charges or tensor have the wrong shape, or are not finite.
    """
    born, epsilon = np.asarray(charges.born, dtype=float), np.asarray(charges.epsilon_static, dtype=float)
    n = len(phonopy.unitcell)
    if born.shape != (n, 3, 3) or epsilon.shape != (3, 3):
        raise ValueError(f"Born charges {born.shape} and dielectric tensor {epsilon.shape}, not ({n}, 3, 3) and (3, 3)")
    if not (np.isfinite(born).all() and np.isfinite(epsilon).all()):
        raise ValueError("Born charges or dielectric tensor are NaN or infinite")
    born, epsilon = symmetrize_borns_and_epsilon(
        born,
        epsilon,
        phonopy.unitcell,
        primitive_matrix=phonopy.primitive_matrix,
        supercell_matrix=phonopy.supercell_matrix,
        symprec=symprec,
    )
    units = get_physical_units()
    phonopy.nac_params = {"born": born, "dielectric": epsilon, "factor": units.Hartree * units.Bohr}


def find_force_constants(phonopy: Phonopy, forces: Sequence[NDArray[np.float64]]) -> None:
    """
    Compute force constants from forces.

    The forces of the perfect supercell are subtracted. The force constants are symmetric and obey the acoustic sum
    rule.

    Parameters
    ----------
    phonopy
        Phonopy's object with displacements; changed in place.
    forces
        Forces of the perfect supercell, then of the displaced supercells (eV/Å), shape (n, 3) each.

    Raises
    ------
    UnusableCellError
        If no displacement makes a force, as between atoms beyond the cutoff of the potential.
    """
    changes = [f - forces[0] for f in forces[1:]]
    if max(float(np.abs(change).max()) for change in changes) < _NOTHING:
        raise UnusableCellError(_NO_FORCES)
    phonopy.produce_force_constants(changes, show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)


def use_forces(phonopy: Phonopy, chosen: int, cells: Sequence[RelaxRecord]) -> Linearity:
    """
    Compute force constants from computed cells, and check that forces are linear in the displacements.

    Parameters
    ----------
    phonopy
        Phonopy's object with displacements; changed in place.
    chosen
        Index of the displacement that `second_length` shortened.
    cells
        Results of the perfect supercell, of the displaced supercells, and of that with the shorter displacement.

    Raises
    ------
    UnusableCellError
        If a cell failed, or no displacement makes a force.
    """
    names = ["the supercell", *(f"displacement {i}" for i in range(1, len(cells) - 1)), "the shorter displacement"]
    check_cells(cells, names)
    *forces, second = [cell.forces for cell in cells if cell.forces is not None]
    find_force_constants(phonopy, forces)
    return linearity(phonopy, chosen, forces, second)


def analyse(phonopy: Phonopy, settings: PhononSettings) -> Phonons:
    """
    Compute bands, density of states and thermal properties from force constants.

    Parameters
    ----------
    phonopy
        Phonopy's object with force constants, and optionally `nac_params`.
    settings
        Temperatures of the thermal properties, and tolerance for the symmetry of the path.
    """
    path = run_bands(phonopy, settings.symprec)
    bands = phonopy.get_band_structure_dict()
    is_symmetric = not has_mixed_isotopes(phonopy.unitcell)
    mesh = phonopy.run_mesh(MESH, with_eigenvectors=True, is_mesh_symmetry=is_symmetric)
    width = _SMEARING * float(np.ptp(mesh.frequencies))
    phonopy.run_total_dos(sigma=width, freq_pitch=width / 2)
    projected = ProjectedDos(mesh, sigma=width)
    projected.set_draw_area(freq_pitch=width / 2)
    projected.run()
    of_atoms = np.asarray(projected.projected_dos)
    phonopy.run_thermal_properties(temperatures=settings.temperatures, exclude_gamma_acoustic=True)
    dos, thermal = phonopy.get_total_dos_dict(), phonopy.get_thermal_properties_dict()
    frequencies = list(bands["frequencies"] or [])
    lowest = min(float(np.min(f)) for f in [mesh.frequencies, *frequencies])
    return Phonons(
        phonopy=phonopy,
        qpoints=list(bands["qpoints"]),
        distances=list(bands["distances"]),
        frequencies=frequencies,
        labels=path.labels,
        connections=path.connections,
        dos_frequencies=np.asarray(dos["frequency_points"]),
        dos=np.asarray(dos["total_dos"]),
        projected_dos=_over_equal_atoms(phonopy, of_atoms) if is_symmetric else of_atoms,
        temperatures=np.asarray(thermal["temperatures"]),
        free_energy=np.asarray(thermal["free_energy"]) * 1e3 / JOULE_PER_MOLE,
        entropy=np.asarray(thermal["entropy"]) / JOULE_PER_MOLE,
        heat_capacity=np.asarray(thermal["heat_capacity"]) / JOULE_PER_MOLE,
        min_frequency=lowest,
        unstable_mode=worst_mode(phonopy, TOLERANCE) if lowest < -TOLERANCE else None,
    )


def run_bands(phonopy: Phonopy, symprec: float) -> BandPath:
    """
    Compute the bands along the path of high symmetry, in phonopy's object.

    Parameters
    ----------
    phonopy
        Phonopy's object with force constants.
    symprec
        Tolerance for the symmetry of the path, Å.
    """
    path = band_path(phonopy.primitive, symprec)
    phonopy.run_band_structure(path.qpoints, path_connections=path.connections, labels=path.labels)
    return path


def _over_equal_atoms(phonopy: Phonopy, projected: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Average densities of states of atoms over those that symmetry makes equal.

    On a mesh reduced by symmetry, only their sum is right: an operation that maps a wave vector to an equal one also
    exchanges atoms. phonopy therefore asks for the whole mesh, which takes up to 48 times as long.
    """
    first = phonopy.primitive_symmetry.get_map_atoms()
    return np.stack([projected[first == representative].mean(axis=0) for representative in first])


def _followed(records: Sequence[PhononRecord], relaxer: Relaxer) -> list[PhononRecord]:
    """Relax along the unstable modes of records."""
    computed = [record.phonons for record in records if record.phonons]
    modes = iter(follow([(phonons.phonopy, phonons.unstable_mode) for phonons in computed], relaxer))
    return [
        replace(record, phonons=replace(record.phonons, unstable_mode=next(modes))) if record.phonons else record
        for record in records
    ]


def _record(
    start: RelaxRecord,
    plan: _Plan,
    cells: Sequence[RelaxRecord],
    settings: PhononSettings,
    cutoffs: Sequence[float],
) -> PhononRecord:
    """Analyse one material."""
    phonopy, _, chosen = plan
    check = use_forces(phonopy, chosen, cells)
    phonons = analyse(phonopy, settings)
    doubts = [check.warning] if check.warning else []
    warnings = []
    if phonons.unstable_mode:
        warnings.append(f"dynamically unstable: a frequency of {-phonons.min_frequency:.2f}i THz")
    elif phonons.has_imaginary_modes:
        doubts.append(
            f"a frequency of {-phonons.min_frequency:.2f}i THz, but only at wave vectors between those commensurate "
            "with the supercell: try a larger supercell"
        )
    crossings = crossings_of_displacements(phonopy, cutoffs)
    state, unconverged = convergence([start], ["the relaxed cell"])
    return PhononRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        energy=start.energy,
        phonons=phonons,
        linearity=check,
        warnings=(*warnings, *doubts, *map(str, crossings), *unfixed(start), *unconverged),
        is_reliable=not doubts and state == "converged",
        crossings=crossings,
    )


def unfixed(start: RelaxRecord) -> tuple[str, ...]:
    """Warning for atoms that the input fixes, and that vibrate all the same."""
    if start.structure is None or freedom_of(start.structure) is None:
        return ()
    return ("atoms that the input fixes are fixed while the cell relaxes, but vibrate as the others do",)


def _right_handed(structure: Structure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lattice and fractional coordinates; the vectors of a left-handed cell, which phonopy cannot trim, reversed."""
    sign = 1.0 if np.linalg.det(structure.lattice.matrix) > 0 else -1.0
    return sign * np.asarray(structure.lattice.matrix), sign * np.asarray(structure.frac_coords)


def to_phonopy(structure: Structure) -> PhonopyAtoms:
    """Turn a structure into phonopy's atoms: same positions and masses; reversed vectors if it is left-handed."""
    lattice, frac_coords = _right_handed(structure)
    return PhonopyAtoms(
        symbols=[_element(site.specie.Z).symbol for site in structure],
        cell=lattice,
        scaled_positions=frac_coords,
        masses=masses_of(structure),
    )


def to_structure(cell: PhonopyAtoms) -> Structure:
    """Turn phonopy's atoms into a structure; masses become site properties where they are not those of the elements."""
    natural = [float(_element(number).atomic_mass) for number in cell.numbers]
    unusual = not np.allclose(cell.masses, natural, rtol=_SAME_MASS, atol=0)
    properties = {MASSES: [float(mass) for mass in cell.masses]} if unusual else None
    return Structure(cell.cell, cell.symbols, cell.scaled_positions, site_properties=properties)


def has_mixed_isotopes(cell: PhonopyAtoms) -> bool:
    """Whether atoms of one element have different masses."""
    return any(np.ptp(cell.masses[cell.numbers == number]) > 0 for number in set(cell.numbers.tolist()))


def _element(number: int) -> Element:
    """Element by atomic number: D and T are H."""
    return Element.from_Z(int(number))
