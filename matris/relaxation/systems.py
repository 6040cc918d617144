"""
The degrees of freedom of many systems, and one call of the model for all of them.

The degrees of freedom are those of ASE's ``FrechetCellFilter``: the positions of the n atoms in the undeformed cell,
and three rows c·L for the cell, which is deformed by exp(L). L itself is stored, so that no matrix logarithm is needed.
The factor c is up to the optimizer: it decides how stiff the cell is beside the atoms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
import torch_sim as ts

from matris.relaxation.deformation import exponential, log_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from matris.relaxation.symmetry import Symmetry


class Progress(NamedTuple):
    """
    Forces and deformations of all systems after a step, each of shape (S,).

    Attributes
    ----------
    fmax
        Largest norm of a force on an atom, eV/Å, without the components along which the atom is fixed.
    cell_force
        Largest norm of a row of V·(σ + p)/n, eV/Å: what ASE's filter compares with fmax at zero strain. Where a cell
        may not deform in all ways, it is that of the part of the force on L that it can follow, over n.
    volume_ratio
        Volume over initial volume.
    strain
        Largest component of L.
    squared_force
        Sum of the squared forces on free atoms and cell, (eV/Å)²; NaN or infinite where a force, energy or stress is.
    enthalpy
        E + pV, eV; the energy where no pressure is applied.
    """

    fmax: NDArray[np.float64]
    cell_force: NDArray[np.float64]
    volume_ratio: NDArray[np.float64]
    strain: NDArray[np.float64]
    squared_force: NDArray[np.float64]
    enthalpy: NDArray[np.float64]


class Optimizer(ABC):
    """
    Systems that relax together on one device; the subclasses say how they move.

    Systems can be added and removed between any two steps. The first step of a new system computes its forces, in the
    model call that advances the other systems, and moves nothing.

    Parameters
    ----------
    device, dtype
        Those of the model.
    relax_cell
        Whether cells move too.
    pressure
        External pressure on the cells, eV/Å³.

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

    def __init__(self, device: torch.device, dtype: torch.dtype, *, relax_cell: bool, pressure: float = 0.0) -> None:
        self._relax_cell, self._pressure = relax_cell, pressure
        self._n_atoms = np.zeros(0, dtype=int)
        self._cell_scales = np.zeros(0)  # c of each system
        empty = torch.zeros(3, 0, 3, device=device, dtype=dtype)
        self._rows = empty  # x, v and F; each system has one row per atom, then three rows for its cell
        self._first_cells, self._masses, self._numbers = empty.view(0, 3, 3), empty[0, :, 0], empty[0, :, 0].int()
        self._projectors: Tensor | None = None  # of each atom, (N, 3, 3); None while all atoms are free
        self._symmetries: list[Symmetry | None] = []
        self._cell_freedoms: list[NDArray[np.float64] | None] = []
        self._assembled = False

    def add(
        self,
        states: Sequence[ts.SimState],
        projectors: Sequence[Tensor | None] = (),
        symmetries: Sequence[Symmetry | None] = (),
        cell_freedoms: Sequence[NDArray[np.float64] | None] = (),
    ) -> None:
        """
        Append systems.

        Parameters
        ----------
        states
            One state for each system, all on the host, or on the device.
        projectors
            For each system the directions in which its atoms may move in the undeformed cell, as projectors onto them,
            (n, 3, 3), see `matris.constraints`; None if all atoms are free. A fixed atom keeps its place relative to
            the lattice vectors when the cell deforms.
        symmetries
            For each system the symmetry that it has and keeps, or None.
        cell_freedoms
            For each system the projector onto the L that its cell may have, (9, 9), or None if all are allowed. With a
            symmetry, they must be among those that do not change under its rotations.
        """
        device = self._rows.device
        positions = [torch.cat([state.positions, torch.zeros_like(state.cell[0])]) for state in states]
        at_rest = [torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)]) for x in positions]
        self._rows = torch.cat([self._rows, torch.cat(at_rest, dim=1).to(device)], dim=1)
        self._first_cells = torch.cat([self._first_cells, torch.cat([state.cell for state in states]).to(device)])
        numbers, masses = ([getattr(state, name) for state in states] for name in ("atomic_numbers", "masses"))
        self._numbers = torch.cat([self._numbers, torch.cat(numbers).to(device)])
        self._masses = torch.cat([self._masses, torch.cat(masses).to(device)])
        n_atoms = np.array([len(state.positions) for state in states])
        self._n_atoms = np.concatenate([self._n_atoms, n_atoms])
        self._cell_scales = np.concatenate([self._cell_scales, self._new_scales(n_atoms)])
        self._add_projectors(states, projectors or [None] * len(states))
        self._symmetries += symmetries or [None] * len(states)
        self._cell_freedoms += cell_freedoms or [None] * len(states)
        self._enter(len(states), sum(map(len, positions)))
        self._assembled = False

    def _add_projectors(self, states: Sequence[ts.SimState], projectors: Sequence[Tensor | None]) -> None:
        """Append the projectors of new systems, if any system, old or new, has fixed atoms."""
        if self._projectors is None and all(projector is None for projector in projectors):
            return
        one = torch.eye(3, device=states[0].device, dtype=self._rows.dtype)
        new = [
            one.expand(len(state.positions), 3, 3) if projector is None else projector
            for state, projector in zip(states, projectors, strict=True)
        ]
        if self._projectors is None:
            new = [one.expand(len(self._masses) - sum(map(len, new)), 3, 3), *new]
        added = torch.cat(new).to(self._rows.device)
        self._projectors = added if self._projectors is None else torch.cat([self._projectors, added])

    def remove(self, mask: NDArray[np.bool_]) -> None:
        """Remove the systems where `mask`, shape (S,), is true."""
        kept = ~mask
        masks = (kept, np.repeat(kept, self._n_atoms), np.repeat(kept, self._n_atoms + 3))
        systems, atoms, rows = self._send(*(np.flatnonzero(chosen) for chosen in masks))
        self._rows, self._first_cells = self._rows[:, rows], self._first_cells[systems]
        self._numbers, self._masses = self._numbers[atoms], self._masses[atoms]
        self._projectors = None if self._projectors is None else self._projectors[atoms]
        self._n_atoms, self._cell_scales = self._n_atoms[kept], self._cell_scales[kept]
        self._symmetries = list(compress(self._symmetries, kept))
        self._cell_freedoms = list(compress(self._cell_freedoms, kept))
        self._leave(kept, rows)
        self._assembled = False

    def _assemble(self) -> None:
        """Index the rows by system, and create the state."""
        n_rows = self._n_atoms + 3
        systems = np.arange(len(n_rows))
        system = np.repeat(systems, self._n_atoms)
        self._row_system, self._atom_rows, self._cell_rows, self._n_rows, system_idx = self._send(
            np.repeat(systems, n_rows),
            np.arange(len(system)) + 3 * system,
            (np.cumsum(n_rows)[:, None] - [3, 2, 1]).reshape(-1),
            n_rows,
            system,
        )
        self._scales = torch.from_numpy(self._cell_scales).to(self._rows)[:, None, None]
        self._first_volumes = torch.linalg.det(self._first_cells).abs()
        self.state = ts.SimState(
            positions=self._rows[0, self._atom_rows],
            masses=self._masses,
            cell=self._first_cells.clone(),
            pbc=True,
            atomic_numbers=self._numbers,
            system_idx=system_idx,
        )
        if self._projectors is not None:
            one = torch.eye(3, device=self._rows.device, dtype=self._projectors.dtype)
            self._is_free = (self._projectors == one).all(2).all(1)[:, None]
        self._mean = _Mean.of(self._symmetries, self._n_atoms, self._rows)
        self._cell_freedom = None
        if any(freedom is not None for freedom in self._cell_freedoms):
            freedoms = [np.eye(9) if freedom is None else freedom for freedom in self._cell_freedoms]
            self._cell_freedom = torch.from_numpy(np.stack(freedoms)).to(self._rows)
        self._assembled = True

    def _send(self, *arrays: NDArray[np.int_]) -> tuple[Tensor, ...]:
        """Copy arrays of numbers to the device in one transfer."""
        return torch.from_numpy(np.concatenate(arrays)).to(self._rows.device).split([len(array) for array in arrays])

    def step(self, model: Callable[[ts.SimState], dict[str, Tensor]]) -> Progress:
        """Move all systems and call the model: one transfer to the device, one back."""
        if not self._assembled:
            self._assemble()
        self._move()
        values = torch.stack(self._evaluate(model)).double()
        on_host = torch.cat([values, self._products().double()]).cpu().numpy()
        progress = Progress(*on_host[: len(values)])
        self._learn(progress, on_host[len(values) :])
        return progress

    def _evaluate(self, model: Callable[[ts.SimState], dict[str, Tensor]]) -> list[Tensor]:
        """Call the model, set the forces on all rows, and return the fields of `Progress`."""
        x, _, forces = self._rows
        state, n_atoms = self.state, self._n_rows[:, None, None] - 3
        log = x[self._cell_rows].view(-1, 3, 3) / self._scales
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
        effective = measured = self.forces if self._mean is None else self._mean(self.forces)
        volume_ratio, virial = log.diagonal(dim1=1, dim2=2).sum(1).exp(), torch.zeros_like(log)
        volumes, enthalpy = volume_ratio * self._first_volumes, self.energy.to(x)
        if self._relax_cell:
            stress = self.stress
            if self._pressure:
                stress = stress + self._pressure * torch.eye(3, device=x.device, dtype=x.dtype)
                enthalpy = enthalpy + self._pressure * volumes
            virial = -volumes[:, None, None] / n_atoms * stress
            effective = (effective.unsqueeze(2) * atom_deformations).sum(1)
            gradient = log_gradient(log, virial)
            if self._cell_freedom is not None:
                gradient = (self._cell_freedom * gradient.view(-1, 1, 9)).sum(2).view(-1, 3, 3)
                virial = gradient  # what the cell can follow
            forces[self._cell_rows] = (gradient * (n_atoms / self._scales)).view(-1, 3)
        if self._projectors is not None:
            effective = (self._projectors * effective.unsqueeze(1)).sum(2)
            measured = torch.where(self._is_free, measured, effective)
        forces[self._atom_rows] = effective
        return [
            torch.segment_reduce(measured.norm(dim=1), "max", lengths=self._n_rows - 3, unsafe=True),
            virial.norm(dim=2).amax(1),
            volume_ratio,
            log.abs().amax((1, 2)),
            self._sums((forces * forces).sum(1)) + 0 * self.energy.to(x),
            enthalpy,
        ]

    def _sums(self, rows: Tensor) -> Tensor:
        """Add up values of rows, shape (..., R), for each system."""
        lengths = self._n_rows.expand(*rows.shape[:-1], -1)
        return torch.segment_reduce(rows, "sum", lengths=lengths, axis=rows.ndim - 1, unsafe=True)

    @staticmethod
    @abstractmethod
    def _new_scales(n_atoms: NDArray[np.int_]) -> NDArray[np.float64]:
        """Factor c of the cell's rows of systems that enter."""

    @abstractmethod
    def _enter(self, n_systems: int, n_rows: int) -> None:
        """Extend what the optimizer keeps for each system and row."""

    @abstractmethod
    def _leave(self, kept: NDArray[np.bool_], rows: Tensor) -> None:
        """Drop what the optimizer keeps for systems and rows that leave."""

    @abstractmethod
    def _move(self) -> None:
        """Change x; on the device."""

    @abstractmethod
    def _products(self) -> Tensor:
        """Compute what the optimizer wants to know of the new forces, (..., S)."""

    @abstractmethod
    def _learn(self, progress: Progress, products: NDArray[np.float64]) -> None:
        """Decide on the host about the next move."""


@dataclass(frozen=True)
class _Mean:
    """
    The mean of forces over the symmetry of each system.

    Attributes
    ----------
    sources
        For each atom and each operation of its system, the atom that the operation takes there.
    rotations, operations
        Rotations of all systems, (G, 3, 3), and the number of the rotation that belongs to each source.
    counts
        Number of sources of each atom, (N,).
    """

    sources: Tensor
    rotations: Tensor
    operations: Tensor
    counts: Tensor

    @classmethod
    def of(cls, symmetries: Sequence[Symmetry | None], n_atoms: NDArray[np.int_], like: Tensor) -> Self | None:
        """Join the symmetries of systems; None if none has any."""
        if all(symmetry is None for symmetry in symmetries):
            return None
        sources, operations, counts, rotations = [], [], [], []
        first_atom = first_rotation = 0
        for symmetry, n in zip(symmetries, n_atoms.tolist(), strict=True):
            images = np.arange(n)[None] if symmetry is None else symmetry.images
            rotations.append(np.eye(3)[None] if symmetry is None else symmetry.rotations)
            sources.append(first_atom + np.argsort(images, axis=1).T.reshape(-1))  # an image is a permutation
            operations.append(first_rotation + np.tile(np.arange(len(images)), n))
            counts.append(np.full(n, len(images)))
            first_atom, first_rotation = first_atom + n, first_rotation + len(images)
        joined = (np.concatenate(arrays) for arrays in (sources, operations, counts))
        atoms, numbers, lengths = (torch.from_numpy(array).to(like.device) for array in joined)
        return cls(atoms, torch.from_numpy(np.concatenate(rotations)).to(like), numbers, lengths)

    def __call__(self, forces: Tensor) -> Tensor:
        """Replace the force on each atom, (N, 3), by the mean of the rotated forces on its equivalents."""
        rotated = (self.rotations[self.operations] * forces[self.sources].unsqueeze(1)).sum(2)
        return torch.segment_reduce(rotated, "mean", lengths=self.counts, axis=0, unsafe=True)
