"""Training structures: the product's generated candidates for random chemical systems, reproducible from a seed."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.flows.sources.prototypes import elemental_references, generate_candidates
from matris.structures import to_structure
from recipes.embedded.labels import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

ELEMENTS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Ac", "Th", "Pa", "U", "Np", "Pu",
)  # fmt: skip
"""Chemical elements of the training structures."""

ANIONS = {
    "O": 0.5, "S": 0.08, "Se": 0.04, "Te": 0.02, "F": 0.1, "Cl": 0.06, "Br": 0.03, "I": 0.02,
    "N": 0.05, "P": 0.05, "As": 0.03, "Sb": 0.02,
}  # fmt: skip
"""Fraction of each anion in the chemical systems with an anion."""

_OPEN = 1.3  # volume per atom of a diamond lattice, over that of the element's own crystal

MIN_DISTANCE = 0.62  # smallest distance, in sums of covalent radii

_NUMBER_OF_ELEMENTS = {1: 0.1, 2: 0.45, 3: 0.45}  # fraction of systems by number of elements
_WITH_ANION = 0.8  # fraction of the systems of several elements


@dataclass(frozen=True)
class Material:
    """
    One structure to start from.

    Attributes
    ----------
    material
        Identifier.
    source
        Prototype, or crystal of the literature.
    structure
        Starting structure.
    """

    material: str
    source: str
    structure: Structure

    @property
    def formula(self) -> str:
        """Formula of the cell; `recipes.embedded.labels.part_of` tells the part that the material plays."""
        return plain_formula(self.structure)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**self.__dict__, "structure": self.structure.as_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Material:
        """Read what `to_dict` wrote; other keys are ignored."""
        return cls(data["material"], data["source"], Structure.from_dict(data["structure"]))


def plain_formula(structure: Structure) -> str:
    """Return the formula of a cell, without spaces and charges."""
    return structure.composition.formula.replace(" ", "")


def write_structures(path: Path, materials: Iterable[Material]) -> None:
    """Write starting structures as gzipped JSON lines."""
    with whole_file(path) as draft, gzip.open(draft, "wt") as file:
        for material in materials:
            file.write(json.dumps(material.to_dict()) + "\n")


def read_structures(path: Path) -> list[Material]:
    """Read what `write_structures` wrote."""
    try:
        with gzip.open(path, "rt") as file:
            return [Material.from_dict(json.loads(line)) for line in file]
    except FileNotFoundError as error:
        raise MatrisError(f"no structures at {path}: make them with python -m recipes.embedded.structures") from error


def distance_ratio(structure: Structure) -> float:
    """Return the smallest interatomic distance in units of the sum of covalent radii (ase.data)."""
    radii = np.array([covalent_radii[atomic_numbers[site.specie.symbol]] for site in structure])
    cutoff = 2 * float(radii.max())
    first, second, _, distances = structure.get_neighbor_list(cutoff)
    if not len(distances):
        return 1.0
    return float((distances / (radii[first] + radii[second])).min())


def generate(seed: int, count: int, reserved: Collection[str] = ()) -> Iterator[Material]:
    """
    Choose candidates of `generate_candidates` at random, so that any prefix is a fair sample.

    Parameters
    ----------
    seed
        Seed of all random numbers. The same seed gives the same materials, whatever ``count`` is.
    count
        Number of materials.
    reserved
        As for `recipes.embedded.labels.part_of`.

    Yields
    ------
    Material
        Distinct in (source, formula), of no reserved formula, with no distance below `MIN_DISTANCE`.
    """

    def draw(rng: np.random.Generator) -> tuple[str, Structure] | None:
        system = _system(rng)
        candidates = [
            (str(candidate.provenance.get("aflow", candidate.source)), candidate.structure)
            for candidate in (elemental_references(system) if len(system) == 1 else generate_candidates(system))
            if candidate.structure and len(candidate.structure.composition) == len(system)
        ]
        return candidates[rng.integers(len(candidates))] if candidates else None

    return collect(draw, seed, count, prefix="m", reserved=reserved)


def simple_crystals(symbol: str, volume: float) -> dict[str, Structure]:
    """Return the crystals of an element that others have; `volume` is that of its own crystal (Å³ per atom)."""
    cells = {
        "fcc": bulk(symbol, "fcc", a=(4 * volume) ** (1 / 3)),
        "bcc": bulk(symbol, "bcc", a=(2 * volume) ** (1 / 3)),
        "sc": bulk(symbol, "sc", a=volume ** (1 / 3)),
        "hcp": bulk(symbol, "hcp", a=(volume * 2**0.5) ** (1 / 3), covera=(8 / 3) ** 0.5),
        "diamond": bulk(symbol, "diamond", a=(8 * _OPEN * volume) ** (1 / 3)),
    }
    return {name: to_structure(atoms) for name, atoms in cells.items()}


def elements(volume_of: Callable[[str], float]) -> Iterator[Material]:
    """
    Make crystals of each element: its own one, and those that other elements have.

    Parameters
    ----------
    volume_of
        Volume per atom of an element's own crystal (Å³).

    Yields
    ------
    Material
    """
    for symbol in ELEMENTS:
        own = [candidate.structure for candidate in elemental_references([symbol]) if candidate.structure]
        simple = simple_crystals(symbol, volume_of(symbol))
        for number, (source, structure) in enumerate([*(("own", s) for s in own), *simple.items()]):
            yield Material(f"s{symbol}-{number}", source, structure)


def _system(rng: np.random.Generator) -> list[str]:
    """Draw the elements of a chemical system."""
    size = int(rng.choice(list(_NUMBER_OF_ELEMENTS), p=list(_NUMBER_OF_ELEMENTS.values())))
    if size > 1 and rng.random() < _WITH_ANION:
        anion = str(rng.choice(list(ANIONS), p=list(ANIONS.values())))
        others = [symbol for symbol in ELEMENTS if symbol not in ANIONS]
        return [anion, *rng.choice(others, size - 1, replace=False).tolist()]
    return [str(symbol) for symbol in rng.choice(ELEMENTS, size, replace=False)]


def collect(
    draw: Callable[[np.random.Generator], tuple[str, Structure] | None],
    seed: int,
    count: int,
    *,
    prefix: str,
    reserved: Collection[str],
) -> Iterator[Material]:
    """
    Draw until there are enough materials that are distinct in (source, formula), not reserved, and not too dense.

    Parameters
    ----------
    draw
        Makes a source and a structure from random numbers, or None.
    seed
        Seed of all random numbers. The same seed gives the same materials, whatever ``count`` is.
    count
        Number of materials.
    prefix
        First letter of the identifiers; the seed follows.
    reserved
        As for `recipes.embedded.labels.part_of`: no material has a reserved formula.

    Yields
    ------
    Material
    """
    seen: set[tuple[str, str]] = set()
    made = attempt = 0
    while made < count:
        attempt += 1
        drawn = draw(np.random.default_rng([seed, attempt]))
        if drawn is None:
            continue
        source, structure = drawn
        key = (source, structure.composition.reduced_formula)
        if key in seen or part_of(plain_formula(structure), reserved) == "reserved":
            continue
        if distance_ratio(structure) < MIN_DISTANCE:
            continue
        seen.add(key)
        yield Material(f"{prefix}{seed}-{made:05d}", source, structure)
        made += 1
