"""The frame of every property: relax each material, derive cells from it, compute all cells together, analyse each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from matris.progress import shown, size_of
from matris.relaxation.relax import relax
from matris.structures import one_or_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.properties.crossings import Crossing
    from matris.relaxation.records import OptimizerName, RelaxRecord

type State = Literal["converged", "max_steps", "completed", "failed"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PropertyRecord:
    """
    Result of one material; each property adds its own fields.

    Attributes
    ----------
    index
        Position of the material in the input, from 0.
    state
        ``"converged"``; ``"max_steps"`` if the material or a cell derived from it did not get below `fmax`;
        ``"failed"``. Molecular dynamics has ``"completed"`` instead of the first two.
    structure
        The relaxed cell (after molecular dynamics the last one); None if there is none.
    warnings
        Caveats about the results.
    is_reliable
        Whether all cells converged and the results passed their checks; a warning names each check that failed.
    crossings
        Neighbor shells that cross a cutoff of the potential within the strains or displacements used.
    error
        Reason of a failure; None if there was none.
    start
        Record of the material itself, of which all other cells are derived; None in molecular dynamics.
    """

    index: int
    state: State
    structure: Structure | None = None
    warnings: tuple[str, ...] = ()
    is_reliable: bool = False
    crossings: tuple[Crossing, ...] = ()
    error: str | None = None
    start: RelaxRecord | None = None

    def __repr__(self) -> str:
        formula = "" if self.structure is None else f", {self.structure.composition.reduced_formula}"
        remarks = [self.error] if self.error else [] if self.is_reliable else ["not reliable", *self.warnings]
        result = "; ".join([self.state, *remarks])
        return f"{type(self).__name__}({self.index}{formula}: {result})"

    @classmethod
    def failed(cls, start: RelaxRecord, error: str | None) -> Self:
        """Record of a material that was relaxed, or could not be, and whose property could not be computed."""
        return cls(index=start.index, state="failed", structure=start.structure, error=error)


class UnusableCellError(Exception):
    """A cell whose result is needed and that could not be computed; its message becomes the record's error."""


@dataclass(frozen=True)
class Relaxer:
    """
    Relaxes materials, and groups of cells derived from them, all through the device together.

    Parameters
    ----------
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on the forces on atoms and, where it relaxes, on the cell, eV/Å.
    max_steps
        Maximum number of steps of one cell; 0 evaluates the cells as they are.
    journal_dir
        Folder in which finished cells are kept, so that a killed run resumes; see `matris.relax`.
    optimizer
        ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    progress
        Whether to show progress bars on standard error.
    pressure
        External pressure on cells that relax, GPa.
    """

    potential: Potential | ModelInterface
    fmax: float
    max_steps: int
    journal_dir: Path | None = None
    optimizer: OptimizerName = "lbfgs"
    progress: bool = False
    pressure: float = 0.0

    def materials(self, structures: Iterable[Structure | Atoms], *, relax_cell: bool = True) -> list[RelaxRecord]:
        """
        Relax materials as `matris.relax` does, and wait for all.

        Returns
        -------
        list of RelaxRecord
            In the order of the input.
        """
        return self._relaxed(structures, "materials", relax_cell=relax_cell)

    def _relaxed(self, structures: Iterable[Structure | Atoms], what: str, *, relax_cell: bool) -> list[RelaxRecord]:
        """Relax as `materials` does; `what` names the structures in a progress bar."""
        if self.journal_dir is not None:
            self.journal_dir.mkdir(parents=True, exist_ok=True)
        many = one_or_many(structures)
        records = relax(
            many,
            self.potential,
            fmax=self.fmax,
            max_steps=self.max_steps,
            relax_cell=relax_cell,
            optimizer=self.optimizer,
            pressure=self.pressure if relax_cell else 0.0,
            journal=self.journal_dir,
        )
        watched = shown(records, what, progress=self.progress, total=size_of(many))
        return sorted(watched, key=lambda record: record.index)

    def groups(self, groups: Sequence[Sequence[Structure]]) -> list[list[RelaxRecord]]:
        """
        Relax the atoms of all cells of all groups, lattices fixed, as one stream.

        Parameters
        ----------
        groups
            For each material the cells derived from it; may be empty.

        Returns
        -------
        list of list of RelaxRecord
            Shaped like `groups`.
        """
        cells = [cell for group in groups for cell in group]
        records = iter(self._relaxed(cells, "cells", relax_cell=False))
        return [[next(records) for _ in group] for group in groups]


def derive[Plan, Record: PropertyRecord](
    kind: type[Record],
    starts: Sequence[RelaxRecord],
    plan: Callable[[RelaxRecord], Plan],
    compute: Callable[[list[Plan | None]], list[list[RelaxRecord]]],
    analyse: Callable[[RelaxRecord, Plan, list[RelaxRecord]], Record],
) -> list[Record]:
    """
    Plan the cells of each material, compute the cells of all together, and analyse each material.

    An exception while one material is planned or analysed fails that material alone.

    Parameters
    ----------
    kind
        Class of the records.
    starts
        The relaxed materials.
    plan
        Derives the cells to compute from a relaxed material.
    compute
        Gives the results of the cells of each plan; a plan is None where the material failed.
    analyse
        Makes the record of a material from its relaxation, its plan and the results of its cells.

    Returns
    -------
    list of PropertyRecord
        One for each material, in order.
    """
    plans = [(None, start.error) if start.structure is None else attempt(plan, start) for start in starts]
    results = compute([planned for planned, _ in plans])
    records = []
    for start, (planned, problem), cells in zip(starts, plans, results, strict=True):
        record, error = (None, problem) if planned is None else attempt(analyse, start, planned, cells)
        records.append(replace(record or kind.failed(start, error), start=start))
    return records


def attempt[T](function: Callable[..., T], *arguments: object) -> tuple[T | None, str | None]:
    """
    Call a function for one material, so that an exception fails this material alone.

    Parameters
    ----------
    function
        Any function.
    *arguments
        Its arguments.

    Returns
    -------
    tuple
        The result and None, or None and the reason of the failure.
    """
    try:
        return function(*arguments), None
    except UnusableCellError as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001 - any material, any library: the reason goes into the record
        return None, f"{type(error).__name__}: {error}"


def check_cells(cells: Sequence[RelaxRecord], names: Sequence[str]) -> None:
    """
    Refuse a group of cells if one of them failed.

    Raises
    ------
    UnusableCellError
        With the name and the error of the first cell that failed.
    """
    for cell, name in zip(cells, names, strict=True):
        if cell.state == "failed":
            raise UnusableCellError(f"{name}: {cell.error}")


def convergence(cells: Sequence[RelaxRecord], names: Sequence[str]) -> tuple[State, tuple[str, ...]]:
    """
    State of a material by its cells, and a warning that names the cells whose forces are not below fmax.

    Returns
    -------
    tuple
        ``"converged"`` and no warning, or ``"max_steps"`` and one warning.
    """
    late = [name for cell, name in zip(cells, names, strict=True) if cell.state != "converged"]
    return ("max_steps", (f"not below fmax: {'; '.join(late)}",)) if late else ("converged", ())
