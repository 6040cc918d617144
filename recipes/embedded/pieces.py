"""Pieces of work that several processes share: each is one file, which one process makes."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """
    Hold the exclusive lock of a file while it is made.

    The lock lies beside the file. The operating system releases it when the process dies, so that another process can
    make the file.

    Parameters
    ----------
    path
        The file; missing folders are made.
    wait
        Whether to wait for another process that makes the file.

    Yields
    ------
    bool
        Whether the block must make the file: False if it exists, or, without ``wait``, another process makes it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "piece"
    ...     for _ in range(2):
    ...         with claim(path) as mine:
    ...             if mine:
    ...                 _ = path.write_text("made")
    ...         print(mine)
    True
    False
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        mine = not path.exists()
        if mine:
            for draft in path.parent.glob(f".{path.name}.*.part"):  # `whole_file`'s, of a process that was killed
                draft.unlink()
        yield mine
        if path.exists():  # who still waits for the removed lock finds the file
            lock.unlink(missing_ok=True)
