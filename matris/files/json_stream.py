"""Values of JSON text of any size, one after the other, with a bounded use of memory.

Written by hand because ijson ends at what Python and pymatgen write, NaN, Infinity and integers beyond 64 bits, and has
no bound on the length of a value.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from matris.files.text import MAX_TEXT, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

type Path = tuple[str | int, ...]
"""Place in a document: names of members, and positions in lists."""

type Find = Callable[[Path, Any], Iterator[tuple[Path, Any]]]

PIECE = 2**18
"""Characters read at once; objects up to this length are parsed as a whole."""

DEEPEST = 6
"""Levels of lists and objects above an item."""

_ITEM_KEYS = frozenset({"lattice", "sites", "charge", "structure", "numbers", "positions"})
"""First keys of objects that are one item, however long they are."""

_SPACES = re.compile(r"[ \t\r\n]+")

_DECODER = json.JSONDecoder()


class TooLongError(ValueError):
    """A value that is longer than allowed, or broken."""


class JsonStream:
    """
    JSON text whose values are taken from the front; text that was taken is not kept.

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
        """Give the next character that is no space; an empty string at the end."""
        while True:
            if spaces := _SPACES.match(self._buffer, self._at):
                self._at = spaces.end()
            if self._at < len(self._buffer) or self._ended:
                return self._buffer[self._at : self._at + 1]
            self._more()

    def take(self, expected: str) -> None:
        """
        Pass over the next character, which must be one of those expected.

        Raises
        ------
        ValueError
            If another one comes next.
        """
        if (character := self.peek()) not in expected or not character:
            raise ValueError(f"expected {' or '.join(expected)}, found {character or 'the end of the file'}")
        self._at += 1

    def value(self, most: int) -> Any:
        """
        Take the next value.

        Parameters
        ----------
        most
            Largest length in characters, about.

        Raises
        ------
        TooLongError
            If the value is longer, or broken; nothing is taken then.
        ValueError
            If the text ends before the value does, or the value is nested too deeply.
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
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            if len(self._buffer) - self._at > most:
                raise TooLongError(f"a value of more than {most} characters, or a broken one")
            self._more()

    def members(self) -> Iterator[str | int]:
        """
        Enter the object or list that comes next, and yield the name or position of each member.

        The caller takes the value of each member before it asks for the next one.
        """
        opening, closing = ("{", "}") if self.peek() == "{" else ("[", "]")
        self.take(opening)
        position = 0
        while self.peek() != closing:
            if position:
                self.take(",")
            if opening == "{":
                name = str(self.value(MAX_TEXT))
                self.take(":")
                yield name
            else:
                yield position
            position += 1
        self.take(closing)

    def ahead(self) -> str:
        """Show the beginning of the text that comes next."""
        return self._buffer[self._at : self._at + 1000]

    def first_key(self) -> str:
        """Show the name of the first member of the object that comes next."""
        key = self._buffer[self._at + 1 :].lstrip()
        return str(_DECODER.raw_decode(key)[0]) if key.startswith('"') else ""

    def _more(self) -> None:
        piece = self._stream.read(max(PIECE, len(self._buffer) - self._at))
        self._buffer, self._at, self._ended = self._buffer[self._at :] + piece, 0, not piece


def items(text: JsonStream, path: Path, find: Find, whole: int) -> Iterator[tuple[Path, Any]]:
    """
    Yield the items of the next value: an item, or any nesting of lists and objects around items.

    Parameters
    ----------
    text
        The text.
    path
        Place of the value.
    find
        Yields the items in a value that fits into memory, each with its place.
    whole
        Length in characters up to which an object is given to `find` at once; a longer one is taken apart member by
        member, unless its first key tells that it is an item.

    Raises
    ------
    ValueError
        If the text is broken, or an item has more than `MAX_TEXT` characters; what comes later is not read.
    """
    opening = text.peek()
    in_list = any(isinstance(step, int) for step in path)
    if opening != "[" or in_list:
        most = whole if opening == "{" and not in_list else MAX_TEXT
        value, is_whole = None, True
        try:
            value = text.value(most)
        except TooLongError:
            is_whole = opening not in "{[" or len(path) >= DEEPEST or (opening == "{" and _is_item(text.first_key()))
            if is_whole:
                value = text.value(MAX_TEXT)
        if is_whole:
            yield from find(path, value)
            return
    for step in text.members():
        is_nested = text.peek() in ("{", "[") and len(path) < DEEPEST
        if is_nested or (isinstance(step, int) and not path):
            yield from items(text, (*path, step), find, whole)
        else:
            text.value(MAX_TEXT)  # a number or a word beside the items


def _is_item(first_key: str) -> bool:
    return first_key.startswith("@") or first_key in _ITEM_KEYS


def read_lines(stream: TextIO) -> Iterator[tuple[int, str, Any | ValueError]]:
    """
    Yield the values of JSON lines; a broken line costs only itself.

    Yields
    ------
    int
        Number of the line, from 1. Empty lines are left out.
    str
        Its text, or the beginning of a text that is too long.
    object
        Its value, or the error.
    """
    for number, line in enumerate(lines_of(stream), 1):
        if not line.strip():
            continue
        value: Any
        try:
            value = json.loads(line)
        except RecursionError:
            value = ValueError("it is nested too deeply")
        except ValueError as error:
            value = error
        if len(line) > MAX_TEXT:
            value = ValueError(f"a line of more than {MAX_TEXT} characters")
        yield number, line[:MAX_TEXT], value
