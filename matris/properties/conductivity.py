"""Lattice thermal conductivity of many materials, from second- and third-order force constants, by phono3py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, cast

import numpy as np

from matris.extras import require
from matris.properties.crossings import crossings_of_displacements, cutoffs_of
from matris.properties.groups import (
    PropertyRecord,
    Relaxer,
    UnusableCellError,
    attempt,
    check_cells,
    convergence,
    derive,
)
from matris.properties.linearity import second_length
from matris.properties.phonons import (
    TOLERANCE,
    PhononSettings,
    displaced,
    has_mixed_isotopes,
    supercell_matrix,
    to_structure,
    unfixed,
    use_forces,
)
from matris.vacuum import vacuum_warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from phono3py import Phono3py
    from phono3py.conductivity.calculators import RTACalculator
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import OptimizerName, RelaxRecord

    type Mesh = float | tuple[int, int, int]

ROOM_TEMPERATURE = 300.0
"""Temperature at which meshes are compared and modes are described, K."""

UNCONVERGED = 0.1
"""Relative change of the conductivity from the coarser to the finer mesh above which it is not reliable."""

_COARSER = 0.75  # of the mesh, for the second calculation: a fifth of the time
_NATURAL = 1e-3  # relative difference of a mass from the mean of its element's isotopes; tables differ by as much
_ANGSTROM_PER_MICROMETRE = 1e4
_WIGNER = "SMM19"


@dataclass(frozen=True)
class ConductivitySettings:
    """
    Settings of a calculation of lattice thermal conductivities.

    Attributes
    ----------
    min_length
        Minimum distance between opposite faces of the supercell of the second-order force constants, Å.
    min_length_fc3
        The same for the third-order force constants, Å.
    supercell, supercell_fc3
        Instead of the distances: repeats of the input cell along its vectors.
    displacement
        Length of the displacements, Å.
    pair_cutoff
        Longest distance of two atoms that are displaced together, Å; third-order force constants of atoms farther apart
        are zero. By default all pairs in the supercell are displaced.
    mesh
        Mesh of wave vectors: a length (Å) that is divided by lattice vectors, as in phonopy, or three numbers.
    isotopes
        Whether isotopes in their natural abundance scatter phonons. Atoms with an unusual mass count as pure isotopes.
    boundary_mfp
        Distance between boundaries that scatter phonons, such as the size of grains, µm. The default, a metre, makes no
        difference.
    symprec
        Tolerance for symmetry, Å.
    temperatures
        In K, above zero.

    Raises
    ------
    ValueError
        If a length, a repeat, a temperature or the mesh is not positive, or the displacement is not between 0.001 and
        0.3 Å.

    Examples
    --------
    >>> ConductivitySettings(mesh=(19, 19, 19), temperatures=(300.0,)).displacement
    0.03
    >>> ConductivitySettings(mesh=(19, 19, 0))
    Traceback (most recent call last):
    ValueError: mesh must be a positive length (Å) or three positive numbers, got (19, 19, 0)
    """

    min_length: float = 12.0
    min_length_fc3: float = 8.0
    supercell: tuple[int, int, int] | None = None
    supercell_fc3: tuple[int, int, int] | None = None
    displacement: float = 0.03
    pair_cutoff: float | None = None
    mesh: Mesh = 60.0
    isotopes: bool = True
    boundary_mfp: float = 1e6
    symprec: float = 1e-3
    temperatures: tuple[float, ...] = tuple(float(t) for t in range(100, 1001, 50))

    def __post_init__(self) -> None:
        """Check the values."""
        self.harmonic()
        for name in ("min_length_fc3", "pair_cutoff", "boundary_mfp"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} must be a positive length, got {value}")
        for name in ("supercell", "supercell_fc3"):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or min(value) < 1):  # noqa: PLR2004
                raise ValueError(f"{name} must be three positive numbers of cells, got {value}")
        mesh = [self.mesh] if isinstance(self.mesh, float | int) else list(self.mesh)
        if len(mesh) not in {1, 3} or not all(0 < n < inf for n in mesh):
            raise ValueError(f"mesh must be a positive length (Å) or three positive numbers, got {self.mesh}")
        if not self.temperatures or not all(t > 0 and isfinite(t) for t in self.temperatures):
            raise ValueError(f"temperatures must be above 0 K, got {list(self.temperatures)}")

    def harmonic(self) -> PhononSettings:
        """Return the settings of the second-order force constants."""
        return PhononSettings(min_length=self.min_length, displacement=self.displacement, symprec=self.symprec)


@dataclass(frozen=True, eq=False)
class Modes:
    """
    Phonon modes on the irreducible part of a mesh of wave vectors.

    Attributes
    ----------
    qpoints, weights
        Wave vectors in reciprocal lattice vectors of the primitive cell, shape (q, 3), and the numbers of wave vectors
        of the mesh that each stands for, shape (q,).
    frequencies
        In THz, shape (q, m).
    velocities
        Group velocities, THz Å, shape (q, m, 3).
    linewidths
        Half widths at half maximum by phonons, isotopes and boundaries together, THz, shape (t, q, m).
    heat_capacities
        In eV/K, shape (t, q, m).
    conductivities
        Contributions to the conductivity (W/m/K, Voigt order xx yy zz yz xz xy), summed over the wave vectors that each
        stands for and divided by their number in the mesh, shape (t, q, m, 6). A term between two bands is shared
        between them by their heat capacities, as by B. Póta et al., arXiv:2408.00755.
    """

    qpoints: NDArray[np.float64]
    weights: NDArray[np.int64]
    frequencies: NDArray[np.float64]
    velocities: NDArray[np.float64]
    linewidths: NDArray[np.float64]
    heat_capacities: NDArray[np.float64]
    conductivities: NDArray[np.float64]

    @property
    def lifetimes(self) -> NDArray[np.float64]:
        """Lifetimes 1 / 4πΓ, ps, shape (t, q, m); infinite where the linewidth Γ is zero."""
        with np.errstate(divide="ignore"):
            return 1 / (4 * np.pi * self.linewidths)


@dataclass(frozen=True, eq=False)
class Conductivity:
    """
    Lattice thermal conductivity of one material.

    Attributes
    ----------
    phono3py
        Phono3py's object with force constants, for further analysis.
    temperatures
        In K, shape (t,).
    particle
        Conductivity by the Boltzmann equation in the relaxation time approximation, W/m/K, shape (t, 6), Voigt order
        xx yy zz yz xz xy, in the axes of the structure.
    coherence
        What tunnelling between bands adds in the Wigner transport equation, W/m/K, shape (t, 6).
    mesh, coarse_mesh
        Numbers of wave vectors along the reciprocal lattice vectors of the primitive cell, and those of the second,
        coarser calculation.
    coarse
        Mean conductivity on the coarser mesh, W/m/K, shape (t,).
    modes
        Contributions of the modes.
    min_frequency
        Lowest frequency on the mesh, THz.
    n_displacements
        Numbers of displaced supercells, of second and third order.
    """

    phono3py: Phono3py
    temperatures: NDArray[np.float64]
    particle: NDArray[np.float64]
    coherence: NDArray[np.float64]
    mesh: tuple[int, int, int]
    coarse_mesh: tuple[int, int, int]
    coarse: NDArray[np.float64]
    modes: Modes
    min_frequency: float
    n_displacements: tuple[int, int]

    @property
    def total(self) -> NDArray[np.float64]:
        """Conductivity by the Wigner transport equation, W/m/K, shape (t, 6)."""
        return self.particle + self.coherence

    @property
    def mean(self) -> NDArray[np.float64]:
        """Third of the trace of `total`: the conductivity of a polycrystal, W/m/K, shape (t,)."""
        return _mean(self.total)

    @property
    def mesh_change(self) -> float:
        """Relative difference of the conductivities on both meshes, at the temperature next to 300 K."""
        at = nearest_to_room(self.temperatures)
        return float(abs(self.coarse[at] / self.mean[at] - 1))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ConductivityRecord(PropertyRecord):
    """
    Lattice thermal conductivity of one material.

    Attributes
    ----------
    conductivity
        The results; None if failed, and for a dynamically unstable crystal, which has none.
    """

    conductivity: Conductivity | None = None


def conductivity(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-4,
    max_steps: int = 2000,
    optimizer: OptimizerName = "lbfgs",
    settings: ConductivitySettings | None = None,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[ConductivityRecord]:
    """
    Lattice thermal conductivities of many materials, the displaced supercells of all materials computed together.

    Each material relaxes and keeps its space group. The second-order force constants are computed first. A material
    with imaginary modes fails at this step, before its third-order force constants are computed.

    The conductivity is that of the Wigner transport equation in the relaxation time approximation: M. Simoncelli, N.
    Marzari, and F. Mauri, Nat. Phys. 15, 809 (2019). Its diagonal part is the result of the Boltzmann equation.
    Scattering by isotopes follows S. Tamura, Phys. Rev. B 27, 858 (1983). phono3py solves it: A. Togo, L. Chaput, and
    I. Tanaka, Phys. Rev. B 91, 094306 (2015). There is no non-analytic correction for long wavelengths.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on the forces on atoms and cell when the materials are relaxed, eV/Å.
    max_steps
        Maximum number of steps of a relaxation; 0 takes the structures as they are.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    settings
        Supercells, displacements, mesh and temperatures.
    pressure
        External pressure on the materials, GPa.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error: of the materials, and of the cells derived from them.

    Returns
    -------
    list of ConductivityRecord
        One for each material, in order.

    Raises
    ------
    MatrisError
        If phono3py is not installed.
    """
    require_phono3py()
    chosen = settings or ConductivitySettings()
    relaxer = Relaxer(
        potential, fmax, max_steps, journal_dir, optimizer, progress, pressure=pressure, fix_symmetry=True
    )
    evaluator = replace(relaxer, max_steps=0)
    starts = relaxer.materials(structures)
    attempts = [
        attempt(_second_order, start, chosen) if start.structure is not None else (None, None) for start in starts
    ]
    cells = evaluator.groups([harmonic.cells if harmonic else [] for harmonic, _ in attempts])
    harmonics = {
        start.index: (harmonic, error, group)
        for start, (harmonic, error), group in zip(starts, attempts, cells, strict=True)
    }

    def plan(start: RelaxRecord) -> _ThirdOrder:
        harmonic, error, group = harmonics[start.index]
        if harmonic is None:
            raise UnusableCellError(error or "")
        return _third_order(harmonic, group, chosen)

    def compute(plans: Sequence[_ThirdOrder | None]) -> list[list[RelaxRecord]]:
        return evaluator.groups([plan.cells if plan else [] for plan in plans])

    def analyse(start: RelaxRecord, plan: _ThirdOrder, cells: Sequence[RelaxRecord]) -> ConductivityRecord:
        return _record(start, plan, cells, chosen, cutoffs_of(potential))

    return derive(ConductivityRecord, starts, plan, compute, analyse)


def require_phono3py() -> None:
    """
    Check that phono3py can be imported.

    Raises
    ------
    MatrisError
        If it is not installed.
    """
    require("phono3py", "lattice thermal conductivities need phono3py", "kappa")


def nearest_to_room(temperatures: Sequence[float] | NDArray[np.float64]) -> int:
    """Index of the temperature next to 300 K."""
    return int(np.abs(np.asarray(temperatures) - ROOM_TEMPERATURE).argmin())


@dataclass(frozen=True, eq=False)
class _SecondOrder:
    """Displaced supercells of the second order: the perfect one, the displaced ones, a shorter displacement."""

    phonopy: Phonopy
    cells: list[Structure]
    chosen: int


@dataclass(frozen=True, eq=False)
class _ThirdOrder:
    """Displaced supercells of the third order, the perfect one first; and what is known from the second order."""

    phono3py: Phono3py
    phonopy: Phonopy
    cells: list[Structure]
    min_frequency: float
    doubts: list[str]


def _second_order(start: RelaxRecord, settings: ConductivitySettings) -> _SecondOrder:
    """Displace atoms for the second-order force constants."""
    matrix = None if settings.supercell is None else np.diag(settings.supercell)
    phonopy, cells = displaced(cast("Structure", start.structure), settings.harmonic(), matrix)
    chosen, shorter = second_length(phonopy)
    return _SecondOrder(phonopy, [*cells, shorter], chosen)


def _third_order(harmonic: _SecondOrder, cells: Sequence[RelaxRecord], settings: ConductivitySettings) -> _ThirdOrder:
    """
    Displace pairs of atoms, after the second-order force constants are found.

    Raises
    ------
    UnusableCellError
        If a cell failed, or the crystal is dynamically unstable.
    """
    from phono3py import Phono3py

    phonopy = harmonic.phonopy
    check = use_forces(phonopy, harmonic.chosen, cells)
    is_symmetric = not has_mixed_isotopes(phonopy.unitcell)
    lowest = float(
        np.min(
            phonopy.run_mesh(_mesh_of(settings.mesh), is_mesh_symmetry=is_symmetric, is_gamma_center=True).frequencies
        )
    )
    if lowest < -TOLERANCE:
        raise UnusableCellError(
            f"dynamically unstable: a frequency of {-lowest:.2f}i THz, and a crystal that is no minimum of the energy "
            "has no lattice conductivity; matris phonon --follow finds the minimum"
        )
    structure = to_structure(phonopy.unitcell)
    matrix = (
        supercell_matrix(structure, settings.min_length_fc3, settings.symprec)
        if settings.supercell_fc3 is None
        else np.diag(settings.supercell_fc3)
    )
    phono3py = Phono3py(
        phonopy.unitcell,
        supercell_matrix=matrix,
        primitive_matrix=phonopy.primitive_matrix,
        phonon_supercell_matrix=phonopy.supercell_matrix,
        is_mesh_symmetry=is_symmetric,
        symprec=settings.symprec,
    )
    phono3py.generate_displacements(distance=settings.displacement, cutoff_pair_distance=settings.pair_cutoff)
    phono3py.fc2 = phonopy.force_constants
    moved = [cell for cell in phono3py.supercells_with_displacements if cell is not None]
    return _ThirdOrder(
        phono3py,
        phonopy,
        [to_structure(cell) for cell in (cast("PhonopyAtoms", phono3py.supercell), *moved)],
        lowest,
        [check.warning] if check.warning else [],
    )


def _record(
    start: RelaxRecord,
    plan: _ThirdOrder,
    cells: Sequence[RelaxRecord],
    settings: ConductivitySettings,
    cutoffs: Sequence[float],
) -> ConductivityRecord:
    """Analyse one material."""
    check_cells(cells, ["the supercell", *(f"pair displacement {i}" for i in range(1, len(cells)))])
    perfect, *forces = [cell.forces for cell in cells if cell.forces is not None]
    _find_third_order(plan.phono3py, [each - perfect for each in forces])
    result = solve(plan.phono3py, settings, min_frequency=plan.min_frequency)
    result = replace(result, n_displacements=(len(plan.phonopy.displacements), len(forces)))
    doubts = list(plan.doubts)
    if warning := vacuum_warning(cast("Structure", start.structure)):
        doubts.insert(0, warning)
    if result.mesh_change > UNCONVERGED:
        doubts.append(
            f"not converged with the mesh: {_kappa(result.coarse, result)} on {_times(result.coarse_mesh)} and "
            f"{_kappa(result.mean, result)} on {_times(result.mesh)} wave vectors: try a finer mesh"
        )
    crossings = crossings_of_displacements(plan.phonopy, cutoffs)
    state, unconverged = convergence([start], ["the relaxed cell"])
    return ConductivityRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        conductivity=result,
        warnings=(*doubts, *map(str, crossings), *unfixed(start), *unconverged),
        is_reliable=not doubts and state == "converged",
        crossings=crossings,
    )


def _find_third_order(phono3py: Phono3py, forces: Sequence[NDArray[np.float64]]) -> None:
    """Compute symmetric third-order force constants from the forces of the cells that were computed."""
    queue, nothing = iter(forces), np.zeros((len(phono3py.supercell), 3))
    phono3py.forces = np.array(
        [nothing if cell is None else next(queue) for cell in phono3py.supercells_with_displacements]
    )
    phono3py.produce_fc3()
    phono3py.symmetrize_fc3()


def solve(phono3py: Phono3py, settings: ConductivitySettings, *, min_frequency: float = 0.0) -> Conductivity:
    """
    Compute the conductivity from force constants, on a mesh and on a coarser one.

    Parameters
    ----------
    phono3py
        Phono3py's object with force constants of second and third order.
    settings
        Mesh, temperatures and scattering.
    min_frequency
        Lowest frequency, THz, of which the result takes note.

    Returns
    -------
    Conductivity
    """
    coarser: Mesh = (
        settings.mesh * _COARSER
        if isinstance(settings.mesh, float | int)
        else cast("tuple[int, int, int]", tuple(max(1, int(n * _COARSER)) for n in settings.mesh))
    )
    coarse = _run(phono3py, coarser, settings)
    coarse_mesh, coarse_kappa = _numbers(phono3py), _mean(coarse.kappa[0])
    fine = _run(phono3py, settings.mesh, settings)
    particle = np.array(fine.kappa_intra[0])
    return Conductivity(
        phono3py=phono3py,
        temperatures=np.array(fine.temperatures),
        particle=particle,
        coherence=np.array(fine.kappa[0]) - particle,
        mesh=_numbers(phono3py),
        coarse_mesh=coarse_mesh,
        coarse=coarse_kappa,
        modes=_modes(fine, settings.boundary_mfp),
        min_frequency=min_frequency,
        n_displacements=(0, 0),
    )


def _run(phono3py: Phono3py, mesh: Mesh, settings: ConductivitySettings) -> RTACalculator:
    """Solve on one mesh."""
    phono3py.mesh_numbers = _mesh_of(mesh)
    # otherwise results depend on the choice of eigenvectors of equal frequencies, and so on rounding
    phono3py.init_phph_interaction(average_degenerate_weights=True)
    phono3py.run_thermal_conductivity(
        temperatures=list(settings.temperatures),
        is_isotope=settings.isotopes,
        mass_variances=mass_variances(phono3py.primitive) if settings.isotopes else None,
        boundary_mfp=settings.boundary_mfp,
        transport_type=_WIGNER,
    )
    return cast("RTACalculator", phono3py.thermal_conductivity)


def mass_variances(cell: PhonopyAtoms) -> NDArray[np.float64]:
    """
    Find the mass variance of each atom by the natural abundance of isotopes: Σ f (1 - m / m̄)².

    Parameters
    ----------
    cell
        Atoms; one whose mass is not that of its element is a pure isotope, without variance.

    Returns
    -------
    ndarray
        Shape (n,).

    Examples
    --------
    >>> from phonopy.structure.atoms import PhonopyAtoms
    >>> cell = PhonopyAtoms(["Si", "Si"], cell=np.eye(3), positions=np.zeros((2, 3)), masses=[28.0855, 27.9769])
    >>> print(mass_variances(cell).round(6))
    [0.000201 0.      ]
    """
    from phonopy.structure.atomic_data import get_atomic_data  # this is where phono3py takes them from

    variances = []
    for symbol, mass in zip(cell.symbols, cell.masses, strict=True):
        _, masses, fractions = np.array(get_atomic_data().isotope_data[symbol]).T
        mean = float(masses @ fractions)
        is_natural = abs(mass / mean - 1) < _NATURAL
        variances.append(float(fractions @ (1 - masses / mean) ** 2) if is_natural else 0.0)
    return np.array(variances)


def _modes(solved: RTACalculator, boundary_mfp: float) -> Modes:
    """Describe the modes, with the terms between two bands shared between them."""
    matrix = np.array(solved.mode_kappa_matrix[0])  # (t, q, m, m, 6)
    capacities = np.array(solved.mode_heat_capacities)
    own = np.einsum("tqiic->tqic", matrix)
    pairs = matrix - np.einsum("tqic,ij->tqijc", own, np.eye(own.shape[2]))
    sums = capacities[:, :, :, None] + capacities[:, :, None, :]
    shares = np.divide(2 * capacities[:, :, :, None], sums, out=np.zeros_like(sums), where=sums > 0)
    velocities, weights = np.array(solved.group_velocities), np.array(solved.grid_weights)
    isotopes = 0.0 if solved.gamma_isotope is None else np.array(solved.gamma_isotope[0])
    boundaries = np.linalg.norm(velocities, axis=-1) / (4 * np.pi * boundary_mfp * _ANGSTROM_PER_MICROMETRE)
    return Modes(
        qpoints=np.array(solved.qpoints),
        weights=weights,
        frequencies=np.array(solved.frequencies),
        velocities=velocities,
        linewidths=np.array(solved.gamma[0]) + isotopes + boundaries,
        heat_capacities=capacities,
        conductivities=(own + np.einsum("tqij,tqijc->tqjc", shares, pairs)) / weights.sum(),
    )


def _mesh_of(mesh: Mesh) -> float | list[int]:
    """Mesh as phonopy and phono3py take it."""
    return float(mesh) if isinstance(mesh, float | int) else [int(n) for n in mesh]


def _numbers(phono3py: Phono3py) -> tuple[int, int, int]:
    """Numbers of wave vectors of the mesh in use."""
    return cast("tuple[int, int, int]", tuple(int(n) for n in phono3py.mesh_numbers))


def _mean(tensors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Third of the trace of tensors in Voigt order."""
    return np.asarray(np.asarray(tensors)[..., :3].mean(axis=-1))


def _kappa(values: NDArray[np.float64], result: Conductivity) -> str:
    """Conductivity next to 300 K in words."""
    return f"{values[nearest_to_room(result.temperatures)]:.3g} W/m/K"


def _times(mesh: tuple[int, int, int]) -> str:
    return "×".join(map(str, mesh))
