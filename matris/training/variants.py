"""Training structures from crystals of the literature: DFT frames whose elements are replaced by alike ones."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.io import iread
from pymatgen.core import Element, Structure

from matris.training.data import held_out
from matris.training.structures import ELEMENTS, MIN_DISTANCE, Material, at_guessed_volume, distance_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DFT_SETS = {"mptrj_random": 3.0, "mptrj_highest_stress": 1.5, "alexandria_random": 1.0}
"""Sets of DFT frames that may be trained on, and how often to start from one of their crystals."""

MAX_ATOMS = 64
_ANION_GROUPS = (("O",), ("F",), ("Cl", "Br", "I"), ("S", "Se", "Te"), ("N",), ("P", "As", "Sb"))
_KEPT = 0.5  # share of the elements of our list that stay as they are
_VALIDATION_EVERY = 20
_LEFT_OUT = {"H", "He", "Ne", "Ar", "Kr", "Xe"}  # nothing in our list is like them


def literature(data: Path) -> Iterator[tuple[str, Structure]]:
    """Crystals of the DFT sets whose formulas are not kept for measuring, with their source."""
    for name in DFT_SETS:
        for atoms in iread(data / f"{name}.extxyz.gz", format="extxyz"):
            formula = atoms.get_chemical_formula()
            if len(atoms) <= MAX_ATOMS and not held_out(formula) and not _LEFT_OUT & set(atoms.symbols):
                yield f"{name} {formula}", Structure(atoms.cell[:], atoms.numbers, atoms.get_scaled_positions())


@cache
def _alike(symbol: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Elements that may replace this one, with probabilities: alike in charge, size and electronegativity."""
    old = Element(symbol)
    weights = []
    for name in ELEMENTS:
        new = Element(name)
        size = np.log(covalent_radii[atomic_numbers[name]] / covalent_radii[atomic_numbers[symbol]]) / 0.12
        polarity = ((new.X or 2.0) - (old.X or 2.0)) / 0.35
        charge = 1.0 if set(new.common_oxidation_states) & set(old.common_oxidation_states) else 0.1
        weights.append(charge * float(np.exp(-(size**2) / 2 - polarity**2 / 2)) * (name != symbol))
    total = sum(weights)
    return ELEMENTS, tuple(w / total for w in weights)


def _replacements(structure: Structure, rng: np.random.Generator) -> dict[str, str] | None:
    """Choose a new element for each old one; None where two would become the same."""
    chosen: dict[str, str] = {}
    present = {element.symbol for element in structure.composition}
    anion = max(present, key=lambda s: Element(s).X or 0.0)
    for symbol in sorted(present):
        group = next((g for g in _ANION_GROUPS if symbol in g), None)
        if symbol in ELEMENTS and (rng.random() < _KEPT or (symbol == anion and group and len(group) == 1)):
            chosen[symbol] = symbol
        elif symbol == anion and group:
            chosen[symbol] = str(rng.choice(group))
        else:
            names, weights = _alike(symbol)
            chosen[symbol] = str(rng.choice(names, p=weights))
    return chosen if len(set(chosen.values())) == len(chosen) else None


def variants(data: Path, seed: int, count: int) -> Iterator[Material]:
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

    Yields
    ------
    Material
        Distinct in (source, formula), made of `ELEMENTS`, with no distance below 0.62 of the sum of covalent radii.
    """
    pool = list(literature(data))
    weights = np.array([DFT_SETS[source.split()[0]] * len(structure) ** 0.5 for source, structure in pool])
    weights /= weights.sum()
    seen: set[tuple[str, str]] = set()
    made = attempt = 0
    while made < count:
        attempt += 1
        rng = np.random.default_rng([seed, attempt])
        source, original = pool[rng.choice(len(pool), p=weights)]
        chosen = _replacements(original, rng)
        if chosen is None:
            continue
        structure = original.copy()
        structure.replace_species({Element(old): Element(new) for old, new in chosen.items()})
        key = (source, structure.composition.formula)
        if key in seen or held_out(structure.composition.reduced_formula):
            continue
        seen.add(key)
        same = all(old == new for old, new in chosen.items())
        scaled = structure if same else at_guessed_volume(structure)
        if scaled is None or distance_ratio(scaled) < MIN_DISTANCE:
            continue
        yield Material(f"v{made:05d}", "literature", source, made % _VALIDATION_EVERY == 0, scaled, {})
        made += 1
