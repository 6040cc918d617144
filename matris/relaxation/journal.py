"""Journal of finished records on disk, from which a killed run continues."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from monty.json import MontyEncoder

from matris.errors import MatrisError
from matris.files.whole_file import sync_folder
from matris.relaxation.records import RelaxRecord

if TYPE_CHECKING:
    from types import TracebackType

_FORMAT = 2
_IN_MEMORY = 64 * 2**20  # bytes of a journal without a path that stay in memory; a temporary file holds more


class JournalError(MatrisError):
    """A journal that cannot be used for this run."""


class JournalInUseError(JournalError):
    """A journal that another process writes to."""


class Recorded(Protocol):
    """What a journal keeps: a result of `structure_id` that JSON can hold."""

    @property
    def structure_id(self) -> str | None:
        """Key of the record in the journal."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON object that contains its key."""

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_dict`."""


class Journal:
    """
    Records by structure identity: a file of JSON lines, whose first line is a header.

    Records are on disk (fsync) when `append` returns. Opening a journal drops an incomplete last line, as a killed
    process leaves it. Memory holds only identities and file offsets; records are read from the file on access.

    Parameters
    ----------
    path
        The file. It and its folders are created if they do not exist. None: a temporary journal, deleted when closed.
    header
        JSON object of all that the records depend on (checkpoint sha256, settings, ...). A file with another header is
        refused.
    kind
        Class of the records.

    Raises
    ------
    JournalError
        If the file is not a journal, has another header, is damaged before its last line, or is in use by another
        process.

    Examples
    --------
    >>> from matris.relaxation.records import RelaxRecord
    >>> header = {"checkpoint": "c033abc5"}
    >>> with Journal("run.jsonl", header) as journal:
    ...     journal.append(RelaxRecord(0, "3f9a", "failed", error="overlapping atoms"))
    >>> with Journal("run.jsonl", header) as journal:
    ...     print(len(journal), journal["3f9a"].error)
    1 overlapping atoms
    """

    def __init__(self, path: str | Path | None, header: dict[str, Any], kind: type[Recorded] = RelaxRecord) -> None:
        self._kind = kind
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
        """Close the file, which also releases its lock."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, structure_id: object) -> bool:
        return structure_id in self._offsets

    def __getitem__(self, structure_id: str) -> Any:
        self._file.seek(self._offsets[structure_id])
        return self._kind.from_dict(json.loads(_read_line(self._file)))

    def append(self, *records: Recorded) -> None:
        """
        Write records; they are on disk when the method returns. Many at once wait for the disk once.

        A process that is killed here leaves the first of them whole, or none, and no part of a record.

        Raises
        ------
        ValueError
            If a record has no `structure_id`, which is its key.
        OSError
            If the records cannot be written (disk full); the journal is unchanged.
        """
        offsets, lines, end = {}, list[bytes](), self._end
        for record in records:
            if record.structure_id is None:
                raise ValueError(f"{record!r} has no structure_id, which is its key in a journal")
            lines.append(_line(record.to_dict()))
            offsets[record.structure_id] = end
            end += len(lines[-1])
        if lines:
            self._write(b"".join(lines))
            self._offsets |= offsets

    def _write(self, lines: bytes) -> None:
        """Append complete lines, or nothing."""
        start = self._end
        try:
            self._file.seek(start)
            remaining = memoryview(lines)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
            if self.path is not None:
                os.fsync(self._file.fileno())
            self._end = start + len(lines)
        finally:
            if self._end == start:  # disk full or interrupted: remove what was written
                self._file.truncate(start)

    def _lock(self) -> None:
        """Lock the file against other processes."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalInUseError(
                f"journal {self.path} is in use by another process: wait until it ends, or choose another journal"
            ) from None
        except OSError:  # a file system without locks
            return

    def _read(self, header: bytes) -> None:
        """Check the header, index the records, and remove an incomplete last line."""
        with self.path.open("rb") as lines:  # type: ignore[union-attr]
            first = lines.readline()
            if header.startswith(first) and first != header:  # empty, or an incomplete header of a killed process
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
                        f"journal {self.path} is damaged at line {number}: remove that line, or choose another journal"
                    ) from None
                self._end += len(line)
        self._file.truncate(self._end)

    def _check(self, first: bytes, header: bytes) -> None:
        """Refuse a file that is not a journal, or the journal of another run."""
        if first == header:
            return
        expected = json.loads(header)
        try:
            actual = json.loads(first)
        except ValueError:
            actual = None
        if not isinstance(actual, dict) or "version" not in actual:
            raise JournalError(f"{self.path} is not a relaxation journal: choose another file")
        differences = [
            f"{key} is {actual.get(key)} in the journal, {expected.get(key)} in this run"
            for key in sorted({*expected, *actual})
            if actual.get(key) != expected.get(key)
        ]
        raise JournalError(
            f"journal {self.path} belongs to another run ({'; '.join(differences)}): "
            "choose another journal, or the settings of that run"
        )


def _line(content: dict[str, Any]) -> bytes:
    """Encode one line of JSON; NaN raises ValueError, because JSON has none."""
    return json.dumps(content, sort_keys=True, allow_nan=False, cls=MontyEncoder).encode() + b"\n"


def _read_line(file: IO[bytes]) -> bytes:
    """Read one line in blocks; `readline` of an unbuffered file reads byte by byte."""
    blocks: list[bytes] = []
    while block := file.read(65536):
        head, newline, _ = block.partition(b"\n")
        blocks.append(head)
        if newline:
            break
    return b"".join(blocks)
