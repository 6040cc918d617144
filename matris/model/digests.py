"""SHA-256 of files, and what a file of a published name had when it was first used."""

from __future__ import annotations

import hashlib
import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from matris.files.cache import cache_directory
from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


def file_sha256(path: Path) -> str:
    """
    Compute the SHA-256 of a file, once for each modification time and size.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _sha256(path: Path, modified: int, size: int) -> str:  # noqa: ARG001
    """SHA-256 of a file; modification time (ns) and size are keys of the cache."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_of(name: str) -> Path:
    """File in the cache directory that holds the SHA-256 of a published file at its first use."""
    return cache_directory() / f"{name}.sha256"


def recorded(name: str) -> str | None:
    """
    Read the SHA-256 that a file of a published name had at its first use; None if there is no record.

    Examples
    --------
    >>> print(recorded("never-used.pth.tar"))
    None
    """
    try:
        text = record_of(name).read_text().strip()
    except OSError:
        return None
    if re.fullmatch("[0-9a-f]{64}", text):
        return text
    logger.warning("%s holds no SHA-256, and is not used", record_of(name))
    return None


def record(name: str, digest: str) -> None:
    """Record and show the SHA-256 of a published file of which its authors give none, at its first use."""
    kept = f"It is recorded in {record_of(name)}, and any other file of that name is refused from now on."
    try:
        with whole_file(record_of(name)) as draft:
            draft.write_text(f"{digest}\n")
    except OSError as error:
        kept = f"It cannot be recorded: {error}."
    logger.warning("%s: nobody states its SHA-256. This file has %s. %s", name, digest, kept)
