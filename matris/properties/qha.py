"""Quasi-harmonic thermodynamics of many materials, from phonons at several volumes."""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from phonopy import PhonopyGruneisen, run_qha

from matris.properties.eos import fit_eos, scaled
from matris.properties.groups import fault, isolated, relax_all, relax_groups
from matris.properties.phonons import TOLERANCE, PhononSettings, displaced, find_force_constants, supercell_matrix
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from phonopy import Phonopy
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

VOLUMES = (0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08)
"""Volumes of the scaled cells, relative to that of the relaxed one: crystals expand when they are heated."""

_POINTS = 5  # volumes at least: four parameters of an equation of state, and one more to judge the fit by
_MESH = 60.0  # length in Å that phonopy divides by lattice vectors to get the mesh of wave vectors
_SLOWEST = 1e-2  # THz: Grüneisen parameters of slower modes are rounding
_KELVIN = 47.99243073  # h / k in K per THz


@dataclass(frozen=True, eq=False)
class Gruneisen:
    """
    Mode Grüneisen parameters, −∂ ln ω / ∂ ln V.

    Attributes
    ----------
    frequencies
        Of the modes on a mesh of wave vectors, THz, shape (q, modes).
    parameters
        Shape (q, modes); NaN where the frequency is zero.
    weights
        Of the wave vectors, shape (q,).
    """

    frequencies: NDArray[np.float64]
    parameters: NDArray[np.float64]
    weights: NDArray[np.float64]

    def mean(self, temperature: float) -> float:
        """
        Average over modes by their heat capacities, which is what thermal expansion feels.

        Parameters
        ----------
        temperature
            K, above zero.
        """
        x = np.abs(self.frequencies) * _KELVIN / temperature / 2  # ħω / 2kT
        capacity = np.where(np.isnan(self.parameters), 0, (x / np.sinh(np.clip(x, 1e-9, 300))) ** 2)
        shares = capacity * self.weights[:, None]
        return float((np.nan_to_num(self.parameters) * shares).sum() / shares.sum())


@dataclass(frozen=True, eq=False)
class QuasiHarmonic:
    """
    Thermodynamics at zero pressure, all of the cell of the record's structure.

    Attributes
    ----------
    volumes, energies
        Of the cells whose phonons were used, Å³ and eV without vibrations.
    bulk_modulus
        Without vibrations, GPa.
    temperatures
        K, shape (t,).
    helmholtz
        Free energy at temperatures and volumes, eV, shape (t, v).
    volume, thermal_expansion, gibbs, bulk_moduli, heat_capacity
        At each temperature: Å³; volumetric, 1/K; eV; GPa; at constant pressure, eV/K.
    thermal_gruneisen
        α B V / C_V at each temperature.
    gruneisen
        Parameters of the modes.
    """

    volumes: NDArray[np.float64]
    energies: NDArray[np.float64]
    bulk_modulus: float
    temperatures: NDArray[np.float64]
    helmholtz: NDArray[np.float64]
    volume: NDArray[np.float64]
    thermal_expansion: NDArray[np.float64]
    gibbs: NDArray[np.float64]
    bulk_moduli: NDArray[np.float64]
    heat_capacity: NDArray[np.float64]
    thermal_gruneisen: NDArray[np.float64]
    gruneisen: Gruneisen


@dataclass(frozen=True, eq=False)
class QhaRecord:
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
    found
        The results; None if failed.
    warnings
        What to know before using them.
    error
        Why it failed.
    """

    index: int
    state: Literal["converged", "max_steps", "failed"]
    structure: Structure | None = None
    found: QuasiHarmonic | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


def quasi_harmonic(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-4,
    max_steps: int = 2000,
    volumes: Sequence[float] = VOLUMES,
    settings: PhononSettings | None = None,
    journal_dir: Path | None = None,
) -> list[QhaRecord]:
    """
    Quasi-harmonic thermodynamics of many materials, all supercells of all of them through the device together.

    Each material is relaxed, and scaled to several volumes at which the atoms relax in a cell of fixed shape and
    phonons are computed. Volumes with imaginary modes are left out. The free energy at each temperature is fitted by
    Vinet's equation of state.

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
        Volumes relative to that of the relaxed cell, ascending.
    settings
        How to compute phonons; the temperatures must start at zero.
    journal_dir
        Folder in which finished cells are kept, so that a killed run goes on.

    Returns
    -------
    list of QhaRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        For fewer than five volumes or three temperatures, if they do not ascend, or temperatures do not start at 0.
    """
    chosen = settings or PhononSettings()
    check_grid(volumes, chosen.temperatures)
    settled = relax_all(structures, potential, fmax=fmax, max_steps=max_steps, relax_cell=True, journal_dir=journal_dir)
    groups = [[] if s.structure is None else [scaled(s.structure, v) for v in volumes] for s in settled]
    cells = relax_groups(groups, potential, fmax=fmax, max_steps=max_steps, journal_dir=journal_dir)
    plans = [
        (None, start.error) if start.structure is None else isolated(_plan, start.structure, at, volumes, chosen)
        for start, at in zip(settled, cells, strict=True)
    ]
    wanted = [[cell for _, group in plan for cell in group] if plan else [] for plan, _ in plans]
    answers = relax_groups(wanted, potential, fmax=fmax, max_steps=0, journal_dir=journal_dir)
    records = []
    for start, at, (plan, problem), answer in zip(settled, cells, plans, answers, strict=True):
        record, error = (None, problem) if plan is None else isolated(_record, start, at, plan, answer, volumes, chosen)
        records.append(record or QhaRecord(start.index, "failed", start.structure, error=error))
    return records


def check_grid(volumes: Sequence[float], temperatures: Sequence[float]) -> None:
    """
    Refuse volumes and temperatures from which nothing can be derived.

    Raises
    ------
    ValueError
        If there are too few, they do not ascend, or the temperatures do not start at zero.
    """
    for name, values, least in (("volumes", volumes, _POINTS), ("temperatures", temperatures, 3)):
        if len(values) < least or not (np.diff(values) > 0).all():
            raise ValueError(f"{name} must be at least {least}, ascending, got {list(values)}")
    if temperatures[0] != 0:  # derivatives at the first temperature are known only there: they vanish
        raise ValueError(f"temperatures must start at 0 K, got {temperatures[0]:g} K")


type Plan = list[tuple[Phonopy, list[Structure]]]


def _plan(
    structure: Structure, cells: Sequence[RelaxRecord], volumes: Sequence[float], settings: PhononSettings
) -> Plan:
    """Displaced supercells at each volume, all of the same matrix."""
    if error := fault(cells, _names(volumes)):
        raise ValueError(error)
    matrix = supercell_matrix(structure, settings.min_length, settings.symprec)
    return [displaced(cell.structure, settings, matrix) for cell in cells if cell.structure is not None]


def _names(volumes: Sequence[float]) -> list[str]:
    return [f"volume {volume:g}" for volume in volumes]


def _record(
    start: RelaxRecord,
    cells: Sequence[RelaxRecord],
    plan: Plan,
    answers: Sequence[RelaxRecord],
    volumes: Sequence[float],
    settings: PhononSettings,
) -> QhaRecord:
    """Analyse one material."""
    names, queue = _names(volumes), iter(answers)
    stable, dropped = [], []
    for name, (phonopy, group), cell in zip(names, plan, cells, strict=True):
        found = [next(queue) for _ in group]
        if error := fault(found, [f"{name}, supercell {i}" for i in range(len(found))]):
            raise ValueError(error)
        find_force_constants(phonopy, [answer.forces for answer in found if answer.forces is not None])
        lowest = float(np.min(phonopy.run_mesh(_MESH).frequencies))
        if lowest < -TOLERANCE:
            dropped.append(f"{name} ({-lowest:.2f}i THz)")
        else:
            stable.append((phonopy, cell))
    if len(stable) < _POINTS:
        raise ValueError(
            f"imaginary modes at {', '.join(dropped)}: {len(stable)} volumes are left, of {_POINTS} needed"
        )
    result, outside = _fit([p for p, _ in stable], [c.energy or 0.0 for _, c in stable], settings)
    warnings = []
    if dropped:
        warnings.append(f"left out for imaginary modes: {', '.join(dropped)}")
    if outside is not None:
        warnings.append(f"from {outside:g} K on the volume lies outside of the computed ones")
    late = [name for name, cell in zip(names, cells, strict=True) if cell.state != "converged"]
    if start.state != "converged":
        late.append("the relaxed cell")
    if late:
        warnings.append(f"not below fmax: {', '.join(late)}")
    return QhaRecord(start.index, "max_steps" if late else "converged", start.structure, result, tuple(warnings))


def _fit(
    phonopys: Sequence[Phonopy], energies: Sequence[float], settings: PhononSettings
) -> tuple[QuasiHarmonic, float | None]:
    """Thermodynamics, and the temperature from which on they are extrapolated."""
    atoms = len(phonopys[0].unitcell)
    cells = atoms / len(phonopys[0].primitive)  # primitive cells in a cell
    temperatures = list(settings.temperatures)
    temperatures.append(2 * temperatures[-1] - temperatures[-2])  # differences use one up
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", UserWarning)  # lattice parameters are not asked for
        found = run_qha(phonopys, temperatures, np.array(energies) / cells, mesh=_MESH, exclude_gamma_acoustic=True)
    if len(found.temperatures) < len(settings.temperatures):
        raise ValueError("the free energy has no minimum within the volumes at some of the temperatures")
    volumes = found.volumes * cells
    static = fit_eos(volumes.tolist(), energies, atoms, "vinet")
    capacity = np.gradient(found.enthalpy_temperature, found.temperatures) * cells
    capacity[0] = 0.0  # the third law
    outside = found.temperatures[found.equilibrium_volumes > found.volumes.max()]
    return QuasiHarmonic(
        volumes=volumes,
        energies=np.array(energies),
        bulk_modulus=static.b0,
        temperatures=found.temperatures,
        helmholtz=found.helmholtz_volume * cells,
        volume=found.equilibrium_volumes * cells,
        thermal_expansion=found.thermal_expansion,
        gibbs=found.gibbs_free_energies * cells,
        bulk_moduli=found.bulk_moduli * GPA,
        heat_capacity=capacity,
        thermal_gruneisen=found.gruneisen_parameters,
        gruneisen=_gruneisen(phonopys, static.v0 / cells),
    ), (float(outside[0]) if len(outside) else None)


def _gruneisen(phonopys: Sequence[Phonopy], volume: float) -> Gruneisen:
    """Mode parameters by central differences about the volume nearest to one, both of the primitive cell, Å³."""
    middle = min(range(1, len(phonopys) - 1), key=lambda i: abs(phonopys[i].primitive.volume - volume))
    around = PhonopyGruneisen(phonopys[middle], phonopys[middle + 1], phonopys[middle - 1])
    around.set_mesh(np.asarray(phonopys[middle].run_mesh(_MESH).mesh_numbers), is_gamma_center=True)
    mesh = around.get_mesh()
    assert mesh is not None  # noqa: S101 - it was set
    _, weights, frequencies, _, parameters = mesh
    return Gruneisen(
        frequencies,
        np.where(np.abs(frequencies) > _SLOWEST, parameters, np.nan),
        weights.astype(float),
    )
