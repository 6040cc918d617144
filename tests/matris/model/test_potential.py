"""Predicting: one, many, odd shapes, and input that cannot be computed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

import matris
from matris.errors import CheckpointError, StructureError
from matris.flows.local.processes import environment_of
from matris.model.graph import Batch, Geometry, build_graph
from matris.model.potential import Potential, chosen_device
from matris.structures import content_id, problem_with
from tests.matris.golden import golden_potential, structures


@pytest.fixture(scope="module")
def potential():
    return golden_potential("released_small", torch.float64)


def test_many_equal_one_by_one_in_the_order_given(potential):
    chosen = [structures()[n] for n in ("Si8", "Cu1_fcc", "LiFePO4_28", "Fe2_bcc", "no_angles")]
    together = list(potential.predict(iter(chosen)))
    assert len(together) == 5
    for structure, prediction in zip(chosen, together, strict=True):
        alone = potential.predict(structure)
        assert prediction.energy == pytest.approx(alone.energy, abs=1e-9)
        assert np.allclose(prediction.forces, alone.forces, atol=1e-10)
        assert prediction.forces.shape == (len(structure), 3)


def test_ase_and_nothing(potential):
    atoms = AseAtomsAdaptor.get_atoms(structures()["Si8"])
    expected = potential.predict(structures()["Si8"]).energy
    assert potential.predict(atoms).energy == pytest.approx(expected, abs=1e-10)
    assert list(potential.predict([])) == []


def test_input_is_read_as_needed(potential):
    read = []

    def source():
        for index in range(100):
            read.append(index)
            yield structures()["NaCl8"]

    next(potential.predict(source()))
    assert len(read) < 10


def test_a_large_cell_beside_small_ones(potential):
    small = structures()["Cu1_fcc"]
    large = small.make_supercell([5, 5, 5], in_place=False)
    first, second, third = potential.predict([small, large, small])
    assert second.energy == pytest.approx(125 * first.energy, rel=1e-10)
    assert third.energy == pytest.approx(first.energy, abs=1e-10)


CELL = Lattice.cubic(4.0)
BAD = {
    "disordered": Structure(CELL, [{"Na": 0.5, "Cu": 0.5}], [[0, 0, 0]]),
    "NaN": Structure(CELL, ["Na"], [[0, 0, np.nan]]),
    "overlapping": Structure(CELL, ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.02]]),
    "unsupported element": Structure(CELL, ["Rn"], [[0, 0, 0]]),
    "no volume": Structure(Lattice([[4, 0, 0], [4, 0, 1e-9], [0, 0, 4]]), ["Na"], [[0, 0, 0]]),
    "no atoms": Structure(CELL, [], []),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_computed_is_named(potential, kind):
    assert kind in problem_with(BAD[kind], potential.elements)
    with pytest.raises(StructureError, match=rf"structure 1: .*{kind}"):
        list(potential.predict([structures()["Cu1_fcc"], BAD[kind]]))


def test_not_a_structure(potential):
    with pytest.raises(StructureError, match="str"):
        list(potential.predict(["POSCAR"]))


def test_identity_is_content():
    one = Structure(CELL, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    same = Structure(CELL, ["Na", "Cl"], [[1e-9, -1e-9, 1], [0.5, 1.5, -0.5]])
    assert content_id(one) == content_id(same)
    others = [
        Structure(Lattice.cubic(4.01), one.species, one.frac_coords),
        Structure(CELL, ["Na", "Br"], one.frac_coords),
        Structure(CELL, one.species, [[0, 0, 0], [0.5, 0.5, 0.51]]),
    ]
    assert len({content_id(s) for s in [one, *others]}) == 4


def test_line_graph_cutoff_is_inclusive_for_the_target_only():
    """A bond exactly at the cut-off gives one-sided angles."""
    exact = Structure(Lattice.cubic(20), ["Cu"] * 3, [[0, 0, 0], [0.2, 0, 0], [0, 0.1, 0]])
    graph = build_graph(Batch.of([Geometry.of(exact)]), 6.0, 4.0)
    assert graph.n_bonds == 3
    lengths = graph.vectors.norm(dim=1)
    # bonds of 4 (at the cut-off) and 2 Å meet at atom 0; the third is 4.47 Å
    assert graph.n_angles == 1
    assert lengths[graph.angle_target].tolist() == [4.0]
    assert lengths[graph.angle_source].tolist() == [2.0]


def test_import_is_light():
    """``import matris`` needs neither torch nor a workflow engine."""
    code = "import sys, matris; print([m for m in ('torch', 'jobflow', 'pymongo', 'atomate2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_device_from_the_environment(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device().type == "cpu"
    monkeypatch.setenv("MATRIS_DEVICE", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(
        CheckpointError, match=r"'cuda' was asked for by MATRIS_DEVICE, but .* \(CUDA_VISIBLE_DEVICES=2\)"
    ):
        chosen_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(CheckpointError, match="CUDA_VISIBLE_DEVICES names none"):
        chosen_device()
    assert chosen_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device("cuda:1").index == 1
    with pytest.raises(CheckpointError, match="'cuda:2' was asked for, but there are 2 CUDA devices"):
        chosen_device("cuda:2")


def test_processes_share_the_memory_of_a_gpu(potential, monkeypatch):
    monkeypatch.setattr(Potential, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8e10))
    assert Potential(potential.network, potential.card).memory == 4e10
    for name, value in environment_of(3, 2).items():
        monkeypatch.setenv(name, value)
    assert Potential(potential.network, potential.card).memory == 2e10


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_apples_gpus_are_refused_with_a_sentence(device, monkeypatch):
    with pytest.raises(CheckpointError, match=r"Apple's GPUs have no float64, .*: use --device cpu"):
        matris.load(device=device)
    monkeypatch.setenv("MATRIS_DEVICE", device)
    with pytest.raises(CheckpointError, match="by MATRIS_DEVICE, but Apple"):
        matris.load()
