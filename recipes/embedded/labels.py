"""Labelled frames in shards of arrays, and the part that each plays: training, validation, or none."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.model.graph import Geometry
from matris.training.data.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

type Part = Literal["training", "validation", "reserved"]

PER_ATOM = ("numbers", "positions", "forces", "atom_energies")
PER_FRAME = ("n_atoms", "cells", "energies", "stresses", "materials", "made")
"""Arrays of a shard. ``made`` tells how the recipe made a frame."""

_SUM = 1e-4  # eV/atom, by which energies of atoms may miss the energy


def reduced(formula: str) -> str:
    """Return a reduced formula in Hill order; ``formula`` is that of any cell."""
    return Formula(formula).reduce()[0].format("hill")


def held_out(formula: str) -> bool:
    """Tell whether the DFT frames of a formula are for measurements only: one reduced formula in five, by a hash."""
    return zlib.crc32(reduced(formula).encode()) % 5 == 4  # noqa: PLR2004


def part_of(formula: str, reserved: Collection[str] = ()) -> Part:
    """
    Return the part of a formula, the same in every set of labels.

    Parameters
    ----------
    formula
        Formula of a cell of any size.
    reserved
        Reduced formulas that are used for measurements only.

    Returns
    -------
    str
        By a hash of the reduced formula, see `held_out`, one in five compounds of three or more elements is reserved
        for measurements, and one in twenty of the other compounds is for validation. Elements and binary compounds are
        the basis of the others: the hash reserves none, and all elements are in the training part.
    """
    name = reduced(formula)
    if name in reserved or (held_out(name) and len(Formula(name).count()) > 2):  # noqa: PLR2004
        return "reserved"
    is_element = len(Formula(name).count()) == 1
    return "validation" if zlib.crc32(f"validation {name}".encode()) % 20 == 0 and not is_element else "training"


def formulas_of_wbm(data: Path) -> set[str]:
    """Return the reduced formulas of the WBM crystals of a folder of reference data."""
    rows = json.loads(gzip.decompress((data / "wbm_equilibrium.json.gz").read_bytes()))
    return {reduced(Structure.from_dict(row["structure"]).composition.formula.replace(" ", "")) for row in rows}


def write_shard(path: Path, frames: Sequence[tuple[Atoms, dict[str, Any]]]) -> None:
    """
    Write labelled frames; the file appears when it is complete.

    Parameters
    ----------
    path
        The shard.
    frames
        Each with its ``energy`` (eV), ``forces`` (n, 3) (eV/Å), ``stress`` (3, 3) (eV/Å³), ``atom_energies`` (n,) (eV),
        ``material`` and ``made``.

    Raises
    ------
    MatrisError
        If a label is missing, not finite, or of another shape, or the energies of the atoms have another sum.
    """
    for index, (atoms, label) in enumerate(frames):
        if problem := _problem(len(atoms), label):
            raise MatrisError(f"{path}: frame {index}, made {label.get('made')} of {label.get('material')}: {problem}")

    def joined(values: Iterable[Any], *shape: int) -> NDArray[Any]:
        return np.concatenate([np.zeros((0, *shape)), *(np.asarray(v, dtype=float) for v in values)])

    labels = [label for _, label in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft, draft.open("wb") as stream:
        np.savez_compressed(
            stream,
            n_atoms=np.array([len(atoms) for atoms, _ in frames], dtype=np.int16),
            numbers=joined(atoms.numbers for atoms, _ in frames).astype(np.uint8),
            positions=joined((atoms.positions for atoms, _ in frames), 3).astype(np.float32),
            cells=np.array([atoms.cell[:] for atoms, _ in frames], dtype=np.float32).reshape(-1, 3, 3),
            energies=np.array([label["energy"] for label in labels], dtype=float),
            forces=joined((label["forces"] for label in labels), 3).astype(np.float32),
            stresses=np.array([label["stress"] for label in labels], dtype=np.float32).reshape(-1, 3, 3),
            atom_energies=joined(label["atom_energies"] for label in labels).astype(np.float32),
            materials=np.array([label["material"] for label in labels], dtype=np.str_),
            made=np.array([label["made"] for label in labels], dtype=np.str_),
        )


def _problem(n: int, label: dict[str, Any]) -> str | None:
    """Tell what is wrong with the label of a frame of n atoms."""
    for name, shape in (("energy", ()), ("forces", (n, 3)), ("stress", (3, 3)), ("atom_energies", (n,))):
        value = np.asarray(label.get(name, np.nan), dtype=float)
        if value.shape != shape:
            return f"{name} has the shape {value.shape}, expected {shape}"
        if not np.isfinite(value).all():
            return f"{name} is not finite"
    rest = abs(float(np.sum(label["atom_energies"])) - label["energy"]) / n
    return f"the energies of the atoms miss the energy by {rest:.1e} eV/atom" if rest > _SUM else None


def shards_in(folders: Iterable[Path]) -> list[Path]:
    """List the shards of some folders."""
    return sorted(path for folder in folders for path in folder.glob("*.npz"))


class Labels(Sequence[Frame]):
    """
    Frames of shards, made on access.

    Parameters
    ----------
    paths
        Shards that `write_shard` wrote; ``atom_energies`` may be absent from older ones.

    Raises
    ------
    MatrisError
        If there are none.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        shards = [dict(np.load(path, allow_pickle=False)) for path in paths]
        if not shards:
            raise MatrisError("no labels: name folders of shards that python -m recipes.embedded.label made")
        for shard in shards:
            shard.setdefault("atom_energies", np.full(len(shard["numbers"]), np.nan, dtype=np.float32))
        self._arrays = {name: np.concatenate([s[name] for s in shards]) for name in (*PER_ATOM, *PER_FRAME)}
        self._ends = np.cumsum(self._arrays["n_atoms"].astype(np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def _atoms(self, index: int) -> slice:
        return slice(int(self._ends[index]) - int(self._arrays["n_atoms"][index]), int(self._ends[index]))

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]  # no slices
        atoms, a = self._atoms(index), self._arrays
        atom_energies = a["atom_energies"][atoms].astype(float)
        positions = a["positions"][atoms].astype(float)
        return Frame(
            Geometry.of(Atoms(a["numbers"][atoms], positions, cell=a["cells"][index], pbc=True)),
            float(a["energies"][index]),
            a["forces"][atoms].astype(float),
            a["stresses"][index].astype(float),
            str(a["materials"][index]),
            atom_energies=None if np.isnan(atom_energies).all() else atom_energies,
        )

    def formulas(self) -> list[str]:
        """Return the reduced formula of each frame."""
        known: dict[bytes, str] = {}
        names = []
        for index in range(len(self)):
            numbers = np.sort(self._arrays["numbers"][self._atoms(index)])
            key = numbers.tobytes()
            if key not in known:
                known[key] = reduced(Atoms(numbers).get_chemical_formula())
            names.append(known[key])
        return names

    def largest_forces(self) -> NDArray[np.float64]:
        """Return the largest force on an atom of each frame (eV/Å)."""
        norms = np.linalg.norm(self._arrays["forces"].astype(float), axis=1)
        return np.maximum.reduceat(norms, np.concatenate([[0], self._ends[:-1]])) if len(self) else np.zeros(0)

    def symbols(self, index: int) -> set[str]:
        """Return the symbols of a frame's elements."""
        return {chemical_symbols[z] for z in np.unique(self._arrays["numbers"][self._atoms(index)])}

    def material(self, index: int) -> str:
        """Return the name of a frame's material."""
        return str(self._arrays["materials"][index])

    def made(self) -> NDArray[np.str_]:
        """Return how each frame was made."""
        return self._arrays["made"]


class Chosen(Sequence[Frame]):
    """Frames of a sequence by their indices, of which some may repeat."""

    def __init__(self, frames: Sequence[Frame], indices: Sequence[int]) -> None:
        self.frames, self.indices = frames, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]  # no slices
        return self.frames[int(self.indices[index])]


def divide(labels: Labels, reserved: Collection[str], max_force: float) -> tuple[list[int], list[int]]:
    """
    Choose the frames of training and validation by their formulas, without reserved ones and the wildest.

    Parameters
    ----------
    labels
        The frames.
    reserved
        As for `part_of`.
    max_force
        Largest force on an atom (eV/Å).

    Returns
    -------
    tuple
        Indices of both.
    """
    names = labels.formulas()
    parts = {name: part_of(name, reserved) for name in set(names)}
    calm = labels.largest_forces() <= max_force
    chosen: dict[str, list[int]] = {"training": [], "validation": [], "reserved": []}
    for index, name in enumerate(names):
        if calm[index]:
            chosen[parts[name]].append(index)
    return chosen["training"], chosen["validation"]
