"""Equations of state of many materials, from the energies of cells scaled to several volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from matris.properties.groups import PropertyRecord, Relaxer, check_cells, convergence, derive
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

VOLUMES = tuple(np.linspace(0.94, 1.06, 7).round(4).tolist())
"""Volumes of the scaled cells, relative to that of the relaxed one."""

EQUATIONS = ("birch_murnaghan", "murnaghan", "vinet")
"""Names of equations of state in `pymatgen.analysis.eos`: F. Birch, Phys. Rev. 71, 809 (1947), third order in the
Eulerian strain; F. D. Murnaghan, Proc. Natl. Acad. Sci. 30, 244 (1944), a bulk modulus linear in pressure; P. Vinet et
al., Phys. Rev. B 35, 1945 (1987), the universal equation."""

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
        Energy (eV) and volume (Å³) of the cell at zero pressure.
    b0
        Bulk modulus at zero pressure, GPa.
    b1
        Derivative of the bulk modulus by pressure at zero pressure.
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
    curve = np.polynomial.Polynomial.fit(v, e, 2).convert()
    v0 = -curve.coef[1] / (2 * curve.coef[2]) if curve.coef[2] > 0 else np.nan
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


@dataclass(frozen=True, eq=False, kw_only=True)
class EosRecord(PropertyRecord):
    """
    Equations of state of one material.

    Attributes
    ----------
    volumes, energies
        Volumes (Å³) and energies (eV) of the scaled cells.
    fits
        One fit for each equation.
    """

    volumes: tuple[float, ...] = ()
    energies: tuple[float, ...] = ()
    fits: tuple[EosFit, ...] = ()


def eos(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-3,
    max_steps: int = 1000,
    volumes: Sequence[float] = VOLUMES,
    equations: Sequence[str] = EQUATIONS,
    journal_dir: Path | None = None,
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
    volumes
        Volumes relative to that of the relaxed cell.
    equations
        Equations to fit, of `EQUATIONS`.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.

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
    Copper by effective-medium theory; any torch-sim model does, above all ``matris.load()``.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> (record,) = eos([bulk("Cu")], matris.AseModel(EMT()), equations=["vinet"])
    >>> print(f"{record.fits[0].v0:.1f} Å³, {record.fits[0].b0:.0f} GPa")
    11.6 Å³, 134 GPa
    """
    check_equations(equations)
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir)

    def plan(start: RelaxRecord) -> list[Structure]:
        return [scaled(cast("Structure", start.structure), volume) for volume in volumes]

    def compute(plans: Sequence[list[Structure] | None]) -> list[list[RelaxRecord]]:
        return relaxer.groups([cells or [] for cells in plans])

    def analyse(start: RelaxRecord, _: list[Structure], cells: Sequence[RelaxRecord]) -> EosRecord:
        return _record(start, cells, volumes, equations)

    return derive(EosRecord, relaxer.materials(structures), plan, compute, analyse)


def scaled(structure: Structure, volume: float) -> Structure:
    """Scale a cell to a volume relative to its own; shape and fractional coordinates stay."""
    cell = structure.copy()
    cell.scale_lattice(structure.volume * volume)
    return cell


def _record(
    start: RelaxRecord, cells: Sequence[RelaxRecord], volumes: Sequence[float], equations: Sequence[str]
) -> EosRecord:
    """Analyse one material."""
    names = [f"volume {volume:g}" for volume in volumes]
    check_cells(cells, names)
    v = tuple(float(cell.structure.volume) for cell in cells if cell.structure)
    e = tuple(float(cell.energy) for cell in cells if cell.energy is not None)
    state, warnings = convergence([*cells, start], [*names, "the relaxed cell"])
    return EosRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        warnings=warnings,
        volumes=v,
        energies=e,
        fits=tuple(fit_eos(v, e, len(cast("Structure", start.structure)), equation) for equation in equations),
    )
