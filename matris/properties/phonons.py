"""Harmonic phonons of many materials, from the forces in displaced supercells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import spglib
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import guess_primitive_matrix
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon
from pymatgen.core import Structure

from matris.properties.groups import fault, isolated, relax_all, relax_groups
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
"""Imaginary frequencies up to this (THz) count as zero: float32 forces of 1e-6 eV/Å make up to a third of it."""

_MESH = 60.0  # length in Å that phonopy divides by lattice vectors to get the mesh: free energies to 1e-4 eV at 300 K
_BAND_POINTS = 51  # on each segment of the path
_SMEARING = 0.01  # of the range of frequencies: tetrahedra miss part of a narrow peak, unless at thousands of points


@dataclass(frozen=True)
class PhononSettings:
    """
    How to compute phonons.

    Attributes
    ----------
    min_length
        Least distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å.
    symprec
        Tolerance for symmetry, Å.
    temperatures
        For the thermal properties, K.
    """

    min_length: float = 12.0
    displacement: float = 0.01
    symprec: float = 1e-3
    temperatures: tuple[float, ...] = tuple(float(t) for t in range(0, 1001, 10))


@dataclass(frozen=True, eq=False)
class BornCharges:
    """
    How a crystal answers to electric fields, for the non-analytic correction at long waves.

    Attributes
    ----------
    born
        Effective charges of the atoms of the input cell, shape (n, 3, 3), e; row: direction of the field.
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
        phonopy's object with force constants (eV/Å²), for everything else that it offers.
    qpoints, distances, frequencies
        Bands, segment by segment: wave vectors (q, 3), distances along the path (q,), frequencies (q, 3 n), THz;
        imaginary ones are negative.
    labels
        Names of the ends of the segments.
    connections
        For each segment, whether the next one starts where it ends.
    dos_frequencies, dos
        Density of states, THz and states per THz and primitive cell; a Gaussian for each mode on the mesh.
    temperatures, free_energy, entropy, heat_capacity
        K; eV, eV/K and eV/K per primitive cell.
    min_frequency
        Lowest frequency on mesh and path, THz.
    unstable_mode
        The most imaginary mode among the wave vectors that the supercell holds; None if none is imaginary.
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
        """Atoms of the primitive cell."""
        return len(self.phonopy.primitive)

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether a frequency is imaginary by more than `TOLERANCE`."""
        return self.min_frequency < -TOLERANCE


@dataclass(frozen=True, eq=False)
class PhononRecord:
    """
    What became of one material.

    Attributes
    ----------
    index
        Place in the input.
    state
        ``"converged"``; ``"max_steps"`` if its cell was not relaxed below `fmax`; ``"failed"``.
    structure
        The relaxed cell.
    energy
        Of `structure`, eV.
    phonons
        The results; None if failed.
    warnings
        What to know before using them.
    error
        Why it failed.
    """

    index: int
    state: Literal["converged", "max_steps", "failed"]
    structure: Structure | None = None
    energy: float | None = None
    phonons: Phonons | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


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
    Harmonic phonons of many materials, all displaced supercells of all of them through the device together.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on forces and on the cell's when the materials are relaxed, eV/Å.
    max_steps
        Most steps of that.
    settings
        How to compute.
    born
        Born charges of each material, in order, for the non-analytic correction; None where there are none.
    follow_instabilities
        Whether unstable materials are distorted along their worst mode and relaxed.
    journal_dir
        Folder in which finished cells are kept, so that a killed run goes on.

    Returns
    -------
    list of PhononRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If there are not as many `born` as structures.
    """
    chosen = settings or PhononSettings()
    structures = list(structures)
    charges = [None] * len(structures) if born is None else list(born)
    if len(charges) != len(structures):
        raise ValueError(f"born has {len(charges)} entries for {len(structures)} structures: give None where unknown")
    settled = relax_all(structures, potential, fmax=fmax, max_steps=max_steps, relax_cell=True, journal_dir=journal_dir)
    plans = [
        (None, start.error) if start.structure is None else isolated(_plan, start.structure, chosen, charge)
        for start, charge in zip(settled, charges, strict=True)
    ]
    groups = [[] if plan is None else plan[1] for plan, _ in plans]
    answers = relax_groups(groups, potential, fmax=fmax, max_steps=0, journal_dir=journal_dir)
    records = []
    for start, (plan, problem), cells in zip(settled, plans, answers, strict=True):
        record, error = (None, problem) if plan is None else isolated(_record, start, plan[0], cells, chosen)
        records.append(record or PhononRecord(start.index, "failed", start.structure, start.energy, error=error))
    return _followed(records, potential, fmax, max_steps, journal_dir) if follow_instabilities else records


def displaced(
    structure: Structure, settings: PhononSettings, matrix: NDArray[np.int64] | None = None
) -> tuple[Phonopy, list[Structure]]:
    """
    Make the supercells whose forces are wanted.

    Parameters
    ----------
    structure
        The relaxed cell.
    settings
        How to compute.
    matrix
        Of the supercell, shape (3, 3); by default what `supercell_matrix` finds.

    Returns
    -------
    Phonopy
        With its displacements.
    list of Structure
        The perfect supercell, then one for each displacement that symmetry does not make equal to another.
    """
    if matrix is None:
        matrix = supercell_matrix(structure, settings.min_length, settings.symprec)
    cell = _to_phonopy(structure)
    phonopy = Phonopy(
        cell,
        supercell_matrix=matrix,
        primitive_matrix=guess_primitive_matrix(cell, symprec=settings.symprec),
        symprec=settings.symprec,
    )
    phonopy.generate_displacements(distance=settings.displacement)
    cells = [phonopy.supercell, *(phonopy.supercells_with_displacements or [])]
    return phonopy, [Structure(cell.cell, cell.symbols, cell.scaled_positions) for cell in cells]


def supercell_matrix(structure: Structure, min_length: float, symprec: float) -> NDArray[np.int64]:
    """
    Supercell of the conventional cell whose opposite faces are so far apart, in lattice vectors of the structure.

    Parameters
    ----------
    structure
        The cell.
    min_length
        Least distance between opposite faces, Å.
    symprec
        Tolerance for symmetry, Å.

    Returns
    -------
    ndarray
        Shape (3, 3), in phonopy's convention: columns are the vectors of the supercell.
    """
    lattice = structure.lattice.matrix
    cell = (lattice, structure.frac_coords, [site.specie.Z for site in structure])
    found = spglib.get_symmetry_dataset(cell, symprec=symprec)
    conventional = np.eye(3) if found is None else np.linalg.inv(found.transformation_matrix)
    if np.abs(conventional - conventional.round()).max() > 1e-3 or abs(np.linalg.det(conventional)) < 0.5:  # noqa: PLR2004
        conventional = np.eye(3)  # the structure is itself a supercell
    vectors = conventional.T @ lattice
    heights = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)
    repeats = np.ceil(min_length / heights - 1e-6).clip(min=1)
    return (conventional * repeats).round().astype(np.int64)


def correct_long_waves(phonopy: Phonopy, charges: BornCharges, symprec: float) -> None:
    """
    Let longitudinal optical modes feel the field they make.

    Charges and dielectric tensor are made to obey the crystal's symmetry and the sum rule of charges. The correction
    is that of X. Gonze and C. Lee, Phys. Rev. B 55, 10355 (1997), by phonopy.

    Parameters
    ----------
    phonopy
        To be corrected.
    charges
        For the atoms of its unit cell.
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
    Force constants from forces: without those of the perfect supercell, symmetric, and with the acoustic sum rule.

    Parameters
    ----------
    phonopy
        With its displacements.
    forces
        Of the perfect supercell, then of the displaced ones (eV/Å), shape (n, 3) each.
    """
    phonopy.produce_force_constants([f - forces[0] for f in forces[1:]], show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)


def analyse(phonopy: Phonopy, settings: PhononSettings) -> Phonons:
    """
    Phonons from force constants.

    Parameters
    ----------
    phonopy
        With force constants, and `nac_params` if wanted.
    settings
        How to compute.
    """
    path, labels, connections = get_band_qpoints_by_seekpath(phonopy.primitive, _BAND_POINTS)
    phonopy.run_band_structure(path, path_connections=connections, labels=labels)
    bands = phonopy.get_band_structure_dict()
    mesh = phonopy.run_mesh(_MESH)
    width = _SMEARING * float(np.ptp(mesh.frequencies))
    phonopy.run_total_dos(sigma=width, freq_pitch=width / 2)
    phonopy.run_thermal_properties(temperatures=settings.temperatures, exclude_gamma_acoustic=True)
    dos, thermal = phonopy.get_total_dos_dict(), phonopy.get_thermal_properties_dict()
    kilojoule = 96.485332  # kJ/mol in one eV
    frequencies = list(bands["frequencies"] or [])
    lowest = min(float(np.min(f)) for f in [mesh.frequencies, *frequencies])
    return Phonons(
        phonopy=phonopy,
        qpoints=list(bands["qpoints"]),
        distances=list(bands["distances"]),
        frequencies=frequencies,
        labels=list(labels),
        connections=list(connections),
        dos_frequencies=np.asarray(dos["frequency_points"]),
        dos=np.asarray(dos["total_dos"]),
        temperatures=np.asarray(thermal["temperatures"]),
        free_energy=np.asarray(thermal["free_energy"]) / kilojoule,
        entropy=np.asarray(thermal["entropy"]) / kilojoule / 1e3,
        heat_capacity=np.asarray(thermal["heat_capacity"]) / kilojoule / 1e3,
        min_frequency=lowest,
        unstable_mode=worst_mode(phonopy, TOLERANCE) if lowest < -TOLERANCE else None,
    )


def _plan(
    structure: Structure, settings: PhononSettings, charges: BornCharges | None
) -> tuple[Phonopy, list[Structure]]:
    """Prepare one material."""
    phonopy, cells = displaced(structure, settings)
    if charges is not None:
        correct_long_waves(phonopy, charges, settings.symprec)
    return phonopy, cells


def _followed(
    records: Sequence[PhononRecord],
    potential: Potential | ModelInterface,
    fmax: float,
    max_steps: int,
    journal_dir: Path | None,
) -> list[PhononRecord]:
    """Relax what the unstable ones distort into."""
    there = [record.phonons for record in records if record.phonons]
    modes = iter(
        follow(
            [(found.phonopy, found.unstable_mode) for found in there],
            potential,
            fmax=fmax,
            max_steps=max_steps,
            journal_dir=journal_dir,
        )
    )
    return [
        replace(record, phonons=replace(record.phonons, unstable_mode=next(modes))) if record.phonons else record
        for record in records
    ]


def _record(
    start: RelaxRecord, phonopy: Phonopy, cells: Sequence[RelaxRecord], settings: PhononSettings
) -> PhononRecord:
    """Analyse one material."""
    names = ["the supercell", *(f"displacement {i}" for i in range(1, len(cells)))]
    if error := fault(cells, names):
        return PhononRecord(start.index, "failed", start.structure, start.energy, error=error)
    find_force_constants(phonopy, [cell.forces for cell in cells if cell.forces is not None])
    found = analyse(phonopy, settings)
    warnings = []
    if found.unstable_mode:
        warnings.append(f"dynamically unstable: a frequency of {-found.min_frequency:.2f}i THz")
    elif found.has_imaginary_modes:
        warnings.append(
            f"a frequency of {-found.min_frequency:.2f}i THz, but only between the wave vectors that the supercell "
            "holds: try a larger one"
        )
    if start.state != "converged":
        warnings.append("the cell is not relaxed to fmax")
    state: Literal["converged", "max_steps"] = "converged" if start.state == "converged" else "max_steps"
    return PhononRecord(start.index, state, start.structure, start.energy, found, tuple(warnings))


def _to_phonopy(structure: Structure) -> PhonopyAtoms:
    return PhonopyAtoms(
        symbols=[site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )
