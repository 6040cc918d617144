from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matris.model.potential import load
from matris.relaxation.guard import Budget
from matris.relaxation.journal import JournalError
from matris.relaxation.relax import relax
from matris.structures import content_id
from matris.torchsim import MatRISTorchSimModel
from tests.matris.argon import EPSILON, FCC, NEIGHBOR, Argon, AseArgon, crystal, primitive

KRYPTON = 36


@pytest.fixture(autouse=True)
def _no_remembered_limits(monkeypatch):
    monkeypatch.setattr(Budget, "_limits", {})


def numbers(record) -> dict:
    """A record but for the time it took."""
    return {key: value for key, value in record.to_dict().items() if key != "seconds"}


def krypton(state) -> torch.Tensor:
    """Which systems of a state hold krypton."""
    counts = torch.zeros(state.n_systems, dtype=torch.int64)
    return counts.index_add_(0, state.system_idx, (state.atomic_numbers == KRYPTON).long()) > 0


def refuses_krypton(state) -> None:
    if krypton(state).any():
        raise ValueError("no parameters for\nKr")


def test_fcc_reaches_the_analytic_minimum():
    (record,) = relax([primitive(5.6)], Argon(), fmax=1e-4)
    assert record.state == "converged"
    assert record.structure.lattice.abc == pytest.approx([NEIGHBOR] * 3, abs=1e-4)
    assert record.energy == pytest.approx(-6 * EPSILON, abs=1e-8)
    assert record.fmax < 1e-5
    assert record.smax == np.abs(record.stress).max() < 1e-5
    assert record.structure_id == content_id(primitive(5.6))
    assert record.error is None


def test_agrees_with_ase():
    start = crystal(5.45, shift=0.05)
    start.apply_strain([0.005, -0.005, 0.01])
    (record,) = relax([start], Argon(), fmax=2e-4, optimizer="fire")
    atoms = AseAtomsAdaptor.get_atoms(start)
    atoms.calc = AseArgon()
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    optimizer.run(fmax=2e-4, steps=500)
    assert optimizer.nsteps > 10
    assert record.n_steps == pytest.approx(optimizer.nsteps, rel=0.1)
    assert record.structure.lattice.matrix == pytest.approx(atoms.cell.array, abs=1e-4)
    assert record.structure.cart_coords == pytest.approx(atoms.positions, abs=1e-4)
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


def test_cell_counts_for_convergence():
    """Forces vanish by symmetry in fcc at any lattice constant: only the stress tells."""
    (record,) = relax([primitive(5.6)], Argon(), fmax=0.01, max_steps=0)
    assert record.fmax < 1e-10
    assert record.state == "max_steps"
    volume_force = record.structure.volume * np.linalg.norm(record.stress, axis=1).max() / len(record.structure)
    assert volume_force > 0.01
    (record,) = relax([primitive(5.6)], Argon(), fmax=0.01)
    assert record.state == "converged"
    assert record.structure.volume * np.linalg.norm(record.stress, axis=1).max() < 0.01


def test_max_steps_is_said():
    (record,) = relax([crystal(shift=0.3)], Argon(), fmax=1e-4, max_steps=3)
    assert (record.state, record.n_steps) == ("max_steps", 3)
    assert record.fmax >= 1e-4
    assert record.structure is not None


@pytest.mark.parametrize("relax_cell", [True, False])
def test_record_belongs_to_its_geometry(relax_cell):
    (record,) = relax([crystal(shift=0.2)], Argon(), fmax=1e-3, max_steps=7, relax_cell=relax_cell)
    output = Argon()(ts.io.structures_to_state(record.structure, torch.device("cpu"), torch.float64))
    assert record.energy == pytest.approx(float(output["energy"][0]), abs=1e-10)
    assert record.forces == pytest.approx(output["forces"].numpy(), abs=1e-9)
    assert record.stress == pytest.approx(output["stress"][0].numpy(), abs=1e-10)
    assert record.fmax == pytest.approx(np.linalg.norm(record.forces, axis=1).max(), rel=1e-12)
    assert (record.smax is None) == (not relax_cell)


def test_fixed_cell_stays():
    start = crystal(FCC, shift=0.2)
    (record,) = relax([start], Argon(), fmax=1e-3, relax_cell=False)
    assert record.state == "converged"
    assert np.array_equal(record.structure.lattice.matrix, start.lattice.matrix)
    assert record.energy == pytest.approx(4 * -6 * EPSILON, abs=1e-4)


def test_left_handed_cell_relaxes_like_its_mirror():
    right = primitive(5.6)
    left = Structure(Lattice(right.lattice.matrix[[1, 0, 2]]), right.species, right.frac_coords)
    assert np.linalg.det(right.lattice.matrix) * np.linalg.det(left.lattice.matrix) < 0
    records = list(relax([right, left], Argon(), fmax=1e-3))
    for start, record in zip([right, left], records, strict=True):
        assert record.state == "converged"
        assert record.structure.lattice.abc == pytest.approx([NEIGHBOR] * 3, abs=1e-3)
        assert np.linalg.det(record.structure.lattice.matrix) * np.linalg.det(start.lattice.matrix) > 0


def test_magmoms_follow_their_atoms():
    def after(state, output):
        output["magmoms"] = state.atomic_numbers.double()

    mixed = crystal(5.45)
    mixed.replace(2, "Kr")
    records = sorted(relax([crystal(5.6), mixed], Argon(after=after), max_batch_atoms=100), key=lambda r: r.index)
    assert records[0].magmoms.tolist() == [18] * 4
    assert records[1].magmoms.tolist() == [18, 18, 36, 18]
    assert next(relax([crystal()], Argon())).magmoms is None


def test_magmoms_that_are_no_numbers_are_left_out(tmp_path):
    def after(state, output):
        output["magmoms"] = torch.full((state.n_atoms,), torch.nan, dtype=torch.float64)

    (record,) = relax(primitive(FCC), Argon(after=after), journal=tmp_path / "j.jsonl")
    assert record.state == "converged"
    assert record.magmoms is None


def test_oxidation_states_and_labels_stay_and_site_properties_go(tmp_path):
    start = crystal(FCC)
    start.add_oxidation_state_by_site([0, 1, -1, 0])
    start.add_spin_by_site(np.array([1, 0, 0, 0]))
    start.add_site_property("magmom", [1.0, 0.0, 0.0, 0.0])
    start[1].label = "Ar2"
    for _ in range(2):  # computed, then from the journal
        (record,) = relax(start, Argon(), journal=tmp_path / "j.jsonl")
        assert record.structure.species == start.species
        assert record.structure.labels == start.labels
        assert record.structure.site_properties == {}


def test_nothing_in_nothing_out():
    assert list(relax([], Argon())) == []


def test_one_structure_needs_no_list():
    assert [r.state for r in relax(primitive(FCC), Argon())] == ["converged"]
    assert [r.state for r in relax(AseAtomsAdaptor.get_atoms(primitive(FCC)), Argon())] == ["converged"]


def test_settings_are_checked_at_once():
    with pytest.raises(ValueError, match="fmax"):
        relax([], Argon(), fmax=0)
    with pytest.raises(ValueError, match="max_batch_atoms"):
        relax([], Argon(), max_batch_atoms=0)
    model = Argon()
    model._compute_stress = False
    with pytest.raises(ValueError, match="stress"):
        relax([], model)


def test_bad_structures_fail_alone_and_never_reach_the_model():
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0.01, 0, 0]])
    disordered = Structure(Lattice.cubic(5), [{"Ar": 0.5, "Kr": 0.5}], [[0, 0, 0]])
    lost = primitive()
    lost[0].frac_coords[0] = np.nan
    molecule = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4]])
    inputs = [overlapping, primitive(5.5), disordered, lost, molecule, None, crystal()]
    model = Argon()
    records = {record.index: record for record in relax(inputs, model, fmax=0.01)}
    assert [records[i].state for i in range(7)] == ["failed", "converged", *["failed"] * 4, "converged"]
    for index, reason in enumerate(["overlapping", None, "disordered", "NaN", "not periodic", "NoneType", None]):
        assert (reason is None) == (records[index].error is None)
        assert reason is None or reason in records[index].error
    assert records[0].structure is records[0].energy is records[0].fmax is None
    assert sum(model.batches) == records[1].n_steps + 1 + 4 * (records[6].n_steps + 1)


@pytest.mark.parametrize(("optimizer", "max_steps"), [("lbfgs", 5), ("fire", 12)])
def test_an_exception_in_a_batch_costs_its_culprit_alone(optimizer, max_steps):
    inputs = [crystal(5.5, 0.02 * i, "Kr" if i == 3 else "Ar") for i in range(6)]
    model = Argon(before=refuses_krypton)
    settings = {"fmax": 1e-12, "max_steps": max_steps, "optimizer": optimizer}
    records = {record.index: record for record in relax(inputs, model, **settings, max_batch_atoms=1000)}
    assert max(model.batches) == 24
    assert records[3].state == "failed"
    assert records[3].error == "ValueError: no parameters for Kr (after 0 steps)"
    for index in (0, 1, 2, 4, 5):
        (alone,) = relax([inputs[index]], Argon(), **settings)
        assert records[index].state == alone.state == "max_steps"
        assert records[index].n_steps == alone.n_steps
        assert records[index].energy == pytest.approx(alone.energy, abs=1e-10)
        assert records[index].structure.cart_coords == pytest.approx(alone.structure.cart_coords, abs=1e-8)


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire"])
def test_a_late_exception_leaves_the_others_where_they_were(optimizer):
    calls = 0

    def before(state):
        nonlocal calls
        calls += 1
        if calls > 5:
            refuses_krypton(state)

    inputs = [crystal(5.6, 0.1), crystal(5.6, 0.2, "Kr"), crystal(5.6, 0.3)]
    settings = {"fmax": 1e-12, "max_steps": 12, "optimizer": optimizer}
    records = {r.index: r for r in relax(inputs, Argon(before=before), **settings, max_batch_atoms=1000)}
    assert records[1].state == "failed"
    assert "after 5 steps" in records[1].error
    for index in (0, 2):
        (alone,) = relax([inputs[index]], Argon(), **settings)
        assert (records[index].state, records[index].n_steps) == ("max_steps", alone.n_steps)
        assert records[index].energy == pytest.approx(alone.energy, abs=1e-10)


@pytest.mark.parametrize("key", ["energy", "forces", "stress"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_fail_alone(key, value):
    def after(state, output):
        systems = krypton(state)
        mask = systems[state.system_idx] if key == "forces" else systems
        output[key] = output[key].clone()
        output[key][mask] = value

    inputs = [crystal(5.6, 0.1), crystal(5.6, 0.1, "Kr"), crystal(5.6, 0.2)]
    records = {record.index: record for record in relax(inputs, Argon(after=after), max_batch_atoms=1000)}
    assert [records[i].state for i in range(3)] == ["converged", "failed", "converged"]
    assert "NaN or infinite" in records[1].error


@pytest.mark.parametrize(("sign", "word"), [(-1, "exploded"), (1, "collapsed")])
def test_runaway_cells_fail_alone(sign, word):
    """Constant pressure without resistance."""

    def after(state, output):
        output["stress"] = output["stress"].clone()
        output["stress"][krypton(state)] = sign * torch.eye(3, dtype=torch.float64)

    inputs = [crystal(5.6, 0, "Kr"), crystal(5.6)]
    records = {record.index: record for record in relax(inputs, Argon(after=after), max_batch_atoms=1000)}
    assert records[1].state == "converged"
    assert records[0].state == "failed"
    assert f"cell {word}" in records[0].error


def test_atoms_that_fall_into_each_other_fail():
    def after(_state, output):
        output["forces"] = torch.zeros_like(output["forces"])
        output["stress"] = torch.zeros_like(output["stress"])

    def before(state):
        state.positions[1] = state.positions[0] + 0.1  # a model with a hole pulls them together

    (record,) = relax([crystal()], Argon(before=before, after=after))
    assert record.state == "failed"
    assert "overlapping" in record.error


def runs_out_above(atoms: int, error: type[Exception] = torch.cuda.OutOfMemoryError):
    def before(state):
        if state.n_atoms > atoms:
            raise error("CUDA out of memory. Tried to allocate 20.00 GiB")

    return before


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_halves_the_batch_and_is_remembered(error):
    inputs = [crystal(5.5, 0.01 * i) for i in range(8)]
    model = Argon(before=runs_out_above(9, error))
    records = list(relax(inputs, model, max_batch_atoms=32))
    assert [r.state for r in records] == ["converged"] * 8
    assert [n for n in model.batches if n > 9] == [32, 16]
    (alone,) = relax([inputs[5]], Argon())
    assert next(r for r in records if r.index == 5).energy == pytest.approx(alone.energy, abs=1e-10)
    model.batches.clear()
    list(relax(inputs, model, max_batch_atoms=32))
    assert max(model.batches) == 8


def test_a_structure_too_large_for_the_device_fails_alone():
    large = crystal(FCC) * (2, 2, 2)
    model = Argon(before=runs_out_above(20))
    records = {r.index: r for r in relax([crystal(), large, primitive()], model, max_batch_atoms=100)}
    assert [records[i].state for i in range(3)] == ["converged", "failed", "converged"]
    assert "out of memory: 32 atoms" in records[1].error


def test_a_lost_device_is_not_blamed_on_structures(tmp_path):
    def before(_state):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    path = tmp_path / "j.jsonl"
    with pytest.raises(torch.AcceleratorError, match="illegal memory"):
        list(relax([crystal()], Argon(before=before), journal=path))
    assert len(path.read_text().splitlines()) == 1


def test_large_and_small_share_a_batch():
    large = crystal(5.5) * (6, 6, 7)
    assert len(large) == 1008
    model = Argon()
    records = {r.index: r for r in relax([large, primitive(5.6)], model, fmax=1e-5, max_steps=3, max_batch_atoms=2000)}
    assert model.batches == [1009] * 4
    for index, small in enumerate([crystal(5.5), primitive(5.6)]):
        (alone,) = relax([small], Argon(), fmax=1e-5, max_steps=3)
        assert records[index].state == alone.state == "max_steps"
    assert records[1].energy == pytest.approx(alone.energy, abs=1e-10)
    assert records[0].energy < 1008 / 4 * Argon()(ts.io.structures_to_state(crystal(5.5)))["energy"].item()


def test_on_a_cpu_results_do_not_depend_on_company():
    inputs = [crystal(5.6, 0.1), primitive(5.5), crystal(5.5, 0.2)]
    model = Argon()
    together = list(relax(inputs, model))
    assert max(model.batches) == 4
    assert [r.index for r in together] == [0, 1, 2]
    for record in together:
        (alone,) = relax([inputs[record.index]], Argon())
        assert {**numbers(alone), "index": record.index} == numbers(record)


def test_batches_keep_to_the_budget_and_refill():
    model = Argon()
    inputs = [crystal(5.4 + 0.02 * i, 0.01 * i) for i in range(7)]
    records = list(relax(inputs, model, max_batch_atoms=9))
    assert sorted(r.index for r in records) == list(range(7))
    assert max(model.batches) == 8
    assert sum(model.batches) == sum(4 * (r.n_steps + 1) for r in records)


def test_inputs_are_taken_as_there_is_room():
    taken = 0

    def source():
        nonlocal taken
        for i in range(50):
            taken += 1
            yield crystal(5.5, 0.001 * i)

    records = relax(source(), Argon(), max_batch_atoms=8)
    assert taken == 0
    for finished in range(1, 5):
        next(records)
        assert taken <= finished + 3  # two in the batch, one ahead
    records.close()
    assert taken < 10


def test_equal_structures_are_computed_once():
    model = Argon()
    same = crystal(5.5, 0.1)
    inputs = [same, primitive(), same.copy(), None, same.copy()]
    records = list(relax(inputs, model, max_batch_atoms=4))
    assert sorted(r.index for r in records) == [0, 1, 2, 3, 4]
    by_index = {r.index: r for r in records}
    for twin in (2, 4):
        assert {**numbers(by_index[0]), "index": twin} == numbers(by_index[twin])
    assert sum(model.batches) == 4 * (by_index[0].n_steps + 1) + by_index[1].n_steps + 1


def test_finished_records_are_not_computed_again(tmp_path):
    path = tmp_path / "j.jsonl"
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0.01, 0, 0]])
    first = sorted(relax([crystal(), primitive(), overlapping], Argon(), journal=path), key=lambda r: r.index)
    model = Argon()
    again = list(relax([primitive(), overlapping, crystal()], model, journal=path))
    assert model.batches == []
    assert [r.index for r in again] == [0, 1, 2]
    for record, old in zip(again, [first[1], first[2], first[0]], strict=True):
        assert {**record.to_dict(), "index": old.index} == old.to_dict()


def test_journal_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    list(relax([crystal()], Argon(), journal=path))
    with pytest.raises(JournalError, match="fmax"):
        list(relax([crystal()], Argon(), journal=path, fmax=0.01))
    other = Argon()
    other.strength = 2.0
    with pytest.raises(JournalError, match="checkpoint"):
        list(relax([crystal()], other, journal=path))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_interruption_leaves_the_journal_whole(tmp_path, stop):
    path = tmp_path / "j.jsonl"
    inputs = [crystal(5.5, 0.02 * i) for i in range(1, 4)]
    whole = list(relax(inputs, Argon(), fmax=0.05))
    calls = 0

    def before(_state):
        nonlocal calls
        calls += 1
        if stop is KeyboardInterrupt and calls > whole[0].n_steps + 3:
            raise KeyboardInterrupt

    records = relax(inputs, Argon(before=before), fmax=0.05, journal=path)
    next(records)
    if stop is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            next(records)
    else:
        records.close()
    assert [json.loads(line).get("index") for line in path.read_text().splitlines()] == [None, 0]
    assert [numbers(r) for r in relax(inputs, Argon(), fmax=0.05, journal=path)] == [numbers(r) for r in whole]


def test_killed_run_goes_on_and_ends_as_if_undisturbed(tmp_path):
    inputs = [crystal(5.5, 0.05 * i) for i in range(1, 5)]
    whole = list(relax(inputs, Argon(), fmax=0.05))
    path = tmp_path / "j.jsonl"
    done = sum(r.n_steps + 1 for r in whole[:2])
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from argon import Argon, crystal, dies_at
from matris.relaxation.relax import relax
inputs = [crystal(5.5, 0.05 * i) for i in range(1, 5)]
list(relax(inputs, Argon(before=dies_at({done + 3})), fmax=0.05, journal={str(path)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    model = Argon()
    resumed = list(relax(inputs, model, fmax=0.05, journal=path))
    assert [numbers(r) for r in resumed] == [numbers(r) for r in whole]
    assert len(model.batches) == sum(r.n_steps + 1 for r in whole[2:])


def test_a_checkpoint_by_path_is_the_same_as_its_model(tiny_checkpoint, tmp_path):
    potential = load(str(tiny_checkpoint), device="cpu", dtype="float64")
    salt = Structure(Lattice.rhombohedral(2.97, 60), ["Mg", "O"], [[0, 0, 0], [0.49, 0.5, 0.5]])
    path = tmp_path / "j.jsonl"
    (first,) = relax(salt, potential, max_steps=2, journal=path)
    assert first.magmoms.shape == (2,)
    assert json.loads(path.read_text().splitlines()[0])["checkpoint"] == potential.card.sha256
    (prediction,) = potential.predict([first.structure])
    assert first.energy == pytest.approx(prediction.energy, abs=1e-8)
    assert first.forces == pytest.approx(prediction.forces, abs=1e-8)
    assert first.stress == pytest.approx(prediction.stress, abs=1e-8)
    (again,) = relax(salt, MatRISTorchSimModel(potential), max_steps=2, journal=path)
    assert again.to_dict() == first.to_dict()
    (by_path,) = relax(salt, str(tiny_checkpoint), max_steps=2)  # float32
    assert by_path.energy == pytest.approx(first.energy, rel=1e-4)
    with pytest.raises(JournalError, match="dtype is float64 in the journal, float32 in this run"):
        list(relax(salt, str(tiny_checkpoint), max_steps=2, journal=path))
    (gold,) = relax(Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]]), potential)
    assert "unsupported element Au" in gold.error
