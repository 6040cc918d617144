"""The most imaginary mode of an unstable crystal, and the structure that it distorts into."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from pymatgen.core import Structure

from matris.structures import MASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from phonopy import Phonopy

    from matris.properties.groups import Relaxer
    from matris.relaxation.records import RelaxRecord

_KICK = 0.1  # Å, largest displacement of an atom in a distorted cell


@dataclass(frozen=True, eq=False)
class UnstableMode:
    """
    The most imaginary mode at the wave vectors that are commensurate with the supercell.

    Frequencies at other wave vectors are interpolated.

    Attributes
    ----------
    qpoint
        Wave vector, shape (3,), in reciprocal vectors of the primitive cell.
    frequency
        THz; negative: imaginary.
    eigenvector
        Eigenvector of the dynamical matrix, shape (primitive atoms, 3), complex, normalised to 1.
    relaxed
        Relaxation of the smallest cell that is commensurate with the mode, distorted along it; None unless asked for.
    """

    qpoint: NDArray[np.float64]
    frequency: float
    eigenvector: NDArray[np.complex128]
    relaxed: RelaxRecord | None = None

    def energy_gain(self, start: RelaxRecord, pressure: float = 0.0) -> float | None:
        """
        Enthalpy of the relaxed distorted cell minus that of the undistorted cell, eV/atom; None if not computed.

        Parameters
        ----------
        start
            Record of the undistorted cell.
        pressure
            External pressure of both, GPa; at zero the enthalpies are energies.
        """
        if self.relaxed is None:
            return None
        after, before = self.relaxed.enthalpy(pressure), start.enthalpy(pressure)
        if after is None or before is None or self.relaxed.structure is None or start.structure is None:
            return None
        return after / len(self.relaxed.structure) - before / len(start.structure)


def worst_mode(phonopy: Phonopy, tolerance: float) -> UnstableMode | None:
    """
    Find the most imaginary mode.

    Parameters
    ----------
    phonopy
        Phonopy's object with force constants.
    tolerance
        Imaginary frequencies up to this (THz) count as stable.

    Returns
    -------
    UnstableMode or None
        None if there is no imaginary mode at the wave vectors that are commensurate with the supercell.
    """
    points = get_commensurate_points(np.linalg.inv(phonopy.primitive.primitive_matrix).round().astype(np.int64))
    modes = phonopy.run_qpoints(points, with_eigenvectors=True)
    frequencies, eigenvectors = np.asarray(modes.frequencies), np.asarray(modes.eigenvectors)
    q, band = np.unravel_index(np.argmin(frequencies), frequencies.shape)
    if frequencies[q, band] >= -tolerance:
        return None
    vector = eigenvectors[q, :, band].reshape(-1, 3)
    return UnstableMode(np.asarray(points[q], dtype=float), float(frequencies[q, band]), vector)


def distorted(phonopy: Phonopy, mode: UnstableMode) -> Structure:
    """
    Displace the atoms of the smallest commensurate cell along a mode, the farthest by 0.1 Å.

    Atom j of the cell at R moves by Re[e_j exp(2πi q·(R + r_j) + iφ)] / √m_j, where the phase φ maximises the sum of
    squares of the displacements.

    Parameters
    ----------
    phonopy
        Phonopy's object with the primitive cell of the mode.
    mode
        The mode.
    """
    primitive = phonopy.primitive
    cell = Structure(
        primitive.cell,
        primitive.symbols,
        primitive.scaled_positions,
        site_properties={"atom": range(len(primitive))},
    )
    cell.make_supercell(commensurate_cell(mode.qpoint, len(phonopy.supercell)))
    cell = cell.get_reduced_structure("LLL")
    atoms = np.array(cell.site_properties["atom"], dtype=int)
    waves = np.exp(2j * np.pi * cell.cart_coords @ np.linalg.inv(primitive.cell) @ mode.qpoint)[:, None]
    waves = waves * mode.eigenvector[atoms] / np.sqrt(primitive.masses)[atoms, None]
    moves = (waves * np.exp(-0.5j * np.angle((waves**2).sum()))).real
    moves *= _KICK / np.linalg.norm(moves, axis=1).max()
    moved = Structure(cell.lattice, cell.species, cell.cart_coords + moves, coords_are_cartesian=True)
    moved.add_site_property(MASSES, primitive.masses[atoms].tolist())
    return moved


def commensurate_cell(qpoint: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """
    Find the smallest supercell in which exp(2πi q·R) is periodic.

    Parameters
    ----------
    qpoint
        Shape (3,), fractional, rational.
    largest
        Upper bound of the denominators of its components.

    Returns
    -------
    ndarray
        Shape (3, 3), lower triangular: lattice vectors in rows, in units of the primitive cell's.
    """
    fractions = [Fraction(float(x)).limit_denominator(largest) for x in qpoint]
    size = math.lcm(*(x.denominator for x in fractions))
    a, b, c = (int(x * size) for x in fractions)
    # the shortest vector along x, then the vectors with least y and least z, whose phases are multiples of 2π
    along_x = size // math.gcd(a, size)
    y, x_of_y = next((y, x) for y in range(1, size + 1) for x in range(size) if (a * x + b * y) % size == 0)
    z, y_of_z, x_of_z = next(
        (z, y, x)
        for z in range(1, size + 1)
        for y in range(size)
        for x in range(size)
        if (a * x + b * y + c * z) % size == 0
    )
    return np.array([[along_x, 0, 0], [x_of_y, y, 0], [x_of_z, y_of_z, z]])


def follow(modes: Sequence[tuple[Phonopy, UnstableMode | None]], relaxer: Relaxer) -> list[UnstableMode | None]:
    """
    Relax the crystals distorted along their modes, all together.

    Parameters
    ----------
    modes
        For each material phonopy's object and the mode; None is passed on.
    relaxer
        Relaxes atoms and cells.

    Returns
    -------
    list of UnstableMode or None
        The same modes with `relaxed`.
    """
    cells = [distorted(phonopy, mode) for phonopy, mode in modes if mode is not None]
    records = iter(relaxer.materials(cells))
    return [mode and replace(mode, relaxed=next(records)) for _, mode in modes]
