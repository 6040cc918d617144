"""Fixed atoms of an input: what pymatgen and ASE say about them, in one form."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from matris.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure

FREEDOM = "selective_dynamics"
"""Site property with three flags for each atom, as in a POSCAR: whether the atom may move along each lattice vector."""

_TOLERANCE = 1e-6  # largest difference of two projectors that are taken for equal


def freedom_of(structure: Structure) -> NDArray[np.bool_] | None:
    """
    Read along which lattice vectors the atoms may move.

    Parameters
    ----------
    structure
        A structure; its site property ``selective_dynamics`` counts, which pymatgen's POSCAR reader sets.

    Returns
    -------
    ndarray or None
        Shape (n, 3), True where an atom may move; None if all atoms may move in all directions.

    Raises
    ------
    StructureError
        If an atom has anything but three flags.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> flags = {"selective_dynamics": [[False, False, False], [True, True, True]]}
    >>> salt = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties=flags)
    >>> freedom_of(salt).any(axis=1).tolist()
    [False, True]
    >>> freedom_of(salt.remove_site_property("selective_dynamics")) is None
    True
    """
    free = np.ones((len(structure), 3), dtype=bool)
    for index, site in enumerate(structure):
        flags = site.properties.get(FREEDOM)
        if flags is None:
            continue
        values = np.asarray(flags)
        if values.shape != (3,) or not np.isin(values, (0, 1)).all():
            raise StructureError(f"site {index} has {FREEDOM} {flags}: three flags are needed, T or F")
        free[index] = values.astype(bool)
    return None if free.all() else free


def projectors(lattice: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """
    Compute the matrices that remove from a force what an atom cannot follow.

    Parameters
    ----------
    lattice
        Lattice vectors as rows (Å), shape (3, 3).
    free
        Directions along which each atom may move, see `freedom_of`, shape (n, 3).

    Returns
    -------
    ndarray
        Orthogonal projectors onto the free lattice vectors, shape (n, 3, 3): symmetric, so the side does not matter.

    Examples
    --------
    >>> import numpy as np
    >>> cell = np.array([[3.0, 0, 0], [1, 3, 0], [0, 0, 5]])
    >>> projectors(cell, np.array([[True, False, False]]))[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    unique, inverse = np.unique(free, axis=0, return_inverse=True)
    onto = np.array([np.eye(3) if flags.all() else np.zeros((3, 3)) for flags in unique])  # exact
    for matrix, flags in zip(onto, unique, strict=True):
        if flags.any() and not flags.all():
            matrix[:] = np.linalg.pinv(lattice[flags]) @ lattice[flags]
    return onto[inverse.reshape(-1)]


def read_constraints(atoms: Atoms) -> NDArray[np.bool_] | None:
    """
    Convert the constraints of ASE atoms to flags along the lattice vectors.

    ``FixAtoms`` and ``FixScaled`` say the same as the flags, and so do ``FixCartesian``, ``FixedLine`` and
    ``FixedPlane`` if lattice vectors span the directions that they leave free. ``FixCom`` changes nothing: forces add
    up to zero. For any other constraint a warning says that it is not kept.

    Parameters
    ----------
    atoms
        Atoms in a cell that is not singular.

    Returns
    -------
    ndarray or None
        Shape (n, 3), True where an atom may move along a lattice vector; None without such constraints.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.constraints import FixAtoms
    >>> atoms = bulk("MgO", "rocksalt", a=4.2)
    >>> atoms.set_constraint(FixAtoms([1]))
    >>> read_constraints(atoms).tolist()
    [[True, True, True], [False, False, False]]
    """
    free = np.ones((len(atoms), 3), dtype=bool)
    lost = []
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        if name == "FixCom":
            continue
        indices = np.atleast_1d(getattr(constraint, "index", []))
        if name == "FixAtoms":
            free[indices] = False
        elif name == "FixScaled":
            free[indices] &= ~np.asarray(constraint.mask, dtype=bool)
        elif (flags := _flags(name, constraint, atoms.cell.array)) is not None:
            free[indices] &= flags
        else:
            lost.append(name)
    if lost:
        warnings.warn(
            f"{atoms.symbols}: constraints of the kind {', '.join(dict.fromkeys(lost))} are not kept, and these atoms "
            "move freely; FixAtoms is kept. Use MatRISCalculator with ASE's optimizers, which know all constraints.",
            stacklevel=3,
        )
    return None if free.all() else free


def _flags(name: str, constraint: object, lattice: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Lattice vectors that span the directions which a Cartesian constraint leaves free; None if none do."""
    direction = np.asarray(getattr(constraint, "dir", (0, 0, 0)), dtype=float)
    if name == "FixCartesian":
        projector = np.diag(1.0 - np.asarray(getattr(constraint, "mask", (1, 1, 1)), dtype=float))
    elif name == "FixedLine":
        projector = np.outer(direction, direction)
    elif name == "FixedPlane":
        projector = np.eye(3) - np.outer(direction, direction)
    else:
        return None
    choices = np.array(np.meshgrid(*[[True, False]] * 3)).reshape(3, -1).T
    for choice, candidate in zip(choices, projectors(lattice, choices), strict=True):
        if np.abs(candidate - projector).max() < _TOLERANCE:
            return choice
    return None
