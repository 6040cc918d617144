"""Calls of a batched model in which an error affects only the structure that causes it."""

from __future__ import annotations

import gc
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from ase.data import atomic_numbers
from torch_sim.state import SimState

from matris.errors import DeviceError
from matris.model.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch_sim.models.interface import ModelInterface

logger = logging.getLogger(__name__)

_KNOWN = (("Cu", 2.55), ("Si", 2.35), ("Na", 3.7), ("O", 2.5))
"""Crystals that any device computes: elements and distances between nearest neighbours (Å)."""

_PER_SYSTEM = ("energy", "stress")
_PER_ATOM = ("forces", "magmoms", "extrapolation")


@dataclass
class Budget:
    """
    Largest cost of one model call on a device. Costs that ran out of memory are remembered until the process ends.

    Attributes
    ----------
    key
        Device, sha256 of the checkpoint, dtype and unit of the cost. Each key has its own memory limit.
    start
        Largest cost before any call has run out of memory; 0 allows one structure at a time.
    """

    key: tuple[str, str, str, str]
    start: float
    _limits: ClassVar[dict[tuple[str, str, str, str], float]] = {}

    @property
    def limit(self) -> float:
        """Largest cost of one model call."""
        return min(self.start, self._limits.get(self.key, math.inf))

    def halve(self, failed: float) -> None:
        """Limit calls to half of a cost that ran out of memory."""
        self._limits[self.key] = min(self._limits.get(self.key, math.inf), failed / 2)
        logger.warning("out of memory on %s: batches now have at most %.3g %s", self.key[0], self.limit, self.key[3])


class GuardedModel:
    """
    A torch-sim model that computes every system it can, whatever the others do.

    If a call raises an exception, the batch is halved until the culprit is alone. The results of the culprit are NaN,
    and `reasons` holds the message. If the device runs out of memory, the batch is halved too, and `budget` remembers
    the limit. An error that makes the device unusable (such as CUDA's illegal memory access) is raised, because the
    structures are not its cause. If all systems of a call fail, a known crystal is computed too: if that also fails, it
    is the device that cannot compute, and `DeviceError` is raised, so that nothing is recorded about the structures.

    Parameters
    ----------
    model
        Any torch-sim model.
    budget
        Largest cost of one call.

    Attributes
    ----------
    costs
        Cost of each system of the next call.
    reasons
        Why a system of the last call failed, by its number.
    magmoms
        Magnetic moments (μB) of all atoms of the last call, or None.
    extrapolation
        Extrapolation of all atoms of the last call, see `matris.model.domain.Domain`, or None.
    """

    def __init__(self, model: ModelInterface, budget: Budget) -> None:
        self.model = model
        self.budget = budget
        self.costs: Sequence[float] = ()
        self.reasons: dict[int, str] = {}
        self.magmoms: Tensor | None = None
        self.extrapolation: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model."""
        return self.model.dtype

    def __call__(self, state: SimState) -> dict[str, Tensor]:
        """
        Evaluate all systems of a state.

        Returns
        -------
        dict
            ``energy`` (n_systems,) eV, ``forces`` (n_atoms, 3) eV/Å and, if the model gives it, ``stress``
            (n_systems, 3, 3) eV/Å³; NaN for systems named in `reasons`.

        Raises
        ------
        DeviceError
            If all systems fail, and so does a known crystal.
        """
        self.reasons = {}
        results: dict[int, dict[str, Tensor]] = {}
        groups = self._groups(0, len(self.costs))
        while groups:
            start, stop = groups.pop()
            if stop - start > 1 and sum(self.costs[start:stop]) > self.budget.limit:  # the limit has shrunk meanwhile
                groups += self._groups(start, stop)
                continue
            result = self._evaluate(state, start, stop)
            if isinstance(result, dict):
                results[start] = result
            elif stop - start == 1:
                self.reasons[start] = result
            else:
                middle = (start + stop) // 2
                groups += [*self._groups(middle, stop), *self._groups(start, middle)]
        if self.reasons and not results:
            self.check_device(self.reasons[min(self.reasons)])
        output = self._join(state, results)
        self.magmoms = output.pop("magmoms", None)
        self.extrapolation = output.pop("extrapolation", None)
        return output

    def check_device(self, reason: str) -> None:
        """
        Compute a known crystal after a call in which everything failed.

        A model without a list of elements is not checked: a crystal that it must know is not known.

        Parameters
        ----------
        reason
            Why a system failed, for the message.

        Raises
        ------
        DeviceError
            If the known crystal fails too.
        """
        elements = getattr(getattr(self.model, "potential", None), "elements", ())
        if not elements:
            return
        element, distance = next((pair for pair in _KNOWN if pair[0] in elements), (elements[0], 2.7))
        cell = distance / 2**0.5 * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], device=self.device)
        crystal = SimState(
            positions=torch.zeros(1, 3, device=self.device, dtype=self.dtype),
            masses=torch.ones(1, device=self.device, dtype=self.dtype),
            cell=cell.to(self.dtype)[None],
            pbc=True,
            atomic_numbers=torch.tensor([atomic_numbers[element]], device=self.device, dtype=torch.int),
        )
        result = _call(self.model, crystal)
        if isinstance(result, _Failure):
            known = result.reason
        elif not bool(torch.isfinite(result["energy"]).all() and torch.isfinite(result["forces"]).all()):
            known = "its energy or forces are NaN or infinite"
        else:
            return
        raise DeviceError(
            f"{self.device} cannot compute: all structures of a call failed, and so does a known crystal of {element}. "
            "Nothing is recorded about them; run again on a working device, and a journal continues. "
            f"The crystal: {known}. The first structure: {reason}"
        )

    def _groups(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Split a range of systems into ranges within the budget, last range first."""
        groups: list[tuple[int, int]] = []
        total = 0.0
        for number in range(start, stop):
            if groups and total + self.costs[number] <= self.budget.limit:
                groups[-1] = (groups[-1][0], number + 1)
                total += self.costs[number]
            else:
                groups.append((number, number + 1))
                total = self.costs[number]
        return groups[::-1]

    def _evaluate(self, state: SimState, start: int, stop: int) -> dict[str, Tensor] | str:
        """Compute a range of systems; returns the output, or the reason of the failure."""
        whole = stop - start == len(self.costs)
        result = _call(self.model, state if whole else state[list(range(start, stop))])
        if not isinstance(result, _Failure):
            return result
        if not result.out_of_memory:
            return result.reason
        _free_memory()  # outside any except block: an exception keeps the tensors of the failed call alive
        if stop - start > 1:
            self.budget.halve(sum(self.costs[start:stop]))
            return result.reason
        result = _call(self.model, state if whole else state[[start]])  # retry alone on an emptied device
        if not isinstance(result, _Failure):
            return result
        _free_memory()
        if not result.out_of_memory:
            return result.reason
        return f"out of memory: {_atoms(state, start)} atoms are too many for {self.device}, even alone"

    def _join(self, state: SimState, results: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Concatenate the outputs in the order of the systems, with NaN for failed systems."""
        if len(results) == 1 and not self.reasons:
            return next(iter(results.values()))
        sizes = state.n_atoms_per_system.tolist()
        template = next(iter(results.values()), {})
        output: dict[str, Tensor] = {}
        for key in (*_PER_SYSTEM, *_PER_ATOM):
            if template and key not in template:
                continue
            if not template and key in {"magmoms", "extrapolation"}:
                continue
            tail = {"stress": (3, 3), "forces": (3,)}.get(key, ())
            parts = []
            for start in sorted({*results, *self.reasons}):
                length = sizes[start] if key in _PER_ATOM else 1
                blank = torch.full((length, *tail), torch.nan, device=self.device, dtype=self.dtype)
                parts.append(results[start][key] if start in results else blank)
            output[key] = torch.cat(parts)
        return output


@dataclass(frozen=True)
class _Failure:
    """Reason why a model call failed."""

    reason: str
    out_of_memory: bool


def _call(model: ModelInterface, state: SimState) -> dict[str, Tensor] | _Failure:
    """Call the model; catch errors that a structure may have caused."""
    try:
        output = model(state)
        return {key: output[key].detach() for key in (*_PER_SYSTEM, *_PER_ATOM) if output.get(key) is not None}
    except Exception as error:  # models raise anything; the reason goes into the record
        text = " ".join(str(error).split())
        out_of_memory = is_out_of_memory(error)
        if isinstance(error, torch.AcceleratorError) and not out_of_memory:
            error.add_note("This process can no longer use the device. Start it again; a journal lets it continue.")
            raise
        return _Failure(f"{type(error).__name__}: {text}"[:500], out_of_memory)


def _free_memory() -> None:
    """Return cached GPU memory to the device: blocks of the failed call would fragment the memory of the next."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _atoms(state: SimState, system: int) -> int:
    """Count the atoms of one system."""
    return int((state.system_idx == system).sum())
