"""Files that appear under their name only when they are complete and on disk."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """
    Give the path of a draft, which takes the place of a file when the block ends.

    The draft lies in the same folder under a hidden, random name, so concurrent writers do not disturb each other:
    the last one to finish wins. After an error, the draft is removed and an older file of that name is unchanged.

    Parameters
    ----------
    path
        The file; missing folders are made.
    sync
        Whether to wait until draft and folder are on disk (some 10 ms): not needed for many small files that can be
        written again.

    Yields
    ------
    Path
        The draft, which does not exist yet: the block writes and closes it.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = Path(folder) / "report.txt"
    ...     with whole_file(report) as draft:
    ...         _ = draft.write_text("complete")
    ...         print(report.exists())
    ...     print(report.read_text())
    False
    complete
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield draft
        if sync:
            with draft.open("rb") as stream:
                os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder as durable as their content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
