"""Paths of a material towards equilibrium, by a teacher's forces and stresses; every evaluation can become a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray

    from recipes.embedded.teacher import Label, Labeller

WALK_STEPS = 4
RELAX_STEPS = 30
RELAX_KEPT = (1, 3, 6, 10, 15, 22)
"""Steps of a relaxation that are kept, beside the last one."""

_MODULI = (0.03, 2.0)  # eV/Å³: 5 to 320 GPa, limits of the bulk modulus in the walk
_CALM_PRESSURE, _CALM_FORCE = 0.006, 0.1  # eV/Å³ (1 GPa), eV/Å
_RELAXED_STRESS, _RELAXED_FORCE = 0.002, 0.03  # eV/Å³ (0.3 GPa), eV/Å
_MEMORY = 20  # steps that a relaxation remembers
_STIFFNESS = 50.0  # eV/Å², curvature before the first step
_LARGEST_MOVE = 0.15  # Å


class Path(Protocol):
    """A material on its way: it takes the label of `atoms`, moves them, and keeps frames."""

    material: str
    atoms: Atoms
    frames: list[tuple[str, Atoms, Label]]
    done: bool

    def take(self, label: Label) -> None:
        """Keep the label of the present geometry, and step on."""

    def best(self) -> tuple[Atoms, Label] | None:
        """Return the geometry nearest to equilibrium, with its label; None if no label is finite."""


def follow(teacher: Labeller, paths: Sequence[Path]) -> None:
    """Label the current geometries of all walks in one batch, step by step, until every walk has ended."""
    while going := [path for path in paths if not path.done]:
        for path, label in zip(going, teacher([path.atoms for path in going]), strict=True):
            path.take(label)


def unrest(label: Label) -> float:
    """Measure how far a walk is from zero pressure and force, as a pure number."""
    return abs(float(np.trace(label.stress))) / 0.03 + float(np.abs(label.forces).mean())


@dataclass
class Walk:
    """Few, large steps towards zero pressure and force, from a guess of the structure."""

    material: str
    atoms: Atoms
    frames: list[tuple[str, Atoms, Label]] = field(default_factory=list)
    modulus: float = 0.6  # eV/Å³
    done: bool = False

    def take(self, label: Label) -> None:
        """Keep the label of the present geometry, and step on."""
        self.frames.append((f"walk{len(self.frames)}", self.atoms.copy(), label))
        if not label.finite:
            self.done = True
            return
        pressure = -float(np.trace(label.stress)) / 3
        if len(self.frames) > 1:
            _, before, old = self.frames[-2]
            change = np.log(self.atoms.get_volume() / before.get_volume())
            if abs(change) > 0.01:  # noqa: PLR2004
                self.modulus = float(np.clip((-np.trace(old.stress) / 3 - pressure) / change, *_MODULI))
        calm = abs(pressure) < _CALM_PRESSURE and np.abs(label.forces).max() < _CALM_FORCE
        if calm or len(self.frames) == WALK_STEPS:
            self.done = True
            return
        volumetric = float(np.clip(pressure / self.modulus, -0.12, 0.12))
        deviator = label.stress - np.trace(label.stress) / 3 * np.eye(3)
        shear = np.clip(-deviator / self.modulus, -0.03, 0.03)  # 2G taken as the bulk modulus
        self.atoms.positions += np.clip(0.04 * label.forces, -0.15, 0.15)  # Å; a force constant of 25 eV/Å²
        strain = np.eye(3) * np.exp(volumetric / 3) + shear
        self.atoms.set_cell(self.atoms.cell[:] @ strain, scale_atoms=True)

    def best(self) -> tuple[Atoms, Label] | None:
        """Return the geometry nearest to zero pressure and force, with its label; None if no label is finite."""
        finite = [(atoms, label) for _, atoms, label in self.frames if label.finite]
        return min(finite, key=lambda found: unrest(found[1])) if finite else None


@dataclass
class Relaxation:
    """
    L-BFGS relaxation of atoms and cell; keeps the steps `RELAX_KEPT` and the last one.

    Coordinates and cell are joined as in ASE's ``UnitCellFilter``.

    Parameters
    ----------
    material
        Identifier.
    atoms
        Start; its own label is not kept.
    """

    material: str
    atoms: Atoms
    frames: list[tuple[str, Atoms, Label]] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        self._steps = 0
        self._start_cell = self.atoms.cell.array.copy()
        self._deformation = np.eye(3)
        self._best: tuple[float, Atoms, Label] | None = None
        self._memory: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._last: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def best(self) -> tuple[Atoms, Label] | None:
        """Return the geometry nearest to equilibrium, with its label; None if no label is finite."""
        return None if self._best is None else self._best[1:]

    def take(self, label: Label) -> None:
        """Keep the label of the present geometry if its step is one to keep, and step on."""
        largest = float(np.linalg.norm(label.forces, axis=1).max()), float(np.abs(label.stress).max())
        relaxed = label.finite and largest[0] < _RELAXED_FORCE and largest[1] < _RELAXED_STRESS
        self.done = not label.finite or relaxed or self._steps == RELAX_STEPS
        if self._steps and (self.done or self._steps in RELAX_KEPT):
            self.frames.append((f"rlx{self._steps:02d}", self.atoms.copy(), label))
        if not label.finite:
            return
        rest = largest[0] / _RELAXED_FORCE + largest[1] / _RELAXED_STRESS
        if self._best is None or rest < self._best[0]:
            self._best = rest, self.atoms.copy(), label
        if not self.done:
            self._move(label)
            self._steps += 1

    def _move(self, label: Label) -> None:
        factor = float(len(self.atoms))
        inverse = np.linalg.inv(self._deformation)
        x = np.concatenate([self.atoms.positions @ inverse.T, factor * self._deformation])
        virial = -self.atoms.get_volume() * label.stress @ inverse.T
        gradient = -np.concatenate([label.forces @ self._deformation, virial / factor])
        if self._last is not None:
            moved, changed = (x - self._last[0]).ravel(), (gradient - self._last[1]).ravel()
            if moved @ changed > 1e-10:  # noqa: PLR2004 - curvature that is positive beyond rounding
                self._memory = [*self._memory[1 - _MEMORY :], (moved, changed)]
        self._last = x, gradient
        step = descent(gradient.ravel(), self._memory).reshape(-1, 3)
        step *= min(1.0, _LARGEST_MOVE / max(float(np.linalg.norm(step, axis=1).max()), 1e-12))
        self._deformation = (x + step)[-3:] / factor
        self.atoms.set_cell(self._start_cell @ self._deformation.T)
        self.atoms.positions = (x + step)[:-3] @ self._deformation.T


def descent(
    gradient: NDArray[np.float64], memory: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """
    Compute an L-BFGS step, or a step along the negative gradient if that of L-BFGS goes uphill.

    Parameters
    ----------
    gradient
        Shape (n,).
    memory
        Changes of the coordinates and of the gradient in earlier steps, the last one last.

    Returns
    -------
    ndarray
        Shape (n,).

    References
    ----------
    Nocedal and Wright, Numerical Optimization, algorithm 7.4.

    Examples
    --------
    In a harmonic valley, steps along both axes tell the curvatures 1 and 4, and the step leads to the minimum.

    >>> import numpy as np
    >>> memory = [(np.array([1.0, 0.0]), np.array([1.0, 0.0])), (np.array([0.0, 1.0]), np.array([0.0, 4.0]))]
    >>> descent(np.array([3.0, 8.0]), memory).tolist()
    [-3.0, -2.0]
    """
    step, shares = gradient.copy(), []
    for moved, changed in reversed(memory):
        shares.append((moved @ step) / (moved @ changed))
        step -= shares[-1] * changed
    step /= _STIFFNESS
    for (moved, changed), share in zip(memory, reversed(shares), strict=True):
        step += moved * (share - (changed @ step) / (moved @ changed))
    return -step if step @ gradient > 0 else -gradient / _STIFFNESS
