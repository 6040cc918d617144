"""Cells derived from many materials (strained, scaled, displaced), through the device together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.relaxation.relax import relax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Structure
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord


def relax_all(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    fmax: float,
    max_steps: int,
    relax_cell: bool,
    journal_dir: Path | None = None,
) -> list[RelaxRecord]:
    """
    Relax materials as `matris.relax` does, and wait for all.

    Returns
    -------
    list of RelaxRecord
        In the order of the input.
    """
    if journal_dir is not None:
        journal_dir.mkdir(parents=True, exist_ok=True)
    records = relax(structures, potential, fmax=fmax, max_steps=max_steps, relax_cell=relax_cell, journal=journal_dir)
    return sorted(records, key=lambda record: record.index)


def relax_groups(
    groups: Sequence[Sequence[Structure]],
    potential: Potential | ModelInterface,
    *,
    fmax: float,
    max_steps: int,
    journal_dir: Path | None = None,
) -> list[list[RelaxRecord]]:
    """
    Relax the atoms of all cells of all groups in fixed cells, as one stream, and sort the answers by group.

    Parameters
    ----------
    groups
        For each material the cells derived from it; may be empty.
    potential
        A loaded potential, or any torch-sim model.
    fmax
        Bound on forces, eV/Å.
    max_steps
        Most steps of one cell; 0 evaluates the cells as they are.
    journal_dir
        Folder in which finished cells are kept; see `matris.relax`.

    Returns
    -------
    list of list of RelaxRecord
        Shaped like `groups`.
    """
    flat = [cell for group in groups for cell in group]
    found = iter(relax_all(flat, potential, fmax=fmax, max_steps=max_steps, relax_cell=False, journal_dir=journal_dir))
    return [[next(found) for _ in group] for group in groups]


def isolated[T](function: Callable[..., T], *arguments: object) -> tuple[T | None, str | None]:
    """
    Prepare or analyse one material, so that what goes wrong costs only itself.

    Parameters
    ----------
    function
        What to call.
    *arguments
        With what.

    Returns
    -------
    tuple
        The result, or None and the reason.
    """
    try:
        return function(*arguments), None
    except Exception as error:  # noqa: BLE001 - any material, any library: the reason goes into the record
        return None, f"{type(error).__name__}: {error}"


def fault(records: Sequence[RelaxRecord], names: Sequence[str]) -> str | None:
    """
    Say which cells of a group cannot be used, or None if all can.

    Parameters
    ----------
    records
        Answers for the cells.
    names
        What to call each cell.
    """
    for record, name in zip(records, names, strict=True):
        if record.state == "failed":
            return f"{name}: {record.error}"
    return None
