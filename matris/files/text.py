"""Text of files, packed or not, read piece by piece within bounds."""

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
"""Most characters of one crystal's text: more fits into no document of a MongoDB."""

MAX_SITES = 100_000
"""Most sites of one crystal."""

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of bytes that cannot be read or unpacked, or that unpack to too much."""

_MOST_EXPANSION = 200  # times its packed size: some ten times what text of crystals does
_ALWAYS_ALLOWED = 2**28  # bytes
_PIECE = 2**20  # characters

_UNPACK: dict[str, Callable[[BinaryIO], object]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def without_packing(name: str) -> str:
    """File name that tells the format."""
    return next((name[: -len(suffix)] for suffix in _UNPACK if name.lower().endswith(suffix)), name)


def patterns(endings: Iterable[str]) -> str:
    """List file names with these endings for a message, and how they may be packed."""
    *first, last = _UNPACK
    return f"{', '.join(f'*{ending}' for ending in endings)}, each also as {', '.join(first)} or {last}"


def open_text(name: str, packed: BinaryIO, size: int) -> TextIO:
    """
    Open a stream as text; bytes that are no UTF-8 are replaced.

    Parameters
    ----------
    name
        Whose ending tells how it is packed.
    packed
        Bytes.
    size
        Their number, as stored.

    Returns
    -------
    TextIO
        Reading raises OSError if it unpacks to more than 256 MB and 200 times its size.
    """
    suffix = name.lower()[len(without_packing(name)) :]
    stream = cast("BinaryIO", _UNPACK[suffix](packed)) if suffix else packed
    bounded = io.BufferedReader(_Bounded(stream, max(_ALWAYS_ALLOWED, _MOST_EXPANSION * size)))  # type: ignore[type-var]
    return io.TextIOWrapper(bounded, encoding="utf-8-sig", errors="replace")


def lines_of(stream: TextIO) -> Iterator[str]:
    """Yield lines; of one with more than `MAX_TEXT` characters only the beginning, one character longer than that."""
    while line := stream.readline(MAX_TEXT + 1):
        yield line
        rest = line
        while len(line) > MAX_TEXT and rest and not rest.endswith("\n"):
            rest = stream.readline(_PIECE)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after so many bytes."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"it unpacks to more than {self._most} bytes, which no text of crystals does")
        buffer[: len(data)] = data
        return len(data)
