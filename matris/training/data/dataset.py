"""Labelled frames on disk as memory-mapped arrays, read frame by frame."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.model.graph import Geometry, count_edges
from matris.training.data.frame import Frame
from matris.training.data.labelled import Labelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from matris.model.config import ModelConfig
    from matris.training.data.labelled import Split

FORMAT = "matris-data-1"
META = "meta.json"
WHERE = "where.txt"

ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "offsets": ("<i8", ()),
    "cells": ("<f8", (3, 3)),
    "pbc": ("|b1", (3,)),
    "energies": ("<f8", ()),
    "stresses": ("<f4", (3, 3)),
    "materials": ("<i4", ()),
    "sources": ("<u2", ()),
    "parts": ("|u1", ()),
    "numbers": ("|u1", ()),
    "positions": ("<f8", (3,)),
    "forces": ("<f4", (3,)),
    "magmoms": ("<f4", ()),
}
"""Arrays of a set: type, and shape per frame or, from ``numbers`` on, per atom. Missing labels are NaN."""

TRAINING, VALIDATION, OUTLIER = 0, 1, 2
"""Values of ``parts``."""

type Part = Literal["training", "validation", "all"]


class DataSet(Sequence[Frame]):
    """
    Frames of a folder that `matris.training.data.writer.write_set` wrote, each read on access.

    The use of memory does not depend on the number of frames. A slice is again a set, of the same folder.

    Parameters
    ----------
    path
        The folder.
    part
        ``"training"``, ``"validation"``, or ``"all"`` for both.

    Attributes
    ----------
    path : Path
        The folder.
    meta : dict
        Description of the whole set: counts, statistics, hashes, numbers of rejected frames.

    Raises
    ------
    MatrisError
        If the folder is no such set, or damaged.
    """

    def __init__(self, path: Path | str, part: Part = "all") -> None:
        self.path = Path(path)
        try:
            self.meta: dict[str, Any] = json.loads((self.path / META).read_text())
            self._arrays = {name: self._mapped(name) for name in ARRAYS}
        except (OSError, ValueError, EOFError) as error:
            raise MatrisError(f"{self.path} is no set of 'matris data', or damaged: {error}") from error
        if self.meta.get("format") != FORMAT:
            raise MatrisError(f"{self.path} has format {self.meta.get('format')!r}: this version reads {FORMAT}")
        sizes = {name: len(array) for name, array in self._arrays.items()}
        n_frames, n_atoms = self.meta["n_frames_stored"], self.meta["n_atoms_stored"]
        per_atom = ("numbers", "positions", "forces", "magmoms")
        expected = {name: n_atoms if name in per_atom else n_frames for name in ARRAYS} | {"offsets": n_frames + 1}
        if wrong := [name for name in ARRAYS if sizes[name] != expected[name]]:
            raise MatrisError(f"{self.path} is damaged: {wrong[0]}.npy has {sizes[wrong[0]]} rows")
        parts = np.asarray(self._arrays["parts"])
        chosen = parts != OUTLIER if part == "all" else parts == {"training": TRAINING, "validation": VALIDATION}[part]
        self._indices = np.flatnonzero(chosen)

    def _mapped(self, name: str) -> NDArray[Any]:
        path = self.path / f"{name}.npy"
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.dtype(ARRAYS[name][0]) or array.shape[1:] != ARRAYS[name][1]:
            raise ValueError(f"{path.name} has type {array.dtype} and shape {array.shape}")
        return array

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> DataSet: ...
    def __getitem__(self, index: int | slice) -> Frame | DataSet:
        if isinstance(index, slice):
            return self._chosen(self._indices[index])
        return self._frame(int(self._indices[index]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path to other processes, not the arrays."""
        return _reopened, (self.path, self._indices)

    @property
    def identity(self) -> str:
        """Hash of the stored content, equal for equal frames; cards of checkpoints trained on the set contain it."""
        said = json.dumps(self.meta["sha256"], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def verify(self) -> None:
        """
        Compare all files with their hashes.

        Raises
        ------
        MatrisError
            For the first file whose content has changed.
        """
        for name, digest in self.meta["sha256"].items():
            try:
                with (self.path / name).open("rb") as stream:
                    present = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise MatrisError(f"{self.path} is damaged: {error}") from error
            if present != digest:
                raise MatrisError(f"{self.path} is damaged: the content of {name} has changed")

    def part(self, part: Part) -> DataSet:
        """Frames of one part."""
        return DataSet(self.path, part)

    def _chosen(self, indices: NDArray[np.int64]) -> DataSet:
        subset = DataSet.__new__(DataSet)
        subset.__dict__.update(self.__dict__)
        subset._indices = indices  # noqa: SLF001 - its own
        return subset

    def _frame(self, index: int) -> Frame:
        a = self._arrays
        here = slice(*a["offsets"][index : index + 2].tolist())
        stress, magmoms = a["stresses"][index].astype(float), a["magmoms"][here].astype(float)
        return Frame(
            geometry=Geometry(
                a["numbers"][here].astype(np.int64),
                np.array(a["positions"][here]),
                np.array(a["cells"][index]),
                np.array(a["pbc"][index]),
            ),
            energy=float(a["energies"][index]),
            forces=a["forces"][here].astype(float),
            stress=None if np.isnan(stress).any() else stress,
            material=self.materials[int(a["materials"][index])],
            validation=int(a["parts"][index]) == VALIDATION,
            magmoms=None if np.isnan(magmoms).any() else magmoms,
        )

    @cached_property
    def materials(self) -> list[str]:
        """Names of the materials in the whole set."""
        names: list[str] = json.loads((self.path / "materials.json").read_text())
        return names

    @property
    def source_names(self) -> list[str]:
        """Names of the sources of the whole set."""
        return [source["name"] for source in self.meta["sources"]]

    def sources(self) -> NDArray[np.int64]:
        """Source of each frame, as a position in `source_names`, shape (len,)."""
        return np.asarray(self._arrays["sources"])[self._indices].astype(np.int64)

    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of each frame, shape (len,)."""
        return np.diff(self._arrays["offsets"])[self._indices]

    def angles(self, config: ModelConfig) -> NDArray[np.int64]:
        """Count the angles of each frame's graph, shape (len,), which determine the cost of a training step."""
        return self.edges(config)[1]

    def edges(self, config: ModelConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """
        Count the bonds and angles of each frame's graph with the cut-offs of a configuration.

        They are counted once for all frames, which takes some milliseconds per frame, and stored in the folder if it
        is writable.

        Returns
        -------
        bonds, angles
            Shape (len,).
        """
        path = self.path / f"edges-{config.pairwise_cutoff:g}-{config.three_body_cutoff:g}.npy"
        n_stored = self.meta["n_frames_stored"]
        if path.exists():
            counts = np.load(path, mmap_mode="r", allow_pickle=False)
            if counts.shape != (n_stored, 2):
                raise MatrisError(f"{path} is damaged: delete it, and it will be computed again")
        else:
            counts = np.array(
                [
                    count_edges(self._frame(i).geometry, config.pairwise_cutoff, config.three_body_cutoff)
                    for i in range(n_stored)
                ],
                dtype=np.int64,
            ).reshape(-1, 2)
            _keep(path, counts)
        mine = np.asarray(counts)[self._indices]
        return mine[:, 0], mine[:, 1]

    def labelled(self) -> Iterator[Labelled]:
        """Yield the frames in stored order with their parts, as a source of another set."""
        scale = self.meta.get("energy_scale")
        wanted = np.zeros(self.meta["n_frames_stored"], dtype=bool)
        wanted[self._indices] = True
        with (self.path / WHERE).open(encoding="utf-8") as stream:
            for i, place in enumerate(stream):
                if wanted[i]:
                    frame = self._frame(i)
                    split: Split = "validation" if frame.validation else "training"
                    yield Labelled(frame, place.rstrip("\n"), scale, split)


def _reopened(path: Path, indices: NDArray[np.int64]) -> DataSet:
    """Open a subset."""
    return DataSet(path)._chosen(indices)  # noqa: SLF001 - its own


def _keep(path: Path, counts: NDArray[np.int64]) -> None:
    """Store an array in the folder, if it is writable."""
    if not os.access(path.parent, os.W_OK):
        return
    with whole_file(path) as draft, draft.open("wb") as stream:
        np.save(stream, counts, allow_pickle=False)
