"""Elastic tensors of many materials, from the stresses of strained cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from pymatgen.analysis.elasticity import Deformation, ElasticTensor, Strain, Stress
from pymatgen.analysis.elasticity.elastic import get_strain_state_dict
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from matris.properties.crossings import crossings_of_cells, cutoffs_of
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, check_cells, convergence, derive
from matris.properties.strained_cells import relax_strained
from matris.units import GPA
from matris.vacuum import vacuum_warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import OptimizerName, RelaxRecord

STRAINS = (-0.01, -0.005, 0.005, 0.01)
"""Components of the Green–Lagrange strain of each of the six modes; a shear mode has it twice (ij and ji)."""

_UNDER_PRESSURE = np.block([[np.ones((3, 3)) - 2 * np.eye(3), np.zeros((3, 3))], [np.zeros((3, 3)), -np.eye(3)]])

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
_ASYMMETRIC = 0.03  # of the largest constant: C of an energy is symmetric, and noise of float32 leaves 1e-3
_MISFIT = 0.02  # residual relative to the largest stress; smooth stresses have 1e-3
_NONLINEAR = 0.05  # of the largest constant: above it, a warning asks for smaller strains
_SAME = 2e-4  # of a strain's size: two strains closer than this are equal by symmetry; the noise of a relaxed lattice
_ZERO = 1e-3  # of a strain's size: smaller components of a rotated strain are noise of a relaxed lattice
_MARGIN = 1e-3  # lowest over highest eigenvalue of a tensor that counts as stable
_FLOOR = 1e-6  # lowest over highest eigenvalue of a tensor that is singular but for rounding
_EXACT = 1e-5  # allowed error of an applied strain: rounding of float32 is a hundredth of it
_NO_STRESS = (
    "no stress: no strain of the cell costs energy, so there are no elastic constants; the atoms are farther apart "
    "than the cutoff of the potential"
)


@dataclass(frozen=True, eq=False)
class ElasticFit:
    """
    Second-order elastic constants, with measures of their quality.

    Attributes
    ----------
    tensor
        C, shape (6, 6), GPa, Voigt order xx yy zz yz xz xy, in the axes of the structure; symmetric, and invariant
        under the crystal's point group. Under a pressure these are the coefficients of the Cauchy stress, see
        `fit_tensor`.
    raw
        The same as fitted, shape (6, 6), GPa: column j from mode j.
    residual
        Root mean square of the residuals of the fitted stresses, GPa.
    nonlinearity
        Largest difference between a constant from the larger and from the smaller strains, relative to the largest
        constant.
    stress
        Second Piola–Kirchhoff stress of the unstrained cell, shape (6,), GPa.
    largest_stress
        Largest component of the stresses that were fitted, less that of the unstrained cell, GPa.
    """

    tensor: NDArray[np.float64]
    raw: NDArray[np.float64]
    residual: float
    nonlinearity: float
    stress: NDArray[np.float64]
    largest_stress: float

    @property
    def asymmetry(self) -> float:
        """Largest difference of two constants C_ij and C_ji as fitted, GPa: zero for the derivative of an energy."""
        return float(np.abs(self.raw - self.raw.T).max())

    def doubts(self) -> list[str]:
        """Reasons why the constants are not those of a smooth energy; empty if all checks pass."""
        largest, doubts = float(np.abs(self.raw).max()), []
        if self.asymmetry > _ASYMMETRIC * largest:
            doubts.append(f"the fitted constants are not symmetric: C_ij and C_ji differ by {self.asymmetry:.1f} GPa")
        if self.residual > _MISFIT * self.largest_stress:
            doubts.append(
                f"stresses are not smooth in the strain: residual of {self.residual:.2g} GPa, of stresses up to "
                f"{self.largest_stress:.2g} GPa"
            )
        if self.nonlinearity > _NONLINEAR:
            doubts.append(f"constants change by {self.nonlinearity:.0%} with the size of the strain: use smaller ones")
        return doubts

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Eigenvalues of C in Voigt notation, GPa, ascending; all positive in a stable crystal (Born's criterion)."""
        return np.linalg.eigvalsh(self.tensor)

    @property
    def stable(self) -> bool:
        """Whether the crystal resists every small strain: C is positive definite by more than its accuracy."""
        return bool(self.eigenvalues[0] > _MARGIN * self.eigenvalues[-1])

    def moduli(self) -> dict[str, float]:
        """
        Moduli of a polycrystal without texture.

        Returns
        -------
        dict
            ``k_voigt``, ``k_reuss``, ``k_vrh`` (bulk), ``g_voigt``, ``g_reuss``, ``g_vrh`` (shear) and ``y_mod``
            (Young, 9KG / (3K + G)), GPa; ``homogeneous_poisson`` and ``universal_anisotropy``. Averages of R. Hill,
            Proc. Phys. Soc. A 65, 349 (1952); anisotropy of Ranganathan and Ostoja-Starzewski, Phys. Rev. Lett. 101,
            055504 (2008).
            Where some strain costs no stress, as in a slab in vacuum, Reuss's averages have their limits, mostly 0, and
            the anisotropy is infinite.
        """
        values, modes = np.linalg.eigh(self.tensor)
        floor = _FLOOR * float(np.abs(values).max())
        singular = bool((np.abs(values) < floor).any())
        values = np.where(np.abs(values) < floor, _FLOOR * floor, values)
        tensor = ElasticTensor.from_voigt(modes * values @ modes.T if singular else self.tensor)
        names = ("k_voigt", "k_reuss", "k_vrh", "g_voigt", "g_reuss", "g_vrh")
        moduli = {name: float(getattr(tensor, name)) for name in names}
        bulk, shear = moduli["k_vrh"], moduli["g_vrh"]
        return moduli | {
            "y_mod": 9 * bulk * shear / (3 * bulk + shear),
            "homogeneous_poisson": float(tensor.homogeneous_poisson),
            "universal_anisotropy": np.inf if singular else float(tensor.universal_anisotropy),
        }


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ElasticRecord(PropertyRecord):
    """
    Elastic constants of one material, in the axes of `structure`.

    Attributes
    ----------
    fit
        The constants; None if failed.
    """

    fit: ElasticFit | None = None


def elastic(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-4,
    max_steps: int = 2000,
    optimizer: OptimizerName = "lbfgs",
    relax_first: bool = True,
    strains: Sequence[float] = STRAINS,
    symprec: float = 1e-2,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[ElasticRecord]:
    """
    Elastic tensors of many materials, all cells of all materials computed together.

    Each material is relaxed and strained in six modes, without the strains that its symmetry makes equal to another.
    The atoms relax in each strained cell, whose lattice stays fixed. The constants are the slopes of the stresses.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on the forces on atoms and on the relaxing cell, eV/Å.
    max_steps
        Maximum number of steps of one cell.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    relax_first
        False takes the cells as they are.
    strains
        Green–Lagrange strains of each mode, in pairs of both signs.
    symprec
        Tolerance for the symmetry of the relaxed cell, Å. Strained cells are never symmetrised.
    pressure
        External pressure on the materials, GPa. The constants then are those of the Cauchy stress, see `fit_tensor`.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error: of the materials, and of the cells derived from them.

    Returns
    -------
    list of ElasticRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If the strains do not come in pairs of both signs, or there is a pressure on cells that do not relax.

    Examples
    --------
    Copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> (record,) = elastic([bulk("Cu")], matris.AseModel(EMT()), fmax=1e-3)
    >>> record.state
    'converged'
    >>> print(record.fit.tensor[0].round())
    [173. 115. 115. ...]
    >>> round(record.fit.moduli()["k_vrh"])
    134
    """
    check_strains(strains)
    if pressure and not relax_first:
        raise ValueError(f"a pressure of {pressure} GPa has no effect on cells that do not relax: leave relax_first on")
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure)
    starts = (relaxer if relax_first else replace(relaxer, max_steps=0)).materials(structures, relax_cell=relax_first)

    def plan(start: RelaxRecord) -> StrainPlan:
        return strained_cells(cast("Structure", start.structure), strains, symprec)

    def compute(plans: Sequence[StrainPlan | None]) -> list[list[RelaxRecord]]:
        groups = [[cell for _, cell in plan.cells] if plan else [] for plan in plans]
        return relax_strained([start.structure for start in starts], groups, relaxer)

    def analyse(start: RelaxRecord, plan: StrainPlan, cells: Sequence[RelaxRecord]) -> ElasticRecord:
        return _record(start, plan, cells, relax_first, cutoffs_of(potential), pressure)

    return derive(ElasticRecord, starts, plan, compute, analyse)


@dataclass(frozen=True, eq=False)
class StrainPlan:
    """
    The strained cells to compute, and the strains that follow from each by symmetry.

    Attributes
    ----------
    structure
        The unstrained cell.
    cells
        Green–Lagrange strain (3, 3) and strained cell.
    images
        For each cell, the rotations (3, 3) that turn its strain into other wanted strains; without the identity.
    symprec
        Tolerance for symmetry, Å.
    """

    structure: Structure
    cells: list[tuple[NDArray[np.float64], Structure]]
    images: list[list[NDArray[np.float64]]]
    symprec: float


def strained_cells(structure: Structure, strains: Sequence[float] = STRAINS, symprec: float = 1e-2) -> StrainPlan:
    """
    Strain a cell in six modes, without the strains that its symmetry makes equal to another.

    Parameters
    ----------
    structure
        The unstrained cell.
    strains
        Green–Lagrange strains of each mode.
    symprec
        Tolerance for symmetry, Å.
    """
    wanted = [Strain.from_index_amount(mode, size) for mode in VOIGT for size in sorted(strains)]
    operations = SpacegroupAnalyzer(structure, symprec=symprec).get_symmetry_operations(cartesian=True)
    unique = reduced(wanted, np.array([operation.rotation_matrix for operation in operations]))
    cells = [(strain, strained(structure, strain)) for strain, _ in unique]
    return StrainPlan(structure, cells, [images for _, images in unique], symprec)


def reduced(
    strains: Sequence[NDArray[np.float64]], rotations: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]]:
    """
    Remove strains that a symmetry operation turns an earlier strain into.

    The result is that of `pymatgen.core.tensors.symmetry_reduce`, which takes 10 to 60 times as long: up to two seconds
    for each material.

    Parameters
    ----------
    strains
        Shape (3, 3) each.
    rotations
        Point group of the crystal in Cartesian axes, shape (n, 3, 3).

    Returns
    -------
    list of tuple
        Each remaining strain, and the rotations that turn it into the strains removed for it.
    """
    unique: list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]] = []
    orbits: list[NDArray[np.float64]] = []  # all images of each unique strain
    for strain in strains:
        for (_, images), orbit in zip(unique, orbits, strict=True):
            distances = np.abs(orbit - strain).max(axis=(1, 2))
            if distances.min() < _SAME * np.abs(strain).max():
                images.append(rotations[distances.argmin()])
                break
        else:
            unique.append((strain, []))
            orbits.append(rotations @ strain @ rotations.transpose(0, 2, 1))
    return unique


def check_strains(strains: Sequence[float]) -> None:
    """
    Refuse strains from which no central differences can be taken.

    Raises
    ------
    ValueError
        If they do not come in pairs of both signs.
    """
    sizes = sorted(strains)
    if not sizes or not np.allclose(sizes, [-x for x in reversed(sizes)]) or 0 in sizes:
        raise ValueError(f"strains must come in pairs of both signs, got {list(strains)}")


def strained(structure: Structure, strain: NDArray[np.float64]) -> Structure:
    """Apply a Green–Lagrange strain E by the symmetric deformation √(1 + 2E); fractional coordinates stay."""
    cell: Structure = Strain(strain).get_deformation_matrix("symmetric").apply_to_structure(structure)
    return cell


def deformation(lattice: NDArray[np.float64], strained_lattice: NDArray[np.float64]) -> Deformation:
    """Deformation gradient F, shape (3, 3), that turns one lattice (vectors in rows) into another."""
    return Deformation((np.linalg.inv(lattice) @ strained_lattice).T)


def fit_tensor(
    plan: StrainPlan, stresses: Sequence[NDArray[np.float64]], unstrained: NDArray[np.float64], pressure: float = 0.0
) -> ElasticFit:
    """
    Fit a cubic to the stresses S(E) of each mode; its slope at zero strain is a column of C.

    `ElasticTensor.from_independent_strains` of pymatgen fits a straight line: at strains of 1 % its slope differs by
    0.2 % (MgO) to 10 % (quartz) of the largest constant. `diff_fit` has the slope of the cubic, but no residual.

    Under a pressure p the slopes are not those of the Cauchy stress, which decide over stability and bulk modulus:
    these are C_ijkl - p (δ_ik δ_jl + δ_il δ_jk - δ_ij δ_kl), T. H. K. Barron and M. L. Klein, Proc. Phys. Soc. 85, 523
    (1965).

    Parameters
    ----------
    plan
        The strained cells.
    stresses
        Second Piola–Kirchhoff stress of each, eV/Å³, shape (3, 3).
    unstrained
        Stress of the unstrained cell, eV/Å³, shape (3, 3).
    pressure
        External pressure on the unstrained cell, GPa.

    Returns
    -------
    ElasticFit
    """
    strains, responses = [], []
    for (strain, _), stress, rotations in zip(plan.cells, stresses, plan.images, strict=True):
        for rotation in [np.eye(3), *rotations]:
            strains.append(Strain(rotation @ strain @ rotation.T).zeroed(_ZERO * np.abs(strain).max()))
            responses.append(GPA * rotation @ stress @ rotation.T)
    largest = max(float(np.abs(response - GPA * unstrained).max()) for response in responses)
    modes = get_strain_state_dict(strains, responses, eq_stress=GPA * unstrained)
    raw, change, residuals = np.zeros((6, 6)), np.zeros((6, 6)), []
    for mode, state in enumerate(np.eye(6)):
        size, response = modes[tuple(state)]["strains"][:, mode], modes[tuple(state)]["stresses"]
        curve = np.polynomial.polynomial.polyfit(size, response, min(3, len(size) - 1))
        raw[:, mode] = curve[1]
        residuals.append(response - np.polynomial.polynomial.polyval(size, curve).T)
        middle = len(size) // 2  # the unstrained cell
        large, small = (
            (response[high] - response[low]) / (size[high] - size[low])
            for low, high in ((0, -1), (middle - 1, middle + 1))
        )
        change[:, mode] = large - small
    raw += pressure * _UNDER_PRESSURE
    symmetric = ElasticTensor.from_voigt((raw + raw.T) / 2).fit_to_structure(plan.structure, symprec=plan.symprec)
    return ElasticFit(
        tensor=np.array(symmetric.voigt),
        raw=raw,
        residual=float(np.sqrt(np.mean(np.concatenate(residuals) ** 2))),
        nonlinearity=float(np.abs(change).max() / np.abs(raw).max()),
        stress=GPA * Stress(unstrained).voigt,
        largest_stress=largest,
    )


def _record(
    start: RelaxRecord,
    plan: StrainPlan,
    cells: Sequence[RelaxRecord],
    relaxed: bool,
    cutoffs: Sequence[float],
    pressure: float,
) -> ElasticRecord:
    """Analyse one material."""
    names = [f"strain {_name(strain)}" for strain, _ in plan.cells]
    check_cells(cells, names)
    if start.stress is None:
        raise UnusableCellError("the model gives no stress")
    stresses = _stresses(plan, cells)
    if not np.any(stresses):
        raise UnusableCellError(_NO_STRESS)
    fit = fit_tensor(plan, stresses, start.stress, pressure)
    doubts, warnings = fit.doubts(), []
    if warning := vacuum_warning(plan.structure):
        doubts.insert(0, warning)
    elif not fit.stable:
        warnings.append(f"mechanically unstable: lowest eigenvalue of C is {fit.eigenvalues[0]:.1f} GPa")
    crossings = crossings_of_cells(plan.structure, [cell.structure for cell in cells if cell.structure], cutoffs)
    if relaxed:
        cells, names = [*cells, start], [*names, "no strain"]
    state, unconverged = convergence(cells, names)
    return ElasticRecord(
        index=start.index,
        state=state,
        structure=plan.structure,
        fit=fit,
        warnings=(*warnings, *doubts, *map(str, crossings), *unconverged),
        is_reliable=not doubts and state == "converged",
        crossings=crossings,
    )


def _stresses(plan: StrainPlan, cells: Sequence[RelaxRecord]) -> list[NDArray[np.float64]]:
    """Second Piola–Kirchhoff stresses of strained cells, after a check that each cell has the strain asked for."""
    reference = plan.structure.lattice.matrix
    stresses = []
    for (strain, _), cell in zip(plan.cells, cells, strict=True):
        if cell.structure is None or cell.stress is None:
            raise ValueError(f"strain {_name(strain)} has no stress")
        gradient = deformation(reference, cell.structure.lattice.matrix)
        applied = gradient.green_lagrange_strain
        if np.abs(applied - strain).max() > _EXACT:
            raise ValueError(f"strain {_name(strain)} was asked for, but the cell has {_name(applied)}")
        stresses.append(Stress(cell.stress).piola_kirchoff_2(gradient))
    return stresses


def _name(strain: NDArray[np.float64]) -> str:
    """Text with the components of a strain that are not zero."""
    parts = [
        f"{name} {strain[i, j]:+.4f}" for name, (i, j) in zip(_NAMES, VOIGT, strict=True) if abs(strain[i, j]) > _EXACT
    ]
    return ", ".join(parts) or "none"
