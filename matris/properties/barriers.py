"""Minimum-energy paths and barriers of many migrations, all images of all paths computed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from ase.mep.neb import NEBState
from ase.optimize import FIRE
from pymatgen.core import Structure
from pymatgen.util.coord import pbc_shortest_vectors
from scipy.optimize import linear_sum_assignment

from matris.errors import MatrisError
from matris.extras import require
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, attempt, convergence
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.properties.groups import State
    from matris.relaxation.records import OptimizerName, RelaxRecord

CLIMB_BELOW = 0.5
"""Largest force (eV/Å) below which the highest image climbs; above, the path is still far from the saddle."""

_SAME_LATTICE = 1e-3  # relative: largest difference of the vectors of both ends


@dataclass(frozen=True, eq=False)
class MigrationPath:
    """
    A path from one structure to another.

    Attributes
    ----------
    start, end
        Structures with the same lattice, and the same atoms in the same order.
    name
        Name of the path.
    """

    start: Structure
    end: Structure
    name: str = ""


@dataclass(frozen=True, eq=False)
class Barrier:
    """
    Minimum-energy path.

    Attributes
    ----------
    images
        Structures along the path, the ends included.
    energies
        Their energies relative to the start, eV.
    distances
        Lengths of the path up to each image, Å: norms of the displacements of all atoms.
    fmax
        Largest force perpendicular to the path, on the climbing image the whole force, eV/Å.
    n_steps
        Number of steps.
    """

    images: list[Structure]
    energies: NDArray[np.float64]
    distances: NDArray[np.float64]
    fmax: float
    n_steps: int

    @property
    def forward(self) -> float:
        """Energy of the highest image above that of the start, eV."""
        return float(self.energies.max())

    @property
    def backward(self) -> float:
        """Energy of the highest image above that of the end, eV."""
        return float(self.energies.max() - self.energies[-1])


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class BarrierRecord(PropertyRecord):
    """
    Barrier of one path; `structure` is its relaxed start.

    Attributes
    ----------
    barrier
        The results; None if failed.
    """

    barrier: Barrier | None = None


def barriers(
    paths: Iterable[MigrationPath | tuple[Structure | Atoms, Structure | Atoms]],
    potential: Potential | ModelInterface,
    *,
    n_images: int = 5,
    fmax: float = 0.05,
    max_steps: int = 500,
    optimizer: OptimizerName = "lbfgs",
    spring: float = 0.1,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[BarrierRecord]:
    """
    Barriers of many paths by the climbing-image nudged elastic band, all images of all paths computed together.

    The atoms of both ends relax in their lattice. Images are placed between them by the image-dependent pair potential
    (S. Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)) and relaxed by FIRE with improved tangents (G. Henkelman
    and H. Jónsson, J. Chem. Phys. 113, 9978 (2000)). When the forces are below 0.5 eV/Å, the highest image climbs (G.
    Henkelman, B. P. Uberuaga, and H. Jónsson, ibid. 9901). Band and optimizer are ASE's.

    Parameters
    ----------
    paths
        Paths, or pairs of structures: lattices alike, the same atoms in the same order.
    potential
        A loaded potential or any torch-sim model.
    n_images
        Number of images between the ends.
    fmax
        Bound on the forces on the ends and on the images, eV/Å.
    max_steps
        Maximum number of steps of an end, and of a band.
    optimizer
        Of the relaxations of the ends, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    spring
        Spring constant between images, eV/Å².
    journal_dir
        Folder in which the relaxed ends are kept, so that a killed run resumes.
    progress
        Whether to show a progress bar on standard error while the ends relax.

    Returns
    -------
    list of BarrierRecord
        One for each path, in order.

    Raises
    ------
    ValueError
        If there are no images, or the spring constant is not positive.

    Examples
    --------
    A vacancy in copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> copper = bulk("Cu", cubic=True).repeat(2)
    >>> start, end = copper[1:], copper[1:]
    >>> end.positions[0] = copper.positions[0]  # an atom jumps into the vacancy
    >>> (record,) = barriers([(start, end)], matris.AseModel(EMT()), n_images=1)
    >>> print(f"{record.barrier.forward:.2f} eV")
    0.76 eV
    """
    if n_images < 1 or spring <= 0:
        raise ValueError(f"a path needs images and springs, got n_images={n_images} and spring={spring}")
    chosen = [path if isinstance(path, MigrationPath) else MigrationPath(*map(to_structure, path)) for path in paths]
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress)
    ends = iter(relaxer.materials([s for path in chosen for s in (path.start, path.end)], relax_cell=False))
    pairs = [(next(ends), next(ends)) for _ in chosen]
    attempts = [
        attempt(_band, path, start, end, n_images, spring) for path, (start, end) in zip(chosen, pairs, strict=True)
    ]
    _relax([band for band, _ in attempts if band], replace(relaxer, journal_dir=None, progress=False))
    records = []
    for index, ((start, end), (band, error)) in enumerate(zip(pairs, attempts, strict=True)):
        record, problem = (None, error) if band is None else attempt(_record, index, start, end, band, fmax)
        done = record or BarrierRecord(index=index, state="failed", structure=start.structure, error=problem)
        records.append(replace(done, start=start))
    return records


class _Band:
    """A band of images: ASE's band and optimizer, fed with energies and forces from outside."""

    def __init__(self, images: list[Atoms], records: tuple[RelaxRecord, RelaxRecord], spring: float) -> None:
        self.images = images
        for image, record in ((images[0], records[0]), (images[-1], records[1])):
            _feed(image, record)
        self.neb = NEB(images, k=spring, climb=False, method="improvedtangent", allow_shared_calculator=True)
        self.optimizer = FIRE(self.neb, logfile=None)
        self.n_steps = 0
        self.fmax = np.inf
        self.error: str | None = None

    def feed(self, records: Sequence[RelaxRecord]) -> None:
        """Take energies and forces of the images between the ends."""
        for number, (image, record) in enumerate(zip(self.images[1:-1], records, strict=True), start=1):
            if record.state == "failed":
                self.error = f"image {number}: {record.error}"
                return
            _feed(image, record)

    def measure(self) -> None:
        """Find the largest force on the band, eV/Å."""
        self.fmax = float(np.linalg.norm(self.neb.get_forces(), axis=1).max())


def _feed(image: Atoms, record: RelaxRecord) -> None:
    """Give an image its energy and forces."""
    image.calc = SinglePointCalculator(image, energy=record.energy, forces=record.forces)


def _relax(bands: Sequence[_Band], relaxer: Relaxer) -> None:
    """Relax bands until their forces are small, the images of all of them together in each step."""
    evaluator = replace(relaxer, max_steps=0)
    active = list(bands)
    while active:
        groups = evaluator.groups([[to_structure(image) for image in band.images[1:-1]] for band in active])
        going = []
        for band, records in zip(active, groups, strict=True):
            band.feed(records)
            if band.error is not None:
                continue
            band.measure()
            if not band.neb.climb and band.fmax < max(CLIMB_BELOW, relaxer.fmax):
                band.neb.climb = True
                band.measure()
            if band.fmax >= relaxer.fmax and band.n_steps < relaxer.max_steps:
                band.optimizer.step()
                band.n_steps += 1
                going.append(band)
        active = going


def _band(path: MigrationPath, start: RelaxRecord, end: RelaxRecord, n_images: int, spring: float) -> _Band:
    """
    Place images between relaxed ends.

    Raises
    ------
    UnusableCellError
        If the ends do not match, or one of them failed.
    """
    if problem := mismatch(path.start, path.end):
        raise UnusableCellError(problem)
    for name, record in (("start", start), ("end", end)):
        if record.state == "failed" or record.structure is None:
            raise UnusableCellError(f"{name}: {record.error}")
    first, last = (cast("Structure", record.structure) for record in (start, end))
    moves = _moves(first, last)
    if np.linalg.norm(moves) < 1e-2:  # noqa: PLR2004 - Å
        raise UnusableCellError("both ends relax to the same structure: there is no barrier between them")
    images = [first.to_ase_atoms() for _ in range(n_images + 2)]
    for image in images:
        image.set_constraint()
        image.calc = None
    images[-1].positions = images[0].positions + moves
    NEB(images, method="improvedtangent").interpolate(method="idpp", mic=True)
    return _Band(images, (start, end), spring)


def mismatch(start: Structure, end: Structure) -> str | None:
    """
    Say why two structures are no ends of a path; None if they are.

    Examples
    --------
    >>> from pymatgen.core import Lattice
    >>> salt = Structure(Lattice.cubic(5.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> mismatch(salt, Structure(Lattice.cubic(5.0), ["Cl", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    'the ends differ: site 0 is Na in one and Cl in the other; both must list the same atoms in the same order'
    """
    if len(start) != len(end):
        return f"the ends differ: they have {len(start)} and {len(end)} atoms"
    change = np.abs(start.lattice.matrix - end.lattice.matrix).max()
    if change > _SAME_LATTICE * max(start.lattice.abc):
        return f"the ends differ: their lattice vectors by up to {change:.3g} Å, and a path needs one lattice"
    for number, (one, other) in enumerate(zip(start, end, strict=True)):
        if one.specie.Z != other.specie.Z:
            return (
                f"the ends differ: site {number} is {one.specie.symbol} in one and {other.specie.symbol} in the other; "
                "both must list the same atoms in the same order"
            )
    return None


def _moves(start: Structure, end: Structure) -> NDArray[np.float64]:
    """Shortest displacements of the atoms, Å, shape (n, 3)."""
    pairs = [
        pbc_shortest_vectors(start.lattice, a, b)[0, 0] for a, b in zip(start.frac_coords, end.frac_coords, strict=True)
    ]
    return np.array(pairs)


def _in_order_of(start: Structure, end: Structure) -> Structure:
    """
    List the atoms of the end in the order of the start, so that as few as possible move.

    The ends that pymatgen-analysis-diffusion makes list equal atoms in different orders: one hop would become a chain
    of them. A concave function of the distances makes one long move cheaper than several short ones.
    """
    order = np.zeros(len(start), dtype=int)
    for number in {site.specie.Z for site in start}:
        ours, theirs = (np.flatnonzero([number == site.specie.Z for site in each]) for each in (start, end))
        distances = start.lattice.get_all_distances(start.frac_coords[ours], end.frac_coords[theirs])
        rows, columns = linear_sum_assignment(np.sqrt(distances))
        order[ours[rows]] = theirs[columns]
    return Structure(start.lattice, [end[i].specie for i in order], end.frac_coords[order])


def _record(index: int, start: RelaxRecord, end: RelaxRecord, band: _Band, fmax: float) -> BarrierRecord:
    """Describe a relaxed band."""
    if band.error is not None:
        raise UnusableCellError(band.error)
    energies = np.array([image.get_potential_energy() for image in band.images])
    state = NEBState(band.neb, band.images, energies)
    steps = np.array([np.linalg.norm(state.spring(i).t) for i in range(len(band.images) - 1)])
    barrier = Barrier(
        images=[to_structure(image) for image in band.images],
        energies=energies - energies[0],
        distances=np.concatenate([[0.0], np.cumsum(steps)]),
        fmax=band.fmax,
        n_steps=band.n_steps,
    )
    doubts = []
    highest = int(np.argmax(energies))
    if highest in {0, len(energies) - 1}:
        doubts.append("the highest image is an end: there is no barrier, or another minimum lies between the ends")
    if minima := [i for i in range(1, len(energies) - 1) if energies[i] < min(energies[i - 1], energies[i + 1]) - fmax]:
        doubts.append(f"image {minima[0]} is a minimum: split the path there")
    state_of_ends, unconverged = convergence([start, end], ["the start", "the end"])
    late = band.fmax >= fmax
    warnings = (*doubts, *unconverged, *([f"not below fmax: the band, {band.fmax:.3f} eV/Å"] if late else []))
    final: State = "max_steps" if late else state_of_ends
    return BarrierRecord(
        index=index,
        state=final,
        structure=start.structure,
        barrier=barrier,
        warnings=warnings,
        is_reliable=not doubts and final == "converged",
    )


def vacancy_hops(
    structure: Structure, element: str, *, min_length: float = 10.0, max_atoms: int = 240, symprec: float = 0.1
) -> list[MigrationPath]:
    """
    Find the distinct hops of an element to a neighboring vacancy of its own sites.

    Parameters
    ----------
    structure
        The crystal without vacancies.
    element
        Symbol of the element that hops.
    min_length
        Minimum length of the shortest vector of the supercell, Å.
    max_atoms
        Maximum number of atoms of the supercell.
    symprec
        Tolerance for symmetry, Å.

    Returns
    -------
    list of MigrationPath
        Start and end of each hop in a supercell with one vacancy, named after element and length.

    Raises
    ------
    MatrisError
        If pymatgen-analysis-diffusion is not installed, or the element does not occur in the structure.
    """
    require_diffusion()
    from pymatgen.analysis.diffusion.neb.pathfinder import DistinctPathFinder

    if element not in {site.specie.symbol for site in structure}:
        raise MatrisError(f"{structure.composition.reduced_formula} has no {element} that could hop")
    plain = Structure(structure.lattice, [site.specie.symbol for site in structure], structure.frac_coords)
    hops = DistinctPathFinder(plain, element, symprec=symprec).get_paths()
    paths = []
    for hop in hops:
        start, end, _ = hop.get_sc_structures(vac_mode=True, min_atoms=1, max_atoms=max_atoms, min_length=min_length)
        paths.append(MigrationPath(start, _in_order_of(start, end), f"{element} {hop.length:.2f} Å"))
    return paths


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MigrationRecord(PropertyRecord):
    """
    Barriers of the paths in one material.

    Attributes
    ----------
    names
        Names of the paths.
    paths
        Record of each path.
    """

    names: tuple[str, ...] = ()
    paths: tuple[BarrierRecord, ...] = ()

    @property
    def lowest(self) -> float | None:
        """Lowest barrier of a path that has one, from its start, eV."""
        return min((path.barrier.forward for path in self.paths if path.barrier), default=None)


def migrations(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    vacancy: str | None = None,
    end: Sequence[Sequence[float]] | None = None,
    min_length: float = 10.0,
    n_images: int = 5,
    fmax: float = 0.05,
    max_steps: int = 500,
    optimizer: OptimizerName = "lbfgs",
    spring: float = 0.1,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[MigrationRecord]:
    """
    Barriers of all vacancy hops of an element in many crystals, or of one path from each structure.

    Parameters
    ----------
    structures
        Crystals without vacancies, which are relaxed first; or with `end` the starts of the paths.
    potential
        A loaded potential or any torch-sim model.
    vacancy
        Symbol of the element that hops to neighboring vacancies.
    end
        Instead: fractional coordinates of the atoms at the end of the path, shape (n, 3).
    min_length
        Minimum length of the shortest vector of the supercells of hops, Å.
    n_images, spring
        See `barriers`.
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a crystal, an end and a band.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    pressure
        External pressure on the crystals, GPa; the supercells keep their lattice.
    journal_dir
        Folder in which relaxed cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error.

    Returns
    -------
    list of MigrationRecord
        One for each structure, in order.

    Raises
    ------
    ValueError
        If not exactly one of `vacancy` and `end` is given, or there is a pressure on ends that keep their lattice.
    MatrisError
        If pymatgen-analysis-diffusion is needed and not installed.
    """
    if (vacancy is None) == (end is None):
        raise ValueError("give either vacancy, the element that hops, or end, the coordinates at the end of the path")
    if end is not None and pressure:
        raise ValueError(f"a pressure of {pressure} GPa has no effect on ends, which keep their lattice")
    if vacancy is not None:
        require_diffusion()
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure=pressure)
    starts = relaxer.materials(structures, relax_cell=end is None)

    def found(start: RelaxRecord) -> list[MigrationPath]:
        if start.structure is None or start.state == "failed":
            raise UnusableCellError(start.error or "no structure")
        if end is None:
            return vacancy_hops(start.structure, cast("str", vacancy), min_length=min_length)
        if len(end) != len(start.structure):
            raise UnusableCellError(f"the ends differ: they have {len(start.structure)} and {len(end)} atoms")
        return [
            MigrationPath(start.structure, Structure(start.structure.lattice, start.structure.species, end), "path")
        ]

    attempts = [attempt(found, start) for start in starts]
    every = [path for paths, _ in attempts for path in paths or []]
    computed = iter(
        barriers(
            every,
            potential,
            n_images=n_images,
            fmax=fmax,
            max_steps=max_steps,
            optimizer=optimizer,
            spring=spring,
            journal_dir=journal_dir,
            progress=progress,
        )
    )
    return [_migration(start, paths, error, computed) for start, (paths, error) in zip(starts, attempts, strict=True)]


def _migration(
    start: RelaxRecord, paths: list[MigrationPath] | None, error: str | None, computed: Iterator[BarrierRecord]
) -> MigrationRecord:
    """Describe one material; takes the records of its paths."""
    if not paths:
        none = error or "no hops to neighboring sites were found"
        return replace(MigrationRecord.failed(start, none), start=start)
    records = tuple(next(computed) for _ in paths)
    done = [record for record in records if record.barrier]
    if not done:
        return replace(MigrationRecord.failed(start, records[0].error), start=start)
    state, unconverged = convergence([start], ["the relaxed crystal"])
    late = state != "converged" or any(record.state != "converged" for record in records)
    remarks = [
        f"{path.name}: {text}"
        for path, record in zip(paths, records, strict=True)
        for text in (*([record.error] if record.error else []), *record.warnings)
    ]
    return MigrationRecord(
        index=start.index,
        state="max_steps" if late else "converged",
        structure=start.structure,
        names=tuple(path.name for path in paths),
        paths=records,
        warnings=(*remarks, *unconverged),
        is_reliable=not late and all(record.is_reliable for record in records),
        start=start,
    )


def require_diffusion() -> None:
    """
    Check that vacancy hops can be found.

    Raises
    ------
    MatrisError
        If pymatgen-analysis-diffusion is not installed.
    """
    require("pymatgen.analysis.diffusion.neb.pathfinder", "vacancy hops need pymatgen-analysis-diffusion", "diffusion")
