"""Training structures from crystals of the literature: DFT frames whose elements are replaced by alike ones."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from ase.io import iread
from pymatgen.core import Element, Structure

from recipes.embedded.structures import ELEMENTS, Draft, collect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

    from recipes.embedded.structures import Material

DFT_SETS = {"mptrj_random": 3.0, "mptrj_highest_stress": 1.5, "alexandria_random": 1.0}
"""Sets of DFT frames that may be trained on, and how often to start from one of their crystals."""

SIZES = (1, 64)
"""Least and largest number of atoms in a cell, unless other ones are asked for."""

KEPT = 0.5
"""Share of the elements of our list that stay as they are, unless another one is asked for."""

_ANION_GROUPS = (("O",), ("F",), ("Cl", "Br", "I"), ("S", "Se", "Te"), ("N",), ("P", "As", "Sb"))
_LEFT_OUT = {"He", "Ne", "Ar", "Kr", "Xe"}  # nothing in our list is like them


def held_out(formula: str) -> bool:
    """Whether frames of a formula, in cells of any size, are for measuring only: one in five, by a hash."""
    reduced, _ = Formula(formula).reduce()
    return zlib.crc32(reduced.format("hill").encode()) % 5 == 4  # noqa: PLR2004


def trainable(data: Path, name: str, sizes: tuple[int, int] = SIZES) -> Iterator[tuple[str, Atoms]]:
    """Formulas and frames of one of the `DFT_SETS`: of cells of these sizes, of formulas not kept for measuring."""
    for atoms in iread(data / f"{name}.extxyz.gz", format="extxyz"):
        formula = atoms.get_chemical_formula()
        if sizes[0] <= len(atoms) <= sizes[1] and not held_out(formula):
            yield formula, atoms


def literature(data: Path, sizes: tuple[int, int] = SIZES) -> Iterator[tuple[str, Structure]]:
    """Crystals of the DFT sets that elements of ours may fill, with their source."""
    for name in DFT_SETS:
        for formula, atoms in trainable(data, name, sizes):
            if not _LEFT_OUT & set(atoms.symbols):
                yield f"{name} {formula}", Structure(atoms.cell[:], atoms.numbers, atoms.get_scaled_positions())


@cache
def _alike(symbol: str) -> tuple[float, ...]:
    """Probability of each of `ELEMENTS` to replace this one: alike in charge, size and electronegativity."""
    old = Element(symbol)
    weights = []
    for name in ELEMENTS:
        new = Element(name)
        size = np.log(covalent_radii[atomic_numbers[name]] / covalent_radii[atomic_numbers[symbol]]) / 0.12
        polarity = ((new.X or 2.0) - (old.X or 2.0)) / 0.35
        charge = 1.0 if set(new.common_oxidation_states) & set(old.common_oxidation_states) else 0.1
        weights.append(charge * float(np.exp(-(size**2) / 2 - polarity**2 / 2)) * (name != symbol))
    total = sum(weights)
    return tuple(w / total for w in weights)


def _replacements(structure: Structure, kept: float, rng: np.random.Generator) -> dict[str, str] | None:
    """Choose a new element for each old one; None where two would become the same."""
    chosen: dict[str, str] = {}
    present = {element.symbol for element in structure.composition}
    anion = max(present, key=lambda s: Element(s).X or 0.0)
    for symbol in sorted(present):
        group = next((g for g in _ANION_GROUPS if symbol in g), None)
        if symbol in ELEMENTS and (rng.random() < kept or (symbol == anion and group and len(group) == 1)):
            chosen[symbol] = symbol
        elif symbol == anion and group:
            chosen[symbol] = str(rng.choice(group))
        else:
            chosen[symbol] = str(rng.choice(ELEMENTS, p=_alike(symbol)))
    return chosen if len(set(chosen.values())) == len(chosen) else None


def variants(
    data: Path, seed: int, count: int, *, sizes: tuple[int, int] = SIZES, kept: float = KEPT
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

    Yields
    ------
    Material
        Distinct in (source, formula), made of `ELEMENTS`, with no distance below 0.62 of the sum of covalent radii.
    """
    pool = list(literature(data, sizes))
    weights = np.array([DFT_SETS[source.split()[0]] * len(structure) ** 0.5 for source, structure in pool])
    weights /= weights.sum()

    def draw(rng: np.random.Generator) -> Draft | None:
        source, original = pool[rng.choice(len(pool), p=weights)]
        chosen = _replacements(original, kept, rng)
        if chosen is None:
            return None
        structure = original.copy()
        structure.replace_species({Element(old): Element(new) for old, new in chosen.items()})
        if held_out(structure.composition.reduced_formula):
            return None
        same = all(old == new for old, new in chosen.items())
        return Draft("literature", source, structure, {}, sized=same)

    return collect(draw, seed, count, prefix="v", validation_every=20)
