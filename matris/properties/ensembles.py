"""Equations of motion of many materials at once: NVE, NVT and NPT, on torch-sim's states and steps."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch_sim.integrators.md import momentum_step, position_step
from torch_sim.integrators.npt import NPTState
from torch_sim.units import MetalUnits

from matris.model.precision import full_precision
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from torch_sim.state import SimState

    from matris.relaxation.guard import GuardedModel

Ensemble = Literal["nve", "nvt", "npt"]

BOLTZMANN = float(MetalUnits.temperature)
"""Boltzmann's constant, eV/K."""

FEMTOSECOND = float(MetalUnits.time) / 1000
"""One femtosecond in units of Å·√(u/eV), which are also ASE's."""

_METHOD = "velocity Verlet, BAOAB Langevin at rest, stochastic cell rescaling with own compressibility"
"""Name of the algorithm, part of the settings digest: another algorithm gives other numbers."""

_PROBE = 0.005  # linear strain of the cells from which the compressibility is estimated
_SOFTEST, _USUAL, _STIFFEST = (
    1.0,
    100.0,
    1000.0,
)  # bulk moduli, GPa: bounds, and the value if there is no estimate


@dataclass(frozen=True)
class DynamicsSettings:
    """
    Settings of molecular dynamics: all that a trajectory depends on, besides structure and potential.

    Attributes
    ----------
    ensemble
        ``"nve"``: velocity Verlet. ``"nvt"``: Langevin dynamics, the BAOAB splitting of Leimkuhler and Matthews, Appl.
        Math. Res. Express 2013, 34. ``"npt"``: Langevin dynamics with stochastic cell rescaling under hydrostatic
        pressure, in which cell lengths and angles fluctuate: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020),
        Del Tatto et al., Appl. Sci. 12, 1139 (2022).
    temperature
        Temperature of the initial velocities and of the thermostat, K.
    final_temperature
        Temperature to which the thermostat goes linearly, at the last step, K; None if it stays.
    pressure
        Pressure of ``"npt"``, GPa. (atomate2's MD Makers take kbar; 1 kbar is 0.1 GPa.)
    time_step
        Time step, fs. Crystals with hydrogen need about 0.5, others 1 to 2.
    n_steps
        Number of steps of each material.
    interval
        Number of steps between frames. The first frame is the start.
    seed
        Seed of initial velocities and noise. Each material has its own random numbers, derived from the seed and its
        content: they do not depend on the other materials.
    thermostat_time
        Inverse of the Langevin friction, fs. The default is the friction of atomate2's MD Makers, 10/ps.
    barostat_time
        Relaxation time of the volume, fs.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> DynamicsSettings(ensemble="npt", temperature=600).pressure
    0.0
    >>> DynamicsSettings(time_step=-1)
    Traceback (most recent call last):
    ValueError: time_step must be a positive time (fs), got -1
    """

    ensemble: Ensemble = "nvt"
    temperature: float = 300.0
    final_temperature: float | None = None
    pressure: float = 0.0
    time_step: float = 1.0
    n_steps: int = 1000
    interval: int = 10
    seed: int = 0
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0

    def __post_init__(self) -> None:
        """Check the values, and convert numbers to one type, so that 1 and 1.0 give the same digest."""
        self._check()
        for name in ("temperature", "pressure", "time_step", "thermostat_time", "barostat_time"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("n_steps", "interval", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))
        if self.final_temperature is not None:
            object.__setattr__(self, "final_temperature", float(self.final_temperature))

    def _check(self) -> None:
        """Refuse values out of range."""
        if self.ensemble not in {"nve", "nvt", "npt"}:
            raise ValueError(f"ensemble must be nve, nvt or npt, got {self.ensemble!r}")
        self._check_temperatures()
        if not math.isfinite(self.pressure):
            raise ValueError(f"pressure must be a number (GPa), got {self.pressure}")
        for name in ("time_step", "thermostat_time", "barostat_time"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive time (fs), got {value}")
        for name, least in (("n_steps", 1), ("interval", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.ensemble == "npt" and self.barostat_time < 10 * self.time_step:
            raise ValueError("barostat_time must be at least ten time steps")

    def _check_temperatures(self) -> None:
        """Refuse temperatures out of range."""
        coldest = "at least" if self.ensemble == "nve" else "above"
        if (
            not math.isfinite(self.temperature)
            or self.temperature < 0
            or (self.temperature == 0 and coldest == "above")
        ):
            raise ValueError(f"temperature must be {coldest} 0 K for {self.ensemble}, got {self.temperature}")
        if self.final_temperature is not None:
            if self.ensemble == "nve":
                raise ValueError("nve has no thermostat that could go to a final_temperature: choose nvt or npt")
            if not (math.isfinite(self.final_temperature) and self.final_temperature > 0):
                raise ValueError(f"final_temperature must be above 0 K, got {self.final_temperature}")

    def temperature_at(self, step: int) -> float:
        """
        Return the temperature of the thermostat at a step, K.

        Examples
        --------
        >>> DynamicsSettings(temperature=300, final_temperature=500, n_steps=100).temperature_at(25)
        350.0
        """
        if self.final_temperature is None:
            return self.temperature
        return self.temperature + (self.final_temperature - self.temperature) * step / self.n_steps

    def of_each_step(self) -> DynamicsSettings:
        """
        Return the settings on which each step depends: not their number, unless it sets the pace of the temperature.

        Runs that are equal in these settings are parts of one trajectory.

        Examples
        --------
        >>> DynamicsSettings(n_steps=100).of_each_step() == DynamicsSettings(n_steps=200).of_each_step()
        True
        """
        return self if self.final_temperature is not None else replace(self, n_steps=1)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self)

    def digest(self) -> str:
        """
        Short hash of the settings, equal on every machine.

        Returns
        -------
        str
            12 hexadecimal digits.
        """
        content = {"method": _METHOD, **self.to_dict()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def thermal_momenta(
    masses: NDArray[np.float64],
    temperature: float,
    random: np.random.Generator,
    restraints: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """
    Draw momenta from the Maxwell–Boltzmann distribution, the center of mass at rest.

    If some atoms are fixed, nothing is left of their momenta along fixed directions, and the center of mass moves.

    Parameters
    ----------
    masses
        Masses, shape (n,), u.
    temperature
        Temperature, K.
    random
        Generator of the random numbers.
    restraints
        Projectors onto the directions in which the atoms may move, shape (n, 3, 3), see `matris.constraints`; None if
        all atoms are free.

    Returns
    -------
    ndarray
        Shape (n, 3), √(u·eV): ASE's unit.
    """
    momenta = np.sqrt(masses * BOLTZMANN * temperature)[:, None] * random.standard_normal((len(masses), 3))
    if restraints is not None:
        return np.einsum("nij,nj->ni", restraints, momenta)
    at_rest: NDArray[np.float64] = momenta - masses[:, None] * momenta.sum(axis=0) / masses.sum()
    return at_rest


def at_rest(state: SimState, momenta: NDArray[np.float64]) -> NPTState:
    """Add momenta to a state, and empty energies, forces and stresses for `evaluate`."""
    return NPTState.from_state(
        state,
        momenta=torch.as_tensor(momenta, device=state.device, dtype=state.dtype),
        energy=state.cell.new_zeros(state.n_systems),
        forces=torch.zeros_like(state.positions),
        stress=torch.zeros_like(state.cell),
    )


def evaluate(state: NPTState, model: GuardedModel) -> None:
    """Update energies, forces and stresses of a state; stresses are NaN if the model gives none."""
    output = model(state)
    state.energy, state.forces = output["energy"], output["forces"]
    stress = output.get("stress")
    state.stress = torch.full_like(state.cell, torch.nan) if stress is None else stress


def advance(
    state: NPTState,
    model: GuardedModel,
    settings: DynamicsSettings,
    temperatures: Sequence[float],
    randoms: Sequence[np.random.Generator],
    compressibility: Sequence[float],
    restraints: Sequence[Tensor | None] | None = None,
) -> None:
    """
    Advance all systems by one time step.

    Parameters
    ----------
    state
        Evaluated state; changed in place.
    model
        Evaluates the batch once.
    settings
        Ensemble, pressure, time step.
    temperatures
        Temperature of the thermostat of each system, K.
    randoms
        Random numbers of each system.
    compressibility
        Compressibility of each system, Å³/eV; without effect unless the ensemble is ``"npt"``.
    restraints
        For each system, projectors onto the directions in which its atoms may move, (n, 3, 3), or None if all are free.
        A fixed atom has no momentum; if the cell changes, it keeps its fractional coordinates.
    """
    dt = settings.time_step * FEMTOSECOND
    restraints = restraints or [None] * state.n_systems
    momentum_step(state, dt / 2)
    _restrain(state, restraints)
    if settings.ensemble == "npt":
        _rescale_cell(state, settings, temperatures, randoms, compressibility)
        _restrain(state, restraints)
    position_step(state, dt / 2)
    if settings.ensemble != "nve":
        _thermalise(state, settings, temperatures, randoms, restraints)
    position_step(state, dt / 2)
    evaluate(state, model)
    momentum_step(state, dt / 2)
    _restrain(state, restraints)


def _restrain(state: NPTState, restraints: Sequence[Tensor | None]) -> None:
    """Remove momenta along fixed directions."""
    if all(restraint is None for restraint in restraints):
        return
    parts = state.momenta.split(state.n_atoms_per_system.tolist())
    state.momenta = torch.cat(
        [
            momenta if restraint is None else (restraint * momenta.unsqueeze(1)).sum(2)
            for momenta, restraint in zip(parts, restraints, strict=True)
        ]
    )


def _thermalise(
    state: NPTState,
    settings: DynamicsSettings,
    temperatures: Sequence[float],
    randoms: Sequence[np.random.Generator],
    restraints: Sequence[Tensor | None],
) -> None:
    """
    Apply friction and noise, exactly for one time step, and remove the momentum of the center of mass.

    In systems with fixed atoms the center of mass moves, and only the momenta along fixed directions are removed.

    The removal is a projection of the momenta. It changes neither the distribution nor the dynamics of the other
    degrees of freedom. torch-sim's own step draws the noise of all systems from one stream: a trajectory would depend
    on the other materials of the batch, and change when one of them fails.
    """
    sizes = state.n_atoms_per_system.tolist()
    noise = np.concatenate([random.standard_normal((n, 3)) for random, n in zip(randoms, sizes, strict=True)])
    keep = math.exp(-settings.time_step / settings.thermostat_time)
    spread = _tensor(np.sqrt(BOLTZMANN * np.array(temperatures) * (1 - keep**2)), state)[state.system_idx, None]
    masses = state.masses[:, None]
    momenta = keep * state.momenta + spread * masses.sqrt() * _tensor(noise, state)
    weight = _sums(state, state.masses)
    drift = _sums(state, momenta) / weight[:, None]
    floats = torch.tensor([restraint is None for restraint in restraints], device=drift.device)
    state.momenta = momenta - masses * (drift * floats[:, None])[state.system_idx]
    _restrain(state, restraints)


def _rescale_cell(
    state: NPTState,
    settings: DynamicsSettings,
    temperatures: Sequence[float],
    randoms: Sequence[np.random.Generator],
    compressibility: Sequence[float],
) -> None:
    """
    Deform cells, positions and momenta by stochastic cell rescaling at hydrostatic pressure.

    The volume V is advanced through √V, whose noise does not depend on V, by equation 7 of Bernetti and Bussi. The
    shape is advanced by the exponential of a traceless symmetric matrix, so that cells do not rotate.
    """
    thermal = _tensor(BOLTZMANN * np.array(temperatures), state)
    rate = _tensor(np.array(compressibility), state) * (settings.time_step / settings.barostat_time)
    volume = torch.linalg.det(state.cell).abs()
    pressures = pressure_tensors(state)
    mean = pressures.diagonal(dim1=1, dim2=2).mean(dim=1)
    noise = _tensor(np.stack([random.standard_normal(10) for random in randoms]), state)

    root = volume.sqrt()
    pull = mean - settings.pressure / GPA + thermal / (2 * volume)
    new_root = root + root * rate * pull / 2 + (rate * thermal / 2).sqrt() * noise[:, 9]
    growth = (new_root / root).pow(2 / 3)

    unit = torch.eye(3, device=state.device, dtype=state.dtype)
    turning = noise[:, :9].view(-1, 3, 3)
    shear = (turning + turning.mT) / 2
    shear = shear - shear.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * unit
    strain = rate[:, None, None] / 3 * (pressures - mean[:, None, None] * unit)
    strain = strain + ((2 * rate * thermal / 3).sqrt() / new_root)[:, None, None] * shear
    with full_precision():
        deformation = growth[:, None, None] * torch.linalg.matrix_exp(strain)

    inverse = torch.linalg.inv(deformation)
    # element by element: no setting of matrix products (TF32) has a part in it
    state.positions = (deformation[state.system_idx] * state.positions[:, None, :]).sum(2)
    state.momenta = (inverse[state.system_idx] * state.momenta[:, None, :]).sum(2)
    state.cell = (deformation[:, :, :, None] * state.cell[:, None]).sum(2)  # torch-sim keeps lattice vectors in columns


def pressure_tensors(state: NPTState) -> Tensor:
    """Instantaneous pressure tensor of each system, kinetic part included, eV/Å³, shape (n_systems, 3, 3)."""
    flow = state.momenta[:, :, None] * state.momenta[:, None, :] / state.masses[:, None, None]
    return _sums(state, flow) / torch.linalg.det(state.cell).abs()[:, None, None] - state.stress


def kinetic_energies(state: NPTState) -> Tensor:
    """Kinetic energy of each system, eV, shape (n_systems,)."""
    return _sums(state, state.momenta.square().sum(dim=1) / (2 * state.masses))


def compressibilities(state: NPTState, model: GuardedModel) -> list[float]:
    """
    Estimate the compressibility of each system, by which `barostat_time` becomes the relaxation time of any material.

    Parameters
    ----------
    state
        State; not changed.
    model
        Evaluates the batch twice.

    Returns
    -------
    list of float
        Compressibilities, Å³/eV, from the pressures of slightly larger and smaller cells at fixed fractional
        coordinates. They are clipped to bounds, because they affect the rate but not the result.
    """
    pressures = []
    for strain in (_PROBE, -_PROBE):
        probe = state.clone()
        probe.positions = probe.positions * (1 + strain)
        probe.cell = probe.cell * (1 + strain)
        evaluate(probe, model)
        pressures.append(-probe.stress.diagonal(dim1=1, dim2=2).mean(dim=1))
    moduli = (GPA * (pressures[1] - pressures[0]) / (6 * _PROBE)).tolist()
    return [GPA / (min(max(k, _SOFTEST), _STIFFEST) if math.isfinite(k) else _USUAL) for k in moduli]


def _sums(state: NPTState, values: Tensor) -> Tensor:
    """Sum values of atoms over each system."""
    return values.new_zeros((state.n_systems, *values.shape[1:])).index_add_(0, state.system_idx, values)


def _tensor(numbers: NDArray[np.float64], state: NPTState) -> Tensor:
    """Copy numbers to the device and precision of a state."""
    return torch.as_tensor(numbers, device=state.device, dtype=state.dtype)
