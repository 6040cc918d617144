"""Values taken one by one from JSON text of any size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

PIECE = 2**18
"""Characters read at once; a value that fits is looked at as a whole."""

_DECODER = json.JSONDecoder()


class TooLongError(ValueError):
    """A value that does not fit."""


class JsonStream:
    """
    Text of which values are taken from the front; what was taken is not kept.

    Parameters
    ----------
    stream
        The text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """Give the next character that is no space, or nothing at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer) or self._ended:
                return self._buffer[self._at : self._at + 1]
            self._more()

    def take(self, expected: str) -> None:
        """
        Pass over one of some characters.

        Raises
        ------
        ValueError
            If another comes next.
        """
        if (found := self.peek()) not in expected or not found:
            raise ValueError(f"expected {' or '.join(expected)}, found {found or 'the end of the file'}")
        self._at += 1

    def value(self, most: int) -> Any:
        """
        Take a value of at most about so many characters.

        Raises
        ------
        TooLongError
            If it is longer, or broken; nothing is taken then.
        ValueError
            If the text ends before it does.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return value
            except ValueError:
                if self._ended:
                    raise
            if len(self._buffer) - self._at > most:
                raise TooLongError(f"a value of more than {most} characters, or one that is broken")
            self._more()

    def ahead(self) -> str:
        """Show what comes next."""
        return self._buffer[self._at : self._at + 1000]

    def first_key(self) -> str:
        """Show the name of the first member of the object that comes next."""
        key = self._buffer[self._at + 1 :].lstrip()
        return str(_DECODER.raw_decode(key)[0]) if key.startswith('"') else ""

    def _more(self) -> None:
        piece = self._stream.read(max(PIECE, len(self._buffer) - self._at))
        self._buffer, self._at, self._ended = self._buffer[self._at :] + piece, 0, not piece
