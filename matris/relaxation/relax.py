"""Relaxing many structures, free of any workflow engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pymatgen.core import Structure
from torch_sim.models.interface import ModelInterface

from matris.model.graph import Geometry
from matris.relaxation.batch import Flight, InFlight
from matris.relaxation.guard import Budget, IsolatingModel
from matris.relaxation.journal import Journal
from matris.relaxation.records import RelaxRecord, RelaxSettings
from matris.structures import content_id, problem_with, to_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from ase import Atoms

    from matris.model.potential import Potential

__all__ = ["RelaxRecord", "RelaxSettings", "journal_file", "relax"]

_ATOMS_PER_GIB = 32  # first guess of what another model can take on a GPU; running out of memory corrects it


def relax(
    structures: Iterable[Structure | Atoms] | Structure | Atoms,
    potential: Potential | ModelInterface | str | Path | None = None,
    *,
    fmax: float = 0.05,
    max_steps: int = 500,
    relax_cell: bool = True,
    journal: str | Path | None = None,
    max_batch_atoms: int | None = None,
) -> Generator[RelaxRecord]:
    """
    Relax structures, and yield the record of each as it finishes.

    The optimizer is FIRE with the Frechet cell filter, step by step ASE's (`matris.relaxation.fire`). All atoms move.
    A structure is converged when the force on every atom is below `fmax` and, if the cell relaxes, every row of V·σ/n
    (volume times stress over the number of atoms: the cell's force in ASE's ``FrechetCellFilter``) is too.
    Both can be read off the record.

    A structure that cannot be computed costs only itself: its record has the state ``"failed"`` and the reason.
    Structures of equal content are computed once; each gets its record.

    Parameters
    ----------
    structures
        Any number, also a generator: they are taken one by one as there is room for them.
    potential
        A loaded potential, a key or path for `matris.load`, or any torch-sim model. By default the embedded checkpoint.
    fmax
        Bound on forces, eV/Å.
    max_steps
        Most FIRE steps of one structure.
    relax_cell
        Whether lattice vectors change too.
    journal
        File to which each record goes before it is yielded, or a folder for such files, one for each checkpoint and
        settings. Run again with the same settings, what it holds is yielded without computing, and the rest is
        computed.
    max_batch_atoms
        Most atoms computed together. By default what the numbers of bonds and angles suggest: on a GPU as many
        structures as fit, on a CPU as many as make the fixed costs of a step small. What is computed together may
        differ in the last digits, and with them the path of a relaxation; 1 computes one structure at a time.

    Yields
    ------
    RelaxRecord
        In the order of finishing; `RelaxRecord.index` is the place in the input.

    Raises
    ------
    ValueError
        If a setting is out of range, or the cell shall relax and the model gives no stress.
    CheckpointError
        If the potential cannot be loaded.
    JournalError
        If the journal belongs to other settings or another checkpoint, or another process uses it.
    """
    settings = RelaxSettings(fmax=fmax, max_steps=max_steps, relax_cell=relax_cell)
    engine = engine_of(potential)
    if relax_cell and not engine.model.compute_stress:
        raise ValueError(
            "relax_cell needs stress, which the model does not compute: set its compute_stress, or fix the cell"
        )
    if max_batch_atoms is not None and max_batch_atoms < 1:
        raise ValueError(f"max_batch_atoms must be at least 1, got {max_batch_atoms}")
    alone = isinstance(structures, Structure) or hasattr(
        structures, "get_atomic_numbers"
    )  # else its atoms are iterated
    many = cast("Iterable[Structure | Atoms]", [structures] if alone else structures)
    return _relax(iter(many), engine, settings, journal, max_batch_atoms)


def journal_file(folder: Path, sha256: str, settings: RelaxSettings, dtype: str) -> Path:
    """
    Journal of a checkpoint and settings in a folder, so that none refuses the other's.

    Parameters
    ----------
    folder
        Where journals are.
    sha256
        Of the checkpoint.
    settings
        Of the relaxation.
    dtype
        Name of the floating-point type.
    """
    return folder / f"{sha256[:12]}-{settings.digest()}-{dtype}.jsonl"


@dataclass(frozen=True)
class Engine:
    """A torch-sim model, and what identifies it."""

    model: ModelInterface
    sha256: str
    potential: Potential | None

    @property
    def elements(self) -> tuple[str, ...] | None:
        """What it can compute, where that is known."""
        return None if self.potential is None else tuple(self.potential.elements)

    @property
    def dtype(self) -> str:
        """Name of the floating-point type."""
        return str(self.model.dtype).removeprefix("torch.")


def _relax(
    structures: Iterator[Structure | Atoms],
    engine: Engine,
    settings: RelaxSettings,
    path: str | Path | None,
    max_batch_atoms: int | None,
) -> Generator[RelaxRecord]:
    """Feed structures to the device and records to the journal and the caller."""
    cost, unit, limit = budget_of(engine, max_batch_atoms)
    budget = Budget((str(engine.model.device), engine.sha256, engine.dtype, unit), limit)
    batch = InFlight(IsolatingModel(engine.model, budget), settings)
    if path is not None and Path(path).is_dir():
        path = journal_file(Path(path), engine.sha256, settings, engine.dtype)
    header = {"checkpoint": engine.sha256, "dtype": engine.dtype, "settings": settings.to_dict()}
    with Journal(path, {**header, "digest": settings.digest()}) as journal:
        intake = _Intake(structures, journal, engine.elements, cost)
        ahead = intake.take()
        while ahead is not None or batch.flights:
            while ahead is not None:
                if isinstance(ahead, RelaxRecord):
                    yield ahead
                elif batch.has_room_for(ahead):
                    batch.add(ahead)
                else:
                    break
                ahead = intake.take()
            for record in batch.step():
                yield from intake.finish(record)


class _Intake:
    """Structures from the input, each computed once; records at once for those that need no computing."""

    def __init__(
        self,
        structures: Iterator[Structure | Atoms],
        journal: Journal,
        elements: tuple[str, ...] | None,
        cost: Callable[[Structure], float],
    ) -> None:
        self._queue = enumerate(structures)
        self._journal = journal
        self._elements = elements
        self._cost = cost
        self._places: dict[str, list[int]] = {}  # identity of a structure under way -> where it stands in the input

    def take(self) -> Flight | RelaxRecord | None:
        """Next structure to compute, or record of one that need not or cannot be; None at the end of the input."""
        for index, item in self._queue:
            found = _prepare(index, item, self._elements, self._cost)
            identity = found.structure_id
            if identity is None:  # nothing by which a journal could find it again, and nothing was computed
                return found
            if identity in self._journal:
                return replace(self._journal[identity], index=index)
            if identity in self._places:
                self._places[identity].append(index)
                continue
            if isinstance(found, RelaxRecord):
                self._journal.append(found)
            else:
                self._places[identity] = [index]
            return found
        return None

    def finish(self, record: RelaxRecord) -> Iterator[RelaxRecord]:
        """Keep a record, and give it for every place where its structure stands in the input."""
        self._journal.append(record)
        for index in self._places.pop(str(record.structure_id)):
            yield replace(record, index=index)


def _prepare(
    index: int, item: Any, elements: tuple[str, ...] | None, cost: Callable[[Structure], float]
) -> Flight | RelaxRecord:
    """Make an input ready for the device, or say why it cannot be computed."""
    identity = None
    try:
        structure = to_structure(item)
        identity = content_id(structure)
        problem = problem_with(structure, elements)
        if not problem:
            return Flight(index, identity, structure, cost(structure))
    except Exception as error:  # noqa: BLE001 - one unreadable input must not end a campaign
        problem = f"{type(error).__name__}: {error}"
    return RelaxRecord(index, identity, "failed", error=problem)


def engine_of(potential: Potential | ModelInterface | str | Path | None) -> Engine:
    """Find model, identity and elements of what the user named."""
    if isinstance(potential, ModelInterface):
        inner = getattr(potential, "potential", None)  # a MatRISTorchSimModel knows its potential
        if inner is None:
            return Engine(potential, _fingerprint(potential), None)
        return Engine(potential, inner.card.sha256, inner)
    from matris.model.potential import Potential, load
    from matris.torchsim import MatRISTorchSimModel

    loaded = potential if isinstance(potential, Potential) else load(potential)
    return Engine(MatRISTorchSimModel(loaded), loaded.card.sha256, loaded)


def _fingerprint(model: ModelInterface) -> str:
    """Identity of a model that has no checkpoint: its class, its tensors and its numbers."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in sorted(vars(model).items()):
        if isinstance(value, (float, str)):
            digest.update(f"{name}={value!r};".encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def budget_of(engine: Engine, max_batch_atoms: int | None) -> tuple[Callable[[Structure], float], str, float]:
    """Find what one structure costs, in which unit, and how much of it may be on the device at once."""
    device, potential = engine.model.device, engine.potential
    if max_batch_atoms is None and potential is not None:
        return lambda structure: potential.bytes_of(Geometry.of(structure)), "bytes", potential.batch_bytes
    if max_batch_atoms is None and device.type == "cuda":
        max_batch_atoms = round(torch.cuda.get_device_properties(device).total_memory / 2**30 * _ATOMS_PER_GIB)
    return len, "atoms", max_batch_atoms or 0  # another model on a CPU: one structure at a time
