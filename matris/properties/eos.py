"""Equations of state of many materials, from the energies of cells scaled to several volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.interpolate import CubicSpline

from matris.properties.crossings import crossings_of_cells, cutoffs_of
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, check_cells, convergence, derive
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

VOLUMES = tuple(np.linspace(0.94, 1.06, 7).round(4).tolist())
"""Volumes of the scaled cells, relative to that of the relaxed one."""

EQUATIONS = ("birch_murnaghan", "murnaghan", "vinet")
"""Names of equations of state in `pymatgen.analysis.eos`: F. Birch, Phys. Rev. 71, 809 (1947), third order in the
Eulerian strain; F. D. Murnaghan, Proc. Natl. Acad. Sci. 30, 244 (1944), a bulk modulus linear in pressure; P. Vinet et
al., Phys. Rev. B 35, 1945 (1987), the universal equation."""

_B1 = (1.0, 10.0)  # derivatives of the bulk modulus of crystals: 2 to 8
_MISFIT = 0.01  # root mean square residual, relative to the range of the energies; smooth curves have 1e-3
_NOISE = 2e-5  # eV/atom: residuals below are those of float32
_WORK = 0.03  # the same for energies against the work of the pressures
_SPREAD = 0.15  # relative difference of the bulk moduli of two equations
_POINTS = 5  # at least: four parameters, and one more for a residual


@dataclass(frozen=True)
class EosFit:
    """
    Parameters of an equation of state.

    Attributes
    ----------
    equation
        One of `EQUATIONS`.
    e0, v0
        Energy (eV) and volume (Å³) of the cell at the minimum: at zero pressure, or if enthalpies were fitted, enthalpy
        and volume at their pressure.
    b0
        Bulk modulus there, GPa.
    b1
        Derivative of the bulk modulus by pressure there.
    residual
        Root mean square of the residuals, eV per atom.
    """

    equation: str
    e0: float
    v0: float
    b0: float
    b1: float
    residual: float


def check_equations(equations: Sequence[str]) -> None:
    """
    Refuse unknown equations of state.

    Raises
    ------
    ValueError
        With the names of the known ones.
    """
    if unknown := set(equations) - set(EQUATIONS):
        raise ValueError(f"no equation of state {', '.join(map(repr, unknown))}: there are {', '.join(EQUATIONS)}")


def fit_eos(volumes: Sequence[float], energies: Sequence[float], n_atoms: int, equation: str) -> EosFit:
    """
    Fit an equation of state by `pymatgen.analysis.eos`.

    Parameters
    ----------
    volumes, energies
        Volumes (Å³) and energies (eV) of the same cell, scaled.
    n_atoms
        Number of atoms in the cell.
    equation
        One of `EQUATIONS`.

    Returns
    -------
    EosFit

    Raises
    ------
    ValueError
        If there are fewer than five points, a parabola through them has no minimum between the lowest and the highest
        volume, the equation is unknown, or the fit does not converge.

    Examples
    --------
    >>> volumes = [38.0, 39.0, 40.0, 41.0, 42.0]
    >>> energies = [-9.97, -9.99, -10.0, -9.99, -9.97]
    >>> fit = fit_eos(volumes, energies, 2, "birch_murnaghan")
    >>> print(f"{fit.v0:.1f} Å³, {fit.b0:.0f} GPa")
    40.0 Å³, 92 GPa
    """
    check_equations([equation])
    v, e = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    if len(v) < _POINTS:
        raise ValueError(f"{len(v)} volumes are too few: at least {_POINTS}")
    coefficients = np.polynomial.Polynomial.fit(v, e, 2).convert().coef  # zeros at the end are cut off
    slope, curvature = np.pad(coefficients, (0, 3 - len(coefficients)))[1:]
    v0 = -slope / (2 * curvature) if curvature > 0 else np.nan
    if not v.min() <= v0 <= v.max():
        raise ValueError(f"the energy has no minimum between {v.min():.2f} and {v.max():.2f} Å³")
    from pymatgen.analysis.eos import EOS, EOSError  # loads matplotlib

    lowest = e.min()  # pymatgen's tolerances are relative to the energies
    try:
        fit = EOS(equation).fit(v.tolist(), (e - lowest).tolist())
    except EOSError as error:
        raise ValueError(f"{equation}: {error}") from None
    return EosFit(
        equation=equation,
        e0=float(fit.e0 + lowest),
        v0=float(fit.v0),
        b0=float(fit.b0 * GPA),
        b1=float(fit.b1),
        residual=float(np.sqrt(np.mean((fit.func(v) - (e - lowest)) ** 2)) / n_atoms),
    )


def curve_doubts(
    volumes: Sequence[float],
    energies: Sequence[float],
    n_atoms: int,
    fits: Sequence[EosFit],
    pressures: Sequence[float] | None = None,
) -> list[str]:
    """
    Reasons to distrust an equation of state: the energies do not lie on one smooth curve, or a fit misses them.

    Parameters
    ----------
    volumes, energies
        Volumes (Å³), ascending, and energies (eV) of the same cell, scaled; or enthalpies at one pressure.
    n_atoms
        Number of atoms in the cell.
    fits
        Equations of state fitted to the curve.
    pressures
        Pressures of the cells, less that of the enthalpies, GPa, whose work must be the difference of the energies;
        None if unknown.

    Returns
    -------
    list of str
        One sentence for each check that fails: residuals, convexity, minimum, pressure derivative, agreement of the
        equations, work of the pressure. Empty if none does.

    Examples
    --------
    >>> volumes = [38.0, 39.0, 40.0, 41.0, 42.0, 43.0]
    >>> jump = [-9.97, -9.99, -10.0, -9.95, -9.93, -9.90]
    >>> curve_doubts(volumes, jump, 2, [fit_eos(volumes, jump, 2, "birch_murnaghan")])[0]
    'the energy is not convex in the volume: not one smooth curve'
    """
    v, e = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    doubts, spread = [], float(np.ptp(e)) / n_atoms
    slopes = np.diff(e) / np.diff(v)
    if (np.diff(slopes) <= 0).any():
        doubts.append("the energy is not convex in the volume: not one smooth curve")
    if poor := [fit for fit in fits if fit.residual > max(_MISFIT * spread, _NOISE)]:
        values = ", ".join(f"{1e3 * fit.residual:.2g} ({fit.equation})" for fit in poor)
        doubts.append(f"residuals in meV/atom of {values}, of energies that differ by {1e3 * spread:.2g}")
    if strange := [fit for fit in fits if not _B1[0] <= fit.b1 <= _B1[1]]:
        values = ", ".join(f"{fit.b1:.1f} ({fit.equation})" for fit in strange)
        doubts.append(f"B0' of {values} is outside of {_B1[0]:g} to {_B1[1]:g}")
    if outside := [fit for fit in fits if not v.min() <= fit.v0 <= v.max()]:
        values = ", ".join(f"{fit.v0:.2f} ({fit.equation})" for fit in outside)
        doubts.append(f"V0 in Å³ of {values} lies outside of the computed volumes")
    if negative := [fit for fit in fits if fit.b0 <= 0]:
        values = ", ".join(f"{fit.b0:.1f} ({fit.equation})" for fit in negative)
        doubts.append(f"B0 in GPa of {values} is not positive")
    moduli = [fit.b0 for fit in fits]
    if len(moduli) > 1 and max(moduli) - min(moduli) > _SPREAD * max(moduli):
        doubts.append(f"equations of state disagree: B0 from {min(moduli):.0f} to {max(moduli):.0f} GPa")
    if pressures is not None:
        doubts += _work_doubts(v, e, n_atoms, fits[:1], np.asarray(pressures, dtype=float) / GPA)
    return doubts


def _work_doubts(
    v: NDArray[np.float64],
    e: NDArray[np.float64],
    n_atoms: int,
    fits: Sequence[EosFit],
    pressures: NDArray[np.float64],
) -> list[str]:
    """Doubts from the comparison of energies with the work of the pressures (eV/Å³)."""
    curve = CubicSpline(v, pressures)
    difference = e + curve.antiderivative()(v)
    error = float(np.std(difference))
    if error <= _WORK * float(np.ptp(e)):
        return []
    moduli = [(fit.b0, -GPA * fit.v0 * float(curve(fit.v0, 1))) for fit in fits if v.min() <= fit.v0 <= v.max()]
    known = [f"; B0 is {b0:.0f} GPa from the energies, {other:.0f} GPa from the stresses" for b0, other in moduli]
    return [f"energies and stresses disagree by {1e3 * error / n_atoms:.2g} meV/atom{''.join(known)}"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class EosRecord(PropertyRecord):
    """
    Equations of state of one material.

    Attributes
    ----------
    volumes, energies
        Volumes (Å³) and energies (eV) of the scaled cells.
    pressures
        Their pressures, GPa; None if the model gives no stress.
    fits
        One fit for each equation, of the energies, or under a pressure of the enthalpies.
    """

    volumes: tuple[float, ...] = ()
    energies: tuple[float, ...] = ()
    pressures: tuple[float, ...] | None = None
    fits: tuple[EosFit, ...] = ()


def eos(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-3,
    max_steps: int = 1000,
    optimizer: OptimizerName = "lbfgs",
    volumes: Sequence[float] = VOLUMES,
    equations: Sequence[str] = EQUATIONS,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[EosRecord]:
    """
    Equations of state of many materials, all cells of all materials computed together.

    Each material is relaxed and scaled to several volumes, at which its atoms relax in a cell of fixed shape.

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
    volumes
        Volumes relative to that of the relaxed cell.
    equations
        Equations to fit, of `EQUATIONS`.
    pressure
        External pressure on the materials, GPa; the equations are fitted to the enthalpies E + pV.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error: of the materials, and of the cells derived from them.

    Returns
    -------
    list of EosRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If an equation is unknown.

    Examples
    --------
    Copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> (record,) = eos([bulk("Cu")], matris.AseModel(EMT()), equations=["vinet"])
    >>> print(f"{record.fits[0].v0:.1f} Å³, {record.fits[0].b0:.0f} GPa")
    11.6 Å³, 134 GPa
    """
    check_equations(equations)
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure)

    def plan(start: RelaxRecord) -> list[Structure]:
        return [scaled(cast("Structure", start.structure), volume) for volume in volumes]

    def compute(plans: Sequence[list[Structure] | None]) -> list[list[RelaxRecord]]:
        return relaxer.groups([cells or [] for cells in plans])

    def analyse(start: RelaxRecord, _: list[Structure], cells: Sequence[RelaxRecord]) -> EosRecord:
        return _record(start, cells, volumes, equations, cutoffs_of(potential), pressure)

    return derive(EosRecord, relaxer.materials(structures), plan, compute, analyse)


def scaled(structure: Structure, volume: float) -> Structure:
    """Scale a cell to a volume relative to its own; shape and fractional coordinates stay."""
    cell = structure.copy()
    cell.scale_lattice(structure.volume * volume)
    return cell


def pressures_of(cells: Sequence[RelaxRecord]) -> tuple[float, ...] | None:
    """Pressures of cells, GPa; None if one has no stress."""
    stresses = [cell.stress for cell in cells if cell.stress is not None]
    if len(stresses) < len(cells):
        return None
    return tuple(-GPA * float(np.trace(stress)) / 3 for stress in stresses)


def _record(
    start: RelaxRecord,
    cells: Sequence[RelaxRecord],
    volumes: Sequence[float],
    equations: Sequence[str],
    cutoffs: Sequence[float],
    pressure: float,
) -> EosRecord:
    """Analyse one material."""
    names = [f"volume {volume:g}" for volume in volumes]
    check_cells(cells, names)
    relaxed = cast("Structure", start.structure)
    v = tuple(float(cell.structure.volume) for cell in cells if cell.structure)
    e = tuple(float(cell.energy) for cell in cells if cell.energy is not None)
    enthalpies = [energy + pressure / GPA * volume for energy, volume in zip(e, v, strict=True)]
    empty = vacuum_warning(relaxed)
    try:
        fits = tuple(fit_eos(v, enthalpies, len(relaxed), equation) for equation in equations)
    except ValueError as error:
        raise UnusableCellError(f"{error}; {empty}" if empty else str(error)) from None
    pressures = pressures_of(cells)
    excess = None if pressures is None else [each - pressure for each in pressures]
    doubts = curve_doubts(v, enthalpies, len(relaxed), fits, excess)
    if empty:
        doubts.insert(0, empty)
    crossings = crossings_of_cells(relaxed, [cell.structure for cell in cells if cell.structure], cutoffs)
    state, unconverged = convergence([*cells, start], [*names, "the relaxed cell"])
    return EosRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        warnings=(*doubts, *map(str, crossings), *unconverged),
        is_reliable=not doubts and state == "converged",
        crossings=crossings,
        volumes=v,
        energies=e,
        pressures=pressures,
        fits=fits,
    )
