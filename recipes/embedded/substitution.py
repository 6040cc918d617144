"""Training structures in which each element is as frequent: known crystals with other elements."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Element

from matris.flows.sources.prototypes import library
from recipes.embedded.labels import part_of, reduced
from recipes.embedded.materials import ELEMENTS, MIN_DISTANCE, Material, distance_ratio, plain_formula
from recipes.embedded.variants import DFT_SETS, literature, trainable
from recipes.embedded.volumes import atomic_volumes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pymatgen.core import Structure

logger = logging.getLogger(__name__)

LARGEST = 24  # atoms in a cell
NOBLE = frozenset({"He", "Ne", "Ar", "Kr", "Xe"})
ANIONS = (("O",), ("F",), ("N",), ("Cl", "Br", "I"), ("S", "Se", "Te"), ("P", "As", "Sb"))
"""Anions replace each other within these groups only, so that many crystals stay near charge balance."""

PER_FORMULA = 3
_SIMPLE = frozenset({"A_cF4_225_a", "A_cI2_229_a", "A_hP2_194_c", "A_cF8_227_a", "A_cP1_221_a"})  # also fcc, bcc, hcp
_PROTOTYPE, _SIMPLE_WEIGHT = 2.0, 6.0  # weights beside those of `DFT_SETS`
_OF_ELEMENTS, _OF_NOBLE = 0.05, 0.12  # shares of crystals of one element
_KEPT = 0.35  # share of the other elements that stay
_RADIUS, _POLARITY = 0.12, 0.35  # relative, and on Pauling's scale: differences that halve the likeness or so
_TRIES, _FAILURES = 400, 3
_SPREAD = 0.72  # sums of covalent radii to which a crystal that is too dense is expanded, by a factor of
_MOST_SPREAD = 1.6  # in volume at most


@dataclass(frozen=True)
class Template:
    """A crystal to fill: its source, structure, elements, and weight in the choice."""

    source: str
    structure: Structure
    elements: tuple[str, ...]
    weight: float


@cache
def _polarity(symbol: str) -> float:
    """Return the Pauling electronegativity, or a large one for elements that have none: noble gases."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        value = float(Element(symbol).X)
    return value if np.isfinite(value) else 2.6


@cache
def likeness(one: str, other: str) -> float:
    """
    Tell how well an element replaces another, from 0 to 1.

    It is a Gaussian of the difference in covalent radius and electronegativity, and a tenth of that for elements that
    share no common oxidation state. Noble gases replace each other; for other elements they are a rare choice.

    Examples
    --------
    >>> likeness("Fe", "Fe"), likeness("Fe", "Co") > likeness("Fe", "K"), likeness("Pm", "Nd") > 0.5
    (1.0, True, True)
    """
    if one == other:
        return 1.0
    if one in NOBLE or other in NOBLE:
        return 1.0 if one in NOBLE and other in NOBLE else 0.02
    radii = [covalent_radii[atomic_numbers[symbol]] for symbol in (one, other)]
    size = np.log(radii[0] / radii[1]) / _RADIUS
    polarity = (_polarity(one) - _polarity(other)) / _POLARITY
    common = set(Element(one).common_oxidation_states) & set(Element(other).common_oxidation_states)
    return (1.0 if common else 0.1) * float(np.exp(-(size**2 + polarity**2) / 2))


def templates(data: Path, reserved: Collection[str] = ()) -> list[Template]:
    """Collect the crystals of the DFT sets that may be trained on, and the prototypes of the AFLOW library."""
    found = [(source, s, DFT_SETS[source.split()[0]]) for source, s in literature(data, (1, LARGEST), reserved)]
    for prototype in library():
        label = prototype.tags["aflow"]
        found.append((label, prototype.structure, _SIMPLE_WEIGHT if label in _SIMPLE else _PROTOTYPE))
    usable = []
    for source, structure, weight in found:
        plain = structure.copy()
        plain.remove_oxidation_states()
        elements = tuple(sorted(element.symbol for element in plain.composition))
        if plain.is_ordered and len(plain) <= LARGEST and set(elements) <= set(ELEMENTS):
            of_size = min(len(plain), 8) ** 0.5 if len(elements) > 1 else 1.0
            usable.append(Template(source, plain, elements, weight * of_size))
    return usable


def fitted_volumes(data: Path, reserved: Collection[str] = ()) -> dict[str, float]:
    """Fit `atomic_volumes` to the DFT frames near equilibrium that may be trained on."""
    frames = [
        (atoms.numbers, atoms.get_volume())
        for name in DFT_SETS
        if "stress" not in name
        for _, atoms in trainable(data, name, reserved=reserved)
    ]
    return atomic_volumes(frames)


def balanced(
    pool: Sequence[Template], volumes: Mapping[str, float], seed: int, each: int, reserved: Collection[str] = ()
) -> Iterator[Material]:
    """
    Fill crystals with elements, always for the element that has the fewest materials so far.

    Parameters
    ----------
    pool
        The crystals.
    volumes
        Å³ per atom of each element.
    seed
        Seed of the random numbers. A larger `each` continues the same materials.
    each
        Materials that each element is in at least. Elements of which no more can be made are named in the log.
    reserved
        As for `part_of`: no material has a reserved formula.

    Yields
    ------
    Material
        At most `PER_FORMULA` of one formula, no two of one formula from one crystal; no distance is below
        `MIN_DISTANCE`.
    """
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter(dict.fromkeys(ELEMENTS, 0))
    failures: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    of_formula: Counter[str] = Counter()
    made = 0
    filler = _Filler(pool, volumes, rng, counts)
    while going := [s for s in ELEMENTS if counts[s] < each and failures[s] < _FAILURES]:
        fewest = min(counts[s] for s in going)
        symbol = str(rng.choice([s for s in going if counts[s] == fewest]))
        for _ in range(_TRIES):
            source, structure = filler.draw(symbol)
            if structure is None:
                continue
            formula = reduced(plain_formula(structure))
            if (source, formula) in seen or of_formula[formula] >= PER_FORMULA:
                continue
            if part_of(formula, reserved) == "reserved" or not _loose(structure):
                continue
            seen.add((source, formula))
            of_formula[formula] += 1
            counts.update({element.symbol for element in structure.composition})
            yield Material(f"e{seed}-{made:05d}", source, structure)
            made += 1
            break
        else:
            failures[symbol] += 1
    if few := {s: counts[s] for s in ELEMENTS if counts[s] < each}:
        logger.warning("fewer than %d materials of %s: more templates are needed", each, few)


def _loose(structure: Structure) -> bool:
    """Expand a structure that is too dense, within limits; return whether it is loose enough then."""
    ratio = distance_ratio(structure)
    if ratio < MIN_DISTANCE:
        structure.scale_lattice(structure.volume * min((_SPREAD / ratio) ** 3, _MOST_SPREAD))
        ratio = distance_ratio(structure)
    return ratio >= MIN_DISTANCE


class _Filler:
    """Draws a crystal and its new elements."""

    def __init__(
        self,
        pool: Sequence[Template],
        volumes: Mapping[str, float],
        rng: np.random.Generator,
        counts: Mapping[str, int],
    ) -> None:
        self._of_one = [t for t in pool if len(t.elements) == 1]
        self._of_many = [t for t in pool if len(t.elements) > 1]
        self._volumes, self._rng, self._counts = volumes, rng, counts
        self._cumulative: dict[str, np.ndarray] = {}

    def draw(self, symbol: str) -> tuple[str, Structure | None]:
        """Return the source, and a structure with an element; None if two elements would become one."""
        share = (_OF_NOBLE if symbol in NOBLE else _OF_ELEMENTS) if self._of_many else 1.0
        alone = bool(self._of_one) and self._rng.random() < share
        template = self._template(symbol, alone=alone)
        new = {template.elements[0]: symbol} if alone else self._elements(template, symbol)
        if len(set(new.values())) < len(new):
            return template.source, None
        structure = template.structure.copy()
        before = structure.volume / sum(self._volumes[site.specie.symbol] for site in structure)
        structure.replace_species({Element(a): Element(b) for a, b in new.items()})
        # prototypes of elements have arbitrary volumes; frames have their own, relative to the sum of atomic volumes
        ratio = 1.0 if alone else before
        structure.scale_lattice(ratio * sum(self._volumes[site.specie.symbol] for site in structure))
        return template.source, structure

    def _template(self, symbol: str, *, alone: bool) -> Template:
        pool = self._of_one if alone else self._of_many
        key = f"{symbol} {alone}"
        if key not in self._cumulative:
            weights = np.array([template.weight for template in pool])
            if not alone and symbol not in NOBLE:
                fit = [max(likeness(old, symbol) for old in template.elements) for template in pool]
                weights *= (np.array(fit) + 0.002) ** 0.7
            self._cumulative[key] = np.cumsum(weights / weights.sum())
        number = np.searchsorted(self._cumulative[key], self._rng.random())
        return pool[min(int(number), len(pool) - 1)]

    def _elements(self, template: Template, symbol: str) -> dict[str, str]:
        """Choose the new element of each old one."""
        old = template.elements
        site = self._choice(old, [1.0 if symbol in NOBLE else likeness(o, symbol) + 1e-3 for o in old])
        new = {site: symbol}
        anion = max(old, key=_polarity)
        group = next((g for g in ANIONS if anion in g), None)
        for other in old:
            if other == site:
                continue
            if other == anion and group:
                new[other] = str(self._rng.choice(group))
            elif other != symbol and self._rng.random() < _KEPT:
                new[other] = other
            else:
                rare = max(1, min(self._counts.values()))
                weights = [likeness(other, s) * (1 + 3 * min(1.0, rare / max(1, self._counts[s]))) for s in ELEMENTS]
                new[other] = self._choice(ELEMENTS, weights)
        return new

    def _choice(self, symbols: Sequence[str], weights: Sequence[float]) -> str:
        shares = np.array(weights) / np.sum(weights)
        return str(self._rng.choice(symbols, p=shares))
