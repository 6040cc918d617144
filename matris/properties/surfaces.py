"""Surface energies and equilibrium shapes of many crystals, all slabs computed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import TYPE_CHECKING, cast

import numpy as np
import spglib
from pymatgen.analysis.wulff import WulffShape
from pymatgen.core import Element, Lattice, Structure
from pymatgen.core.operations import SymmOp
from pymatgen.core.surface import SlabGenerator
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from scipy.constants import elementary_charge
from scipy.spatial import QhullError

from matris.errors import MatrisError
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, attempt, check_cells, derive
from matris.vacuum import vacuum_warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core.surface import Slab
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import OptimizerName, RelaxRecord

type Miller = tuple[int, int, int]

J_PER_M2 = elementary_charge * 1e20
"""One eV/Å² in J/m²."""

_SYMPREC = 0.05  # Å, for relaxed crystals
_SYMMETRIC = 0.1  # Å, for slabs; pymatgen's default
_LARGE_MOVE = 1.0  # Å


@dataclass(frozen=True, eq=False)
class Surface:
    """
    A surface of a crystal, on both sides of a slab.

    Attributes
    ----------
    miller
        Miller indices in the conventional cell.
    termination
        Number of the termination, from 1.
    slab
        The slab; after the relaxation the relaxed one.
    area
        Area of one side, Å².
    thickness
        Distance of the outermost planes of atoms before the relaxation, Å.
    state
        State of the relaxation; None before.
    error
        Why it failed.
    energy
        Surface energy, J/m².
    displacement
        Largest displacement of an atom, Å.
    area_fraction
        Fraction of the surface of the equilibrium shape; None without a shape.
    """

    miller: Miller
    termination: int
    slab: Structure
    area: float
    thickness: float
    state: str | None = None
    error: str | None = None
    energy: float | None = None
    displacement: float | None = None
    area_fraction: float | None = None

    @property
    def name(self) -> str:
        """Miller indices, and the number of the termination if it is not the first."""
        return miller_name(self.miller) + (f" termination {self.termination}" if self.termination > 1 else "")


@dataclass(frozen=True, eq=False)
class Shape:
    """
    Equilibrium shape by G. Wulff's construction, of the surfaces that were computed.

    Attributes
    ----------
    weighted_energy
        Mean surface energy over the shape, J/m².
    anisotropy
        Standard deviation of the surface energies over the shape, relative to their mean.
    shape_factor
        Surface over volume to the power of 2/3; 4.84 for a sphere.
    fractions
        Fraction of the surface by Miller indices, those of equivalent faces together.
    faces
        Corners of each face in Cartesian coordinates of the conventional cell, in order, with its Miller indices.
    """

    weighted_energy: float
    anisotropy: float
    shape_factor: float
    fractions: dict[Miller, float]
    faces: list[tuple[Miller, list[list[float]]]]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SurfacesRecord(PropertyRecord):
    """
    Surfaces of one crystal.

    Attributes
    ----------
    surfaces
        The surfaces.
    skipped
        Miller indices without a slab that is symmetric and stoichiometric, each with the reason.
    shape
        Equilibrium shape; None if the surfaces do not enclose a volume.
    conventional
        Conventional cell to which Miller indices refer.
    """

    surfaces: tuple[Surface, ...] = ()
    skipped: tuple[tuple[Miller, str], ...] = ()
    shape: Shape | None = None
    conventional: Structure | None = None


@dataclass(frozen=True, eq=False)
class _Plan:
    """Cells of one crystal."""

    conventional: Structure
    rotations: NDArray[np.int64]
    surfaces: list[Surface]
    skipped: tuple[tuple[Miller, str], ...]


def surfaces(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    max_index: int = 1,
    min_slab: float = 12.0,
    min_vacuum: float = 12.0,
    fmax: float = 0.01,
    max_steps: int = 500,
    optimizer: OptimizerName = "lbfgs",
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[SurfacesRecord]:
    r"""
    Compute surface energies and Wulff shapes of many crystals, all slabs together.

    The crystals relax. pymatgen cuts slabs of every distinct orientation, with every distinct termination. Only those
    are computed that are symmetric, so that both sides are the same surface, and stoichiometric, so that no chemical
    potentials are needed. Their atoms relax at a fixed lattice. The surface energy is

    .. math:: \gamma = \frac{E_\mathrm{slab} - N E_\mathrm{crystal}}{2 A}

    with the energy of as many formula units of the crystal, and the area *A* of one side.

    Parameters
    ----------
    structures
        Crystals.
    potential
        A loaded potential or any torch-sim model.
    max_index
        Largest Miller index, in the conventional cell.
    min_slab, min_vacuum
        Minimum thickness of the slabs and of the vacuum between them, Å. A slab of n planes counts as n distances of
        planes.
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    journal_dir
        Folder in which relaxed cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error.

    Returns
    -------
    list of SurfacesRecord
        One for each crystal, in order.

    Raises
    ------
    ValueError
        If `max_index` is below 1.
    MatrisError
        If slabs or vacuum would be thinner than the cutoff of the potential.

    Examples
    --------
    The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> (record,) = surfaces([bulk("Al")], matris.AseModel(EMT()), min_slab=8)
    >>> for surface in record.surfaces:
    ...     print(surface.name, f"{surface.energy:.2f} J/m²")
    (1 0 0) 0.73 J/m²
    (1 1 0) 0.79 J/m²
    (1 1 1) 0.71 J/m²
    """
    if max_index < 1:
        raise ValueError(f"max_index must be at least 1, got {max_index}")
    cutoff = cutoff_of(potential)
    if cutoff is not None and min(min_slab, min_vacuum) < cutoff:
        raise MatrisError(
            f"slabs of {min_slab:g} Å with {min_vacuum:g} Å of vacuum are too thin: both sides would interact "
            f"within the cutoff of the potential, {cutoff:g} Å; raise min_slab and min_vacuum"
        )
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress)

    def plan(start: RelaxRecord) -> _Plan:
        return _planned(cast("Structure", start.structure), max_index, min_slab, min_vacuum, cutoff)

    def compute(plans: list[_Plan | None]) -> list[list[RelaxRecord]]:
        return relaxer.groups([[p.conventional, *(each.slab for each in p.surfaces)] if p else [] for p in plans])

    return derive(SurfacesRecord, relaxer.materials(structures), plan, compute, _record)


def cutoff_of(potential: Potential | ModelInterface) -> float | None:
    """Distance within which atoms interact directly, Å; None for a model that does not tell."""
    config = getattr(potential, "config", None)
    return None if config is None else float(config.pairwise_cutoff)


def miller_name(miller: Sequence[int]) -> str:
    """
    Write Miller indices.

    Examples
    --------
    >>> miller_name((1, -1, 0))
    '(1 -1 0)'
    """
    return f"({' '.join(map(str, miller))})"


def distinct_millers(rotations: NDArray[np.int64], max_index: int) -> list[Miller]:
    """
    List the orientations of planes that no symmetry of a crystal relates.

    pymatgen takes the symmetry of the lattice, which may be higher than that of the crystal: in pyrite (1 2 0) and
    (2 1 0) differ.

    Parameters
    ----------
    rotations
        Rotations of the space group in fractional coordinates, shape (n, 3, 3).
    max_index
        Largest index.

    Examples
    --------
    >>> cubic = spglib.get_symmetry_from_database(523)["rotations"]  # Fm-3m
    >>> distinct_millers(cubic, 1)
    [(1, 0, 0), (1, 1, 0), (1, 1, 1)]
    """
    indices = range(-max_index, max_index + 1)
    several = [(h, k, m) for h, k, m in product(indices, repeat=3) if gcd(h, k, m) == 1]
    several.sort(
        key=lambda hkl: (max(map(abs, hkl)), sum(map(abs, hkl)), sum(i < 0 for i in hkl), [-index for index in hkl])
    )
    found: list[Miller] = []
    seen: set[Miller] = set()
    for hkl in several:
        if hkl not in seen:
            found.append(hkl)
            seen |= _equivalent(rotations, hkl)
    return found


def _equivalent(rotations: NDArray[np.int64], hkl: Miller) -> set[Miller]:
    """List the indices of all planes that are equivalent to one."""
    images = np.einsum("nij,i->nj", rotations, np.array(hkl))  # of a row, so that the rotations are the inverse ones
    return {cast("Miller", tuple(int(x) for x in sign * row)) for row in images for sign in (1, -1)}


def _planned(relaxed: Structure, max_index: int, min_slab: float, min_vacuum: float, cutoff: float | None) -> _Plan:
    """Cut the slabs of a relaxed crystal."""
    if gap := vacuum_warning(relaxed):
        raise UnusableCellError(f"no crystal, so that it has no surfaces: {gap}")
    elements = [Element.from_Z(site.specie.Z) for site in relaxed]  # with neither charges nor isotopes
    crystal = Structure(relaxed.lattice, elements, np.mod(relaxed.frac_coords, 1.0))
    conventional = SpacegroupAnalyzer(crystal, symprec=_SYMPREC).get_conventional_standard_structure()
    cell = (conventional.lattice.matrix, conventional.frac_coords, [site.specie.Z for site in conventional])
    symmetry = spglib.get_symmetry_dataset(cell, symprec=_SYMPREC)
    rotations = np.eye(3, dtype=np.int64)[None] if symmetry is None else np.asarray(symmetry.rotations, dtype=np.int64)
    found: list[Surface] = []
    skipped: list[tuple[Miller, str]] = []
    for miller in distinct_millers(rotations, max_index):
        cut, error = attempt(_cut, conventional, miller, min_slab, min_vacuum, cutoff)
        found += cut or []
        if error is not None:
            skipped.append((miller, error))
    if not found:
        raise UnusableCellError("; ".join(f"{miller_name(miller)}: {reason}" for miller, reason in skipped))
    return _Plan(conventional, rotations, found, tuple(skipped))


def _cut(
    conventional: Structure, miller: Miller, min_slab: float, min_vacuum: float, cutoff: float | None
) -> list[Surface]:
    """
    Cut the slabs of one orientation.

    Raises
    ------
    UnusableCellError
        If there is none that can be computed.
    """
    generator = SlabGenerator(conventional, miller, min_slab, min_vacuum, center_slab=True)
    slabs = generator.get_slabs()
    formula = conventional.composition.reduced_composition
    symmetric = [slab for slab in slabs if slab.is_symmetric(_SYMMETRIC)]
    usable = [slab for slab in symmetric if slab.composition.reduced_composition.almost_equals(formula)]
    if not usable:
        raise UnusableCellError(
            f"none of its {len(slabs)} terminations gives a slab that is symmetric and stoichiometric (the surface is "
            "polar, or needs chemical potentials)"
        )
    cut = [_surface(miller, number, slab) for number, slab in enumerate(usable, start=1)]
    if cutoff is not None and (thin := min(each.thickness for each in cut)) < cutoff:
        raise UnusableCellError(
            f"the slab is {thin:.1f} Å thick, less than the cutoff of the potential, {cutoff:g} Å: raise min_slab"
        )
    return cut


def _surface(miller: Miller, number: int, slab: Slab) -> Surface:
    plain = Structure(slab.lattice, slab.species, slab.frac_coords)
    heights = plain.cart_coords @ np.asarray(slab.normal)
    return Surface(miller, number, plain, float(slab.surface_area), float(np.ptp(heights)))


def _record(start: RelaxRecord, plan: _Plan, cells: list[RelaxRecord]) -> SurfacesRecord:
    """Describe the surfaces of one crystal."""
    bulk, *others = cells
    check_cells([bulk], ["the conventional cell"])
    done = [_computed(surface, cell, bulk) for surface, cell in zip(plan.surfaces, others, strict=True)]
    if all(surface.state == "failed" for surface in done):
        raise UnusableCellError(f"{done[0].name}: {done[0].error}")
    shape, no_shape = attempt(_wulff, plan, done)
    late = [surface.name for surface in done if surface.state == "max_steps"]
    negative = [surface.name for surface in done if surface.energy is not None and surface.energy <= 0]
    lost = any(surface.state == "failed" for surface in done)
    warnings = [
        *(f"{miller_name(miller)}: {reason}" for miller, reason in plan.skipped),
        *(f"{surface.name}: {surface.error}" for surface in done if surface.error),
        *(f"{name}: the surface energy is not positive" for name in negative),
        *(
            f"{surface.name}: atoms move by up to {surface.displacement:.1f} Å"
            for surface in done
            if (surface.displacement or 0.0) > _LARGE_MOVE
        ),
        *([f"not below fmax: {'; '.join(late)}"] if late else []),
        *(["not below fmax: the relaxed crystal"] if start.state != "converged" else []),
        *([f"no equilibrium shape: {no_shape}"] if no_shape else []),
        *(["the equilibrium shape lacks the orientations without a slab"] if shape and (plan.skipped or lost) else []),
    ]
    if shape is not None:
        done = _with_fractions(done, shape)
    unconverged = bool(late) or start.state != "converged"
    return SurfacesRecord(
        index=start.index,
        state="max_steps" if unconverged else "converged",
        structure=start.structure,
        warnings=tuple(warnings),
        is_reliable=not unconverged and not negative and not lost,
        surfaces=tuple(done),
        skipped=plan.skipped,
        shape=shape,
        conventional=plan.conventional,
    )


def _computed(surface: Surface, cell: RelaxRecord, bulk: RelaxRecord) -> Surface:
    """Add the results of the relaxation to a surface."""
    if cell.state == "failed" or cell.structure is None or cell.energy is None:
        return replace(surface, state="failed", error=cell.error)
    crystal = cast("float", bulk.energy) * len(surface.slab) / len(cast("Structure", bulk.structure))
    moves = cell.structure.frac_coords - surface.slab.frac_coords
    lengths = np.linalg.norm((moves - moves.round()) @ cell.structure.lattice.matrix, axis=1)
    return replace(
        surface,
        slab=cell.structure,
        state=cell.state,
        energy=(cell.energy - crystal) / (2 * surface.area) * J_PER_M2,
        displacement=float(lengths.max()),
    )


class _CrystalLattice(Lattice):
    """A lattice with the point symmetry of a crystal, which `WulffShape` reads from the lattice."""

    operations: Sequence[SymmOp] = ()

    def get_recp_symmetry_operation(self, symprec: float = 0.01) -> list[SymmOp]:  # noqa: ARG002
        return list(self.operations)


def _wulff(plan: _Plan, done: Sequence[Surface]) -> Shape:
    """
    Construct the equilibrium shape.

    Raises
    ------
    UnusableCellError
        If the surfaces enclose no volume.
    """
    lowest: dict[Miller, float] = {}
    for surface in done:
        if surface.energy is not None:
            lowest[surface.miller] = min(surface.energy, lowest.get(surface.miller, np.inf))
    if not lowest or min(lowest.values()) <= 0:
        raise UnusableCellError("a surface energy is not positive")
    normals = [miller for each in lowest for miller in _equivalent(plan.rotations, each)]
    if np.linalg.matrix_rank(np.array(normals)) < 3:  # noqa: PLR2004 - directions
        raise UnusableCellError("the computed orientations do not enclose a volume")
    lattice = _CrystalLattice(plan.conventional.lattice.matrix)
    both = np.unique(np.concatenate([plan.rotations, -plan.rotations]), axis=0)
    lattice.operations = [SymmOp.from_rotation_and_translation(each.T) for each in both]
    try:
        wulff = WulffShape(lattice, list(lowest), list(lowest.values()))
    except QhullError as error:
        raise UnusableCellError(f"Wulff's construction failed: {str(error).splitlines()[0]}") from error
    faces = [
        (cast("Miller", tuple(facet.miller)), wulff.get_line_in_facet(facet)[::2])
        for facet in wulff.facets
        if facet.outer_lines
    ]
    return Shape(
        weighted_energy=float(wulff.weighted_surface_energy),
        anisotropy=float(wulff.anisotropy),
        shape_factor=float(wulff.shape_factor),
        fractions={cast("Miller", hkl): float(part) for hkl, part in wulff.area_fraction_dict.items()},
        faces=faces,
    )


def _with_fractions(done: Sequence[Surface], shape: Shape) -> list[Surface]:
    """Set the fractions of the equilibrium shape: of several terminations, only the lowest in energy has one."""
    told = []
    for surface in done:
        rivals = [each.energy for each in done if each.miller == surface.miller and each.energy is not None]
        is_lowest = surface.energy is not None and surface.energy <= min(rivals)
        part = shape.fractions.get(surface.miller) if is_lowest else 0.0
        told.append(replace(surface, area_fraction=None if surface.energy is None else part))
    return told
