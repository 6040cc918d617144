"""Training structures: prototypes whose sites are filled with other elements, reproducible from a seed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.collections import dcdft
from ase.data import atomic_numbers, covalent_radii
from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor
from pymatgen.core import Element, Species, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from recipes.embedded.prototypes import ANION_CHARGES, Prototype, prototypes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ELEMENTS = (
    "Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Al", "Ga", "In", "B", "C", "Si", "Ge", "Sn", "Pb", "N", "P", "As", "Sb",
    "O", "S", "Se", "Te", "F", "Cl", "Br", "I", "Y", "La", "Ti", "Zr", "V", "Nb", "Cr", "Mo", "W", "Mn", "Fe", "Co",
    "Ni", "Cu", "Ag", "Zn", "Cd",
    "H", "Be", "Rb", "Cs", "Sc", "Hf", "Ta", "Tc", "Re", "Ru", "Os", "Rh", "Ir", "Pd", "Pt", "Au", "Hg", "Tl", "Bi",
    "Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Th", "U",
)  # fmt: skip
"""Chemical elements of the training structures."""

CATION_CHARGES: dict[str, tuple[int, ...]] = {
    "Li": (1,), "Na": (1,), "K": (1,), "Ag": (1,), "Cu": (1, 2), "Mg": (2,), "Ca": (2,), "Sr": (2,), "Ba": (2,),
    "Zn": (2,), "Cd": (2,), "Mn": (2, 3, 4), "Fe": (2, 3), "Co": (2, 3), "Ni": (2, 3), "Cr": (3, 6), "V": (3, 4, 5),
    "Ti": (3, 4), "Zr": (4,), "Nb": (4, 5), "Mo": (4, 6), "W": (4, 6), "Al": (3,), "Ga": (3,), "In": (3,), "Y": (3,),
    "La": (3,), "B": (3,), "C": (4,), "Si": (4,), "Ge": (2, 4), "Sn": (2, 4), "Pb": (2, 4), "N": (5,), "P": (5,),
    "As": (3, 5), "Sb": (3, 5), "S": (6,), "Se": (4,), "Te": (4, 6), "Cl": (5,), "I": (5,),
    "Be": (2,), "Rb": (1,), "Cs": (1,), "Sc": (3,), "Hf": (4,), "Ta": (5,), "Tc": (4,), "Re": (4, 6), "Ru": (4,),
    "Os": (4,), "Rh": (3,), "Ir": (4,), "Pd": (2,), "Pt": (2, 4), "Au": (1, 3), "Hg": (2,), "Tl": (1, 3), "Bi": (3,),
    "Ce": (3, 4), "Pr": (3,), "Nd": (3,), "Sm": (3,), "Eu": (2, 3), "Gd": (3,), "Tb": (3,), "Dy": (3,), "Ho": (3,),
    "Er": (3,), "Tm": (3,), "Yb": (2, 3), "Lu": (3,), "Th": (4,), "U": (4, 6),
}  # fmt: skip
"""Common charges (e) of each element as a cation."""

FAMILIES = {
    "oxide": 0.42,
    "intermetallic": 0.19,
    "halide": 0.12,
    "chalcogenide": 0.11,
    "element": 0.08,
    "pnictide": 0.08,
}
"""Share of the materials of each family."""

_FAMILY_ANIONS = {
    "oxide": ("O",),
    "chalcogenide": ("S", "S", "Se", "Te"),
    "halide": ("F", "F", "F", "Cl", "Cl", "Br", "I"),
    "pnictide": ("N", "N", "P", "As", "Sb"),
}
_METALS = tuple(s for s in ELEMENTS if Element(s).is_metal)
_FORMERS = ("C", "N", "P", "S", "Se", "As", "Cl", "I")  # cations only where the prototype has a polyanion
_COMMONNESS = {"Li": 3.0, "Na": 2.0, "K": 2.0, "P": 1.5, "Mn": 1.5, "W": 0.6, "Te": 0.5, "Sb": 0.7, "Ge": 0.7}
MIN_DISTANCE = 0.62  # smallest distance, in sums of covalent radii


@dataclass(frozen=True)
class Material:
    """One structure to start from.

    Attributes
    ----------
    material
        Identifier; frames of one material must stay on one side of the training/validation split.
    family
        Key of `FAMILIES`.
    source
        How it was made.
    validation
        Whether it is set aside.
    structure
        Starting structure, at a guessed volume.
    charges
        Cation and anion elements of an ionic compound with the allowed charges; empty otherwise.
    """

    material: str
    family: str
    source: str
    validation: bool
    structure: Structure
    charges: dict[str, tuple[int, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**self.__dict__, "structure": self.structure.as_dict(), "charges": dict(self.charges)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Material:
        """Read what `to_dict` wrote."""
        charges = {symbol: tuple(values) for symbol, values in data["charges"].items()}
        return cls(**{**data, "structure": Structure.from_dict(data["structure"]), "charges": charges})


def is_neutral(structure: Structure, charges: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the elements' allowed charges can add up to zero, with mixed valence between an element's extremes."""
    low = sum(min(charges[site.specie.symbol]) for site in structure)
    high = sum(max(charges[site.specie.symbol]) for site in structure)
    return low <= 0 <= high


def distance_ratio(structure: Structure) -> float:
    """Smallest interatomic distance, periodic images included, in sums of covalent radii (ase.data)."""
    radii = np.array([covalent_radii[atomic_numbers[site.specie.symbol]] for site in structure])
    cutoff = 2 * float(radii.max())
    first, second, _, distances = structure.get_neighbor_list(cutoff)
    if not len(distances):
        return 1.0
    return float((distances / (radii[first] + radii[second])).min())


def generate(seed: int, count: int) -> Iterator[Material]:
    """Make materials in random order of family, so that any prefix is a fair sample.

    Parameters
    ----------
    seed
        Of all random numbers. The same seed gives the same materials, whatever ``count`` is.
    count
        How many.

    Yields
    ------
    Material
        Distinct in (source, formula), charge-plausible where ionic, with no distance below 0.62 of the sum of
        covalent radii.
    """
    elements = _elements(np.random.default_rng([seed, 0]))
    names = list(FAMILIES)
    shares = np.array(list(FAMILIES.values())) / sum(FAMILIES.values())

    def draw(rng: np.random.Generator) -> Draft | None:
        family = names[rng.choice(len(names), p=shares)]
        if family == "element":
            found = next(elements, None)
        elif family == "intermetallic":
            found = _intermetallic(rng)
        else:
            found = _ionic(rng, family)
        if found is None:
            return None
        # the elements of ase.collections.dcdft come with the PBE volume
        return Draft(family, *found, sized=found[0].startswith("dcdft"))

    return collect(draw, seed, count, prefix="m", validation_every=10)


@dataclass(frozen=True)
class Draft:
    """A structure that may become a `Material`; `sized` if its volume is known, not to be guessed."""

    family: str
    source: str
    structure: Structure
    charges: dict[str, tuple[int, ...]]
    sized: bool


def collect(
    draw: Callable[[np.random.Generator], Draft | None], seed: int, count: int, *, prefix: str, validation_every: int
) -> Iterator[Material]:
    """Draw until so many materials are distinct in (source, formula) and have no distance too short.

    Parameters
    ----------
    draw
        Makes a draft from random numbers, or None where they lead nowhere.
    seed
        Of all random numbers. The same seed gives the same materials, whatever ``count`` is.
    count
        How many.
    prefix
        First letter of the identifiers.
    validation_every
        Every so many are set aside.

    Yields
    ------
    Material
    """
    seen: set[tuple[str, str]] = set()
    made = attempt = 0
    while made < count:
        attempt += 1
        draft = draw(np.random.default_rng([seed, attempt]))
        if draft is None or (key := (draft.source, draft.structure.composition.reduced_formula)) in seen:
            continue
        seen.add(key)
        scaled = draft.structure if draft.sized else _at_guessed_volume(draft.structure)
        if scaled is None or distance_ratio(scaled) < MIN_DISTANCE:
            continue
        aside = made % validation_every == 0
        yield Material(f"{prefix}{made:05d}", draft.family, draft.source, aside, scaled, draft.charges)
        made += 1


_Found = tuple[str, Structure, dict[str, tuple[int, ...]]]


def _elements(rng: np.random.Generator) -> Iterator[_Found]:
    """Every element in its own structure first, then in the elemental prototypes."""
    own = [
        ("dcdft " + symbol, AseAtomsAdaptor.get_structure(dcdft[symbol]))
        for symbol in ELEMENTS
        if symbol in dcdft.names
    ]
    for index in rng.permutation(len(own)):
        source, structure = own[index]
        yield source, Structure(structure.lattice, structure.species, structure.frac_coords), {}
    types = [p for p in prototypes() if len(p.structure.composition) == 1 and len(p.structure) <= 12]  # noqa: PLR2004
    simple = {"A_cF4_225_a", "A_cI2_229_a", "A_hP2_194_c", "A_cF8_227_a", "A_cP1_221_a", "A_tI4_141_a", "A_hR2_166_c"}
    pairs = [(p, symbol) for p in types for symbol in ELEMENTS]
    weights = np.array([5.0 if p.label.split()[0] in simple else 1.0 for p, _ in pairs])
    for index in rng.choice(len(pairs), size=len(pairs), replace=False, p=weights / weights.sum()):
        prototype, symbol = pairs[index]
        structure = prototype.structure.copy()
        structure.replace_species({next(iter(structure.composition)): Element(symbol)})
        yield prototype.label, structure, {}


def _size_weight(sites: int) -> float:
    """Preference for cells that are cheap to label and still hold varied surroundings."""
    for limit, weight in ((3, 0.7), (14, 1.5), (20, 0.25), (28, 0.1)):
        if sites <= limit:
            return weight
    return 0.0


@cache
def _ionic_types() -> tuple[Prototype, ...]:
    return tuple(
        p for p in prototypes() if p.charges and all(p.charges[a] == ANION_CHARGES.get(a) for a in p.anions)
        and 1 <= len(p.cations) <= 3  # noqa: PLR2004
    )  # fmt: skip


@cache
def _metallic_types() -> tuple[Prototype, ...]:
    ionic = set(map(id, _ionic_types()))
    return tuple(p for p in prototypes() if len(p.structure.composition) > 1 and id(p) not in ionic)


@cache
def _probability() -> SubstitutionProbability:
    return SubstitutionProbability()


@cache
def _likeness(old: tuple[str, int], new: tuple[str, int]) -> float:
    """Square root of pymatgen's pair correlation of two ions that replace each other (Hautier et al. 2011)."""
    table = _probability()
    first, second = Species(*old), Species(*new)
    if table.get_px(first) == 0 or table.get_px(second) == 0:  # an ion that the table does not know
        return 0.0
    return float(table.pair_corr(first, second)) ** 0.5


@cache
def _ions(anion: str) -> tuple[tuple[str, int], ...]:
    """Cations that a compound of this anion may hold."""
    harmless = {"C", "N", "S", "Cl", "I", "Se"} if anion != "O" else set()
    return tuple(
        (symbol, charge) for symbol, charges in CATION_CHARGES.items() for charge in charges
        if symbol not in harmless and symbol != anion and symbol in ELEMENTS
        and not (ANION_CHARGES[anion] == -3 and symbol in ("P", "As", "Sb", "Te"))  # noqa: PLR2004
    )  # fmt: skip


def _ionic(rng: np.random.Generator, family: str) -> _Found | None:
    """Fill a prototype with ions of zero total charge, sometimes with some of them mixed or missing."""
    anion = str(rng.choice(_FAMILY_ANIONS[family]))
    types = _ionic_types()
    weights = np.array([_size_weight(len(p.structure)) * _anion_weight(p, family) * len(p.cations) for p in types])
    prototype = types[rng.choice(len(types), p=weights / weights.sum())]
    others = [str(rng.choice([a for a in ANION_CHARGES if a != anion])) for _ in prototype.anions[1:]]
    olds = list(prototype.anions)
    rng.shuffle(olds)
    replaced = dict(zip(olds, [anion, *others], strict=True))
    counts = {element.symbol: int(n) for element, n in prototype.structure.composition.items()}
    missing = -sum(counts[old] * ANION_CHARGES[new] for old, new in replaced.items())
    ions = _ions(anion)
    charge = np.array([ion[1] for ion in ions], dtype=float)
    total = np.zeros((1,) * len(prototype.cations))
    weight = np.ones((1,) * len(prototype.cations))
    for axis, old in enumerate(prototype.cations):
        shape = tuple(-1 if i == axis else 1 for i in range(len(prototype.cations)))
        total = total + counts[old] * charge.reshape(shape)
        like = np.array([_ion_weight((old, round(prototype.charges[old])), new) for new in ions])
        weight = weight * like.reshape(shape)
    weight = np.where(total == missing, weight, 0.0)
    if weight.sum() == 0:
        return None
    picked = np.unravel_index(rng.choice(weight.size, p=weight.ravel() / weight.sum()), weight.shape)
    for old, index in zip(prototype.cations, picked, strict=True):
        replaced[old] = ions[int(index)][0]
    if len(set(replaced.values())) < len(replaced):
        return None
    structure = prototype.structure.copy()
    structure.remove_oxidation_states()
    structure.replace_species({Element(old): Element(new) for old, new in replaced.items()})
    anions = {anion, *others}
    charges = {s: (ANION_CHARGES[s],) if s in anions else CATION_CHARGES[s] for s in replaced.values()}
    source = prototype.label
    if rng.random() < 0.45:  # noqa: PLR2004
        mixed = _mixed(rng, structure, charges)
        if mixed is not None:
            structure, charges, how = mixed
            source += f" {how}"
    return source, structure, charges


def _anion_weight(prototype: Prototype, family: str) -> float:
    return 4.0 if any(a in _FAMILY_ANIONS[family] for a in prototype.anions) else 1.0


def _ion_weight(old: tuple[str, int], new: tuple[str, int]) -> float:
    """Preference for ``new`` in the place of ``old``."""
    if new[0] in _FORMERS and old[0] not in (*_FORMERS, "B", "Si"):
        return 0.001
    if new[0] in _FORMERS and new == old:
        return 15.0  # carbonates, phosphates, sulfates
    # a floor keeps pairs possible that the table lacks
    return _COMMONNESS.get(new[0], 1.0) * (0.05 + min(_likeness(old, new), 4.0))


def _mixed(
    rng: np.random.Generator, structure: Structure, charges: dict[str, tuple[int, ...]]
) -> tuple[Structure, dict[str, tuple[int, ...]], str] | None:
    """Replace some ions of one element by another, or take some alkali away, and stay neutral."""
    structure = structure.copy()
    if len(structure) <= 7:  # noqa: PLR2004
        doubled = [1, 1, 1]
        doubled[int(np.argmin(structure.lattice.abc))] = 2
        structure.make_supercell(doubled)
    candidates = [s for s in charges if structure.composition[s] > 1]
    if not candidates:
        return None
    symbol = str(rng.choice(candidates))
    sites = [i for i, site in enumerate(structure) if site.specie.symbol == symbol]
    how = "mixed"
    if symbol in ("Li", "Na", "K", "Mg") and rng.random() < 0.5:  # noqa: PLR2004
        chosen = rng.permutation(sites)[: rng.integers(1, len(sites))]
        structure.remove_sites([int(i) for i in chosen])
        how = "vacancies"
    else:
        anion = charges[symbol][0] < 0
        pool = list(ANION_CHARGES) if anion else [s for s in CATION_CHARGES if s not in _FORMERS]
        if anion:
            pool = [s for s in pool if ANION_CHARGES[s] >= charges[symbol][0]]
        allowed = [
            s for s in pool if s not in charges and s in ELEMENTS
            and (anion or abs(_radius(s) - _radius(symbol)) < 0.35)  # noqa: PLR2004
        ]  # fmt: skip
        if not allowed:
            return None
        other = str(rng.choice(allowed))
        chosen = rng.permutation(sites)[: rng.integers(1, len(sites) // 2 + 1)]
        for i in chosen:
            structure.replace(int(i), Element(other))
        charges = {**charges, other: (ANION_CHARGES[other],) if anion else CATION_CHARGES[other]}
    return (structure, charges, how) if is_neutral(structure, charges) else None


def _radius(symbol: str) -> float:
    """Atomic radius (Å; Slater's, as pymatgen tabulates it)."""
    return float(Element(symbol).atomic_radius or 1.5)


def _intermetallic(rng: np.random.Generator) -> _Found | None:
    """Fill a prototype without ions with metals, metalloids and p elements of similar size ratios."""
    types = _metallic_types()
    weights = np.array([_size_weight(len(p.structure)) for p in types])
    prototype = types[rng.choice(len(types), p=weights / weights.sum())]
    replaced: dict[str, str] = {}
    scale = 0.0
    for element in sorted(prototype.structure.composition, key=lambda e: -_radius(e.symbol)):
        old = element.symbol
        covalent = not element.is_metal
        pool = (
            [s for s in ELEMENTS if not (s in ("O", "F", "Cl", "Br", "I", "N") and old != s)]
            if covalent
            else list(_METALS)
        )
        pool = [s for s in pool if s not in replaced.values()]
        radius = np.log([_radius(s) for s in pool])
        distance = radius - np.log(_radius(old)) - scale
        likely = np.exp(-((distance / (0.15 if replaced else 0.35)) ** 2) / 2)
        likely *= [1.0 if (not covalent or not Element(s).is_metal) else 0.15 for s in pool]
        new = str(rng.choice(pool, p=likely / likely.sum()))
        replaced[old] = new
        if len(replaced) == 1:
            scale = float(np.log(_radius(new) / _radius(old)))
    structure = prototype.structure.copy()
    structure.remove_oxidation_states()
    structure.replace_species({Element(old): Element(new) for old, new in replaced.items()})
    return prototype.label, structure, {}


def _at_guessed_volume(structure: Structure) -> Structure | None:
    """Scale to the volume of the data-mined lattice scaling (pymatgen's DLSVolumePredictor)."""
    # bring the shortest distance near a bond first: the predictor looks for bonds below a cutoff
    scaled = structure.copy()
    ratio = distance_ratio(scaled)
    scaled.scale_lattice(scaled.volume / min(ratio, 1.0) ** 3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = DLSVolumePredictor(min_scaling=0.3, max_scaling=2.0).predict(scaled)
    except ValueError:
        return None
    scaled.scale_lattice(volume)
    return scaled
