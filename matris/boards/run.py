"""The frame of all boards: a journal from which a killed run continues, metrics, comparison, files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import batched, islice
from typing import TYPE_CHECKING, Any, Self

from matris.boards.board import Finished, Job
from matris.errors import BoardError
from matris.files.whole_file import whole_file
from matris.model.digests import file_sha256
from matris.progress import shown
from matris.relaxation.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from matris.boards.board import Board, Metrics, Values
    from matris.boards.contestants import Contestant

_PACKAGES = (
    "matris-flows",
    "torch",
    "torch-sim-atomistic",
    "ase",
    "pymatgen",
    "numpy",
    "phonopy",
    "phono3py",
    "matminer",
)


@dataclass(frozen=True)
class ItemResult:
    """
    Result of one item of a board, as the journal keeps it.

    Attributes
    ----------
    structure_id
        Key of the item.
    values
        The results; ``error`` is the reason of a failure.
    seconds
        Wall time (s) since the result before it.
    """

    structure_id: str
    values: Values
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_dict`."""
        return cls(**content)


@dataclass(frozen=True)
class Comparison:
    """One metric beside its published value; `agrees` is None if the board states no tolerance for it."""

    metric: str
    value: float | None
    published: float
    tolerance: float | None
    agrees: bool | None


@dataclass(frozen=True)
class BoardResult:
    """
    Result of a board.

    Attributes
    ----------
    document
        The content of the JSON file.
    comparisons
        Each metric with a published value; empty if there is none, or not all items were computed.
    """

    document: dict[str, Any]
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def differences(self) -> list[Comparison]:
        """The metrics that differ from the published ones by more than the protocol explains."""
        return [comparison for comparison in self.comparisons if comparison.agrees is False]


def run_board(
    board: Board,
    contestant: Contestant,
    folder: Path,
    *,
    data: Path | None = None,
    limit: int | None = None,
    compare: str | None = None,
    shard: tuple[int, int] = (0, 1),
    merge: Sequence[Path] = (),
    progress: bool = False,
) -> BoardResult:
    """
    Compute what is missing of a board, and write its metrics.

    The folder gets ``NAME.jsonl``, the journal with the results of all items, ``NAME.json``, the metrics with versions,
    settings and failures, and ``NAME.md``, a row for a Markdown table.

    Parameters
    ----------
    board
        The board.
    contestant
        The potential to measure.
    folder
        Folder of the results; one for each contestant.
    data
        Data of the board.
    limit
        Compute the first items only. The journal keeps them for a longer run.
    compare
        Name of the published result to compare with; by default that of the contestant's name, if there is one.
    shard
        Compute every n-th item only, from the given one, from 0: (0, 8) to (7, 8) are a whole board.
    merge
        Folders of shards, whose results are taken over.
    progress
        Whether to show progress bars on standard error.

    Raises
    ------
    BoardError
        If data are missing, no item can be computed, or there is no published result of that name.
    JournalError
        If a folder holds results of another contestant, other settings or other data.
    """
    if board.data is not None and (data is None or not data.exists()):
        raise BoardError(f"{board.name} needs --data: {board.data}" + ("" if data is None else f"; there is no {data}"))
    if compare is not None and compare not in board.published:
        raise BoardError(f"no published {board.name} result of {compare}: there are {', '.join(board.published)}")
    every = board.read(data)
    items = dict(islice(islice(every.items(), shard[0], None, shard[1]), limit))
    header = {
        "board": board.name,
        "settings": dict(board.settings),
        "contestant": contestant.describe(),
        "data": None if data is None else digest_of(data, board.files),
    }
    with Journal(folder / f"{board.name}.jsonl", header, ItemResult) as journal:
        _take_over(board, journal, items, merge, header)
        _compute(board, Job(contestant, folder / f"{board.name}-cells", progress), journal, items)
        results = _Results(journal, items)
        metrics = board.score(items, results)
        chosen = compare or (contestant.name if contestant.name in board.published else None)
        whole = len(items) == len(every)
        comparisons = compared(board, metrics, chosen) if whole and chosen else []
        document = {
            **header,
            "metrics": metrics,
            "n_items": len(items),
            "is_whole": whole,
            "failures": {key: values["error"] for key, values in results.items() if values.get("error")},
            "remarks": board.remarks(items),
            "seconds": round(sum(journal[key].seconds for key in items), 1),
            "device": str(contestant.engine.model.device),
            "versions": versions(),
            "compared_with": chosen if comparisons else None,
            "comparison": [asdict(comparison) for comparison in comparisons],
            "published": {name: dict(values) for name, values in board.published.items()},
        }
        with whole_file(folder / f"{board.name}.json") as draft:
            draft.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with whole_file(folder / f"{board.name}.md") as draft:
            draft.write_text(markdown(contestant.name, metrics, whole=whole), encoding="utf-8")
        if board.write is not None:
            board.write(Finished(board, contestant, folder, items, results, list(every), shard, document))
    return BoardResult(document, comparisons)


class _Results(Mapping[str, "Values"]):
    """Results of items, read from the journal each time: those of a large set do not fit into memory."""

    def __init__(self, journal: Journal, keys: Iterable[str]) -> None:
        self._journal, self._keys = journal, list(keys)

    def __getitem__(self, key: str) -> Values:
        values: Values = self._journal[key].values
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _take_over(
    board: Board, journal: Journal, items: Mapping[str, Any], folders: Sequence[Path], header: dict[str, Any]
) -> None:
    """Copy results from journals of other folders."""
    for folder in folders:
        path = folder / f"{board.name}.jsonl"
        if not path.is_file():
            raise BoardError(f"{folder} holds no results of {board.name}: it has no {path.name}")
        with Journal(path, header, ItemResult) as other:
            for keys in batched((key for key in items if key in other and key not in journal), 100):
                journal.append(*(other[key] for key in keys))


def _compute(board: Board, job: Job, journal: Journal, items: Mapping[str, Any]) -> None:
    """Compute the items that the journal does not hold; results are on disk as they come."""
    missing = [key for key in items if key not in journal]
    done = len(items) - len(missing)
    for keys in batched(missing, board.chunk):
        start, failed = time.perf_counter(), list[ItemResult]()
        results = board.compute(job, {key: items[key] for key in keys})
        for key, values in shown(results, f"{board.name} {done + 1}…", progress=job.progress, total=len(keys)):
            now = time.perf_counter()
            result = ItemResult(key, values, round(now - start, 3))
            start = now
            if values.get("error"):
                failed.append(result)  # written if another item of the chunk could be computed
            else:
                journal.append(result)
        if len(failed) == len(keys):
            raise BoardError(
                f"none of {len(keys)} items could be computed, and nothing is recorded about them. The first, "
                f"{failed[0].structure_id}: {failed[0].values['error']}"
            )
        journal.append(*failed)
        done += len(keys)
        shutil.rmtree(job.folder, ignore_errors=True)


def compared(board: Board, metrics: Metrics, name: str) -> list[Comparison]:
    """Put the metrics beside those published under a name."""
    comparisons = []
    for metric, published in board.published[name].items():
        value, tolerance = metrics.get(metric), board.tolerance.get(metric)
        agrees = None if tolerance is None else value is not None and abs(value - published) <= tolerance
        comparisons.append(Comparison(metric, value, published, tolerance, agrees))
    return comparisons


def markdown(name: str, metrics: Metrics, *, whole: bool) -> str:
    """
    Write metrics as a table of one row.

    Examples
    --------
    >>> print(markdown("tiny", {"F1": 0.84712, "missing": 3, "R2": None}, whole=True), end="")
    | model | F1 | missing | R2 |
    |---|---|---|---|
    | tiny | 0.8471 | 3 | – |
    """
    cells = [
        "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}" for value in metrics.values()
    ]
    head, row = (" | ".join(line) for line in (["model", *metrics], [name if whole else f"{name} (part)", *cells]))
    return f"| {head} |\n|{'---|' * (len(metrics) + 1)}\n| {row} |\n"


def digest_of(data: Path, patterns: Sequence[str] = ("*",)) -> dict[str, str]:
    """SHA-256 of a file, or of the files of a folder, by name."""
    files = sorted({path for pattern in patterns for path in data.glob(pattern)}) if data.is_dir() else [data]
    return {path.name: file_sha256(path) for path in files}


def versions() -> dict[str, str | None]:
    """Versions of the packages on which the numbers depend; None for one that is not installed."""
    installed: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed
