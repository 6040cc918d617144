"""Relaxation of many structures, independent of any workflow engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch_sim.models.interface import ModelInterface

from matris.model.graph import Geometry
from matris.progress import shown, size_of
from matris.relaxation.batch import RunningBatch, Slot
from matris.relaxation.guard import Budget, GuardedModel
from matris.relaxation.journal import Journal
from matris.relaxation.records import RelaxRecord, RelaxSettings
from matris.relaxation.symmetry import symmetrised
from matris.structures import content_id, one_or_many, problem_with, to_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from ase import Atoms
    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.relaxation.records import CellMask, OptimizerName

__all__ = ["RelaxRecord", "RelaxSettings", "journal_file", "relax"]

_FAILED_TOGETHER = 64  # records of inputs that cannot be computed, which are written to the journal together
_ATOMS_PER_GIB = 32  # first guess for a model of unknown memory use on a GPU; out-of-memory errors lower it


def relax(
    structures: Iterable[Structure | Atoms] | Structure | Atoms,
    potential: Potential | ModelInterface | str | Path | None = None,
    *,
    fmax: float = 0.05,
    max_steps: int = 500,
    relax_cell: bool = True,
    optimizer: OptimizerName = "lbfgs",
    pressure: float = 0.0,
    fix_symmetry: bool = False,
    symprec: float = 0.01,
    cell_mask: CellMask | None = None,
    journal: str | Path | None = None,
    max_batch_atoms: int | None = None,
    progress: bool = False,
) -> Generator[RelaxRecord]:
    """
    Relax structures, and yield the record of each as it finishes.

    The optimizer is L-BFGS (`matris.relaxation.lbfgs`). FIRE takes over a structure in which neither the
    forces nor the energy fall for sixty steps, and, from its start, one whose cell L-BFGS makes explode or collapse.

    Atoms that a structure fixes (selective dynamics of a POSCAR, ASE's ``FixAtoms``; `matris.constraints`) keep their
    fractional coordinates, and the forces along fixed directions do not count for convergence. The cell relaxes with
    them unless `relax_cell` is off. The record contains the forces as the model gives them, also on fixed atoms.

    A structure has converged when the force on each atom is below `fmax` and, if the cell relaxes, so is
    the norm of each row of V·(σ + p)/n: volume times stress and external pressure over the number of atoms, the cell
    force of ASE's ``FrechetCellFilter``. The record contains forces and stress.

    Under a `pressure` the enthalpy E + pV is minimal. The record's energy is E, and its stress σ then is close to -p.

    A structure that cannot be computed does not stop the others: its record has the state ``"failed"`` and the reason.
    Structures of equal content are computed once; each gets its own record.

    Parameters
    ----------
    structures
        One structure or an iterable of any length, which is read only as the batch has room.
    potential
        A loaded potential, a key or path for `matris.load`, or any torch-sim model. By default the embedded checkpoint.
    fmax
        Force criterion, eV/Å.
    max_steps
        Largest number of steps of one structure. With 0 the input geometry is only evaluated.
    relax_cell
        Whether lattice vectors change too.
    optimizer
        ``"lbfgs"``, or ``"fire"``: FIRE with the Frechet cell filter, each step that of ASE (`matris.relaxation.fire`).
        FIRE needs two to three times as many steps. From a rough start both can end in different minima.
    pressure
        External hydrostatic pressure, GPa; positive if it compresses. It needs a cell that relaxes.
    fix_symmetry
        Keep the space group that the input has within `symprec`. Atoms and lattice first move by up to about `symprec`
        so that it is exact; forces and stress then are means over its operations. They are those that map the lattice
        of the given cell onto itself, so a supercell of lower symmetry keeps less than its crystal has. A fixed lattice
        does not move, and only the symmetry that it has without is kept.
    symprec
        Tolerance for that symmetry, Å.
    cell_mask
        How the cell may deform: ``"volume"`` (isotropically), ``"shape"`` (at constant volume), ``"lengths"`` (at
        constant angles), ``"a"``, ``"bc"``, … (these lengths alone), or six flags as in ASE's filters for the Cartesian
        components xx, yy, zz, yz, xz, xy of the strain. By default freely. The stress along the other directions does
        not count for convergence.
    journal
        File to which each record is written before it is yielded, or a folder for such files, one for each checkpoint
        and settings. A later run with the same settings yields the records of the journal without computing them.
    max_batch_atoms
        Largest number of atoms computed together. By default the batch size follows from the numbers of bonds and
        angles: on a GPU as many structures as fit into memory, on a CPU as many as make the fixed cost of a step small.
        The batch size can change the last digits of results, and through them the path of a relaxation; 1 computes one
        structure at a time.
    progress
        Whether to show a progress bar on standard error.

    Yields
    ------
    RelaxRecord
        In the order of finishing; `RelaxRecord.index` is the position in the input.

    Raises
    ------
    ValueError
        If a setting is out of range, or `relax_cell` is set and the model computes no stress.
    CheckpointError
        If the potential cannot be loaded.
    DeviceError
        If the device cannot compute anything: neither the structures of a step nor a known crystal.
    JournalError
        If the journal belongs to other settings or another checkpoint, or another process uses it.

    Examples
    --------
    >>> import matris
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> overlapping = Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]])
    >>> records = matris.relax([salt, overlapping], fmax=0.1)
    >>> for record in sorted(records, key=lambda record: record.index):
    ...     print(record.index, record.state, record.error)
    0 converged None
    1 failed overlapping atoms: sites 0 (Na) and 1 (Cl) are 0.05 Å apart
    """
    settings = RelaxSettings(
        fmax=fmax,
        max_steps=max_steps,
        relax_cell=relax_cell,
        optimizer=optimizer,
        pressure=pressure,
        fix_symmetry=fix_symmetry,
        symprec=symprec,
        cell_mask=cell_mask,
    )
    engine = engine_of(potential)
    if relax_cell and not engine.model.compute_stress:
        raise ValueError(
            "relax_cell needs stress, which the model does not compute: set its compute_stress, or fix the cell"
        )
    if max_batch_atoms is not None and max_batch_atoms < 1:
        raise ValueError(f"max_batch_atoms must be at least 1, got {max_batch_atoms}")
    inputs = one_or_many(structures)
    records = _relax(iter(inputs), engine, settings, journal, max_batch_atoms)
    return shown(records, "relax", progress=progress, total=size_of(inputs))


def journal_file(folder: Path, sha256: str, settings: RelaxSettings, dtype: str) -> Path:
    """
    Name the journal of a checkpoint, settings and dtype in a folder of journals.

    Parameters
    ----------
    folder
        Folder of the journals.
    sha256
        Digest of the checkpoint.
    settings
        Settings of the relaxation.
    dtype
        Name of the floating-point type, see `matris.model.potential.Potential.arithmetic`.

    Examples
    --------
    >>> from pathlib import Path
    >>> journal_file(Path("journals"), "c033abc53601" + 52 * "0", RelaxSettings(), "float32").name
    'c033abc53601-...-float32.jsonl'
    """
    return folder / f"{sha256[:12]}-{settings.digest()}-{dtype}.jsonl"


@dataclass(frozen=True)
class Engine:
    """A torch-sim model with the digest that identifies it, and its potential if it is a MatRIS model."""

    model: ModelInterface
    sha256: str
    potential: Potential | None

    @property
    def elements(self) -> tuple[str, ...] | None:
        """Elements that the model supports; None if unknown."""
        return None if self.potential is None else tuple(self.potential.elements)

    @property
    def dtype(self) -> str:
        """Name of the floating-point type, see `matris.model.potential.Potential.arithmetic`."""
        if self.potential is not None:
            return self.potential.arithmetic
        return str(self.model.dtype).removeprefix("torch.")


def _relax(
    structures: Iterator[Structure | Atoms],
    engine: Engine,
    settings: RelaxSettings,
    path: str | Path | None,
    max_batch_atoms: int | None,
) -> Generator[RelaxRecord]:
    """Run the batch: take structures from the input, and hand records to the journal and the caller."""
    cost, unit, limit = budget_of(engine, max_batch_atoms)
    budget = Budget((str(engine.model.device), engine.sha256, engine.dtype, unit), limit)
    batch = RunningBatch(GuardedModel(engine.model, budget), settings)
    if path is not None and Path(path).is_dir():
        path = journal_file(Path(path), engine.sha256, settings, engine.dtype)
    header = {"checkpoint": engine.sha256, "dtype": engine.dtype, "settings": settings.to_dict()}
    with Journal(path, {**header, "digest": settings.digest()}) as journal:
        intake = _Intake(structures, journal, engine.elements, cost, settings)
        upcoming = intake.take()
        while upcoming is not None or batch.slots:
            failed: list[RelaxRecord] = []
            while upcoming is not None:
                if isinstance(upcoming, Slot):
                    if not batch.fits(upcoming):
                        break
                    batch.add(upcoming)
                elif not intake.is_new(upcoming):
                    yield upcoming
                else:
                    failed.append(upcoming)
                    if len(failed) == _FAILED_TOGETHER:
                        yield from intake.finish(failed)
                        failed = []
                upcoming = intake.take()
            yield from intake.finish(failed)
            yield from intake.finish(batch.step())


class _Intake:
    """The input: yields each distinct structure once, and a record where nothing has to be computed."""

    def __init__(
        self,
        structures: Iterator[Structure | Atoms],
        journal: Journal,
        elements: tuple[str, ...] | None,
        cost: Callable[[Structure], float],
        settings: RelaxSettings,
    ) -> None:
        self._settings = settings
        self._queue = enumerate(structures)
        self._journal = journal
        self._elements = elements
        self._cost = cost
        self._positions: dict[str, list[int]] = {}  # identity of a structure not in the journal -> places in the input

    def take(self) -> Slot | RelaxRecord | None:
        """Take the next structure, or the record of one that is known or cannot be computed; None at the end."""
        for index, item in self._queue:
            prepared = _prepare(index, item, self._elements, self._cost, self._settings)
            identity = prepared.structure_id
            if identity is None:  # not a crystal: a journal has no key for it
                return prepared
            if identity in self._journal:
                return replace(self._journal[identity], index=index)
            if identity in self._positions:
                self._positions[identity].append(index)
                continue
            self._positions[identity] = [index]
            return prepared
        return None

    def is_new(self, record: RelaxRecord) -> bool:
        """Whether a record is yet to be written to the journal."""
        return record.structure_id in self._positions

    def finish(self, records: Sequence[RelaxRecord]) -> Iterator[RelaxRecord]:
        """Write records to the journal, then yield each for all positions of its structure in the input."""
        self._journal.append(*records)
        for record in records:
            for index in self._positions.pop(str(record.structure_id)):
                yield replace(record, index=index)


def _prepare(
    index: int,
    item: Any,
    elements: tuple[str, ...] | None,
    cost: Callable[[Structure], float],
    settings: RelaxSettings,
) -> Slot | RelaxRecord:
    """Check an input: a slot for the batch, or a failed record with the reason."""
    identity = None
    try:
        structure = to_structure(item)
        identity = content_id(structure)
        problem = problem_with(structure, elements)
        if not problem:
            symmetry = None
            if settings.fix_symmetry:
                structure, symmetry = symmetrised(structure, settings.symprec, keep_lattice=not settings.relax_cell)
            return Slot(index, identity, structure, cost(structure), symmetry)
    except Exception as error:  # noqa: BLE001 - one unreadable input must not stop the others
        problem = f"{type(error).__name__}: {error}"
    return RelaxRecord(index, identity, "failed", error=problem)


def engine_of(potential: Potential | ModelInterface | str | Path | None) -> Engine:
    """Load a potential, or wrap a torch-sim model."""
    if isinstance(potential, ModelInterface):
        inner = getattr(potential, "potential", None)  # only MatRISTorchSimModel has one
        if inner is None:
            return Engine(potential, _fingerprint(potential), None)
        return Engine(potential, inner.card.sha256, inner)
    from matris.model.potential import Potential, load
    from matris.torchsim import MatRISTorchSimModel

    loaded = potential if isinstance(potential, Potential) else load(potential)
    return Engine(MatRISTorchSimModel(loaded), loaded.card.sha256, loaded)


def _fingerprint(model: ModelInterface) -> str:
    """Digest of a model without checkpoint: of its class, its float and text attributes, and its tensors."""
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
    """Choose the cost of a structure, the unit of the cost, and the largest cost of a batch."""
    device, potential = engine.model.device, engine.potential
    if max_batch_atoms is None and potential is not None:
        return lambda structure: potential.bytes_of(Geometry.of(structure)), "bytes", potential.batch_bytes
    if max_batch_atoms is None and device.type == "cuda":
        max_batch_atoms = round(torch.cuda.get_device_properties(device).total_memory / 2**30 * _ATOMS_PER_GIB)
    return len, "atoms", max_batch_atoms or 0  # 0: one structure at a time, for models of unknown memory use on a CPU
