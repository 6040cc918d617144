"""
FIRE for the atoms and cells of many systems, each with its own time step.

The algorithm is that of E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), in ASE's variant. Its degrees of freedom
are those of ASE's ``FrechetCellFilter``: the positions of the n atoms in the undeformed cell, and three rows n·L for
the cell, which is deformed by exp(L). L itself is stored, so that no matrix logarithm is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch_sim as ts

from matris.model.precision import full_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_DT_START, _DT_MAX = 0.1, 1.0
_N_MIN = 5  # steps with F·v > 0 before dt grows
_F_INC, _F_DEC = 1.1, 0.5  # factors of dt
_ALPHA_START, _F_ALPHA = 0.1, 0.99
_MAX_STEP = 0.2  # Å: largest norm of a step over all atoms and the cell of a system

_INITIAL_CONTROL = np.array([[4 * _DT_START], [_ALPHA_START], [0.0]])
"""
dt, α and N of a system that enters.

A step with F·v ≤ 0 halves dt. That happens twice before the first move: in the step that only computes the first
forces, and in the first step from rest. dt then is ASE's first time step.
"""

_TERMS = 16
"""Terms of a power series in L. The truncation error is below rounding at strains of exp(0.5), and 1e-5 at exp(2)."""


class Progress(NamedTuple):
    """
    Forces and deformations of all systems after a step, each of shape (S,).

    Attributes
    ----------
    fmax
        Largest norm of a force on an atom, eV/Å, without the components along which the atom is fixed.
    cell_force
        Largest norm of a row of V·σ/n, eV/Å: what ASE's filter compares with fmax at zero strain.
    volume_ratio
        Volume over initial volume.
    strain
        Largest component of L.
    squared_force
        Sum of the squared forces on free atoms and cell, (eV/Å)²; NaN or infinite where a force, energy or stress is.
    """

    fmax: NDArray[np.float64]
    cell_force: NDArray[np.float64]
    volume_ratio: NDArray[np.float64]
    strain: NDArray[np.float64]
    squared_force: NDArray[np.float64]


class Fire:
    """
    Systems that FIRE relaxes together on one device.

    Systems can be added and removed between any two steps. The first step of a new system computes its forces, in the
    model call that advances the other systems, and moves nothing.

    Parameters
    ----------
    device, dtype
        Those of the model.
    relax_cell
        Whether cells move too.

    Attributes
    ----------
    state
        Geometry of the last model call, available after the first step.
    energy, forces, stress
        Results of the last model call: eV, (S,); eV/Å, (N, 3); eV/Å³, (S, 3, 3), NaN if the model gives no stress.
    """

    state: ts.SimState
    energy: Tensor
    forces: Tensor
    stress: Tensor

    def __init__(self, device: torch.device, dtype: torch.dtype, *, relax_cell: bool) -> None:
        self._relax_cell = relax_cell
        self._n_atoms = np.zeros(0, dtype=int)
        self._control = np.zeros((3, 0))  # dt, α and N (steps since F·v was last ≤ 0) of each system
        self._sums = np.zeros((3, 0))  # F·v, v·v and F·F of each system
        empty = torch.zeros(3, 0, 3, device=device, dtype=dtype)
        self._rows = empty  # x, v and F; each system has one row per atom, then three rows for its cell
        self._first_cells, self._masses, self._numbers = empty.view(0, 3, 3), empty[0, :, 0], empty[0, :, 0].int()
        self._projectors: Tensor | None = None  # of each atom, (N, 3, 3); None while all atoms are free
        self._assembled = False

    def add(self, states: Sequence[ts.SimState], projectors: Sequence[Tensor | None] = ()) -> None:
        """
        Append systems.

        Parameters
        ----------
        states
            One state for each system.
        projectors
            For each system the directions in which its atoms may move in the undeformed cell, as projectors onto them,
            (n, 3, 3), see `matris.constraints`; None if all atoms are free. A fixed atom keeps its place relative to
            the lattice vectors when the cell deforms.
        """
        positions = [torch.cat([state.positions, torch.zeros_like(state.cell[0])]) for state in states]
        at_rest = [torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)]) for x in positions]
        self._rows = torch.cat([self._rows, *at_rest], dim=1)
        self._first_cells = torch.cat([self._first_cells, *[state.cell for state in states]])
        self._numbers = torch.cat([self._numbers, *[state.atomic_numbers for state in states]])
        self._masses = torch.cat([self._masses, *[state.masses for state in states]])
        self._n_atoms = np.concatenate([self._n_atoms, [len(state.positions) for state in states]])
        self._add_projectors(states, projectors or [None] * len(states))
        self._control = np.hstack([self._control, np.repeat(_INITIAL_CONTROL, len(states), axis=1)])
        self._sums = np.hstack([self._sums, np.zeros((3, len(states)))])
        self._assembled = False

    def _add_projectors(self, states: Sequence[ts.SimState], projectors: Sequence[Tensor | None]) -> None:
        """Append the projectors of new systems, if any system, old or new, has fixed atoms."""
        if self._projectors is None and all(projector is None for projector in projectors):
            return
        one = torch.eye(3, device=self._rows.device, dtype=self._rows.dtype)
        old = one.expand(len(self._masses) - sum(len(state.positions) for state in states), 3, 3)
        new = [
            one.expand(len(state.positions), 3, 3) if projector is None else projector
            for state, projector in zip(states, projectors, strict=True)
        ]
        self._projectors = torch.cat([old if self._projectors is None else self._projectors, *new])

    def remove(self, mask: NDArray[np.bool_]) -> None:
        """Remove the systems where `mask`, shape (S,), is true."""
        kept, device = ~mask, self._rows.device
        systems, atoms, rows = (
            torch.from_numpy(array).to(device)
            for array in (kept, np.repeat(kept, self._n_atoms), np.repeat(kept, self._n_atoms + 3))
        )
        self._rows, self._first_cells = self._rows[:, rows], self._first_cells[systems]
        self._numbers, self._masses = self._numbers[atoms], self._masses[atoms]
        self._projectors = None if self._projectors is None else self._projectors[atoms]
        self._n_atoms, self._control, self._sums = self._n_atoms[kept], self._control[:, kept], self._sums[:, kept]
        self._assembled = False

    def _assemble(self) -> None:
        """Index the rows by system, and create the state."""
        device, n_rows = self._rows.device, self._n_atoms + 3
        systems = np.arange(len(n_rows))
        system = np.repeat(systems, self._n_atoms)
        self._row_system = torch.from_numpy(np.repeat(systems, n_rows)).to(device)
        self._atom_rows = torch.from_numpy(np.arange(len(system)) + 3 * system).to(device)
        self._cell_rows = torch.from_numpy((np.cumsum(n_rows)[:, None] - [3, 2, 1]).reshape(-1)).to(device)
        self._n_rows = torch.from_numpy(n_rows).to(device)
        self._first_volumes = torch.linalg.det(self._first_cells).abs()
        self.state = ts.SimState(
            positions=self._rows[0, self._atom_rows],
            masses=self._masses,
            cell=self._first_cells.clone(),
            pbc=True,
            atomic_numbers=self._numbers,
            system_idx=torch.from_numpy(system).to(device),
        )
        if self._projectors is not None:
            one = torch.eye(3, device=device, dtype=self._projectors.dtype)
            self._is_free = (self._projectors == one).all(2).all(1)[:, None]
        self._assembled = True

    def step(self, model: Callable[[ts.SimState], dict[str, Tensor]]) -> Progress:
        """Advance all systems by one step and call the model: one transfer to the device, one back."""
        if not self._assembled:
            self._assemble()
        x, v, forces = self._rows
        self._control, coefficients = fire_step(self._control, self._sums)
        a, b, c = torch.from_numpy(coefficients).to(x)[:, self._row_system].unsqueeze(2)
        v.mul_(a).addcmul_(b, forces)
        x.addcmul_(c, v)
        state, n_atoms = self.state, self._n_rows[:, None, None] - 3
        log = x[self._cell_rows].view(-1, 3, 3) / n_atoms
        if self._relax_cell:
            deformations = exponential(log)
            atom_deformations = deformations[state.system_idx]
            state.cell = (deformations.unsqueeze(3) * self._first_cells.unsqueeze(1)).sum(2)  # TF32 has no part in it
            state.positions = (atom_deformations * x[self._atom_rows].unsqueeze(1)).sum(2)
        else:
            state.positions = x[self._atom_rows]
        output = model(state)
        self.energy, self.forces = output["energy"], output["forces"].to(x)
        self.stress = output["stress"].to(x) if "stress" in output else torch.full_like(state.cell, torch.nan)
        effective = self.forces
        volume_ratio, virial = log.diagonal(dim1=1, dim2=2).sum(1).exp(), torch.zeros_like(log)
        if self._relax_cell:
            virial = -(volume_ratio * self._first_volumes)[:, None, None] / n_atoms * self.stress
            effective = (self.forces.unsqueeze(2) * atom_deformations).sum(1)
            forces[self._cell_rows] = log_gradient(log, virial).view(-1, 3)
        measured = self.forces
        if self._projectors is not None:
            effective = (self._projectors * effective.unsqueeze(1)).sum(2)
            measured = torch.where(self._is_free, measured, effective)
        forces[self._atom_rows] = effective
        products = torch.stack([forces * v, v * v, forces * forces]).sum(2)
        sums = torch.segment_reduce(products, "sum", lengths=self._n_rows.expand(3, -1), axis=1, unsafe=True)
        progress = [
            torch.segment_reduce(measured.norm(dim=1), "max", lengths=self._n_rows - 3, unsafe=True),
            virial.norm(dim=2).amax(1),
            volume_ratio,
            log.abs().amax((1, 2)),
            sums[2] + 0 * self.energy.to(x),
        ]
        on_host = torch.cat([torch.stack(progress), sums]).double().cpu().numpy()
        self._sums = on_host[len(progress) :]
        return Progress(*on_host[: len(progress)])


def fire_step(
    control: NDArray[np.float64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Compute the quantities of a FIRE step that are equal for all atoms of a system.

    With P = F·v: for P > 0 the velocities become (1 − α) v + α |v| F/|F|, and after more than N_min such steps dt grows
    by f_inc, up to dt_max, and α shrinks by f_α. Otherwise the velocities become 0, dt shrinks by f_dec, and α and N
    start again. Then v increases by dt F, and x by dt v, which is scaled down to the largest step allowed.

    Parameters
    ----------
    control
        dt, α and N, shape (3, S).
    sums
        F·v, v·v and F·F, shape (3, S).

    Returns
    -------
    tuple of ndarray
        The new control; and the coefficients a, b, c of v' = a v + b F and x' = x + c v', shape (3, S).
    """
    (dt, alpha, n_positive), (power, v_squared, f_squared) = control, sums
    downhill = power > 0
    accelerates = downhill & (n_positive > _N_MIN)
    new_dt = np.where(accelerates, np.minimum(_F_INC * dt, _DT_MAX), np.where(downhill, dt, _F_DEC * dt))
    a = np.where(downhill, 1 - alpha, 0.0)
    b = new_dt + np.where(downhill, alpha * np.sqrt(v_squared / np.where(downhill, f_squared, 1.0)), 0.0)
    new_v_squared = a**2 * v_squared + 2 * a * b * power + b**2 * f_squared
    c = new_dt * _MAX_STEP / np.maximum(new_dt * np.sqrt(new_v_squared), _MAX_STEP)
    new_alpha = np.where(accelerates, _F_ALPHA * alpha, np.where(downhill, alpha, _ALPHA_START))
    return np.stack([new_dt, new_alpha, np.where(downhill, n_positive + 1, 0.0)]), np.stack([a, b, c])


def exponential(matrices: Tensor) -> Tensor:
    """Exponentials of matrices, shape (S, 3, 3), with norms up to 2."""
    one = torch.eye(3, device=matrices.device, dtype=matrices.dtype)
    return _series(matrices, one.expand_as(matrices), 1)


def log_gradient(logs: Tensor, virials: Tensor) -> Tensor:
    """
    Compute the forces on the logarithms L of deformations.

    The force of ASE's filter is the adjoint of the Fréchet derivative of exp at L, applied to W exp(-Lᵀ), where W is
    the virial. The adjoint at L is the derivative at B = Lᵀ, which along E is ∫ exp((1 - s)B) E exp(sB) ds with s from
    0 to 1 (N. J. Higham, Functions of Matrices, SIAM 2008, chapters 3 and 10). The force therefore is
    ∫ exp(sB) W exp(-sB) ds. Its series in the commutator ad(W) = BW - WB is Σ adᵏ(W) / (k + 1)!

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
    """Evaluate X + M/k (X + M/(k + 1) (X + ...)), where X is `start`, M is `matrix` and k is `first`."""
    result = start
    with full_precision():
        for divisor in range(first + _TERMS - 1, first - 1, -1):
            result = torch.baddbmm(start, matrix, result, alpha=1 / divisor)
    return result
