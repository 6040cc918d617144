"""Diffusion at several temperatures, activation energies, and ionic conductivities of independent ions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.constants import elementary_charge
from scipy.stats import f as fisher

from matris.errors import StructureError
from matris.properties.diffusivity import N_BLOCKS
from matris.properties.dynamics import dynamics
from matris.properties.ensembles import BOLTZMANN, DynamicsSettings
from matris.properties.groups import PropertyRecord
from matris.structures import one_or_many, to_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.properties.dynamics import DynamicsRecord

ROOM_TEMPERATURE = 300.0
"""Temperature to which diffusion is extrapolated, K."""

_UNLIKELY = 0.01  # probability of the scatter about the line below which there is a warning
_MIN_TEMPERATURES = 2
_MAX_GUESSED = 100  # atoms in the reduced formula: oxidation states of more take too long to guess
_CM3 = 1e24  # Å³


@dataclass(frozen=True)
class Extrapolated:
    """
    A positive quantity at 300 K, with the bounds of one standard error of its logarithm.

    Attributes
    ----------
    value, low, high
        The quantity and its bounds.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Arrhenius:
    """
    Diffusion of one element at several temperatures, D = D0 exp(-E/kT).

    Attributes
    ----------
    temperatures
        Temperatures whose coefficients the fit has, K.
    activation_energy, error
        E and its standard error, eV; None without a fit.
    prefactor
        D0, cm²/s.
    room
        D at 300 K, cm²/s: the fit extrapolated.
    probability
        Probability of a scatter about the line as large as that of the coefficients, by their errors (F test, because
        the errors are those of five blocks); None for two temperatures.
    problem
        Why there is no fit; None if there is one.
    """

    temperatures: tuple[float, ...] = ()
    activation_energy: float | None = None
    error: float | None = None
    prefactor: float | None = None
    room: Extrapolated | None = None
    probability: float | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class DiffusionRecord(PropertyRecord):
    """
    Diffusion in one material.

    The state is ``"completed"``, or ``"failed"`` if the runs of all temperatures failed. `structure` is the given cell.
    The record is reliable if at least one element has an activation energy and there is no warning.

    Attributes
    ----------
    temperatures
        Temperatures, K, in rising order.
    runs
        The run at each temperature.
    elements
        By element; each has a fit or a problem.
    charges
        Charges by which the elements carry current, in units of e: averages of oxidation states; empty if unknown.
    charges_from
        ``"given"``, ``"input"`` (oxidation states of the structure) or ``"composition"`` (pymatgen's guess); None if
        unknown.
    conductivities
        At each temperature the conductivity of the elements that have a diffusion coefficient, and its standard error,
        S/cm; None where no element has one, or its charge is unknown. See `nernst_einstein`.
    conductivity
        The conductivity at 300 K, of the elements that have an activation energy, S/cm.
    """

    temperatures: tuple[float, ...] = ()
    runs: tuple[DynamicsRecord, ...] = ()
    elements: dict[str, Arrhenius] = field(default_factory=dict)
    charges: dict[str, float] = field(default_factory=dict)
    charges_from: str | None = None
    conductivities: tuple[tuple[float, float] | None, ...] = ()
    conductivity: Extrapolated | None = None


def diffusion(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    temperatures: Sequence[float],
    charges: Mapping[str, float] | None = None,
    settings: DynamicsSettings | None = None,
    trajectory_dir: Path | None = None,
    max_batch_atoms: int | None = None,
    progress: bool = False,
) -> list[DiffusionRecord]:
    """
    Molecular dynamics of many materials at several temperatures, all in one batch, and what follows from diffusion.

    Activation energies and coefficients at 300 K are those of one Arrhenius line: a phase transition between 300 K and
    the temperatures, or another mechanism, is not seen. Conductivities are those of independent ions.

    Parameters
    ----------
    structures
        The materials: supercells of some hundred atoms, as for `matris.properties.dynamics.dynamics`.
    potential
        A loaded potential or any torch-sim model.
    temperatures
        Temperatures, K, all different.
    charges
        Charges of elements, in units of e. By default they are the oxidation states of the structure, or, if it has
        none, those that pymatgen guesses from the composition.
    settings
        Settings of all runs; `temperature` is without effect. The run at the n-th temperature, counted from 0, has the
        seed `seed` + n, so that the noise of the runs is independent. By default ``nvt`` for 50 ps with a
        `thermostat_time` of 1 ps, which slows diffusion little.
    trajectory_dir, max_batch_atoms, progress
        See `matris.properties.dynamics.dynamics`.

    Returns
    -------
    list of DiffusionRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If there are no temperatures, or two are equal, or one is not above 0 K; if the ensemble is ``"nve"``, which
        does not keep a temperature; if a charge is not a number.

    Examples
    --------
    Copper, too short to diffuse. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> settings = DynamicsSettings(n_steps=4, interval=1)
    >>> crystal = bulk("Cu", cubic=True)
    >>> (record,) = diffusion([crystal], matris.AseModel(EMT()), temperatures=[600, 900], settings=settings)
    >>> record.state, record.elements["Cu"].problem
    ('completed', 'no temperature has a diffusion coefficient; two are needed')
    """
    kelvins = checked_temperatures(temperatures)
    checked_charges(charges)
    settings = settings or DynamicsSettings(n_steps=50_000, interval=50, thermostat_time=1000.0)
    if settings.ensemble == "nve":
        raise ValueError("diffusion needs the temperature that nvt or npt keep, not nve")
    each = [replace(settings, temperature=kelvin, seed=settings.seed + n) for n, kelvin in enumerate(kelvins)]
    materials = list(one_or_many(structures))
    runs = dynamics(
        [material for material in materials for _ in each],
        potential,
        settings=[own for _ in materials for own in each],
        trajectory_dir=trajectory_dir,
        max_batch_atoms=max_batch_atoms,
        progress=progress,
    )
    return [
        _record(index, material, kelvins, runs[index * len(each) : (index + 1) * len(each)], charges)
        for index, material in enumerate(materials)
    ]


def checked_temperatures(temperatures: Sequence[float]) -> tuple[float, ...]:
    """
    Check temperatures, K, and sort them.

    Raises
    ------
    ValueError
        If there are none, or two are equal, or one is not above 0 K.

    Examples
    --------
    >>> checked_temperatures([800, 600])
    (600.0, 800.0)
    >>> checked_temperatures([800, 800.0])
    Traceback (most recent call last):
    ValueError: temperatures must differ: 800 K is there twice
    """
    kelvins = sorted(map(float, temperatures))
    if not kelvins:
        raise ValueError("temperatures are missing: give some, such as 600, 800, 1000")
    for kelvin in kelvins:
        if not (math.isfinite(kelvin) and kelvin > 0):
            raise ValueError(f"temperatures must be above 0 K, got {kelvin:g}")
        if kelvins.count(kelvin) > 1:
            raise ValueError(f"temperatures must differ: {kelvin:g} K is there twice")
    return tuple(kelvins)


def checked_charges(charges: Mapping[str, float] | None) -> None:
    """
    Check charges by element, e.

    Raises
    ------
    ValueError
        If one is not a finite number.
    """
    for element, charge in (charges or {}).items():
        if not math.isfinite(charge):
            raise ValueError(f"the charge of {element} must be a number, got {charge}")


def arrhenius(points: Mapping[float, tuple[float, float]]) -> Arrhenius:
    """
    Fit ln D = ln D0 - E/kT, weighted by the errors of ln D.

    Errors grow by the scatter about the line where this is larger than the errors of the coefficients (Birge's ratio).

    Parameters
    ----------
    points
        Diffusion coefficient and its standard error, cm²/s, by temperature, K.

    Returns
    -------
    Arrhenius
        With a problem if there are fewer than two points.

    Examples
    --------
    >>> exact = {kelvin: 1e-3 * np.exp(-0.3 / (BOLTZMANN * kelvin)) for kelvin in (600, 800, 1000)}
    >>> found = arrhenius({kelvin: (value, 0.1 * value) for kelvin, value in exact.items()})
    >>> round(found.activation_energy, 6), round(found.error, 3), f"{found.room.value:.3g}"
    (0.3, 0.018, '9.12e-09')
    """
    if len(points) < _MIN_TEMPERATURES:
        has = "one temperature has" if points else "no temperature has"
        return Arrhenius(tuple(points), problem=f"{has} a diffusion coefficient; two are needed")
    kelvins = np.array(sorted(points))
    values, errors = np.array([points[kelvin] for kelvin in kelvins]).T
    inverse = 1 / (BOLTZMANN * kelvins)
    origin = 1 / (BOLTZMANN * ROOM_TEMPERATURE)  # the constant of the line is ln D at 300 K
    weights = values / errors
    line, covariance = np.polyfit(inverse - origin, np.log(values), 1, w=weights, cov="unscaled")
    n_free = len(points) - 2
    misfit = float((((np.polyval(line, inverse - origin) - np.log(values)) * weights) ** 2).sum())
    if n_free:
        covariance = covariance * max(1.0, misfit / n_free)
    slope, level = map(float, line)
    spread = math.sqrt(covariance[1, 1])
    return Arrhenius(
        tuple(map(float, kelvins)),
        -slope,
        math.sqrt(covariance[0, 0]),
        math.exp(level - slope * origin),
        Extrapolated(math.exp(level), math.exp(level - spread), math.exp(level + spread)),
        float(fisher.sf(misfit / n_free, n_free, N_BLOCKS - 1)) if n_free else None,
    )


def nernst_einstein(number: int, charge: float, coefficient: float, temperature: float, volume: float) -> float:
    """
    Ionic conductivity of independent ions, n z² e² D/(V kT): the Nernst–Einstein equation with a Haven ratio of 1.

    Ions that move together, as in most fast conductors, conduct better than this tells (Haven ratio below 1).

    Parameters
    ----------
    number
        Number of ions in the cell.
    charge
        Charge of an ion, e.
    coefficient
        Tracer diffusion coefficient, cm²/s.
    temperature
        Temperature, K.
    volume
        Volume of the cell, Å³.

    Returns
    -------
    float
        Conductivity, S/cm.

    Examples
    --------
    20 monovalent ions in 1000 Å³:

    >>> round(nernst_einstein(20, 1, 1e-5, 300, 1000), 3)
    1.239
    """
    return number / volume * _CM3 * charge**2 * elementary_charge / (BOLTZMANN * temperature) * coefficient


def charges_of(structure: Structure, given: Mapping[str, float] | None = None) -> tuple[dict[str, float], str | None]:
    """
    Charges of the elements of a structure, e.

    Parameters
    ----------
    structure
        The structure.
    given
        Charges by element, which take precedence. Elements that are not in the structure are without effect.

    Returns
    -------
    charges
        Averages of the oxidation states of each element; empty if unknown.
    source
        Where they come from, see `DiffusionRecord`.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> fluoride = Structure(Lattice.cubic(4), ["Li", "F"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> charges_of(fluoride)
    ({'Li': 1.0, 'F': -1.0}, 'composition')
    >>> charges_of(fluoride, {"Li": 0.9})
    ({'Li': 0.9}, 'given')
    """
    symbols = [site.specie.symbol for site in structure]
    found = {element: float(charge) for element, charge in (given or {}).items() if element in symbols}
    if found:
        return found, "given"
    states = [getattr(site.specie, "oxi_state", None) for site in structure]
    if any(states) and None not in states:
        kinds = np.array(symbols)
        return {
            kind: float(np.mean(np.array(states, float)[kinds == kind])) for kind in dict.fromkeys(symbols)
        }, "input"
    try:
        guesses = structure.composition.element_composition.oxi_state_guesses(max_sites=-_MAX_GUESSED)
    except ValueError:  # too many atoms
        guesses = ()
    if guesses and any(guesses[0].values()):
        return {element: float(charge) for element, charge in guesses[0].items()}, "composition"
    return {}, None


def _record(
    index: int,
    material: Structure | Atoms,
    kelvins: tuple[float, ...],
    runs: Sequence[DynamicsRecord],
    given: Mapping[str, float] | None,
) -> DiffusionRecord:
    """Analyse the runs of one material."""
    own = tuple(replace(run, index=index) for run in runs)
    try:
        structure = to_structure(material)
    except StructureError as error:
        return DiffusionRecord(index=index, state="failed", error=str(error), temperatures=kelvins, runs=own)
    done = {kelvin: run for kelvin, run in zip(kelvins, own, strict=True) if run.state == "completed"}
    if not done:
        reasons = "; ".join(dict.fromkeys(str(run.error) for run in own))
        return DiffusionRecord(index=index, state="failed", error=reasons, temperatures=kelvins, runs=own)
    symbols = [site.specie.symbol for site in structure]
    elements = {element: arrhenius(_points(done, element)) for element in sorted(set(symbols))}
    charges, source = charges_of(structure, given)
    currents = {kelvin: _current(run, symbols, charges, kelvin) for kelvin, run in done.items()}
    warnings = [
        f"{kelvin:g} K: {warning}"
        for kelvin, run in zip(kelvins, own, strict=True)
        for warning in ([str(run.error)] if run.error else run.warnings)
    ]
    warnings += _gaps(done, elements)
    mobile = [element for element, line in elements.items() if line.room is not None]
    conductivity = None
    if mobile and all(charges.get(element) for element in mobile):
        volume = min(done.items())[1].means["volume"]
        ions = [(symbols.count(element), charges[element], elements[element].room) for element in mobile]
        bounds = [
            sum(nernst_einstein(n, z, getattr(room, name), ROOM_TEMPERATURE, volume) for n, z, room in ions)
            for name in ("value", "low", "high")
        ]
        conductivity = Extrapolated(*bounds)
    unknown = [element for element in elements if not charges.get(element) and _points(done, element)]
    remarks = [f"no conductivity, the charge of {', '.join(unknown)} is unknown: give charges"] if unknown else []
    return DiffusionRecord(
        index=index,
        state="completed",
        structure=structure,
        warnings=(*warnings, *remarks),
        is_reliable=bool(mobile) and not warnings,
        temperatures=kelvins,
        runs=own,
        elements=elements,
        charges=charges,
        charges_from=source,
        conductivities=tuple(currents.get(kelvin) for kelvin in kelvins),
        conductivity=conductivity,
    )


def _points(runs: Mapping[float, DynamicsRecord], element: str) -> dict[float, tuple[float, float]]:
    """Coefficients and errors of an element by temperature."""
    found = ((kelvin, run.diffusion[element]) for kelvin, run in runs.items())
    return {kelvin: (d.coefficient, d.error) for kelvin, d in found if d.coefficient is not None and d.error}


def _current(
    run: DynamicsRecord, symbols: Sequence[str], charges: Mapping[str, float], kelvin: float
) -> tuple[float, float] | None:
    """Conductivity of one run and its error; None if no ion diffuses, or its charge is unknown."""
    parts = []
    for element, found in run.diffusion.items():
        if found.coefficient is None or found.error is None:
            continue
        if not charges.get(element):
            return None
        ions = symbols.count(element), charges[element]
        volume = run.means["volume"]
        parts.append([nernst_einstein(*ions, d, kelvin, volume) for d in (found.coefficient, found.error)])
    if not parts:
        return None
    values, errors = zip(*parts, strict=True)
    return sum(values), math.hypot(*errors)


def _gaps(runs: Mapping[float, DynamicsRecord], elements: Mapping[str, Arrhenius]) -> list[str]:
    """Warnings of temperatures without a coefficient, and of coefficients that are on no line."""
    warnings = []
    seen = {element for element in elements if _points(runs, element)}
    for element in elements:
        missing = {kelvin: run.diffusion[element].problem for kelvin, run in runs.items()}
        texts = [f"{element} at {kelvin:g} K: {problem}" for kelvin, problem in missing.items() if problem]
        warnings += texts if element in seen else texts[-1:] if not seen else []
    for element, line in elements.items():
        if element in seen and line.problem:
            warnings.append(f"{element} has no activation energy: {line.problem}")
        if line.probability is not None and line.probability < _UNLIKELY:
            warnings.append(f"{element} does not follow one Arrhenius line (probability {line.probability:.1g})")
    return warnings
