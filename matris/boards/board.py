"""What a board is: reading of data, computation of its items, and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from matris.boards.contestants import Contestant

type Values = dict[str, Any]
"""Results of one item as a JSON object; ``error`` holds the reason if it could not be computed."""

type Metrics = dict[str, float | None]
"""Metrics by name, with the unit in the name; None where no item has a value."""


@dataclass(frozen=True)
class Job:
    """
    One run of a board.

    Parameters
    ----------
    contestant
        The potential to measure.
    folder
        Folder of journals inside of a computation; it is removed when the items are finished.
    progress
        Whether to show progress bars on standard error.
    """

    contestant: Contestant
    folder: Path
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Board:
    """
    A public benchmark: a set of items, what is computed for each, and metrics over all.

    Attributes
    ----------
    name
        Name on the command line.
    about
        What the board measures, in one line.
    data
        What the option ``--data`` must name, for the message if it is missing; None if the board needs no data.
    files
        Patterns of the names of the data files, where ``--data`` is a folder; their digests identify the data.
    read
        Reads the items by key, in the board's order, from the path of the data, or from None if the board needs none;
        values are what `compute` and `score` need.
    compute
        Yields the key and the results of items as they finish, in any order.
    score
        Metrics from all items and their results; items without results are missing from the second mapping.
    settings
        Everything else that decides the results.
    published
        Published metrics, by the key of the checkpoint or the name of the model.
    tolerance
        For the metrics to compare with published values: the largest absolute difference that the protocol explains.
    chunk
        Largest number of items that are computed together.
    remarks
        What users must know of the metrics, such as a missing package.
    write
        Writes further files, such as those of a submission, to the folder of the results.

    Notes
    -----
    Results depend on `settings`, the contestant and the data; the journal of a board refuses another combination.
    """

    name: str
    about: str
    data: str | None
    read: Callable[[Any], Mapping[str, Any]]
    compute: Callable[[Job, Mapping[str, Any]], Generator[tuple[str, Values]]]
    score: Callable[[Mapping[str, Any], Mapping[str, Values]], Metrics]
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    chunk: int = 100
    files: tuple[str, ...] = ("*",)
    remarks: Callable[[Mapping[str, Any]], list[str]] = field(default=lambda _: [])
    write: Callable[[Finished], None] | None = None


@dataclass(frozen=True, eq=False)
class Finished:
    """
    A board, or a shard of it, whose items are computed.

    Attributes
    ----------
    board, contestant
        What was measured.
    folder
        Folder of the results.
    items, results
        The items of this run and their results, which are read from the journal as they are needed.
    keys
        Keys of all items of the board.
    shard
        Number of the shard, from 0, and how many there are.
    document
        Content of the JSON file.
    """

    board: Board
    contestant: Contestant
    folder: Path
    items: Mapping[str, Any]
    results: Mapping[str, Values]
    keys: Sequence[str]
    shard: tuple[int, int]
    document: dict[str, Any]


def mean(values: Iterable[float | None]) -> float | None:
    """
    Mean of the finite values; None if there is none.

    Examples
    --------
    >>> mean([1.0, None, float("nan"), 3.0]), mean([])
    (2.0, None)
    """
    from math import isfinite

    finite = [value for value in values if value is not None and isfinite(value)]
    return sum(finite) / len(finite) if finite else None
