"""Structures of the benchmarks."""

from __future__ import annotations

import numpy as np
from ase.build import bulk
from ase.collections import dcdft
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor


def _from_ase(atoms: object) -> Structure:
    structure = AseAtomsAdaptor.get_structure(atoms)  # type: ignore[arg-type]
    return Structure(structure.lattice, structure.species, structure.frac_coords)


def rattled(structure: Structure, seed: int, sigma: float = 0.08) -> Structure:
    """Displace the atoms by Gaussian noise of width `sigma` (Å), so that forces are not zero."""
    noise = np.random.default_rng(seed).normal(0, sigma, (len(structure), 3))
    return Structure(structure.lattice, structure.species, structure.cart_coords + noise, coords_are_cartesian=True)


def silicon(repeats: int = 1) -> Structure:
    """Return diamond silicon in a cubic cell of 8·repeats³ atoms."""
    return rattled(_from_ase(bulk("Si", cubic=True).repeat(repeats)), 1)


def rocksalt() -> Structure:
    """Return NaCl with 8 atoms."""
    return rattled(_from_ase(bulk("NaCl", "rocksalt", a=5.69, cubic=True)), 2)


def olivine() -> Structure:
    """Return LiFePO4 with 28 atoms (idealised textbook coordinates)."""
    sites = [
        ("Li", (0, 0, 0)), ("Fe", (0.2822, 0.25, 0.9747)), ("P", (0.0948, 0.25, 0.4182)), ("O", (0.0968, 0.25, 0.7428)),
        ("O", (0.4571, 0.25, 0.2060)), ("O", (0.1656, 0.0465, 0.2848)),
    ]  # fmt: skip
    lattice = Lattice.orthorhombic(10.33, 6.01, 4.69)
    structure = Structure.from_spacegroup("Pnma", lattice, [s for s, _ in sites], [x for _, x in sites])
    return rattled(structure, 3, 0.04)


def mixed_sixteen() -> list[Structure]:
    """Return sixteen small crystals of different elements, densities and sizes."""
    elements = [_from_ase(dcdft[s]) for s in ("Li", "Al", "Cu", "Fe", "W", "C", "Ge", "Se", "P", "Mn")]
    structures = [*elements, rocksalt(), silicon(), olivine()]
    compounds = [("MgO", "rocksalt", 4.25), ("GaAs", "zincblende", 5.75), ("CsCl", "cesiumchloride", 4.2)]
    structures += [_from_ase(bulk(f, t, a=a)) for f, t, a in compounds]
    return [rattled(s, 10 + i) for i, s in enumerate(structures)]


PROTOTYPES = (
    ("Si", "diamond", 5.43), ("NaCl", "rocksalt", 5.69), ("Al", "fcc", 4.05), ("MgO", "rocksalt", 4.25),
    ("Mg", "hcp", 3.2), ("GaAs", "zincblende", 5.75), ("Cu", "fcc", 3.62), ("W", "bcc", 3.18),
    ("CaF2", "fluorite", 5.5), ("Ti", "hcp", 2.93), ("AlNi", "cesiumchloride", 2.89), ("ZnO", "wurtzite", 3.28),
    ("Ge", "diamond", 5.76), ("KBr", "rocksalt", 6.7), ("Nb", "bcc", 3.31), ("TiO2", "rutile", 4.65),
    ("LiF", "rocksalt", 4.07), ("AlAs", "zincblende", 5.73), ("SrTiO3", "perovskite", 3.94), ("Ag", "fcc", 4.15),
    ("InAs", "zincblende", 6.2), ("Li", "bcc", 3.44), ("CaO", "rocksalt", 4.84), ("Zr", "hcp", 3.24),
)  # fmt: skip
"""Formula, prototype and lattice constant a (Å): elements, binaries and a ternary, mixed so that groups are similar."""


def prototypes() -> dict[str, Structure]:
    """Return the primitive cells of `PROTOTYPES`, with 1 to 6 atoms, by formula."""
    return {formula: _prototype(formula, kind, a) for formula, kind, a in PROTOTYPES}


def _prototype(formula: str, kind: str, a: float) -> Structure:
    if kind == "rutile":
        sites = [[0, 0, 0], [0.305, 0.305, 0]]
        return Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(a, 0.64 * a), ["Ti", "O"], sites)
    if kind == "perovskite":
        sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        return Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), ["Sr", "Ti", "O"], sites)
    return _from_ase(bulk(formula, kind, a=a))
