"""The teacher: its weights, and, where it is installed, its numbers."""

from __future__ import annotations

import builtins
import hashlib
import os
import shutil
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matris.errors import MatrisError
from recipes.embedded import teacher
from recipes.embedded.teacher import Teacher, locate

WEIGHTS = Path(os.environ.get("MATRIS_TEACHER", "nequix-oam-1-pft.nqx"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MATRIS_CACHE", f"{tmp_path / 'cache'}")
    return tmp_path / "cache" / "teachers"


def test_an_unknown_teacher_is_refused(tmp_path):
    with pytest.raises(MatrisError, match=r"7net-0 is no teacher: name one of nequix-oam-1, .* \(.nqx\)"):
        locate("7net-0")
    with pytest.raises(MatrisError, match="no teacher"):
        locate(tmp_path / "absent.nqx")


def test_a_file_that_is_not_what_it_is_named_is_refused(tmp_path):
    for name, known in (("nequix-oam-1", True), ("mine", False)):
        path = tmp_path / f"{name}.nqx"
        path.write_bytes(b"weights")
        if known:
            with pytest.raises(MatrisError, match="its SHA-256 is"):
                locate(path)
        else:
            assert locate(path)[0] == path


def test_a_named_teacher_is_downloaded_once_and_checked(cache, monkeypatch):
    asked = []

    def answer(url, **_):
        asked.append(url)
        return BytesIO(b"weights")

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(MatrisError, match="is not nequix-oam-1: its SHA-256 is"):
        locate("nequix-oam-1")
    assert not (cache / "nequix-oam-1.nqx").exists()
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(teacher.SHA256, "nequix-oam-1", digest)
    assert locate("nequix-oam-1") == (cache / "nequix-oam-1.nqx", digest)
    assert locate("nequix-oam-1")[0].read_bytes() == b"weights"
    assert len(asked) == 2
    assert asked[0].endswith("/models/nequix-oam-1.nqx")


def test_without_a_network_the_way_out_is_told(monkeypatch):
    def fails(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", fails)
    with pytest.raises(MatrisError, match=r"cannot download nequix-oam-1-pft: .*no route.*by other means and give"):
        locate("nequix-oam-1-pft")


def test_without_nequix_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "mine.nqx"
    path.write_bytes(b"weights")
    original = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("nequix"):
            raise ImportError(f"No module named {name!r}", name="nequix")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MatrisError, match=r"nequix is not installed: pip install 'matris-flows\[teacher\]'"):
        Teacher(path)


def test_the_teacher_is_the_unmodified_potential(tmp_path, cache):
    calculator = pytest.importorskip("nequix.calculator", reason="the extra 'teacher' is not installed")
    pytest.importorskip("torch_geometric")
    if not WEIGHTS.is_file():
        pytest.skip(f"no weights at {WEIGHTS}: set MATRIS_TEACHER to nequix-oam-1-pft.nqx")
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = shutil.copy(WEIGHTS, folder)
    folder.chmod(0o555)
    ours = Teacher(path)
    assert [p.name for p in folder.iterdir()] == [WEIGHTS.name]
    assert len(list(cache.glob("*.pt"))) == 1
    folder.chmod(0o755)
    theirs = calculator.NequixCalculator("nequix-oam-1-pft", path, backend="torch", use_kernel=False)
    crystals = [
        bulk("NaCl", "rocksalt", a=5.6, cubic=True), bulk("Cu"), bulk("Si").repeat((2, 1, 1)), bulk("Fe", cubic=True),
        bulk("Xe", "fcc", a=6.3), bulk("Pu", "fcc", a=4.3), bulk("MgO", "rocksalt", a=4.2).repeat((3, 3, 2)),
    ]  # fmt: skip
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=number)
    differences = []
    for atoms, label in zip(crystals, ours(crystals), strict=True):
        atoms.calc = theirs
        differences.append([
            abs(label.energy - atoms.get_potential_energy()) / len(atoms),
            np.abs(label.forces - atoms.get_forces()).max(),
            np.abs(label.stress - atoms.get_stress(voigt=False)).max(),
            abs(label.atom_energies.sum() - label.energy),
        ])  # fmt: skip
    energy, force, stress, total = np.max(differences, axis=0)
    assert energy < 2e-6
    assert force < 2e-5
    assert stress < 2e-6
    assert total < 1e-9
    alone = ours([Atoms("He", cell=[20] * 3, pbc=True)])[0]
    assert alone.finite
    assert not alone.forces.any()
    collapsed, no_number, far = ours([
        Atoms("He", cell=[1] * 3, pbc=True), Atoms("He", [[np.nan, 0, 0]], cell=[4] * 3, pbc=True), crystals[0],
    ])  # fmt: skip
    assert not collapsed.finite
    assert not no_number.finite
    assert far.finite
    with pytest.raises(MatrisError, match="does not know Po"):
        ours([bulk("Po", "sc", a=3.4)])
