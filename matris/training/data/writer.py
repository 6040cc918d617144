"""Writer of sets: streams, checks and splits labelled frames; the folder appears when it is complete."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from matris.errors import MatrisError
from matris.files.whole_file import sync_folder
from matris.training.data.dataset import ARRAYS, FORMAT, META, OUTLIER, TRAINING, VALIDATION, WHERE, DataSet
from matris.training.data.element_energies import fractions, least_absolute
from matris.training.data.labelled import Rejected, reduced_formula
from matris.training.data.pressures import Agreement, Pressures
from matris.training.data.statistics import describe
from matris.training.data.work import WorkCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from matris.model.potential import Potential
    from matris.training.data.labelled import Outcome, Split

REJECTED = "rejected.csv"

_ROBUST = 1.4826  # from the median absolute deviation to a standard deviation
_DEVIATIONS = 12.0
_TOLERATED = 1.0  # eV/atom; smaller deviations are never outliers

type SplitBy = Literal["formula", "material", "source", "block"]

_BLOCKS = 10  # of consecutive frames, per source


@dataclass(frozen=True)
class SetOptions:
    """
    How to make a set.

    Parameters
    ----------
    validation
        Fraction of the groups that is set aside for validation.
    split_by
        Definition of a group, which is never split: frames of the same reduced formula, of the same material as named
        by the source, of the same source, or of the same block, which is a tenth of the consecutive frames of a source.
        Frames next to each other in a trajectory are nearly equal, so that single ones would not test a fit. If a
        source assigns a frame to a part, its whole group belongs to it.
    energy_scale
        Energy scale of all labels; by default as named by the sources.
    max_residual
        Largest deviation of an energy from the fitted element energies (eV/atom); by default twelve robust standard
        deviations, but at least 1 eV/atom.
    check_labels
        Whether to refuse labels that contradict each other, see `matris.training.data.work.WorkCheck`.
    """

    validation: float = 0.05
    split_by: SplitBy = "formula"
    energy_scale: str | None = None
    max_residual: float | None = None
    check_labels: bool = True


def write_set(
    output: Path,
    sources: Iterable[tuple[str, Iterable[Outcome]]],
    options: SetOptions | None = None,
    watch: Callable[[int, int], None] | None = None,
    potential: Potential | None = None,
) -> DataSet:
    """
    Write labelled frames into a folder.

    Parameters
    ----------
    output
        The folder, which must not exist. It appears when it is complete.
    sources
        Name and frames of each source.
    options
        Options of the set.
    watch
        Called after every frame with the numbers of accepted and rejected frames.
    potential
        Potential that checks the sign and unit of stresses of sources without comparable pairs of frames.

    Returns
    -------
    DataSet

    Raises
    ------
    MatrisError
        If the folder exists, no frame can be used, the labels of a source are inconsistent, the sources are on
        different energy scales, or no group is left for one of the parts.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase.build import bulk
    >>> from matris.model.graph import Geometry
    >>> from matris.training.data.frame import Frame
    >>> from matris.training.data.labelled import Labelled
    >>> frames = [
    ...     Labelled(Frame(Geometry.of(bulk(symbol)), -3.0, np.zeros((1, 3)), np.zeros((3, 3)), symbol), symbol)
    ...     for symbol in ("Cu", "Ag", "Au")
    ... ]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = write_set(Path(folder) / "metals", [("example", frames)], SetOptions(validation=0.1))
    ...     print(len(data.part("training")), len(data.part("validation")), data.meta["n_materials"])
    2 1 3
    """
    options = options or SetOptions()
    with _partial(output) as folder:
        with _Spool(folder, potential) as spool:
            for name, taken in sources:
                spool.begin(name)
                for item in taken:
                    spool.add(item)
                    if watch is not None:
                        watch(spool.n_frames, spool.rejected.total())
                spool.end(check=options.check_labels)
            spool.finish()
        if not spool.n_frames:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in spool.rejected.most_common(5))
            raise MatrisError(f"no frames to train on: {reasons or 'the sources are empty'}")
        _complete(folder, spool, options)
    return DataSet(output)


def _complete(folder: Path, spool: _Spool, options: SetOptions) -> None:
    """Remove outliers, split the frames, and write the description of the set."""
    scale = options.energy_scale or _one_scale(spool.scales)
    (folder / "materials.json").write_text(json.dumps([name for name, _ in spool.materials]))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS if name != "parts"}
    parts, declared = _parts(spool, np.asarray(arrays["materials"]), np.asarray(arrays["sources"]), options)
    energies, residuals = _regress(arrays, options.max_residual)
    outliers = np.isnan(residuals)
    if outliers.any():
        _reject_outliers(folder, np.flatnonzero(outliers), arrays, energies)
        spool.rejected["energy outlier"] += int(outliers.sum())
    parts[outliers] = OUTLIER
    kept = {name: int((parts == value).sum()) for name, value in (("training", TRAINING), ("validation", VALIDATION))}
    if not all(kept.values()):
        raise MatrisError(
            f"{kept['training']} frames to train on and {kept['validation']} to validate with: all are of "
            f"{len(spool.materials)} material(s) in {len(spool.sources)} source(s), and a {options.split_by} is never "
            "split; name other groups (--split-by material, source or block), or the part of each frame (key 'split')"
        )
    np.save(folder / "parts.npy", parts)
    meta = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "energy_scale": scale,
        "n_frames": int((parts != OUTLIER).sum()),
        "n_frames_stored": spool.n_frames,
        "n_atoms_stored": spool.n_atoms,
        "n_materials": len(spool.materials),
        **{f"n_{name}": n for name, n in kept.items()},
        "split_as_sources_say": declared,
        "options": asdict(options),
        "sources": [asdict(source) for source in spool.sources],
        "rejected": dict(spool.rejected.most_common()),
        **describe(arrays, parts != OUTLIER, residuals, energies),
        "sha256": {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.name != _LOCK},
    }
    (folder / META).write_text(json.dumps(meta, indent=1))


@dataclass
class _Source:
    """Numbers and checks of a source."""

    name: str
    n_frames: int = 0
    n_rejected: int = 0
    work: dict[str, Any] = field(default_factory=dict)
    pressures: Agreement | None = None


class _Spool:
    """Arrays on disk to which frames are appended."""

    def __init__(self, folder: Path, potential: Potential | None) -> None:
        self._folder = folder
        self._potential = potential
        self._stack = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._rows: Counter[str] = Counter()
        self._begin_checks()
        self.n_frames = self.n_atoms = 0
        self.sources: list[_Source] = []
        self.materials: dict[tuple[str, str], int] = {}  # by name and reduced formula
        self.declared: dict[tuple[int, int], set[Split]] = {}
        self.scales: dict[str, str] = {}
        self.rejected: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for name in ARRAYS:
            self._files[name] = self._stack.enter_context((self._folder / f"{name}.npy").open("w+b"))
            self._head(name)
        self._locations = self._stack.enter_context((self._folder / WHERE).open("w", encoding="utf-8"))
        rejected = self._stack.enter_context((self._folder / REJECTED).open("w", newline="", encoding="utf-8"))
        self._rejects = csv.writer(rejected)
        self._rejects.writerow(("where", "reason", "detail"))
        self._append("offsets", np.array(0))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, name: str) -> None:
        """Start a source."""
        self.sources.append(_Source(name))
        self._begin_checks()

    def _begin_checks(self) -> None:
        self._check = WorkCheck()
        self._pressures = Pressures(() if self._potential is None else self._potential.elements)

    def end(self, *, check: bool) -> None:
        """Check the labels of a source."""
        source = self.sources[-1]
        source.work = {name: {"ratio": ratio, "pairs": n} for name, (ratio, _, n) in self._check.ratios().items()}
        if not check:
            return
        problem = self._check.problem()
        if problem is None and self._potential is not None and "stress" not in source.work:
            source.pressures = self._pressures.compare(self._potential)
            problem = source.pressures.problem() if source.pressures else None
        if problem is not None:
            raise MatrisError(f"{source.name}: {problem}; or use --no-check to accept the labels unchecked")

    def add(self, item: Outcome) -> None:
        """Store a frame, or the reason of its rejection."""
        source = self.sources[-1]
        if isinstance(item, Rejected):
            self.rejected[item.reason] += 1
            source.n_rejected += 1
            self._rejects.writerow((item.location, item.reason, item.detail))
            return
        frame, geometry = item.frame, item.frame.geometry
        material = self.materials.setdefault((frame.material, reduced_formula(geometry.numbers)), len(self.materials))
        if item.split is not None:
            self.declared.setdefault((material, len(self.sources) - 1), set()).add(item.split)
        if item.scale is not None:
            self.scales.setdefault(item.scale, item.location)
        n_atoms = len(geometry.numbers)
        self.n_frames, self.n_atoms, source.n_frames = self.n_frames + 1, self.n_atoms + n_atoms, source.n_frames + 1
        self._check.add(frame)
        self._pressures.add(frame)
        self._locations.write(" ".join(item.location.split()) + "\n")
        self._append("offsets", np.array(self.n_atoms))
        self._append("cells", geometry.cell)
        self._append("pbc", geometry.pbc)
        self._append("energies", np.array(frame.energy))
        self._append("stresses", np.full((3, 3), np.nan) if frame.stress is None else frame.stress)
        self._append("materials", np.array(material))
        self._append("sources", np.array(len(self.sources) - 1))
        self._append("numbers", geometry.numbers, n_atoms)
        self._append("positions", geometry.positions, n_atoms)
        self._append("forces", frame.forces, n_atoms)
        self._append("magmoms", np.full(n_atoms, np.nan) if frame.magmoms is None else frame.magmoms, n_atoms)

    def finish(self) -> None:
        """Write the final lengths of the arrays, and sync them to disk."""
        for name, stream in self._files.items():
            stream.seek(0)
            self._head(name)
            stream.flush()
            os.fsync(stream.fileno())

    def _head(self, name: str) -> None:
        """Write the header of an array; numpy pads it, so that the number of rows can grow."""
        dtype, shape = ARRAYS[name]
        head = {"descr": dtype, "fortran_order": False, "shape": (self._rows[name], *shape)}
        np.lib.format.write_array_header_1_0(self._files[name], head)

    def _append(self, name: str, value: NDArray[Any], rows: int = 1) -> None:
        self._files[name].write(np.ascontiguousarray(value, dtype=ARRAYS[name][0]).tobytes())
        self._rows[name] += rows


def _one_scale(scales: dict[str, str]) -> str | None:
    if len(scales) > 1:
        said = ", ".join(f"{scale} ({location})" for scale, location in scales.items())
        raise MatrisError(f"the sources are on different energy scales: {said}; make a set of each")
    return next(iter(scales), None)


def _parts(
    spool: _Spool, materials: NDArray[np.int32], sources: NDArray[np.uint16], options: SetOptions
) -> tuple[NDArray[np.uint8], bool]:
    """
    Assign a part to each frame; also return whether a source assigned any.

    The hash of a group decides, so that a group is in the same part of every set. If no group would be set aside, the
    one with the smallest hash is; if all groups would be, the one with the largest hash is not.
    """
    named, formulas = zip(*spool.materials, strict=True)
    keys = {"formula": formulas, "material": named}
    blocks = _blocks(sources) if options.split_by == "block" else np.zeros(len(sources), dtype=np.int64)
    pairs, inverse = np.unique(np.stack([materials, sources, blocks], axis=1), axis=0, return_inverse=True)
    by_source = {"source": "{name}", "block": "block {block} of {name}"}
    groups = [
        by_source[options.split_by].format(name=spool.sources[source].name, block=block)
        if options.split_by in by_source
        else keys[options.split_by][material]
        for material, source, block in pairs.tolist()
    ]
    said: dict[str, set[Split]] = {}
    for name, pair in zip(groups, pairs.tolist(), strict=True):
        said.setdefault(name, set()).update(spool.declared.get((pair[0], pair[1]), set()))
    if torn := [name for name, parts in said.items() if len(parts) > 1]:
        raise MatrisError(
            f"the sources put frames of {options.split_by} {torn[0]} into both parts"
            + (f", and of {len(torn) - 1} more" if len(torn) > 1 else "")
            + ": such frames are too similar for a validation; choose smaller groups (--split-by) or drop 'split'"
        )
    free = {name: _share(name) for name, parts in said.items() if not parts}
    aside = {name for name, share in free.items() if share < options.validation}
    aside |= {name for name, parts in said.items() if "validation" in parts}
    if not aside and len(free) > 1 and options.validation > 0:
        aside = {min(free, key=lambda name: free[name])}
    if aside == set(said) and len(free) > 1 and options.validation < 1:
        aside -= {max(free, key=lambda name: free[name])}
    values = np.array([VALIDATION if name in aside else TRAINING for name in groups], dtype=np.uint8)
    return values[inverse.ravel()], any(said.values())


def _blocks(sources: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the number of each frame's block in its source."""
    blocks = np.empty(len(sources), dtype=np.int64)
    for source in np.unique(sources):
        rows = np.flatnonzero(sources == source)
        blocks[rows] = np.arange(len(rows)) * _BLOCKS // len(rows)
    return blocks


def _share(name: str) -> float:
    """Hash a name to a number from 0 to 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def _regress(
    arrays: dict[str, NDArray[Any]], max_residual: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit element energies; also return the residual energy of each frame (eV/atom), NaN for outliers."""
    offsets = np.asarray(arrays["offsets"])
    compositions, energies = fractions(arrays["numbers"], offsets), np.asarray(arrays["energies"]) / np.diff(offsets)
    elements = least_absolute(compositions, energies)
    residuals = energies - compositions @ elements
    centre = np.median(residuals)
    spread = _ROBUST * float(np.median(np.abs(residuals - centre)))
    limit = max_residual if max_residual is not None else max(_TOLERATED, _DEVIATIONS * spread)
    return elements, np.where(np.abs(residuals - centre) <= limit, residuals, np.nan)


def _reject_outliers(
    folder: Path, indices: NDArray[np.int64], arrays: dict[str, NDArray[Any]], elements: NDArray[np.float64]
) -> None:
    """Add outliers to the list of rejected frames."""
    wanted = set(indices.tolist())
    with (
        (folder / WHERE).open(encoding="utf-8") as places,
        (folder / REJECTED).open("a", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        for i, place in enumerate(places):
            if i in wanted:
                numbers = arrays["numbers"][slice(*arrays["offsets"][i : i + 2].tolist())]
                per_atom = float(arrays["energies"][i]) / len(numbers)
                expected = float(elements[numbers.astype(np.int64) - 1].mean())
                detail = f"{per_atom:.3f} eV/atom, but {expected:.3f} from the fitted element energies"
                writer.writerow((place.rstrip("\n"), "energy outlier", detail))


_LOCK = ".lock"


@contextmanager
def _partial(output: Path) -> Iterator[Path]:
    """
    Yield a draft folder beside the output, which it becomes at the end of the block; after an error, it is removed.

    Files of a killed process are removed first, if no other process holds the lock of the draft.
    """
    if output.exists():
        raise MatrisError(f"{output} exists: name another folder, or remove it")
    folder = output.with_name(f".{output.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MatrisError(f"another process is writing {output}") from None
        for left in folder.iterdir():
            if left.name != _LOCK:
                left.unlink()
        try:
            yield folder
            for path in folder.iterdir():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            (folder / _LOCK).unlink()
            folder.rename(output)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    sync_folder(output.parent)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
