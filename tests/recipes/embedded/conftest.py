"""Reference data in small."""

from __future__ import annotations

import gzip
import json

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from matris.structures import to_structure
from recipes.embedded.variants import DFT_SETS

CRYSTALS = [
    bulk("NaCl", "rocksalt", a=5.69, cubic=True), bulk("MgO", "rocksalt", a=4.25), bulk("GaAs", "zincblende", a=5.75),
    bulk("CsCl", "cesiumchloride", a=4.2), bulk("ZnS", "zincblende", a=5.4, cubic=True), bulk("Pt"), bulk("Cu"),
    bulk("XeF", "rocksalt", a=5.5), bulk("PmN", "rocksalt", a=5.1), bulk("AcN", "rocksalt", a=5.6),
    molecule("H2O", vacuum=3, pbc=True),
    Atoms("LiCoO2", [(0, 0, 0), (2, 0, 0), (0, 2, 0), (0, 0, 2)], cell=[3.9] * 3, pbc=True),  # reserved
]  # fmt: skip
WBM = bulk("BN", "zincblende", a=3.63)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of DFT sets, of which some formulas are reserved by their hash, and of one WBM crystal."""
    folder = tmp_path_factory.mktemp("data")
    for name in DFT_SETS:
        frames = []
        for atoms in [*CRYSTALS, WBM]:
            copy = atoms.copy()
            copy.calc = SinglePointCalculator(copy, energy=-1.0, forces=0 * copy.positions, stress=[0.0] * 6)
            frames.append(copy)
        write(folder / f"{name}.extxyz.gz", frames, format="extxyz")
    row = {"structure": to_structure(WBM.repeat((1, 1, 2))).as_dict()}
    (folder / "wbm_equilibrium.json.gz").write_bytes(gzip.compress(json.dumps([row]).encode()))
    return folder
