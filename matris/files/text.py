"""Text of plain and compressed files, read piece by piece within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO

MAX_TEXT = 2**24
"""Largest number of characters of one crystal's text: a document of MongoDB holds no more."""

MAX_SITES = 100_000
"""Largest number of sites of one crystal."""

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of bytes that cannot be read or unpacked, or that unpack to too much."""

_MOST_EXPANSION = 200  # times the compressed size: about ten times as much as text of crystals reaches
_ALWAYS_ALLOWED = 2**28  # bytes
_PIECE = 2**20  # characters
_MOST_EMPTY = 10**6  # lines

_UNPACK: dict[str, Callable[[BinaryIO], object]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def without_packing(name: str) -> str:
    """Return the file name without the ending of compression."""
    return next((name[: -len(suffix)] for suffix in _UNPACK if name.lower().endswith(suffix)), name)


def patterns(endings: Iterable[str]) -> str:
    """List file names with these endings for a message, and how they may be packed."""
    *first, last = _UNPACK
    return f"{', '.join(f'*{ending}' for ending in endings)}, each also as {', '.join(first)} or {last}"


def open_text(name: str, packed: BinaryIO, size: int) -> TextIO:
    """
    Open a stream as UTF-8 text, decompressed if need be; invalid bytes are replaced.

    Parameters
    ----------
    name
        File name, whose ending determines the compression.
    packed
        The bytes.
    size
        Number of the bytes as stored.

    Returns
    -------
    TextIO
        Reading raises OSError if the text is larger than 256 MB and 200 times the stored size.

    Examples
    --------
    >>> import gzip, io
    >>> packed = gzip.compress(b"data_NaCl")
    >>> open_text("salt.cif.gz", io.BytesIO(packed), len(packed)).read()
    'data_NaCl'
    """
    suffix = name.lower()[len(without_packing(name)) :]
    stream = cast("BinaryIO", _UNPACK[suffix](packed)) if suffix else packed
    bounded = io.BufferedReader(_Bounded(stream, max(_ALWAYS_ALLOWED, _MOST_EXPANSION * size)))  # type: ignore[type-var]
    return io.TextIOWrapper(bounded, encoding="utf-8-sig", errors="replace")


def lines_of(stream: TextIO) -> Iterator[str]:
    """
    Yield lines; a line of more than `MAX_TEXT` characters is cut to `MAX_TEXT` + 1 characters.

    Raises
    ------
    OSError
        If a million empty lines follow each other: a small packed file may hold hundreds of millions.
    """
    n_empty = 0
    while line := stream.readline(MAX_TEXT + 1):
        n_empty = n_empty + 1 if line == "\n" else 0
        if n_empty > _MOST_EMPTY:
            raise OSError(f"more than {_MOST_EMPTY} empty lines follow each other, which is no text of crystals")
        yield line
        rest = line
        while len(line) > MAX_TEXT and rest and not rest.endswith("\n"):
            rest = stream.readline(_PIECE)


class _Bounded(io.RawIOBase):
    """A stream that raises an error after a number of bytes."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"it unpacks to more than {self._most} bytes, which is too large for a text of crystals")
        buffer[: len(data)] = data
        return len(data)
