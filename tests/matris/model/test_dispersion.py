"""D3(BJ) dispersion against simple-dftd3, its derivatives, and its name wherever energies are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.core import Composition

import matris
from matris.errors import CheckpointError, MatrisError
from matris.makers import BatchElasticMaker, BatchRelaxMaker
from matris.model.checkpoints import Card
from matris.model.graph import Batch, Geometry, bonds_together
from matris.relaxation.relax import engine_of
from matris.stores.documents.corrections import MP2020, correction_scheme
from matris.stores.documents.documents import unwind
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import references_from_documents

pytest.importorskip("tad_dftd3", reason="needs tad-dftd3, of the extra dispersion")
from matris.model.dispersion import dispersion, functional_of


def layers(symbols: str, a: float, c: float, places: list[list[float]]) -> Atoms:
    return Atoms(symbols, cell=[[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]], scaled_positions=places, pbc=True)


GRAPHITE = layers("C4", 2.46, 6.70, [[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
ARGON = bulk("Ar", "fcc", a=5.26)
MGO = bulk("MgO", "rocksalt", a=4.2)
MGO.rattle(0.05, seed=1)
MOS2 = layers("MoS2", 3.16, 6.15, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.5045], [2 / 3, 1 / 3, -0.0045]])

# eV/atom and eV/Å³ (xx, yy, zz), by dftd3 1.7.0 (simple-dftd3), RationalDampingParam(method=…, atm=False)
EXPECTED = {
    ("graphite", "pbe"): (-0.15660659757818757, [0.001530853, 0.001530853, 0.021263303]),
    ("graphite", "r2scan"): (-0.07631456290018214, [0.000770105, 0.000770105, 0.008818094]),
    ("argon", "pbe"): (-0.0897333845289375, [0.003289993] * 3),
    ("argon", "r2scan"): (-0.045066967209616664, [0.001232886] * 3),
    ("MgO", "pbe"): (-0.2955591255510796, [0.032857227, 0.032845788, 0.032847953]),
    ("MoS2", "pbe"): (-0.4257709450866402, [0.024905422, 0.024905422, 0.024736303]),
}
CRYSTALS = {"graphite": GRAPHITE, "argon": ARGON, "MgO": MGO, "MoS2": MOS2}


def batch(*atoms: Atoms) -> Batch:
    return Batch.of([Geometry.of(each) for each in atoms])


@pytest.mark.parametrize(("name", "functional"), EXPECTED)
def test_simple_dftd3_gives_the_same(name, functional):
    energy, stress = EXPECTED[name, functional]
    result = dispersion(batch(CRYSTALS[name]), functional)
    assert float(result.energies) / len(CRYSTALS[name]) == pytest.approx(energy, rel=1e-6)
    assert np.diagonal(result.stresses[0]) == pytest.approx(stress, abs=2e-6)
    if name == "MgO":
        assert result.forces[0].numpy() == pytest.approx([0.00089996, -0.0004881, 0.00058704], abs=1e-6)


def test_a_molecule():
    """Benzene, by dftd3 1.7.0 in Hartree."""
    result = dispersion(batch(molecule("C6H6", vacuum=5)), "pbe")
    assert float(result.energies) / 27.211386245988 == pytest.approx(-0.010957092628442036, rel=1e-6)


def test_forces_and_stresses_are_derivatives_and_batches_change_nothing():
    step = 1e-4
    together = dispersion(batch(GRAPHITE, MGO, ARGON), "pbe")
    alone = dispersion(batch(MGO), "pbe")
    assert float(together.energies[1]) == pytest.approx(float(alone.energies), rel=1e-12)
    assert together.forces[4:6].numpy() == pytest.approx(alone.forces.numpy(), abs=1e-12)
    assert float(alone.atom_energies.sum()) == pytest.approx(float(alone.energies))
    ends = []
    for size in (-step, step):
        moved, strained = MGO.copy(), MGO.copy()
        moved.positions[0, 2] += size
        strain = np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]]) * size
        strained.set_cell(MGO.cell @ (np.eye(3) + strain), scale_atoms=True)
        ends.append(dispersion(batch(moved, strained), "pbe").energies)
    slopes = ((ends[1] - ends[0]) / (2 * step)).numpy()
    assert -slopes[0] == pytest.approx(float(alone.forces[0, 2]), rel=1e-4)
    assert slopes[1] / MGO.get_volume() == pytest.approx(float(alone.stresses[0, 1, 2]), abs=1e-7)


def test_pairs_as_a_gpu_finds_them_give_the_same(monkeypatch):
    expected = dispersion(batch(GRAPHITE, MOS2), "pbe")
    monkeypatch.setattr("matris.model.dispersion.bonds_one_by_one", bonds_together)
    monkeypatch.setattr("matris.model.dispersion._MOST_PAIRS", 1.0)  # and one structure at a time
    found = dispersion(batch(GRAPHITE, MOS2), "pbe")
    for one, other in zip(found, expected, strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-10)


def test_all_doors_add_the_same(tiny_checkpoint):
    bare = matris.load(tiny_checkpoint, device="cpu", dtype="float64")
    whole = matris.load(tiny_checkpoint, device="cpu", dtype="float64", dispersion="d3")
    added = dispersion(batch(MGO), "pbe")
    before, after = bare.predict(MGO), whole.predict(MGO)
    assert after.energy - before.energy == pytest.approx(float(added.energies))
    assert after.forces - before.forces == pytest.approx(added.forces.numpy(), abs=1e-9)
    assert after.stress - before.stress == pytest.approx(added.stresses[0].numpy(), abs=1e-9)
    (record,) = matris.relax(MGO, whole, max_steps=0)
    assert record.energy == pytest.approx(after.energy)
    atoms = MGO.copy()
    atoms.calc = matris.MatRISCalculator(tiny_checkpoint, device="cpu", dtype="float64", dispersion="d3")
    assert atoms.get_potential_energy() == pytest.approx(after.energy)


def test_identity_and_scale_say_so_and_hulls_do_not_mix(tiny_checkpoint, tmp_path):
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu", "journal_dir": str(tmp_path), "max_steps": 0}
    bare, whole = BatchRelaxMaker(**common), BatchRelaxMaker(**common, dispersion="d3")
    assert whole.card().sha256 == whole.potential().card.sha256 == engine_of(whole.potential()).sha256
    assert whole.card().sha256 != bare.card().sha256
    assert (whole.card().key, whole.card().energy_scale) == (f"{bare.card().key}+d3bj", "mp-d3bj")
    assert BatchElasticMaker(**common, dispersion="d3").card() == whole.card()
    crystals = [bulk("Mg"), bulk("Cu")]
    documents = {
        maker.dispersion: [
            document.model_dump() | {"state": "converged"}
            for document, _ in unwind(maker.make.original(maker, crystals))
        ]
        for maker in (bare, whole)
    }
    assert documents["d3"][0]["checkpoint"]["energy_scale"] == "mp-d3bj"
    with pytest.raises(MatrisError, match="one checkpoint"):
        hull_results(documents[None] + documents["d3"])
    with pytest.raises(MatrisError, match="corrected for the energy scale 'mp'"):
        hull_results(documents["d3"], references_from_documents(documents[None]))
    assert correction_scheme("mp-d3bj", Composition("MgO")) == MP2020


def test_what_cannot_be_named_is_refused(tiny_checkpoint):
    assert functional_of(Card("mine", energy_scale="mine", details={"functional": "PBE"})) == "pbe"
    with pytest.raises(CheckpointError, match="the functional of mine is not known"):
        functional_of(Card("mine", energy_scale="mine"))
    with pytest.raises(CheckpointError, match="no parameters of D3"):
        dispersion(batch(ARGON), "no functional")
    with pytest.raises(CheckpointError, match="'d4' is not supported"):
        matris.load(tiny_checkpoint, dispersion="d4")
    assert torch.is_grad_enabled()
