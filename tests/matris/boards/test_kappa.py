"""Metrics of the board of thermal conductivities, against published numbers; the board on two crystals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from matris.boards import kappa as module
from matris.boards.board import mean
from matris.boards.contestants import Contestant
from matris.boards.kappa import KAPPA_BOARD, mode_error, prototype, relative_difference
from matris.boards.published import KAPPA
from matris.boards.run import run_board
from matris.errors import BoardError
from tests.matris.argon import Argon

CRYSTALS = Path(__file__).parents[4] / "shared" / "data" / "kappa_103.json.gz"


@pytest.mark.skipif(not CRYSTALS.exists(), reason="the conductivities of the 103 crystals are not here")
def test_published_errors_follow_from_published_conductivities():
    content = json.loads(gzip.decompress(CRYSTALS.read_bytes()))
    names = {"matris-10m-oam": "matris_10m_oam", "matris-10m-mp": "matris_10m_mp"}
    compared = 0
    for model, values in content["models"].items():
        if (row := KAPPA.get(names.get(model, model))) is None:
            continue
        compared += 1
        found = [relative_difference(k, dft) for k, dft in zip(values["kappa"], content["kappa_dft"], strict=True)]
        assert mean(found) == pytest.approx(row["SRD"], abs=2e-4), model
        assert mean(map(abs, found)) == pytest.approx(row["SRE"], abs=2e-4), model
        assert mean(values["srme"]) == pytest.approx(row["SRME"], abs=2e-4), model
    assert compared == 5


def test_modes_that_do_not_fit_have_the_largest_error():
    modes = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert mode_error(10, modes, 10, modes) == 0
    assert mode_error(10, modes, 5, modes / 2) == pytest.approx(2 * 5 / 15)
    assert mode_error(10, modes, 10, modes[:1]) == 2


@pytest.mark.parametrize("group", [225, 216, 186])
def test_prototypes_have_their_space_group(group: int):
    cell = prototype("ZnS", group)
    assert SpacegroupAnalyzer(cell).get_space_group_number() == group
    near = cell.get_distance(0, len(cell) // 2)
    distances = cell.distance_matrix[0][[site.specie.symbol == "S" for site in cell]]
    assert distances.min() == pytest.approx(1.22 + 1.05, abs=0.01)  # covalent radii
    assert near > 1


def folder(path: Path) -> Path:
    """A folder in the board's layout: two crystals, with structures and DFT's modes."""
    path.mkdir()
    content = {"material_ids": ["mp-1", "mp-2"], "formulas": ["MgO", "ZnS"], "space_groups": [225, 186]}
    content["kappa_dft"] = [10.0, 20.0]
    (path / "kappa_103.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    salt = prototype("MgO", 225).to_ase_atoms()
    info = {"material_id": "mp-1", "q_point_mesh": [5, 5, 5], "fc2_supercell": 2 * np.eye(3, dtype=int)}
    salt.info = info | {"fc3_supercell": np.eye(3, dtype=int)}
    ase.io.write(path / "2024-11-09-phononDB-PBE-103-structures.extxyz", salt)
    modes = np.zeros((1, 2, 3, 6))  # one temperature, two wave vectors of weights 3 and 1
    modes[0, 0, :, :3], modes[0, 1, :, :3] = 8.0, 16 / 3  # 4 · 10 W/m/K in all
    columns = {
        "material_id": {"0": "mp-1", "1": "mp-2"},
        "mode_kappa_tot_rta": {"0": modes.tolist(), "1": (2 * modes).tolist()},
        "mode_weights": {"0": [3, 1], "1": [3, 1]},
    }
    (path / "2024-11-09-kappas-phononDB-PBE-noNAC.json.gz").write_bytes(gzip.compress(json.dumps(columns).encode()))
    return path


def test_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def conductivity(structures, _model, *, settings, **_):
        """Half of DFT's MgO, all in the first wave vector; no ZnS."""
        calls.append((settings.supercell, settings.supercell_fc3, settings.mesh, settings.displacement))
        if "Zn" in structures[0].composition:
            return [SimpleNamespace(conductivity=None, structure=structures[0], error="imaginary modes", warnings=())]
        modes = np.zeros((1, 2, 3, 6))
        modes[0, 0, :, :3] = 5 / 3
        found = SimpleNamespace(
            mean=np.array([5.0]), coherence=np.zeros((1, 6)), modes=SimpleNamespace(conductivities=modes)
        )
        return [SimpleNamespace(conductivity=found, structure=structures[0], error=None, warnings=())]

    monkeypatch.setattr(module, "conductivity", conductivity)
    result = run_board(
        KAPPA_BOARD, Contestant("argon", Argon(), "mp"), tmp_path / "out", data=folder(tmp_path / "data")
    )
    assert calls == [((2, 2, 2), (1, 1, 1), (5, 5, 5), 0.03), ((5, 5, 3), (3, 3, 2), (19, 19, 15), 0.03)]
    metrics = result.document["metrics"]
    # DFT's modes of MgO: three of 2 W/m/K, three of 4/3; ours three of 5/3: |differences| sum to 1 + 4
    assert metrics["SRME"] == pytest.approx((2 * 5 / 15 + 2) / 2)
    assert metrics["SRD"] == pytest.approx((2 * (5 - 10) / 15 - 2) / 2)
    assert metrics["SRE"] == pytest.approx((2 / 3 + 2) / 2)
    assert metrics["failure rate"] == metrics["imaginary mode rate"] == 0.5
    assert result.document["remarks"] == []


def test_without_modes_there_is_no_srme(tmp_path: Path):
    data = folder(tmp_path / "data")
    items = KAPPA_BOARD.read(data / "kappa_103.json.gz")
    values = {"kappa": 10.0, "space_group": 225, "modes": [[1.0]]}
    metrics = KAPPA_BOARD.score(items, {"mp-1": values, "mp-2": {**values, "space_group": 1}})
    assert metrics["SRME"] is None
    assert metrics["SRE"] == pytest.approx((0 + 2 / 3) / 2)  # a broken symmetry counts in SRME alone
    assert metrics["failure rate"] == 0.5
    assert "SRME is missing" in KAPPA_BOARD.remarks(items)[0]
    with pytest.raises(BoardError, match="no kappa"):
        KAPPA_BOARD.read(tmp_path)
