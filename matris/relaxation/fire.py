"""
FIRE for the atoms and cells of many systems, each at its own pace.

FIRE is that of E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), in the form that ASE gave it. It moves what ASE's
``FrechetCellFilter`` shows it: the atoms in the undeformed cell, and for the cell, which is deformed by exp(L), three
rows n·L; n is the number of atoms. L is kept from step to step, so that no logarithm is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch_sim as ts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_DT, _DT_MAX = 0.1, 1.0
_DELAY = 5  # steps downhill before the time step grows
_GROWTH, _SHRINKAGE = 1.1, 0.5  # of the time step
_MIXING, _FADING = 0.1, 0.99  # how far velocities turn towards forces, and what is left of it after a step
_MAX_STEP = 0.2  # Å, of all atoms and the cell together

_AT_REST = np.array([[4 * _DT], [_MIXING], [0.0]])
"""
Pace of what enters. Where no power is gained the time step is halved: on the step that moves nothing, because there are
no forces yet, and on the first from rest, which thus has ASE's first time step.
"""

_TERMS = 16
"""Of a series in L: at strains of exp(0.5) they leave out less than rounding does, at exp(2) some 1e-5."""


class Progress(NamedTuple):
    """
    Where systems are after a step, each of shape (S,).

    Attributes
    ----------
    fmax
        Largest norm of a force on an atom, eV/Å.
    cell_force
        Largest norm of a row of V·σ/n, eV/Å: what ASE's filter compares with fmax, at zero strain.
    growth
        Volume over the first one.
    strain
        Largest component of L.
    square
        Sum of squares of forces on atoms and cell, (eV/Å)²; NaN or infinite where these, energy or stress are.
    """

    fmax: NDArray[np.float64]
    cell_force: NDArray[np.float64]
    growth: NDArray[np.float64]
    strain: NDArray[np.float64]
    square: NDArray[np.float64]


class Fire:
    """
    Systems on their way down, on the device.

    They may enter and leave between any two steps. One that enters moves nothing in its first step and gets its first
    forces, in the model call that advances the others.

    Parameters
    ----------
    device, dtype
        Of the model.
    relax_cell
        Whether cells move too.

    Attributes
    ----------
    state
        What the model gets and what the answers belong to; from the first step on.
    energy, forces, stress
        eV, (S,); eV/Å, (N, 3); eV/Å³, (S, 3, 3), NaN where the model gives none.
    """

    state: ts.SimState
    energy: Tensor
    forces: Tensor
    stress: Tensor

    def __init__(self, device: torch.device, dtype: torch.dtype, *, relax_cell: bool) -> None:
        self._relax_cell = relax_cell
        self._n_atoms = np.zeros(0, dtype=int)
        self._pace = np.zeros((3, 0))  # time step, mixing, steps since a system last went uphill
        self._sums = np.zeros((3, 0))  # F·v, v·v and F·F of each system
        empty = torch.zeros(3, 0, 3, device=device, dtype=dtype)
        self._rows = empty  # places, velocities and forces, of each system its atoms' and three of its cell
        self._first_cells, self._masses, self._numbers = empty.view(0, 3, 3), empty[0, :, 0], empty[0, :, 0].int()
        self._assembled = False

    def enter(self, states: Sequence[ts.SimState]) -> None:
        """Let systems in, behind those that are there, each a state of its own."""
        places = [torch.cat([state.positions, torch.zeros_like(state.cell[0])]) for state in states]
        at_rest = [torch.stack([place, torch.zeros_like(place), torch.zeros_like(place)]) for place in places]
        self._rows = torch.cat([self._rows, *at_rest], dim=1)
        self._first_cells = torch.cat([self._first_cells, *[state.cell for state in states]])
        self._numbers = torch.cat([self._numbers, *[state.atomic_numbers for state in states]])
        self._masses = torch.cat([self._masses, *[state.masses for state in states]])
        self._n_atoms = np.concatenate([self._n_atoms, [len(state.positions) for state in states]])
        self._pace = np.hstack([self._pace, np.repeat(_AT_REST, len(states), axis=1)])
        self._sums = np.hstack([self._sums, np.zeros((3, len(states)))])
        self._assembled = False

    def leave(self, leaving: NDArray[np.bool_]) -> None:
        """Let systems out; `leaving` says of each whether it goes."""
        staying, device = ~leaving, self._rows.device
        systems, atoms, rows = (
            torch.from_numpy(mask).to(device)
            for mask in (staying, np.repeat(staying, self._n_atoms), np.repeat(staying, self._n_atoms + 3))
        )
        self._rows, self._first_cells = self._rows[:, rows], self._first_cells[systems]
        self._numbers, self._masses = self._numbers[atoms], self._masses[atoms]
        self._n_atoms, self._pace, self._sums = self._n_atoms[staying], self._pace[:, staying], self._sums[:, staying]
        self._assembled = False

    def _assemble(self) -> None:
        """Note which rows are whose, and make a state of them."""
        device, n_rows = self._rows.device, self._n_atoms + 3
        systems = np.arange(len(n_rows))
        system = np.repeat(systems, self._n_atoms)
        self._owners = torch.from_numpy(np.repeat(systems, n_rows)).to(device)
        self._atoms = torch.from_numpy(np.arange(len(system)) + 3 * system).to(device)
        self._cells = torch.from_numpy((np.cumsum(n_rows)[:, None] - [3, 2, 1]).reshape(-1)).to(device)
        self._n_rows = torch.from_numpy(n_rows).to(device)
        self._first_volumes = torch.linalg.det(self._first_cells).abs()
        self.state = ts.SimState(
            positions=self._rows[0, self._atoms],
            masses=self._masses,
            cell=self._first_cells.clone(),
            pbc=True,
            atomic_numbers=self._numbers,
            system_idx=torch.from_numpy(system).to(device),
        )
        self._assembled = True

    def step(self, model: Callable[[ts.SimState], dict[str, Tensor]]) -> Progress:
        """Advance all by one step, and ask the model there: one transfer to the device, one back."""
        if not self._assembled:
            self._assemble()
        places, velocities, forces = self._rows
        self._pace, course = stride(self._pace, self._sums)
        keep, push, go = torch.from_numpy(course).to(places)[:, self._owners].unsqueeze(2)
        velocities.mul_(keep).addcmul_(push, forces)
        places.addcmul_(go, velocities)
        state, n_atoms = self.state, self._n_rows[:, None, None] - 3
        log = places[self._cells].view(-1, 3, 3) / n_atoms
        if self._relax_cell:
            deformations = exponential(log)
            of_atoms = deformations[state.system_idx]
            state.cell = deformations @ self._first_cells
            state.positions = (of_atoms @ places[self._atoms].unsqueeze(2)).squeeze(2)
        else:
            state.positions = places[self._atoms]
        output = model(state)
        self.energy, self.forces = output["energy"], output["forces"].to(places)
        self.stress = output["stress"].to(places) if "stress" in output else torch.full_like(state.cell, torch.nan)
        growth, virial = log.diagonal(dim1=1, dim2=2).sum(1).exp(), torch.zeros_like(log)
        if self._relax_cell:
            virial = -(growth * self._first_volumes)[:, None, None] / n_atoms * self.stress
            forces[self._atoms] = (self.forces.unsqueeze(1) @ of_atoms).squeeze(1)
            forces[self._cells] = log_gradient(log, virial).view(-1, 3)
        else:
            forces[self._atoms] = self.forces
        products = torch.stack([forces * velocities, velocities * velocities, forces * forces]).sum(2)
        sums = torch.segment_reduce(products, "sum", lengths=self._n_rows.expand(3, -1), axis=1, unsafe=True)
        seen = [
            torch.segment_reduce(self.forces.norm(dim=1), "max", lengths=self._n_rows - 3, unsafe=True),
            virial.norm(dim=2).amax(1),
            growth,
            log.abs().amax((1, 2)),
            sums[2] + 0 * self.energy.to(places),
        ]
        answer = torch.cat([torch.stack(seen), sums]).double().cpu().numpy()
        self._sums = answer[len(seen) :]
        return Progress(*answer[: len(seen)])


def stride(pace: NDArray[np.float64], sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    One step of FIRE, as far as it is the same for all atoms of a system.

    Parameters
    ----------
    pace
        Time step, mixing, and number of steps downhill, shape (3, S).
    sums
        F·v, v·v and F·F, shape (3, S).

    Returns
    -------
    tuple of ndarray
        The new pace; and a, b, c of v' = a v + b F and x' = x + c v', shape (3, S).
    """
    (dt, mixing, downhill), (power, speed, square) = pace, sums
    gains = power > 0
    grows = gains & (downhill > _DELAY)
    new_dt = np.where(grows, np.minimum(_GROWTH * dt, _DT_MAX), np.where(gains, dt, _SHRINKAGE * dt))
    keep = np.where(gains, 1 - mixing, 0.0)
    push = new_dt + np.where(gains, mixing * np.sqrt(speed / np.where(gains, square, 1.0)), 0.0)
    new_speed = keep**2 * speed + 2 * keep * push * power + push**2 * square
    go = new_dt * _MAX_STEP / np.maximum(new_dt * np.sqrt(new_speed), _MAX_STEP)
    new_mixing = np.where(grows, _FADING * mixing, np.where(gains, mixing, _MIXING))
    return np.stack([new_dt, new_mixing, np.where(gains, downhill + 1, 0.0)]), np.stack([keep, push, go])


def exponential(matrices: Tensor) -> Tensor:
    """Exponentials of matrices of shape (S, 3, 3), of norm 2 at most."""
    one = torch.eye(3, device=matrices.device, dtype=matrices.dtype)
    return _series(matrices, one.expand_as(matrices), 1)


def log_gradient(logs: Tensor, virials: Tensor) -> Tensor:
    """
    Give the forces on the logarithms L of deformations.

    The filter's force is the adjoint of exp's Fréchet derivative at L, applied to W exp(-Lᵀ), with W the virial. The
    adjoint at L is the derivative at B = Lᵀ, along E ∫ exp((1 - s)B) E exp(sB) ds with s from 0 to 1 (N. J. Higham,
    Functions of Matrices, SIAM 2008, chapters 3 and 10). Together that is ∫ exp(sB) W exp(-sB) ds, whose series in the
    commutator ad(W) = BW - WB is Σ adᵏ(W) / (k + 1)!

    Parameters
    ----------
    logs
        L, shape (S, 3, 3).
    virials
        W, in eV, shape (S, 3, 3).

    Returns
    -------
    Tensor
        eV, shape (S, 3, 3).
    """
    one = torch.eye(3, device=logs.device, dtype=logs.dtype)
    left = logs.mT[:, :, None, :, None] * one[:, None, :]
    right = one[:, None, :, None] * logs[:, None, :, None, :]
    return _series((left - right).reshape(-1, 9, 9), virials.reshape(-1, 9, 1), 2).view(-1, 3, 3)


def _series(matrix: Tensor, start: Tensor, first: int) -> Tensor:
    """Evaluate X + M/k (X + M/(k + 1) (X + ...)), k the first divisor."""
    result = start
    for divisor in range(first + _TERMS - 1, first - 1, -1):
        result = torch.baddbmm(start, matrix, result, alpha=1 / divisor)
    return result
