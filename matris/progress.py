"""Progress bars of functions that compute many structures."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


def shown[T](items: Generator[T], what: str, *, progress: bool, total: int | None = None) -> Generator[T]:
    """
    Show on standard error how many items have been yielded, how many of them failed, and the remaining time.

    Parameters
    ----------
    items
        Items as they are computed. Those with the ``state`` ``"failed"`` are counted.
    what
        Word before the bar.
    progress
        Whether to show anything.
    total
        Number of items; None if it is not known.

    Examples
    --------
    >>> squares = shown((n * n for n in range(3)), "squares", progress=False)
    >>> list(squares)
    [0, 1, 4]
    """
    return _counted(items, what, total) if progress else items


def _counted[T](items: Generator[T], what: str, total: int | None) -> Generator[T]:
    n_failed = 0
    with bar(what, total) as show, closing(items):
        for item in items:
            n_failed += getattr(item, "state", None) == "failed"
            show(1, f"{n_failed} failed" if n_failed else "")
            yield item


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """
    Show a progress bar on standard error.

    Parameters
    ----------
    what
        Word before the bar.
    total
        Number at which the bar is full; None if it is not known.

    Yields
    ------
    function
        Advances the bar by a number, and shows a remark beside it, if that is not empty.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    remark = TextColumn("{task.fields[remark]}")
    with Progress(TextColumn("{task.description}"), *columns, remark, console=Console(stderr=True)) as shown_bar:
        task = shown_bar.add_task(what, total=total, remark="")

        def show(number: int, text: str) -> None:
            fields: dict[str, Any] = {"remark": text} if text else {}
            shown_bar.update(task, advance=number, **fields)

        yield show


def size_of(items: object) -> int | None:
    """
    Count items without reading them; None if that is not possible.

    Examples
    --------
    >>> size_of([1, 2]), size_of(iter([1, 2]))
    (2, None)
    """
    return len(items) if isinstance(items, Sized) else None
