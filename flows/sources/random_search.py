"""Random crystals of a composition, with the symmetry of random space groups, by PyXtal."""

from __future__ import annotations

import re
import warnings
import zlib
from functools import cache
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Composition, Element, Structure

from matris.errors import MatrisError
from matris.extras import require
from matris.flows.sources.sizes import atomic_volume, ionic_radius
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.charge_balance import balance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RANDOM_SOURCE = "random"

_LATTICES, _PLACINGS = 2, 3  # attempts with one space group
_DRAWS = 300  # space groups that are tried for one crystal
_PACKING = 0.68  # ions as spheres of their radii over the volume: 0.62 in Li2O, 0.65 in NaCl, 0.77 in TiO2
_VOLUMES = (0.9, 1.25)  # random factor of the volume
_CLOSEST = 0.7  # of the sum of two radii: shortest distance of two atoms
_SPACE_GROUPS = 230


def random_crystals(
    formulas: Iterable[str], *, count: int = 100, sizes: tuple[int, int] = (1, 4), seed: int = 0
) -> Iterator[Candidate]:
    """
    Make random crystals of some compositions.

    For each crystal, a number of formula units, a space group and a volume are drawn; PyXtal places the atoms on
    Wyckoff positions that the number of atoms allows. If their charges balance, the volume is that of ions of Shannon's
    radii, packed to 68 %, else the sum of the elements' atomic volumes, times a random factor from 0.9 to 1.25. No two
    atoms are closer than 0.7 times the sum of their radii: ionic ones with an anion, else covalent ones. Each crystal
    depends on its formula, its number and the seed alone.

    Parameters
    ----------
    formulas
        Formulas; each is reduced.
    count
        Number of crystals of each formula.
    sizes
        Smallest and largest number of formula units in the primitive cell.
    seed
        Seed of the random numbers.

    Yields
    ------
    Candidate
        With a source that names formula and number, and provenance ``generator`` (``"random"``), ``formula``,
        ``formula_units``, ``space_group`` (the number drawn; the crystal may have more symmetry), ``number`` and
        ``seed``. Where no crystal is found in 300 draws, the candidate has the reason instead.

    Raises
    ------
    MatrisError
        If PyXtal is not installed, a formula cannot be read, a number is out of range, or the size of an atom is not
        known.

    References
    ----------
    S. Fredericks et al., Comput. Phys. Commun. 261, 107810 (2021).
    """
    if count < 1 or seed < 0 or not 1 <= sizes[0] <= sizes[1]:
        raise MatrisError(f"random needs count ≥ 1, seed ≥ 0 and sizes as 1-4, got {count}, {seed} and {sizes}")
    require("pyxtal", "random crystals need PyXtal", "random")
    named = list(formulas)
    if not named:
        raise MatrisError("random: there is no formula; expected one as random:Li2O, or several as random:Li2O,TiO2")
    for formula in named:
        reduced = _reduced(formula)
        amounts = {symbol: round(amount) for symbol, amount in Composition(reduced).get_el_amt_dict().items()}
        volume, distances = sizes_of(amounts)
        for number in range(count):
            random = np.random.default_rng([seed, number, zlib.crc32(reduced.encode())])
            yield _crystal(reduced, amounts, volume, distances, random, sizes, {"number": number, "seed": seed})


def formulas_of(text: str) -> list[str]:
    """
    Read formulas as users type them.

    Examples
    --------
    >>> formulas_of("Li2O, TiO2")
    ['Li2O', 'TiO2']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def sizes_of(amounts: Mapping[str, int]) -> tuple[float, dict[tuple[str, str], float]]:
    """
    Estimate the volume of a formula unit, and the shortest distances of its atoms.

    Parameters
    ----------
    amounts
        Number of atoms of each element.

    Returns
    -------
    float
        Volume, Å³.
    dict
        Shortest distance of each pair of elements, Å.

    Raises
    ------
    MatrisError
        If the volume of an element is not known.

    Examples
    --------
    >>> volume, distances = sizes_of({"Li": 2, "O": 1})
    >>> print(f"{volume:.1f} Å³, O-O {distances['O', 'O']:.2f} Å")  # 24.6 Å³ and 3.27 Å in the crystal
    21.3 Å³, O-O 1.76 Å
    """
    states = balance(Composition(amounts)).states
    radii = {symbol: ionic_radius(symbol, charge) for symbol, charge in states.items() if charge}
    ionic = {symbol: radius for symbol, radius in radii.items() if radius is not None and radius > 0}
    if len(ionic) == len(amounts):
        volume = sum(4 / 3 * np.pi * ionic[symbol] ** 3 * n for symbol, n in amounts.items()) / _PACKING
    else:
        states, volumes = {}, {symbol: atomic_volume(symbol) for symbol in amounts}
        if unknown := [symbol for symbol, each in volumes.items() if each is None]:
            raise MatrisError(f"random: the volume of an atom of {', '.join(unknown)} is not known")
        volume = sum((volumes[symbol] or 0.0) * n for symbol, n in amounts.items())
    distances = {}
    for one, other in combinations_with_replacement(sorted(amounts), 2):
        with_anion = states and min(states[one], states[other]) < 0
        pair = [ionic[s] if with_anion else float(covalent_radii[atomic_numbers[s]]) for s in (one, other)]
        distances[one, other] = _CLOSEST * sum(pair)
    return float(volume), distances


def _reduced(formula: str) -> str:
    """Reduce a formula; an error names one that is none."""
    try:
        composition = Composition(formula)
        reduced, _ = composition.get_integer_formula_and_factor()
    except (ValueError, KeyError):
        reduced = ""
    symbols = re.findall(r"[A-Z][a-z]?", reduced)
    if not reduced or not re.fullmatch(r"([A-Z][a-z]?\d*)+", reduced) or not all(map(Element.is_valid_symbol, symbols)):
        raise MatrisError(f"random: {formula!r} is no formula, expected one as Li2O, or several as Li2O,TiO2")
    return reduced


def _crystal(
    formula: str,
    amounts: Mapping[str, int],
    volume: float,
    distances: Mapping[tuple[str, str], float],
    random: np.random.Generator,
    sizes: tuple[int, int],
    tags: dict[str, Any],
) -> Candidate:
    """Draw space groups until PyXtal finds a crystal."""
    source = f"random {formula}, number {tags['number'] + 1}"
    for _ in range(_DRAWS):
        units = int(random.integers(sizes[0], sizes[1] + 1))
        space_group = int(random.integers(1, _SPACE_GROUPS + 1))
        numbers = [n * units for n in amounts.values()]
        if not _fits(space_group, tuple(numbers)):
            continue
        structure = _placed(list(amounts), numbers, space_group, units * volume, distances, random)
        if structure is not None:
            drawn = {"formula": formula, "formula_units": units, "space_group": space_group, **tags}
            return Candidate.from_structure(structure, source, generator=RANDOM_SOURCE, **drawn)
    reason = f"no crystal of {sizes[0]} to {sizes[1]} formula units in {_DRAWS} draws has all atoms far enough apart"
    return Candidate.unreadable(source, reason, f"{source} {tags['seed']}".encode())


@cache
def _group(number: int) -> Any:
    from pyxtal.symmetry import Group

    return Group(number)


@cache
def _fits(space_group: int, numbers: tuple[int, ...]) -> bool:
    """Whether Wyckoff positions of a space group can hold these numbers of atoms of a primitive cell."""
    group = _group(space_group)
    return bool(group.check_compatible([n * group.cellsize() for n in numbers])[0])


def _placed(
    symbols: list[str],
    numbers: list[int],
    space_group: int,
    volume: float,
    distances: Mapping[tuple[str, str], float],
    random: np.random.Generator,
) -> Structure | None:
    """Place the atoms at random; None if they come too close, or have a smaller primitive cell."""
    from pyxtal.lattice import Lattice
    from pyxtal.msg import VolumeError
    from pyxtal.tolerance import Tol_matrix

    group = _group(space_group)
    cell = volume * group.cellsize() * random.uniform(*_VOLUMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            crystal = _quick()(
                3,
                group,
                symbols,
                numbers,
                conventional=False,
                lattice=Lattice(group.lattice_type, cell, random_state=random),
                tm=Tol_matrix(*((one, other, shortest) for (one, other), shortest in distances.items())),
                random_state=random,
            )
        except (RuntimeError, VolumeError):  # its errors if it finds none
            return None
    if not crystal.valid:
        return None
    species = [site.specie for site in crystal.atom_sites for _ in site.coords]
    whole = Structure(crystal.lattice.matrix, species, np.concatenate([site.coords for site in crystal.atom_sites]))
    primitive = whole.get_primitive_structure()
    return primitive if len(primitive) == sum(numbers) else None  # a crystal of fewer formula units


@cache
def _quick() -> Any:
    """PyXtal's class with few attempts: another space group is found sooner than a place that hardly exists."""
    from pyxtal.crystal import random_crystal

    class Quick(random_crystal):  # type: ignore[misc]
        lattice_attempts = property(lambda _: _LATTICES, lambda _, __: None)
        coord_attempts = property(lambda _: _PLACINGS, lambda _, __: None)

    return Quick
