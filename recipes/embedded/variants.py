"""Training structures from crystals of the literature: DFT frames whose elements are swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.io import iread
from pymatgen.core import Structure

from matris.flows.sources.swap import GROUP, VALENCE, swap_elements
from matris.stores.documents.candidate import Candidate
from recipes.embedded.labels import part_of
from recipes.embedded.materials import ELEMENTS, Material, collect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from ase import Atoms

DFT_SETS = {"mptrj_random": 3.0, "mptrj_highest_stress": 1.5, "alexandria_random": 1.0}
"""Sets of DFT frames for training, and the relative weight of their crystals as starting structures."""

SIZES = (1, 64)
"""Default least and largest number of atoms in a cell."""

KEPT = 0.5
"""Default fraction of elements that are not replaced."""

_MOST_REPLACED = 2  # elements of one crystal


def trainable(
    data: Path, name: str, sizes: tuple[int, int] = SIZES, reserved: Collection[str] = ()
) -> Iterator[tuple[str, Atoms]]:
    """
    Read the frames of a DFT set that may be trained on.

    Parameters
    ----------
    data
        Folder of the DFT sets, as extended XYZ.
    name
        One of the `DFT_SETS`.
    sizes
        Least and largest number of atoms in a cell.
    reserved
        As for `recipes.embedded.labels.part_of`.

    Yields
    ------
    tuple
        Formula and frame, of the known elements and no reserved formula.
    """
    for atoms in iread(data / f"{name}.extxyz.gz", format="extxyz"):
        formula = atoms.get_chemical_formula()
        fitting = sizes[0] <= len(atoms) <= sizes[1] and set(atoms.symbols) <= set(ELEMENTS)
        if fitting and part_of(formula, reserved) != "reserved":
            yield formula, atoms


def literature(
    data: Path, sizes: tuple[int, int] = SIZES, reserved: Collection[str] = ()
) -> Iterator[tuple[str, Structure]]:
    """Yield the crystals of `trainable` frames of all DFT sets, with their source."""
    for name in DFT_SETS:
        for formula, atoms in trainable(data, name, sizes, reserved):
            yield f"{name} {formula}", Structure(atoms.cell[:], atoms.numbers, atoms.get_scaled_positions())


def unchanged(data: Path, sizes: tuple[int, int] = SIZES, reserved: Collection[str] = ()) -> Iterator[Material]:
    """
    Take the crystals of the literature as they are, one of each set and formula.

    Parameters
    ----------
    data
        Folder of the DFT sets, as extended XYZ.
    sizes
        Least and largest number of atoms in a cell.
    reserved
        As for `recipes.embedded.labels.part_of`.
    """
    crystals = dict(literature(data, sizes, reserved))
    for number, (source, structure) in enumerate(crystals.items()):
        yield Material(f"l{number:05d}", source, structure)


def variants(
    data: Path,
    seed: int,
    count: int,
    *,
    sizes: tuple[int, int] = SIZES,
    kept: float = KEPT,
    reserved: Collection[str] = (),
) -> Iterator[Material]:
    """
    Replace elements of crystals of the literature.

    Parameters
    ----------
    data
        Folder of the DFT sets, as extended XYZ.
    seed
        Of all random numbers. The same seed gives the same materials, whatever ``count`` is.
    count
        How many.
    sizes
        Least and largest number of atoms in a cell.
    kept
        Share of the elements that stay as they are.
    reserved
        As for `recipes.embedded.labels.part_of`.

    Yields
    ------
    Material
        Distinct in (source, formula), of `ELEMENTS` and no reserved formula, with no distance below `MIN_DISTANCE`.
    """
    pool = list(literature(data, sizes, reserved))
    weights = np.array([DFT_SETS[source.split()[0]] * len(structure) ** 0.5 for source, structure in pool])
    weights /= weights.sum()

    def draw(rng: np.random.Generator) -> tuple[str, Structure] | None:
        source, original = pool[rng.choice(len(pool), p=weights)]
        n_replaced = min(int(rng.binomial(len(original.composition), 1 - kept)), _MOST_REPLACED)
        structure = _swapped(original, n_replaced, rng) if n_replaced else original
        return None if structure is None else (source, structure)

    return collect(draw, seed, count, prefix="v", reserved=reserved)


def _swapped(original: Structure, n_replaced: int, rng: np.random.Generator) -> Structure | None:
    """Replace some elements: by ions of equal charge and similar radius, or by elements of the same group."""
    parent = Candidate.from_structure(original, "literature")
    for rule in (VALENCE, GROUP):
        children = [
            child.structure
            for child in swap_elements([parent], rule, at_once=n_replaced, only=ELEMENTS)
            if child.structure and len(child.provenance["mapping"]) == n_replaced
        ]
        if children:
            return children[rng.integers(len(children))]
    return None
