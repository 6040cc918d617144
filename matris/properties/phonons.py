"""Harmonic phonons of many materials, from the forces in displaced supercells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import spglib
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import guess_primitive_matrix
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon
from pymatgen.core import Structure
from scipy.constants import N_A, e

from matris.properties.band_path import band_path
from matris.properties.groups import PropertyRecord, Relaxer, check_cells, convergence, derive
from matris.properties.instability import UnstableMode, follow, worst_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

TOLERANCE = 0.1
"""Imaginary frequencies up to this (THz) count as zero: rounding of float32 forces (1e-6 eV/Å) gives a third of it."""

JOULE_PER_MOLE = float(e * N_A)
"""J/mol in one eV."""

MESH = 60.0
"""Length (Å) that phonopy divides by lattice vectors to get the mesh of wave vectors.

Free energies are converged to 1e-4 eV at 300 K."""

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
        Length of the displacements, Å.
    symprec
        Tolerance for symmetry, Å.
    temperatures
        Temperatures of the thermal properties, K.
    """

    min_length: float = 12.0
    displacement: float = 0.01
    symprec: float = 1e-3
    temperatures: tuple[float, ...] = tuple(float(t) for t in range(0, 1001, 10))


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


@dataclass(frozen=True, eq=False, kw_only=True)
class PhononRecord(PropertyRecord):
    """
    Phonons of one material.

    Attributes
    ----------
    energy
        Energy of `structure`, eV.
    phonons
        The results; None if failed.
    """

    energy: float | None = None
    phonons: Phonons | None = None

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
    settings: PhononSettings | None = None,
    born: Sequence[BornCharges | None] | None = None,
    follow_instabilities: bool = False,
    journal_dir: Path | None = None,
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
    settings
        Supercells, displacements and temperatures.
    born
        Born charges of each material, in order, for the non-analytic correction; None where unknown.
    follow_instabilities
        Whether unstable materials are distorted along their most imaginary mode and relaxed.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.

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
    Copper by effective-medium theory; any torch-sim model does, above all ``matris.load()``.

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
    structures = list(structures)
    charges = [None] * len(structures) if born is None else list(born)
    if len(charges) != len(structures):
        raise ValueError(f"born has {len(charges)} entries for {len(structures)} structures: give None where unknown")
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir)

    def plan(start: RelaxRecord) -> _Plan:
        phonopy, cells = displaced(cast("Structure", start.structure), chosen)
        if (given := charges[start.index]) is not None:
            correct_long_waves(phonopy, given, chosen.symprec)
        return phonopy, cells

    def compute(plans: Sequence[_Plan | None]) -> list[list[RelaxRecord]]:
        return replace(relaxer, max_steps=0).groups([plan[1] if plan else [] for plan in plans])

    def analyse(start: RelaxRecord, plan: _Plan, cells: Sequence[RelaxRecord]) -> PhononRecord:
        return _record(start, plan[0], cells, chosen)

    records = derive(PhononRecord, relaxer.materials(structures), plan, compute, analyse)
    return _followed(records, relaxer) if follow_instabilities else records


type _Plan = tuple[Phonopy, list[Structure]]


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
        primitive_matrix=guess_primitive_matrix(cell, symprec=settings.symprec),
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
        Shape (3, 3), in phonopy's convention: columns are the vectors of the supercell in those of the structure.
    """
    lattice = structure.lattice.matrix
    cell = (lattice, structure.frac_coords, [site.specie.Z for site in structure])
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
    """
    phonopy.produce_force_constants([f - forces[0] for f in forces[1:]], show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)


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
    path = band_path(phonopy.primitive, settings.symprec)
    phonopy.run_band_structure(path.qpoints, path_connections=path.connections, labels=path.labels)
    bands = phonopy.get_band_structure_dict()
    mesh = phonopy.run_mesh(MESH)
    width = _SMEARING * float(np.ptp(mesh.frequencies))
    phonopy.run_total_dos(sigma=width, freq_pitch=width / 2)
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
        temperatures=np.asarray(thermal["temperatures"]),
        free_energy=np.asarray(thermal["free_energy"]) * 1e3 / JOULE_PER_MOLE,
        entropy=np.asarray(thermal["entropy"]) / JOULE_PER_MOLE,
        heat_capacity=np.asarray(thermal["heat_capacity"]) / JOULE_PER_MOLE,
        min_frequency=lowest,
        unstable_mode=worst_mode(phonopy, TOLERANCE) if lowest < -TOLERANCE else None,
    )


def _followed(records: Sequence[PhononRecord], relaxer: Relaxer) -> list[PhononRecord]:
    """Relax along the unstable modes of records."""
    computed = [record.phonons for record in records if record.phonons]
    modes = iter(follow([(phonons.phonopy, phonons.unstable_mode) for phonons in computed], relaxer))
    return [
        replace(record, phonons=replace(record.phonons, unstable_mode=next(modes))) if record.phonons else record
        for record in records
    ]


def _record(
    start: RelaxRecord, phonopy: Phonopy, cells: Sequence[RelaxRecord], settings: PhononSettings
) -> PhononRecord:
    """Analyse one material."""
    check_cells(cells, ["the supercell", *(f"displacement {i}" for i in range(1, len(cells)))])
    find_force_constants(phonopy, [cell.forces for cell in cells if cell.forces is not None])
    phonons = analyse(phonopy, settings)
    warnings = []
    if phonons.unstable_mode:
        warnings.append(f"dynamically unstable: a frequency of {-phonons.min_frequency:.2f}i THz")
    elif phonons.has_imaginary_modes:
        warnings.append(
            f"a frequency of {-phonons.min_frequency:.2f}i THz, but only at wave vectors between those commensurate "
            "with the supercell: try a larger supercell"
        )
    state, unconverged = convergence([start], ["the relaxed cell"])
    return PhononRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        energy=start.energy,
        phonons=phonons,
        warnings=(*warnings, *unconverged),
    )


def to_phonopy(structure: Structure) -> PhonopyAtoms:
    """Turn a structure into phonopy's atoms."""
    return PhonopyAtoms(
        symbols=[site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )


def to_structure(cell: PhonopyAtoms) -> Structure:
    """Turn phonopy's atoms into a structure."""
    return Structure(cell.cell, cell.symbols, cell.scaled_positions)
