"""The mode along which an unstable crystal wants to distort."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from pymatgen.core import Structure

from matris.properties.groups import relax_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from phonopy import Phonopy
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

_KICK = 0.1  # Å, largest displacement of an atom in a distorted cell


@dataclass(frozen=True, eq=False)
class UnstableMode:
    """
    The most imaginary mode among the wave vectors that the supercell holds: at others, frequencies are interpolated.

    Attributes
    ----------
    qpoint
        Wave vector, shape (3,), in reciprocal vectors of the primitive cell.
    frequency
        THz; negative: imaginary.
    eigenvector
        Of the dynamical matrix, shape (primitive atoms, 3), complex, of length 1.
    relaxed
        The smallest cell that holds the mode, distorted along it and relaxed; None unless asked for.
    """

    qpoint: NDArray[np.float64]
    frequency: float
    eigenvector: NDArray[np.complex128]
    relaxed: RelaxRecord | None = None

    def energy_gain(self, energy_per_atom: float) -> float | None:
        """
        Energy of the relaxed distorted cell against that of the undistorted one, eV/atom; None if there is none.

        Parameters
        ----------
        energy_per_atom
            Of the undistorted cell, eV.
        """
        if self.relaxed is None or self.relaxed.energy is None or self.relaxed.structure is None:
            return None
        return self.relaxed.energy / len(self.relaxed.structure) - energy_per_atom


def worst_mode(phonopy: Phonopy, tolerance: float) -> UnstableMode | None:
    """
    Find the most imaginary mode.

    Parameters
    ----------
    phonopy
        With force constants.
    tolerance
        THz: what is imaginary by less counts as stable.

    Returns
    -------
    UnstableMode or None
        None if no wave vector that the supercell holds has such a mode.
    """
    points = get_commensurate_points(np.linalg.inv(phonopy.primitive.primitive_matrix).round().astype(np.int64))
    found = phonopy.run_qpoints(points, with_eigenvectors=True)
    frequencies, eigenvectors = np.asarray(found.frequencies), np.asarray(found.eigenvectors)
    q, band = np.unravel_index(np.argmin(frequencies), frequencies.shape)
    if frequencies[q, band] >= -tolerance:
        return None
    vector = eigenvectors[q, :, band].reshape(-1, 3)
    return UnstableMode(np.asarray(points[q], dtype=float), float(frequencies[q, band]), vector)


def distorted(phonopy: Phonopy, mode: UnstableMode) -> Structure:
    """
    Displace the atoms of the smallest cell that holds a mode along it, the farthest by 0.1 Å.

    Atom j of the cell at R moves by Re[e_j exp(2πi q·(R + r_j) + iφ)] / √m_j; the phase φ makes the sum of squares
    largest.

    Parameters
    ----------
    phonopy
        Whose primitive cell the mode is of.
    mode
        What to follow.
    """
    primitive = phonopy.primitive
    cell = Structure(
        primitive.cell,
        primitive.symbols,
        primitive.scaled_positions,
        site_properties={"atom": range(len(primitive))},
    )
    cell.make_supercell(_holding(mode.qpoint, len(phonopy.supercell)))
    cell = cell.get_reduced_structure("LLL")
    atoms = np.array(cell.site_properties["atom"], dtype=int)
    waves = np.exp(2j * np.pi * cell.cart_coords @ np.linalg.inv(primitive.cell) @ mode.qpoint)[:, None]
    waves = waves * mode.eigenvector[atoms] / np.sqrt(primitive.masses)[atoms, None]
    moves = (waves * np.exp(-0.5j * np.angle((waves**2).sum()))).real
    moves *= _KICK / np.linalg.norm(moves, axis=1).max()
    return Structure(cell.lattice, cell.species, cell.cart_coords + moves, coords_are_cartesian=True)


def _holding(qpoint: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """
    Find the smallest supercell in which exp(2πi q·R) is periodic.

    Parameters
    ----------
    qpoint
        Shape (3,), fractional, rational.
    largest
        Upper bound of denominators.

    Returns
    -------
    ndarray
        Shape (3, 3), lower triangular; rows are its vectors in those of the primitive cell.
    """
    fractions = [Fraction(float(x)).limit_denominator(largest) for x in qpoint]
    size = math.lcm(*(x.denominator for x in fractions))
    a, b, c = (int(x * size) for x in fractions)
    # the vectors along x; then those with least y, then those with least z, whose phases add up to full turns
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


def follow(
    modes: Sequence[tuple[Phonopy, UnstableMode | None]],
    potential: Potential | ModelInterface,
    *,
    fmax: float,
    max_steps: int,
    journal_dir: Path | None = None,
) -> list[UnstableMode | None]:
    """
    Relax the crystals distorted along their modes, all together.

    Parameters
    ----------
    modes
        For each material phonopy's object and the mode; None is passed on.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on forces and on the cell's, eV/Å.
    max_steps
        Most steps of a relaxation.
    journal_dir
        Folder in which finished cells are kept; see `matris.relax`.

    Returns
    -------
    list of UnstableMode or None
        The same modes, `relaxed`.
    """
    cells = [distorted(phonopy, mode) for phonopy, mode in modes if mode is not None]
    found = iter(relax_all(cells, potential, fmax=fmax, max_steps=max_steps, relax_cell=True, journal_dir=journal_dir))
    return [mode and replace(mode, relaxed=next(found)) for _, mode in modes]
