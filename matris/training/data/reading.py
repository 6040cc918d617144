"""Readers of labelled frames from files and sets."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from matris.errors import MatrisError
from matris.files.text import DAMAGED, open_text, patterns, without_packing
from matris.training.data.ase_rows import read_ase_frames
from matris.training.data.dataset import META, DataSet
from matris.training.data.extxyz import read_xyz_frames
from matris.training.data.json_documents import read_json_frames, read_json_lines
from matris.training.data.labelled import LabelOptions, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

    from matris.training.data.dataset import Part
    from matris.training.data.frame import Frame
    from matris.training.data.labelled import Outcome

_READERS: dict[str, Callable[[str, TextIO, LabelOptions], Iterator[Outcome]]] = {
    ".xyz": read_xyz_frames,
    ".extxyz": read_xyz_frames,
    ".json": read_json_frames,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
KNOWN = f"{patterns(_READERS)}; ASE's *.db; sets of 'matris data'"


def files_of(path: Path) -> list[Path]:
    """
    List the sources in a folder in the order of their names, or the path itself if it is one source.

    Raises
    ------
    MatrisError
        If a folder holds none.
    """
    if not path.is_dir() or (path / META).is_file():
        return [path]
    files = sorted(p for p in path.iterdir() if p.is_file() and (p.name.endswith(".db") or _reader(p.name)))
    if not files:
        raise MatrisError(f"{path}: no labelled frames in this folder; known are {KNOWN}")
    return files


class LabelledFiles:
    """
    Frames of files or sets, for comparison with a potential.

    Parameters
    ----------
    paths
        Files, sets, or folders of files.
    options
        Units and limits.
    part
        Part to read of sets.

    Attributes
    ----------
    left_out
        After reading: number of frames left out, by reason.
    scales
        After reading: energy scales named by the sources.
    """

    def __init__(self, paths: Iterable[Path], options: LabelOptions, part: Part = "all") -> None:
        self._paths = [file for path in paths for file in files_of(path)]
        self._options = options
        self._part = part
        self.left_out: Counter[str] = Counter()
        self.scales: set[str] = set()

    def frames(self) -> Iterator[tuple[str, Frame]]:
        """Yield the name of the source and the frame."""
        for path in self._paths:
            if path.is_dir():
                data = DataSet(path, self._part)
                self.scales |= {data.meta["energy_scale"]} - {None}
                for source, frame in zip(data.sources().tolist(), data, strict=True):
                    yield data.source_names[source], frame
                continue
            for taken in read_labelled(path, self._options):
                if isinstance(taken, Rejected):
                    self.left_out[taken.reason] += 1
                    continue
                self.scales |= {taken.scale} - {None}  # type: ignore[arg-type]
                yield path.name, taken.frame


def read_labelled(path: Path, options: LabelOptions) -> Iterator[Outcome]:
    """
    Yield the labelled frames of a file, and a `Rejected` for each frame that cannot be used for training.

    Parameters
    ----------
    path
        One of the `KNOWN`.
    options
        Units and limits.

    Raises
    ------
    MatrisError
        If there is no such file, or its type is not known.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     copper, unlabelled = bulk("Cu"), bulk("Cu")
    ...     copper.calc = EMT()
    ...     _ = copper.get_forces(), copper.get_stress()
    ...     path = Path(folder) / "copper.extxyz"
    ...     copper.write(path)
    ...     unlabelled.write(path, append=True)
    ...     for outcome in read_labelled(path, LabelOptions()):
    ...         print(outcome if isinstance(outcome, Rejected) else outcome.frame.formula)
    Cu
    copper.extxyz:1: no energy
    """
    if path.is_dir():
        yield from DataSet(path).labelled()
        return
    if not path.is_file():
        raise MatrisError(f"cannot read training frames from {path}: no such file")
    name = path.name.lower()
    if name.endswith(".db"):
        yield from read_ase_frames(path, options)
        return
    reader = _reader(name)
    if reader is None:
        raise MatrisError(f"{path}: no labelled frames are read from such a file; known are {KNOWN}")
    try:
        with path.open("rb") as packed, open_text(path.name, packed, path.stat().st_size) as stream:
            yield from reader(path.name, stream, options)
    except DAMAGED as error:
        yield Rejected(path.name, "unreadable", f"{error}; the rest of the file is not read")


def read_frames(paths: Iterable[Path]) -> Iterator[Frame]:
    """
    Read labelled frames; a frame that cannot be used for training is an error.

    Parameters
    ----------
    paths
        Files or sets for `read_labelled`, such as extended XYZ with energy, forces and, optionally, stress and magnetic
        moments (eV, eV/Å, eV/Å³, μB). The keys ``material`` and ``split`` ("val" for validation) are used.

    Raises
    ------
    MatrisError
        For a file that cannot be read, or a frame that cannot be used; the message names both.
    """
    for path in paths:
        for taken in read_labelled(path, LabelOptions(max_force=math.inf)):
            if isinstance(taken, Rejected):
                raise MatrisError(f"cannot read training frames from {path}: {taken}")
            yield taken.frame


def _reader(name: str) -> Callable[[str, TextIO, LabelOptions], Iterator[Outcome]] | None:
    lower = without_packing(name).lower()
    return next((reader for suffix, reader in _READERS.items() if lower.endswith(suffix)), None)
