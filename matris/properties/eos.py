"""Equations of state of many materials, from the energies of scaled cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from matris.properties.groups import fault, isolated, relax_all, relax_groups
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

_POINTS = 5  # at least: four parameters, and one more to judge the fit by


@dataclass(frozen=True)
class EosFit:
    """
    Parameters of an equation of state.

    Attributes
    ----------
    equation
        Which one.
    e0, v0
        Energy (eV) and volume (Å³) of the cell at zero pressure.
    b0
        Bulk modulus there, GPa.
    b1
        Its derivative by pressure.
    residual
        Root mean square of what the fit leaves, eV per atom.
    """

    equation: str
    e0: float
    v0: float
    b0: float
    b1: float
    residual: float


def check_equations(equations: Sequence[str]) -> None:
    """
    Refuse equations of state that do not exist.

    Raises
    ------
    ValueError
        With the ones that do.
    """
    if unknown := set(equations) - set(EQUATIONS):
        raise ValueError(f"no equation of state {', '.join(map(repr, unknown))}: there are {', '.join(EQUATIONS)}")


def fit_eos(volumes: Sequence[float], energies: Sequence[float], n_atoms: int, equation: str) -> EosFit:
    """
    Fit an equation of state.

    Parameters
    ----------
    volumes, energies
        Å³ and eV, of cells of `n_atoms`.
    n_atoms
        Atoms in the cell.
    equation
        One of `EQUATIONS`.

    Raises
    ------
    ValueError
        For fewer than five points, no minimum within them, or an unknown equation.
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
        fit = EOS(equation).fit(v, e - lowest)
    except EOSError as error:
        raise ValueError(f"{equation}: {error}") from None
    return EosFit(
        equation=equation,
        e0=float(fit.e0 + lowest),
        v0=float(fit.v0),
        b0=float(fit.b0 * GPA),
        b1=float(fit.b1),
        residual=float(np.sqrt(np.mean((fit(v) - (e - lowest)) ** 2)) / n_atoms),
    )


@dataclass(frozen=True)
class EosRecord:
    """
    What became of one material.

    Attributes
    ----------
    index
        Place in the input.
    state
        ``"converged"``; ``"max_steps"`` if a cell did not get below `fmax`; ``"failed"``.
    structure
        The relaxed cell.
    volumes, energies
        Of the scaled cells, Å³ and eV.
    fits
        By equation.
    warnings
        What to know before using them.
    error
        Why it failed.
    """

    index: int
    state: Literal["converged", "max_steps", "failed"]
    structure: Structure | None = None
    volumes: tuple[float, ...] = ()
    energies: tuple[float, ...] = ()
    fits: tuple[EosFit, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


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
    Equations of state of many materials, all cells of all of them through the device together.

    Each material is relaxed, and scaled to several volumes at which the atoms relax in a cell of fixed shape.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on forces, eV/Å, also on the cell's.
    max_steps
        Most steps of one cell.
    volumes
        Volumes relative to that of the relaxed cell.
    equations
        Which of `EQUATIONS` to fit.
    journal_dir
        Folder in which finished cells are kept, so that a killed run goes on.

    Returns
    -------
    list of EosRecord
        One for each material, in order.
    """
    check_equations(equations)
    settled = relax_all(structures, potential, fmax=fmax, max_steps=max_steps, relax_cell=True, journal_dir=journal_dir)
    groups = [[] if s.structure is None else [scaled(s.structure, v) for v in volumes] for s in settled]
    answers = relax_groups(groups, potential, fmax=fmax, max_steps=max_steps, journal_dir=journal_dir)
    records = []
    for start, cells in zip(settled, answers, strict=True):
        record, error = isolated(_record, start, cells, volumes, equations)
        records.append(record or EosRecord(start.index, "failed", start.structure, error=error))
    return records


def scaled(structure: Structure, volume: float) -> Structure:
    """Scale a cell to a volume relative to its own, its shape kept, atoms going along."""
    cell = structure.copy()
    cell.scale_lattice(structure.volume * volume)
    return cell


def _record(
    start: RelaxRecord, cells: Sequence[RelaxRecord], volumes: Sequence[float], equations: Sequence[str]
) -> EosRecord:
    """Analyse one material."""
    names = [f"volume {volume:g}" for volume in volumes]
    error = start.error or fault(cells, names)
    if error or start.structure is None:
        return EosRecord(start.index, "failed", start.structure, error=error)
    found = [(cell.structure.volume, cell.energy) for cell in cells if cell.structure and cell.energy is not None]
    v, e = (tuple(float(x) for x in column) for column in zip(*found, strict=True))
    fits = tuple(fit_eos(v, e, len(start.structure), equation) for equation in equations)
    late = [name for name, cell in zip(names, cells, strict=True) if cell.state != "converged"]
    if start.state != "converged":
        late.append("the relaxed cell")
    warnings = (f"not below fmax: {', '.join(late)}",) if late else ()
    return EosRecord(start.index, "max_steps" if late else "converged", start.structure, v, e, fits, warnings)
