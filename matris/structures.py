"""Input structures: conversion, identity, and reasons why one cannot be computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import complete_cell
from pymatgen.core import DummySpecies, Element, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.spatial import cKDTree

from matris.constraints import FREEDOM, freedom_of, read_constraints
from matris.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Collection

    from ase import Atoms
    from numpy.typing import NDArray
    from typing_extensions import TypeIs

MIN_DISTANCE = 0.5
"""Smallest distance between two atoms (Å); closer atoms are taken for an error in the input."""

MASSES = "masses"
"""Site property with the masses of atoms (u), named as in pymatgen's ``AseAtomsAdaptor``; see `masses_of`."""

_ISOTOPES = ("D", "T")
"""Names of pymatgen's elements that are isotopes."""

_UNSUPPORTED = "unsupported element "

_SHORTEST = 1e-6
"""Shortest lattice vector (Å) that is not taken for an absent one, and smallest volume spanned by unit vectors."""

_FAR = 1e6
"""Largest fractional coordinate; beyond it, too few digits remain for the position in the cell."""

_LONGEST = 1e3
"""Longest edge of a cell (Å); a longer one is taken for an error in the input."""

_SAME_MASS = 1e-3
"""Relative difference of two masses that is none: tables differ by as much, as do ASE's and pymatgen's for Li."""

_DECIMALS = 5
"""Decimals of fractional coordinates and lattice vectors (Å) in an identity: far above numerical noise."""


def one_or_many(structures: Structure | Atoms | Iterable[Structure | Atoms]) -> Iterable[Structure | Atoms]:
    """
    Return structures as they are, and one structure as a list of one: it is an iterable too, of its atoms.

    Raises
    ------
    StructureError
        If the input is neither: a path, a dictionary, or nothing to iterate over.

    Examples
    --------
    >>> from ase.build import bulk
    >>> len(one_or_many(bulk("MgO", "rocksalt", a=4.2)))
    1
    >>> one_or_many("POSCAR")
    Traceback (most recent call last):
    matris.errors.StructureError: expected pymatgen Structures or ASE Atoms, got str; Structure.from_file reads a file
    """
    if is_one(structures):
        return [structures]
    if isinstance(structures, str | Path | Mapping) or not isinstance(structures, Iterable):
        hint = "; Structure.from_file reads a file" if isinstance(structures, str | Path) else ""
        raise StructureError(f"expected pymatgen Structures or ASE Atoms, got {type(structures).__name__}{hint}")
    return structures


def is_one(obj: object) -> TypeIs[Structure | Atoms]:
    """
    Tell one structure from many.

    Examples
    --------
    >>> from ase.build import bulk
    >>> is_one(bulk("Cu")), is_one([bulk("Cu")])
    (True, False)
    """
    return isinstance(obj, Structure) or hasattr(obj, "get_atomic_numbers")


def to_structure(obj: Structure | Atoms) -> Structure:
    """
    Convert a fully periodic crystal from pymatgen or ASE to a pymatgen structure.

    Parameters
    ----------
    obj
        A pymatgen ``Structure`` or an ASE ``Atoms`` that is periodic in three directions.

    Returns
    -------
    Structure

    Raises
    ------
    StructureError
        If the object is neither, or not periodic in three directions with a lattice vector along each.

    Notes
    -----
    Fixed atoms become the site property ``selective_dynamics`` (`matris.constraints`), masses of atoms and isotopes
    become ``masses`` (`masses_of`), momenta become ``momenta``.

    Examples
    --------
    >>> from ase.build import bulk
    >>> to_structure(bulk("MgO", "rocksalt", a=4.2)).formula
    'Mg1 O1'
    """
    if isinstance(obj, Structure):
        _check_crystal(obj.lattice.matrix, obj.lattice.pbc, obj.composition.reduced_formula)
        structure = obj
    elif not hasattr(obj, "get_atomic_numbers"):
        raise StructureError(f"expected a pymatgen Structure or ASE Atoms, got {type(obj).__name__}")
    else:
        _check_crystal(obj.cell.array, obj.pbc, str(obj.symbols))
        bare = obj.copy()  # without the calculator, whose results may belong to other atoms
        bare.set_constraint()
        structure = AseAtomsAdaptor.get_structure(bare)
        if (free := read_constraints(obj)) is not None:
            structure.add_site_property(FREEDOM, free.tolist())
    return _with_isotopes(structure)


def _check_crystal(cell: NDArray[np.float64], pbc: Iterable[bool], name: str) -> None:
    """Refuse what is not periodic in three directions, or has no lattice vector along one."""
    check_periodicity(cell, pbc, name)
    if not all(pbc):
        raise StructureError(
            f"{name} is not periodic in three directions (pbc {_letters(pbc)}): use MatRISCalculator for it, or make "
            "it periodic, with enough vacuum that its images are beyond the cutoff"
        )


def check_periodicity(cell: NDArray[np.float64], pbc: Iterable[bool], name: str) -> None:
    """
    Refuse a cell that is periodic along a vector that it does not have: the one rule of all entry points.

    Parameters
    ----------
    cell
        Lattice vectors as rows (Å), shape (3, 3). Vectors of directions that are not periodic may be zero.
    pbc
        Periodicity along each vector, shape (3,).
    name
        Formula of the structure, for the message.

    Raises
    ------
    StructureError
        If a vector along which the structure is periodic is zero or not finite, or depends on the other ones.

    Examples
    --------
    >>> import numpy as np
    >>> check_periodicity(np.diag([3.0, 3.0, 0.0]), (True, True, False), "Cu")
    >>> check_periodicity(np.zeros((3, 3)), (True, True, True), "Cu2")
    Traceback (most recent call last):
    matris.errors.StructureError: Cu2 is periodic (pbc TTT), but its cell vectors a, b, c are zero: set a cell or ...
    """
    periodic = np.asarray(tuple(pbc), dtype=bool)
    vectors = np.asarray(cell, dtype=float)[periodic]
    lengths = np.linalg.norm(vectors, axis=1)
    start = f"{name} is periodic (pbc {_letters(periodic)}), but"
    if not np.isfinite(lengths).all():
        raise StructureError(f"{name}: a lattice vector is NaN or infinite")
    if (lengths < _SHORTEST).any():
        absent = ", ".join(np.array(["a", "b", "c"])[periodic][lengths < _SHORTEST])
        verb = "s {} are" if "," in absent else " {} is"
        raise StructureError(f"{start} its cell vector{verb.format(absent)} zero: set a cell or pbc=False")
    if not periodic.any():
        return
    # a vector without periodicity may be absent, but not lie in the plane of the others
    whole = complete_cell(np.asarray(cell, dtype=float))
    if abs(np.linalg.det(whole / np.linalg.norm(whole, axis=1)[:, None])) < _SHORTEST:
        raise StructureError(f"{start} its cell has no volume")


def _letters(pbc: Iterable[bool]) -> str:
    """Periodicity as in a file: TTF."""
    return "".join("T" if periodic else "F" for periodic in pbc)


def _with_isotopes(structure: Structure) -> Structure:
    """Keep the masses of D and T as site properties: pymatgen writes both as H."""
    isotopes = [
        site.is_ordered
        and not isinstance(site.specie, DummySpecies)
        and getattr(site.specie, "element", site.specie).name in _ISOTOPES
        for site in structure
    ]
    if not any(isotopes):
        return structure
    masses = masses_of(structure).tolist()
    structure = structure.copy()
    structure.add_site_property(MASSES, masses)
    return structure


def cells_away(frac_coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Count the cells between each atom and the cell at the origin, along each lattice vector.

    Without them, positions are in the cell, where float32 has enough digits. Atoms next to the cell stay where they
    are, so that one on a face does not jump between two images.

    Parameters
    ----------
    frac_coords
        Fractional coordinates, shape (n, 3).

    Returns
    -------
    ndarray
        Whole numbers, shape (n, 3).

    Examples
    --------
    >>> import numpy as np
    >>> cells_away(np.array([[0.5, -0.1, 1.2], [7.25, -3.5, 0.0]])).tolist()
    [[0.0, 0.0, 0.0], [7.0, -4.0, 0.0]]
    """
    cells = np.floor(frac_coords)
    return np.where(np.abs(cells) <= 1, 0.0, cells)


def masses_of(structure: Structure) -> NDArray[np.float64]:
    """
    Masses of the atoms.

    The site property ``masses`` counts first, which pymatgen's ``AseAtomsAdaptor`` makes of the masses of ASE atoms.
    A site without it has the mass of its species. pymatgen knows the isotopes ``"D"`` and ``"T"`` of hydrogen, but
    forgets them when a structure is written; `to_structure` therefore keeps their masses as site properties.

    Parameters
    ----------
    structure
        An ordered structure.

    Returns
    -------
    ndarray
        Masses (u), shape (n,).

    Raises
    ------
    StructureError
        If a mass is not a positive number, or a site holds no element.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> deuteride = Structure(Lattice.cubic(4), ["Li", "D"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> masses_of(deuteride).round(2).tolist()
    [6.94, 2.01]
    >>> heavy = deuteride.copy(site_properties={"masses": [7.016, None]})
    >>> masses_of(heavy).round(3).tolist()
    [7.016, 2.014]
    """
    given = [site.properties.get(MASSES) for site in structure]
    for index, mass in enumerate(given):
        if isinstance(structure[index].specie, DummySpecies):
            raise StructureError(f"site {index} ({structure[index].species_string}) is no element")
        if mass is not None and not (isinstance(mass, Real) and 0 < float(mass) < np.inf):
            raise StructureError(f"site {index} ({structure[index].specie.symbol}) has the mass {mass}")
    return np.array(
        [
            float(site.specie.atomic_mass) if mass is None else float(mass)
            for site, mass in zip(structure, given, strict=True)
        ]
    )


def content_id(structure: Structure) -> str:
    """
    Compute the identity of a structure: a hash of its species and its rounded lattice and coordinates.

    Equal input has the same identity on all machines. Fixed atoms, and masses other than those of the elements, are a
    part of it. The order of the sites counts; fractional coordinates are taken
    modulo one. Symmetry-equivalent descriptions have different identities.

    Returns
    -------
    str
        20 hexadecimal digits.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> cell = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> shifted = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 1], [0.5, -0.5, 0.5]])
    >>> content_id(cell) == content_id(shifted), len(content_id(cell))
    (True, 20)
    """
    frac = np.round(np.mod(np.asarray(structure.frac_coords, dtype=float), 1.0), _DECIMALS) % 1.0
    content = {
        "species": [str(site.species) for site in structure],
        "lattice": (np.round(structure.lattice.matrix, _DECIMALS) + 0.0).tolist(),  # + 0.0: no negative zeros
        "frac_coords": (frac + 0.0).tolist(),
    }
    try:
        if (free := freedom_of(structure)) is not None:
            content["free"] = free.tolist()
        if structure.is_ordered:
            masses = masses_of(structure)
            if not np.allclose(masses, _natural(structure), rtol=_SAME_MASS, atol=0):
                content["masses"] = np.round(masses, _DECIMALS).tolist()
    except StructureError as error:  # it cannot be computed, but has an identity like any other
        content["fault"] = str(error)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def _natural(structure: Structure) -> NDArray[np.float64]:
    """Masses of the elements in their natural mixtures of isotopes (u), shape (n,)."""
    return np.array([float(Element.from_Z(site.specie.Z).atomic_mass) for site in structure])


def problem_with(
    structure: Structure, elements: Collection[str] | None = None, min_distance: float = MIN_DISTANCE
) -> str | None:
    """
    Find the reason why a structure cannot be computed.

    Parameters
    ----------
    structure
        Any pymatgen structure.
    elements
        Symbols of the elements that the potential supports. By default all.
    min_distance
        Smallest allowed distance between two atoms (Å), periodic images included.

    Returns
    -------
    str or None
        The reason in one line, which names the site or element; None if the structure can be computed.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> gold = Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]])
    >>> print(problem_with(gold))
    None
    >>> problem_with(gold, elements=["Na", "Cl"])
    'unsupported element Au: the checkpoint does not know it'
    """
    if len(structure) == 0:
        return "empty structure: it has no atoms"
    for index, site in enumerate(structure):
        if any(isinstance(species, DummySpecies) for species in site.species):
            return f"site {index} ({site.species_string}) is no element"
        if not site.is_ordered:
            return (
                f"disordered site {index} ({site.species_string}): order it first, e.g. by pymatgen's transformations"
            )
    if problem := _not_computable(structure):
        return problem
    matrix = np.asarray(structure.lattice.matrix, dtype=float)
    lengths = np.linalg.norm(matrix, axis=1)
    if lengths.max() > _LONGEST:
        return f"the cell is {lengths.max():.3g} Å long, beyond {_LONGEST:g} Å"
    volume = abs(float(np.linalg.det(matrix)))
    if volume < 1e-3 * len(structure):
        return f"the cell has no volume ({volume:.3g} Å³)"
    symbols = {site.specie.symbol for site in structure}
    if elements is not None and (unknown := sorted(symbols - set(elements))):
        return f"{_UNSUPPORTED}{', '.join(unknown)}: the checkpoint does not know it"
    return _overlap(structure, min_distance)


def unsupported_elements(problem: str | None) -> list[str]:
    """
    Find the elements in a reason of `problem_with` that a potential does not support.

    Examples
    --------
    >>> unsupported_elements("unsupported element Au, Pt: the checkpoint does not know it"), unsupported_elements(None)
    (['Au', 'Pt'], [])
    """
    start, _, rest = (problem or "").partition(_UNSUPPORTED)
    return [] if start or not rest else rest.partition(":")[0].split(", ")


def _not_computable(structure: Structure) -> str | None:
    """Find what is not a number, or not what it should be, in an ordered structure."""
    if not all(structure.lattice.pbc):
        return f"not periodic in three directions (pbc {_letters(structure.lattice.pbc)})"
    if not np.isfinite(structure.lattice.matrix).all():
        return "the lattice has a NaN or infinite component"
    frac = np.asarray(structure.frac_coords, dtype=float)
    if (strange := np.flatnonzero(~np.isfinite(frac).all(axis=1))).size:
        return f"site {strange[0]} ({structure[int(strange[0])].specie.symbol}) has a NaN or infinite coordinate"
    if (far := np.flatnonzero((np.abs(frac) > _FAR).any(axis=1))).size:
        return f"site {far[0]} ({structure[int(far[0])].specie.symbol}) lies {_FAR:g} cells away: its digits are lost"
    try:
        freedom_of(structure), masses_of(structure)
    except StructureError as error:
        return str(error)
    return None


def near_pairs(structure: Structure, cutoff: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """
    List all pairs of atoms within a cutoff, including pairs of an atom with periodic images, its own among them.

    Time and memory are proportional to the numbers of atoms and pairs, for cells of any size and shape.

    Parameters
    ----------
    structure
        A structure whose atoms do not overlap, see `problem_with`.
    cutoff
        Largest distance (Å).

    Returns
    -------
    tuple of ndarray
        Indices of the first and of the second atom, and their distance (Å), each of shape (pairs,). Each pair is listed
        in both directions.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> cell = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> first, second, distances = near_pairs(cell, 3.5)
    >>> len(first), round(float(distances.max()), 3)
    (16, 3.464)
    """
    # pymatgen's find_points_in_spheres finds the same pairs, also in flat cells, and is faster in small cells. But it
    # fills the cell with a grid of boxes of edge `cutoff`: two atoms in a cube of 300 Å take 5 GB and 18 s at 0.5 Å.
    # With a larger radius instead, a cluster in such a cube has pairs in the square of its number of atoms.
    points, images, atoms = _with_images(structure, cutoff)
    pairs = cKDTree(points).sparse_distance_matrix(cKDTree(images), cutoff, output_type="ndarray")
    pairs = pairs[pairs["i"] != pairs["j"]]  # the first rows of `images` are `points`
    return pairs["i"], atoms[pairs["j"]], pairs["v"]


def _with_images(
    structure: Structure, margin: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """
    List the atoms in the cell, and their periodic images up to a margin around it.

    Returns
    -------
    points
        Cartesian coordinates of the atoms (Å), wrapped into the cell, shape (n, 3).
    images
        `points`, then the coordinates of the images (Å), shape (m, 3).
    atoms
        Atom that each row of `images` belongs to, shape (m,).
    """
    matrix, frac = np.asarray(structure.lattice.matrix), structure.frac_coords
    heights = _heights(matrix)
    if heights.min() < margin / 4:  # a flat cell has many images; the reduced cell has fewer
        matrix = np.asarray(structure.lattice.get_lll_reduced_lattice().matrix)
        frac, heights = structure.cart_coords @ np.linalg.inv(matrix), _heights(matrix)
    frac = np.mod(frac, 1.0)
    points = frac @ matrix
    padding = margin / heights
    atoms, shifts = np.arange(len(frac)), np.zeros((len(frac), 3))
    for axis in range(3):
        steps = np.arange(-np.ceil(padding[axis]), np.ceil(padding[axis]) + 1)
        coordinates = frac[atoms, axis] + steps[:, None]
        step, row = np.nonzero((coordinates > -padding[axis]) & (coordinates < 1 + padding[axis]))
        atoms, shifts = atoms[row], shifts[row]
        shifts[:, axis] = steps[step]
    shifted = np.flatnonzero(shifts.any(axis=1))
    images = np.vstack([points, points[atoms[shifted]] + shifts[shifted] @ matrix])
    return points, images, np.concatenate([np.arange(len(frac)), atoms[shifted]])


def _heights(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between opposite faces of a cell (Å)."""
    columns = np.linalg.inv(matrix)
    heights: NDArray[np.float64] = 1 / np.sqrt((columns * columns).sum(axis=0))
    return heights


def _overlap(structure: Structure, min_distance: float) -> str | None:
    """Describe the closest pair of atoms if it is closer than `min_distance` (Å), else None."""
    if _heights(np.asarray(structure.lattice.matrix)).min() < min_distance:
        shortest = min(structure.lattice.get_lll_reduced_lattice().abc)
        if shortest < min_distance:
            return f"overlapping atoms: the cell repeats itself after {shortest:.2g} Å"
    points, images, atoms = _with_images(structure, min_distance)
    if len(images) == 1:
        return None
    # two nearest images suffice, so that memory stays linear if many atoms are at one place
    distances, rows = cKDTree(images).query(points, k=2, distance_upper_bound=min_distance)
    i = int(np.argmin(distances[:, 1]))
    if not np.isfinite(distances[i, 1]):
        return None
    j = int(atoms[next(row for row in rows[i] if row != i)])
    return (
        f"overlapping atoms: sites {i} ({structure[i].specie.symbol}) and {j} ({structure[j].specie.symbol}) "
        f"are {distances[i, 1]:.2f} Å apart"
    )
