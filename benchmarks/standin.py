"""A stand-in potential that costs almost nothing, with faults to inject, to measure everything but the model."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch_sim.models.interface import ModelInterface

from matris.makers.batch_relax import BatchRelaxMaker
from matris.model.checkpoints import Card
from matris.model.potential import chosen_device

if TYPE_CHECKING:
    from torch_sim.state import SimState

ELEMENTS = (
    *("H", "Li", "Be", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Sc", "Ti", "V"),
    *("Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru"),
    *("Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Cs", "Ba", "La", "Ce", "Hf", "Ta", "W", "Re", "Os", "Ir"),
    *("Pt", "Au", "Hg", "Tl", "Pb", "Bi"),
)


class StandIn(ModelInterface):
    """
    Potential without forces and stress; the energy depends only on the elements.

    Parameters
    ----------
    seconds
        Time to sleep per structure (s).
    poison
        Symbol of an element; computing a structure with it kills the process.
    """

    def __init__(self, seconds: float = 0.0, poison: str | None = None) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, True
        self._memory_scales_with = "n_atoms"
        self.seconds = float(seconds)
        self.poison = 0 if poison is None else _number(poison)
        self.potential = None
        self.elements = ELEMENTS
        self.card = Card("stand-in", "matpes-pbe", "efs", ELEMENTS, sha256="0" * 64, description="Not a potential.")

    def forward(self, state: SimState, **_: Any) -> dict[str, torch.Tensor]:
        """Return an energy of -Z/100 - 4 eV per atom, and zero forces and stress."""
        if self.poison and bool((state.atomic_numbers == self.poison).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        systems = int(state.system_idx.max()) + 1
        if self.seconds:
            time.sleep(self.seconds * systems)
        energies = torch.zeros(systems, dtype=torch.float64)
        per_atom = -4.0 - state.atomic_numbers.to(torch.float64) / 100
        energies.index_add_(0, state.system_idx, per_atom)
        return {
            "energy": energies,
            "forces": torch.zeros_like(state.positions),
            "stress": torch.zeros(systems, 3, 3, dtype=state.positions.dtype),
        }


@dataclass
class StandInMaker(BatchRelaxMaker):
    """
    `BatchRelaxMaker` with the stand-in.

    Parameters
    ----------
    seconds, poison
        See `StandIn`.
    """

    name: str = "stand-in relax"
    relax_kwargs: dict[str, Any] = field(default_factory=lambda: {"max_batch_atoms": 1000})
    seconds: float = 0.0
    poison: str | None = None

    def card(self) -> Card:
        """Return the card of the stand-in."""
        return StandIn().card

    def potential(self) -> Any:
        """Make the stand-in; like a potential, it fails if its device is not available."""
        chosen_device(self.device)
        return StandIn(self.seconds, self.poison)


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[symbol])
