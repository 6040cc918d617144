"""Thermodynamics of many materials in the quasi-harmonic approximation, from phonons at several volumes."""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from phonopy import PhonopyGruneisen, run_qha
from scipy.constants import h, k

from matris.properties.crossings import crossings_of_cells, crossings_of_displacements, cutoffs_of
from matris.properties.eos import EosFit, curve_doubts, fit_eos, pressures_of, scaled
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, check_cells, convergence, derive
from matris.properties.linearity import linearity, second_length
from matris.properties.phonons import (
    MESH,
    TOLERANCE,
    PhononSettings,
    displaced,
    find_force_constants,
    supercell_matrix,
    unfixed,
)
from matris.units import GPA
from matris.vacuum import vacuum_warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from phonopy import Phonopy
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import OptimizerName, RelaxRecord

VOLUMES = (0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08)
"""Volumes of the scaled cells, relative to that of the relaxed cell. Most are larger: crystals expand when heated."""

_POINTS = 5  # volumes at least: four parameters of an equation of state, and one more for a residual
_STIFFENING = 0.01  # relative rise of the bulk modulus with temperature that counts as none
_ROOM_TEMPERATURE = 300.0  # K, of the values that are queried
_SLOWEST = 1e-2  # THz: Grüneisen parameters of slower modes are noise
_KELVIN = 1e12 * h / k  # h / k in K per THz


@dataclass(frozen=True, eq=False)
class Gruneisen:
    """
    Mode Grüneisen parameters, −∂ ln ω / ∂ ln V.

    Attributes
    ----------
    frequencies
        Frequencies of the modes on a mesh of wave vectors, THz, shape (q, modes).
    parameters
        Grüneisen parameters of the modes, shape (q, modes); NaN where the frequency is zero.
    weights
        Weights of the wave vectors, shape (q,).
    """

    frequencies: NDArray[np.float64]
    parameters: NDArray[np.float64]
    weights: NDArray[np.float64]

    def mean(self, temperature: float) -> float:
        """
        Average over modes, weighted by their heat capacities as in thermal expansion.

        Parameters
        ----------
        temperature
            In K, above zero.
        """
        x = np.abs(self.frequencies) * _KELVIN / temperature / 2  # ħω / 2kT
        capacity = np.where(np.isnan(self.parameters), 0, (x / np.sinh(np.clip(x, 1e-9, 300))) ** 2)
        shares = capacity * self.weights[:, None]
        return float((np.nan_to_num(self.parameters) * shares).sum() / shares.sum())


@dataclass(frozen=True, eq=False)
class QuasiHarmonic:
    """
    Thermodynamics at one pressure; extensive quantities are those of the record's structure.

    Attributes
    ----------
    volumes, energies
        Volumes (Å³) and static energies (eV) of the cells whose phonons were used.
    bulk_modulus
        Static bulk modulus, without vibrations, GPa.
    temperatures
        In K, shape (t,).
    helmholtz
        Helmholtz free energy at temperatures and volumes, eV, shape (t, v).
    volume, thermal_expansion, gibbs, bulk_moduli, heat_capacity
        At each temperature: volume, Å³; volumetric expansion, 1/K; Gibbs free energy, eV; bulk modulus, GPa; heat
        capacity at constant pressure, eV/K.
    thermal_gruneisen
        Thermal Grüneisen parameter α B V / C_V at each temperature.
    gruneisen
        Grüneisen parameters of the modes.
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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class QhaRecord(PropertyRecord):
    """
    Quasi-harmonic thermodynamics of one material.

    Attributes
    ----------
    thermodynamics
        The results; None if failed.
    """

    thermodynamics: QuasiHarmonic | None = None


def quasi_harmonic(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float = 1e-4,
    max_steps: int = 2000,
    optimizer: OptimizerName = "lbfgs",
    volumes: Sequence[float] = VOLUMES,
    settings: PhononSettings | None = None,
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[QhaRecord]:
    """
    Quasi-harmonic thermodynamics of many materials, all supercells of all materials computed together.

    Each material is relaxed and scaled to several volumes. At each volume its atoms relax in a cell of fixed shape, and
    phonons are computed. Volumes with imaginary modes are left out. Vinet's equation of state is fitted to the free
    energies of each temperature.

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
        Volumes relative to that of the relaxed cell, ascending.
    settings
        Settings of the phonons; the temperatures must start at zero.
    pressure
        External pressure on the materials, GPa.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error: of the materials, and of the cells derived from them.

    Returns
    -------
    list of QhaRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If there are fewer than five volumes or three temperatures, if they do not ascend, or if the temperatures do
        not start at zero.

    Examples
    --------
    Copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> settings = PhononSettings(min_length=3.5, temperatures=(0.0, 150.0, 300.0))
    >>> volumes = (0.98, 1.0, 1.02, 1.04, 1.06)
    >>> (record,) = quasi_harmonic([bulk("Cu")], matris.AseModel(EMT()), settings=settings, volumes=volumes, fmax=1e-3)
    >>> print(f"{1e6 * record.thermodynamics.thermal_expansion[2]:.0f}e-6/K at 300 K")
    65e-6/K at 300 K
    """
    chosen = settings or PhononSettings()
    check_grid(volumes, chosen.temperatures)
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure)
    starts = relaxer.materials(structures)
    cells = relaxer.groups([[scaled(s.structure, v) for v in volumes] if s.structure else [] for s in starts])
    cells_of = {start.index: group for start, group in zip(starts, cells, strict=True)}

    def plan(start: RelaxRecord) -> _Plan:
        return _plan(cast("Structure", start.structure), cells_of[start.index], volumes, chosen)

    def compute(plans: Sequence[_Plan | None]) -> list[list[RelaxRecord]]:
        supercells = [[*(cell for _, group in p.volumes for cell in group), p.second] if p else [] for p in plans]
        return replace(relaxer, max_steps=0).groups(supercells)

    def analyse(start: RelaxRecord, plan: _Plan, supercells: Sequence[RelaxRecord]) -> QhaRecord:
        cells, cutoffs = cells_of[start.index], cutoffs_of(potential)
        return _record(start, cells, plan, supercells, volumes, chosen, cutoffs, pressure)

    return derive(QhaRecord, starts, plan, compute, analyse)


def check_grid(volumes: Sequence[float], temperatures: Sequence[float]) -> None:
    """
    Refuse volumes and temperatures that do not suffice for fits and derivatives.

    Raises
    ------
    ValueError
        If there are too few, they do not ascend, or the temperatures do not start at zero.
    """
    for name, values, least in (("volumes", volumes, _POINTS), ("temperatures", temperatures, 3)):
        if len(values) < least or not (np.diff(values) > 0).all():
            raise ValueError(f"{name} must be at least {least}, ascending, got {list(values)}")
    if temperatures[0] != 0:  # phonopy takes derivatives to vanish at the first temperature
        raise ValueError(f"temperatures must start at 0 K, got {temperatures[0]:g} K")


@dataclass(frozen=True, eq=False)
class _Plan:
    """Displaced supercells at each volume, and one displacement of the volume next to the relaxed one, shortened."""

    volumes: list[tuple[Phonopy, list[Structure]]]
    middle: int
    chosen: int
    second: Structure


def _plan(
    structure: Structure, cells: Sequence[RelaxRecord], volumes: Sequence[float], settings: PhononSettings
) -> _Plan:
    """Displaced supercells at each volume, with one supercell matrix for all volumes."""
    check_cells(cells, _names(volumes))
    matrix = supercell_matrix(structure, settings.min_length, settings.symprec)
    groups = [displaced(cell.structure, settings, matrix) for cell in cells if cell.structure is not None]
    middle = int(np.abs(np.array(volumes) - 1).argmin())
    return _Plan(groups, middle, *second_length(groups[middle][0]))


def _names(volumes: Sequence[float]) -> list[str]:
    return [f"volume {volume:g}" for volume in volumes]


def _record(
    start: RelaxRecord,
    cells: Sequence[RelaxRecord],
    plan: _Plan,
    supercells: Sequence[RelaxRecord],
    volumes: Sequence[float],
    settings: PhononSettings,
    cutoffs: Sequence[float],
    pressure: float,
) -> QhaRecord:
    """Analyse one material."""
    relaxed = cast("Structure", start.structure)
    names, queue = _names(volumes), iter(supercells)
    stable, dropped, doubts = [], [], []
    second = supercells[-1]
    check_cells([second], [f"{names[plan.middle]}, the shorter displacement"])
    for number, (name, (phonopy, group), cell) in enumerate(zip(names, plan.volumes, cells, strict=True)):
        evaluated = [next(queue) for _ in group]
        check_cells(evaluated, [f"{name}, supercell {i}" for i in range(len(evaluated))])
        forces = [supercell.forces for supercell in evaluated if supercell.forces is not None]
        find_force_constants(phonopy, forces)
        if number == plan.middle and second.forces is not None:
            check = linearity(phonopy, plan.chosen, forces, second.forces)
            doubts += [check.warning] if check.warning else []
        lowest = float(np.min(phonopy.run_mesh(MESH).frequencies))
        if lowest < -TOLERANCE:
            dropped.append(f"{name} ({-lowest:.2f}i THz)")
        else:
            stable.append((phonopy, cell))
    if len(stable) < _POINTS:
        raise UnusableCellError(
            f"imaginary modes at {', '.join(dropped)}: {len(stable)} volumes are left, of {_POINTS} needed"
        )
    used = [cell for _, cell in stable]
    result, outside, static = _fit([p for p, _ in stable], [c.energy or 0.0 for c in used], settings, pressure / GPA)
    enthalpies, stresses = result.energies + pressure / GPA * result.volumes, pressures_of(used)
    excess = None if stresses is None else [each - pressure for each in stresses]
    doubts += curve_doubts(result.volumes.tolist(), enthalpies.tolist(), len(relaxed), [static], excess)
    doubts += _thermal_doubts(result)
    if warning := vacuum_warning(relaxed):
        doubts.insert(0, warning)
    warnings = []
    if dropped:
        warnings.append(f"left out for imaginary modes: {', '.join(dropped)}")
    if outside is not None:
        message = f"from {outside:g} K on the volume lies outside of the computed ones"
        (doubts if outside <= _ROOM_TEMPERATURE else warnings).append(message)
    crossings = crossings_of_cells(relaxed, [cell.structure for cell in used if cell.structure], cutoffs)
    crossings += crossings_of_displacements(plan.volumes[plan.middle][0], cutoffs)
    state, unconverged = convergence([*cells, start], [*names, "the relaxed cell"])
    return QhaRecord(
        index=start.index,
        state=state,
        structure=start.structure,
        thermodynamics=result,
        warnings=(*warnings, *doubts, *dict.fromkeys(map(str, crossings)), *unfixed(start), *unconverged),
        is_reliable=not doubts and state == "converged",
        crossings=crossings,
    )


def _thermal_doubts(result: QuasiHarmonic) -> list[str]:
    """Reasons why thermodynamics are not those of a crystal that is heated; empty if all checks pass."""
    moduli, temperatures = result.bulk_moduli, result.temperatures
    highest = int(np.argmax(moduli))
    if moduli[highest] <= (1 + _STIFFENING) * moduli[0]:
        return []
    change = f"from {moduli[0]:.1f} GPa to {moduli[highest]:.1f} GPa at {temperatures[highest]:g} K"
    return [f"the bulk modulus rises with temperature, {change}: free energies are not smooth in the volume"]


def _fit(
    phonopys: Sequence[Phonopy], energies: Sequence[float], settings: PhononSettings, pressure: float
) -> tuple[QuasiHarmonic, float | None, EosFit]:
    """
    Compute thermodynamics at a pressure (eV/Å³).

    Also returned are the temperature from which on the volume is extrapolated (None if never), and the fit of the
    static enthalpies.
    """
    atoms = len(phonopys[0].unitcell)
    cells = atoms / len(phonopys[0].primitive)  # primitive cells in a cell
    volumes = np.array([phonopy.unitcell.volume for phonopy in phonopys])
    enthalpies = np.array(energies) + pressure * volumes
    temperatures = list(settings.temperatures)
    temperatures.append(2 * temperatures[-1] - temperatures[-2])  # phonopy's differences use up the last one
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", UserWarning)  # about lattice parameters, which are not used here
        qha = run_qha(phonopys, temperatures, enthalpies / cells, mesh=MESH, exclude_gamma_acoustic=True)
    if len(qha.temperatures) < len(settings.temperatures):
        raise ValueError("the free energy has no minimum within the volumes at some of the temperatures")
    static = fit_eos(volumes.tolist(), enthalpies.tolist(), atoms, "vinet")
    capacity = np.gradient(qha.enthalpy_temperature, qha.temperatures) * cells
    capacity[0] = 0.0  # the third law
    outside = qha.temperatures[qha.equilibrium_volumes > qha.volumes.max()]
    return (
        QuasiHarmonic(
            volumes=volumes,
            energies=np.array(energies),
            bulk_modulus=static.b0,
            temperatures=qha.temperatures,
            helmholtz=qha.helmholtz_volume * cells - pressure * volumes,
            volume=qha.equilibrium_volumes * cells,
            thermal_expansion=qha.thermal_expansion,
            gibbs=qha.gibbs_free_energies * cells,
            bulk_moduli=qha.bulk_moduli * GPA,
            heat_capacity=capacity,
            thermal_gruneisen=qha.gruneisen_parameters,
            gruneisen=_gruneisen(phonopys, static.v0 / cells),
        ),
        (float(outside[0]) if len(outside) else None),
        static,
    )


def _gruneisen(phonopys: Sequence[Phonopy], volume: float) -> Gruneisen:
    """Mode Grüneisen parameters by central differences about the volume nearest to `volume` (primitive cell, Å³)."""
    middle = min(range(1, len(phonopys) - 1), key=lambda i: abs(phonopys[i].primitive.volume - volume))
    around = PhonopyGruneisen(phonopys[middle], phonopys[middle + 1], phonopys[middle - 1])
    around.set_mesh(np.asarray(phonopys[middle].run_mesh(MESH).mesh_numbers), is_gamma_center=True)
    mesh = around.get_mesh()
    assert mesh is not None  # noqa: S101 - it was set
    _, weights, frequencies, _, parameters = mesh
    return Gruneisen(
        frequencies,
        np.where(np.abs(frequencies) > _SLOWEST, parameters, np.nan),
        weights.astype(float),
    )
