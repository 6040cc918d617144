"""Potentials for comparisons of accuracy: ours, CHGNet, SevenNet-0 and nequix-oam-1, with one interface."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from peers import use_potential

import matris
from matris.structures import to_structure
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ase import Atoms
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential


@dataclass(frozen=True)
class Answer:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of a cell, and its extrapolation if the potential has a domain."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    extrapolation: float | None = None


@dataclass(frozen=True)
class Contestant:
    """
    A potential in a comparison.

    Attributes
    ----------
    name
        Name in the table.
    identity
        Identity of the numbers, for the cache.
    parameters
        Number of parameters.
    corrected
        Whether its energies include the MP2020 corrections.
    elements
        Supported elements; None for all.
    predict
        Function that predicts many cells, in batches of its own size.
    model
        Model for relaxations.
    calculator
        ASE calculator of its package, for the speed of single calls.
    """

    name: str
    identity: str
    parameters: int
    corrected: bool
    elements: frozenset[str] | None
    predict: Callable[[Sequence[Atoms]], list[Answer]]
    model: Potential | ModelInterface
    calculator: Calculator


def ours(checkpoint: str | Path | None) -> Contestant:
    """Load one of our checkpoints."""
    potential = matris.load(checkpoint, device="cpu")

    def predict(cells: Sequence[Atoms]) -> list[Answer]:
        return [Answer(p.energy, p.forces, p.stress, p.extrapolation) for p in potential.predict(cells)]

    return Contestant(
        name=f"{potential.card.key} {potential.card.sha256[:6]}",
        identity=f"{potential.card.key}-{potential.card.sha256[:12]}",
        parameters=sum(p.numel() for p in potential.network.parameters()),
        corrected=False,
        elements=frozenset(potential.elements),
        predict=predict,
        model=potential,
        calculator=matris.MatRISCalculator(potential),
    )


def chgnet() -> Contestant:
    """Load CHGNet 0.4.2, trained on MPtrj; its energies include the MP2020 corrections."""
    use_potential("chgnet")
    with contextlib.redirect_stdout(io.StringIO()):
        from chgnet.model import CHGNet, CHGNetCalculator

        network = CHGNet.load(use_device="cpu", verbose=False)
        calculator = CHGNetCalculator(network, use_device="cpu", on_isolated_atoms="ignore")

    def predict(cells: Sequence[Atoms]) -> list[Answer]:
        structures = [to_structure(cell) for cell in cells]
        found = network.predict_structure(structures, task="efs", batch_size=16)
        many = [found] if isinstance(found, dict) else found
        return [
            Answer(
                float(p["e"]) * len(s),
                np.array(p["f"], dtype=float),
                np.array(p["s"], dtype=float) / GPA,
            )
            for s, p in zip(structures, many, strict=True)
        ]

    parameters = sum(p.numel() for p in network.parameters())
    model = matris.AseModel(calculator, identity="chgnet 0.4.2")
    return Contestant("chgnet 0.4.2", "chgnet-0.4.2", parameters, True, None, predict, model, calculator)


def sevennet() -> Contestant:
    """
    Load SevenNet-0 of sevenn 0.13, trained on MPtrj.

    Its convolution is replaced by an equivalent one that is faster on one core (`sevennet`). Single calls are timed
    with the package's own convolution.
    """
    use_potential("sevenn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator
        from sevennet import SevenNet

        shipped, fast = SevenNetCalculator("7net-0", device="cpu"), SevenNet(SevenNetCalculator("7net-0", device="cpu"))

    def predict(cells: Sequence[Atoms]) -> list[Answer]:
        return [Answer(*answer) for answer in fast(cells)]

    parameters = sum(p.numel() for p in shipped.model.parameters())
    model = matris.AseModel(_Asked(predict), identity="7net-0, sevenn 0.13")
    return Contestant("7net-0", "7net-0", parameters, False, None, predict, model, shipped)


def nequix() -> Contestant:
    """
    Load nequix-oam-1 of nequix 0.4.5, trained on OMat24, sAlex and MPtrj.

    Its convolution is replaced as for labelling (`recipes.embedded.teacher`), also in the timed single calls.
    """
    use_potential("nequix")
    from recipes.embedded.teacher import Teacher

    teacher = Teacher("nequix-oam-1")

    def predict(cells: Sequence[Atoms]) -> list[Answer]:
        labels = teacher(cells)
        if not all(label.finite for label in labels):
            raise ValueError("no answer: the cell is too large, or has collapsed")
        return [Answer(label.energy, label.forces, label.stress) for label in labels]

    asked = _Asked(predict)
    model = matris.AseModel(asked, identity=teacher.identity)
    return Contestant("nequix-oam-1", "nequix-oam-1", teacher.parameters, False, None, predict, model, asked)


class _Asked(Calculator):
    """ASE calculator that calls a function."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 - so declared by ASE

    def __init__(self, predict: Callable[[Sequence[Atoms]], list[Answer]]) -> None:
        super().__init__()
        self._predict = predict

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything."""
        super().calculate(atoms, list(properties), list(system_changes))
        (answer,) = self._predict([self.atoms])
        stress = answer.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        self.results = {"energy": answer.energy, "forces": answer.forces, "stress": stress}


PEERS: dict[str, Callable[[], Contestant]] = {"chgnet": chgnet, "7net-0": sevennet, "nequix-oam-1": nequix}
"""Functions that load other potentials, by name."""


def rates(some: Sequence[Contestant], cells: dict[str, Atoms], rounds: int) -> dict[str, dict[str, Any]]:
    """
    Measure the structures per second of each potential on the same cells, in alternation.

    Parameters
    ----------
    some
        Potentials.
    cells
        Cells by name.
    rounds
        Number of rounds. Each call has a new geometry, and includes its graph.

    Returns
    -------
    dict
        By cell and potential: one structure per call by its ASE calculator (``single``), and sixteen per call
        (``batch``); each has median, minimum and maximum.
    """
    table: dict[str, dict[str, Any]] = {}
    for label, cell in cells.items():
        times: dict[str, dict[str, list[float]]] = {c.name: {"single": [], "batch": []} for c in some}
        for number in range(rounds + 1):  # the first warms up
            shaken = [cell.copy() for _ in range(16)]
            for i, atoms in enumerate(shaken):
                atoms.rattle(0.05, seed=100 * number + i)
            for contestant in some:
                start = time.perf_counter()
                atoms = shaken[0].copy()
                atoms.calc = contestant.calculator
                atoms.get_forces()
                atoms.get_stress()
                middle = time.perf_counter()
                contestant.predict(shaken)
                if number:
                    times[contestant.name]["single"].append(1 / (middle - start))
                    times[contestant.name]["batch"].append(len(shaken) / (time.perf_counter() - middle))
        table[label] = {
            name: {kind: [float(np.median(x)), min(x), max(x)] for kind, x in of_one.items()}
            for name, of_one in times.items()
        }
    return table
