"""Finished records on disk, so that a killed run goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from monty.json import MontyEncoder

from matris.errors import MatrisError
from matris.files.whole_file import sync_folder
from matris.relaxation.records import RelaxRecord

if TYPE_CHECKING:
    from types import TracebackType

_FORMAT = 2
_IN_MEMORY = 64 * 2**20  # bytes that a journal without a path keeps before it goes to a temporary file


class JournalError(MatrisError):
    """A journal that cannot be used for this run."""


class JournalInUseError(JournalError):
    """A journal that another process writes to."""


class Journal:
    """
    Records by structure identity, one JSON line each, after a header line that says how they were computed.

    Every record is on disk (fsync) when `append` returns. A last line that a killed process left unfinished is
    dropped on opening. Only identities and file offsets are held in memory; records are read back when asked for.

    Parameters
    ----------
    path
        The file, made if missing, with its folders. None: a temporary journal of this process, gone on closing.
    header
        What the records depend on (checkpoint sha256, settings, ...): a JSON object. A journal with
        another header is refused.

    Raises
    ------
    JournalError
        If the file is no journal, was written with another header, is damaged before its last line, or is in use
        by another process.
    """

    def __init__(self, path: str | Path | None, header: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self._offsets: dict[str, int] = {}
        self._end = 0
        line = _line({"version": _FORMAT, **header})
        if self.path is None:
            self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (close)
            self._write(line)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        try:
            self._lock()
            self._read(line)
            if new:
                sync_folder(self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and so let other processes use it."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, structure_id: object) -> bool:
        return structure_id in self._offsets

    def __getitem__(self, structure_id: str) -> RelaxRecord:
        self._file.seek(self._offsets[structure_id])
        return RelaxRecord.from_dict(json.loads(_read_line(self._file)))

    def append(self, record: RelaxRecord) -> None:
        """
        Keep a record: it is on disk when this returns.

        Raises
        ------
        ValueError
            If the record has no `structure_id`, the key by which it would be found again.
        OSError
            If it could not be written (disk full); the journal is as it was before.
        """
        if record.structure_id is None:
            raise ValueError(f"record {record.index} has no structure_id: a journal cannot keep it")
        start = self._end
        self._write(_line(record.to_dict()))
        self._offsets[record.structure_id] = start

    def _write(self, line: bytes) -> None:
        """Add one whole line, or nothing."""
        start = self._end
        try:
            self._file.seek(start)
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            if self.path is not None:
                os.fsync(self._file.fileno())
            self._end = start + len(line)
        finally:
            if self._end == start:  # disk full, or interrupted: leave no part of a line behind
                self._file.truncate(start)

    def _lock(self) -> None:
        """Keep a second process from writing to the same file."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalInUseError(
                f"journal {self.path} is in use by another process: wait for it, or name another"
            ) from None
        except OSError:  # a file system without locks: nothing to hold
            return

    def _read(self, header: bytes) -> None:
        """Check the header, find the records, and cut off an unfinished last line."""
        with self.path.open("rb") as lines:  # type: ignore[union-attr]
            first = lines.readline()
            if header.startswith(first) and first != header:  # empty, or killed while writing its header
                self._file.truncate(0)
                self._write(header)
                return
            self._check(first, header)
            self._end = len(first)
            for number, line in enumerate(lines, start=2):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._offsets[json.loads(line)["structure_id"]] = self._end
                except (ValueError, KeyError, TypeError):
                    raise JournalError(
                        f"journal {self.path} is damaged at line {number}: remove that line, or name another journal"
                    ) from None
                self._end += len(line)
        self._file.truncate(self._end)

    def _check(self, first: bytes, header: bytes) -> None:
        """Refuse a file that is no journal, or one of another run."""
        if first == header:
            return
        expected = json.loads(header)
        try:
            found = json.loads(first)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "version" not in found:
            raise JournalError(f"{self.path} is not a relaxation journal: name another file")
        differs = [
            f"{key} {found.get(key)} there, {expected.get(key)} here"
            for key in sorted({*expected, *found})
            if found.get(key) != expected.get(key)
        ]
        raise JournalError(
            f"journal {self.path} belongs to another run ({'; '.join(differs)}): "
            "name another journal, or run with what it was written with"
        )


def _line(content: dict[str, Any]) -> bytes:
    """One line of JSON; NaN is refused, for it is no JSON."""
    return json.dumps(content, sort_keys=True, allow_nan=False, cls=MontyEncoder).encode() + b"\n"


def _read_line(file: IO[bytes]) -> bytes:
    """Read up to the end of the line, in blocks (an unbuffered file reads byte by byte otherwise)."""
    blocks: list[bytes] = []
    while block := file.read(65536):
        head, newline, _ = block.partition(b"\n")
        blocks.append(head)
        if newline:
            break
    return b"".join(blocks)
