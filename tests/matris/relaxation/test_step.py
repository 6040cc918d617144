"""What a step costs beside its model: waits for the device, transfers, and waits for the disk."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import matris
from matris.model import graph as graph_module
from matris.model.graph import bonds_together
from matris.relaxation.batch import RunningBatch, Slot
from matris.relaxation.guard import Budget, GuardedModel
from matris.relaxation.records import RelaxSettings
from matris.relaxation.relax import relax
from tests.matris.argon import Argon, crystal
from tests.matris.waits import Waits

OVERLAPPING = [Structure(Lattice.cubic(5 + 0.1 * i), ["Ar", "Ar"], [[0, 0, 0], [0.01, 0, 0]]) for i in range(3)]


def numbers(record):
    return {key: value for key, value in record.to_dict().items() if key != "seconds"}


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire"])
def test_a_step_waits_five_times_for_a_device(optimizer, monkeypatch):
    """Once to check the cells, three times for the graph, and once for the results of all structures."""
    monkeypatch.setattr(graph_module, "bonds_one_by_one", bonds_together)  # the list of a GPU
    model = matris.MatRISTorchSimModel(matris.load(device="cpu"))
    settings = RelaxSettings(fmax=1e-9, max_steps=4, optimizer=optimizer)
    batch = RunningBatch(GuardedModel(model, Budget(("cpu", "test", "float32", "atoms"), np.inf)), settings)
    salts = [Structure(Lattice.cubic(a), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.48]]) for a in (4.0, 4.1, 4.2)]
    for number, salt in enumerate(salts):
        batch.add(Slot(number, str(number), salt, 1.0))
    batch.slots[0].n_steps = 1  # finishes before the others
    counted, finished = [], []
    while batch.slots:
        with Waits() as waits:
            finished.append(len(batch.step()))
        counted.append((waits.total, sum(waits.sent.values())))
    assert finished == [0, 0, 1, 0, 2]
    sends = 1 if optimizer == "lbfgs" else 0  # FIRE's coefficients go by `Tensor.to` of a tensor, which is not counted
    assert counted[1] == (5, sends)  # nothing enters or leaves
    assert counted[2] == (6, sends + 1)  # the results of what has finished, together, and which it is
    assert counted[3][0] <= 10  # torch-sim checks the indices of a new state


def test_the_disk_is_waited_for_once_a_step(tmp_path, monkeypatch):
    inputs = [crystal(5.5, 0.01 * i) for i in range(6)]
    synced, written, sync, step = [], [], os.fsync, RunningBatch.step

    def counted(self):
        records = step(self)
        written.append(len(records))
        return records

    path = tmp_path / "j.jsonl"
    list(relax([], Argon(), journal=path, max_steps=3))  # the header
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(file), sync(file)))
    monkeypatch.setattr(RunningBatch, "step", counted)
    records = list(relax([*OVERLAPPING, *inputs], Argon(), journal=path, max_steps=3, max_batch_atoms=100))
    assert len(records) == 9
    steps = sum(n > 0 for n in written)
    assert max(written) > 1
    assert len(synced) == steps + 1  # and once for the inputs that cannot be computed
    assert len(path.read_text().splitlines()) == 10


def test_a_record_is_on_disk_before_it_is_yielded(tmp_path):
    path, seen = tmp_path / "j.jsonl", []
    inputs = [crystal(5.5, 0.1), OVERLAPPING[0], crystal(5.5, 0.1), None, OVERLAPPING[0], crystal(5.6)]
    for record in relax(inputs, Argon(), journal=path, max_steps=2, max_batch_atoms=100):
        written = {json.loads(line)["structure_id"] for line in path.read_text().splitlines()[1:]}
        assert record.structure_id in written | {None}
        seen.append(record.index)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    assert len(path.read_text().splitlines()) == 4  # equal structures have one record


def test_many_inputs_that_fail_are_not_kept_back(tmp_path):
    """They are written in groups, also while the batch still has room."""
    failing = [Structure(Lattice.cubic(5 + 0.01 * i), ["Ar", "Ar"], [[0, 0, 0], [0.01, 0, 0]]) for i in range(100)]
    taken = []

    def source():
        for structure in failing:
            taken.append(structure)
            yield structure

    records = relax(source(), Argon(), journal=tmp_path / "j.jsonl")
    assert next(records).index == 0
    assert len(taken) <= 65
    assert [record.index for record in records] == list(range(1, 100))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_run_killed_while_it_writes_a_step_loses_whole_records(left, tmp_path):
    """Of three records that finish in one step, the first `left` and a part of the next have reached the disk."""
    inputs, path = [crystal(5.5, 0.05 * i) for i in range(1, 4)], tmp_path / "j.jsonl"
    whole = list(relax(inputs, Argon(), max_steps=2, max_batch_atoms=100, journal=path))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: 1 + left]) + lines[1 + left][:40])
    model = Argon()
    resumed = list(relax(inputs, model, max_steps=2, max_batch_atoms=100, journal=path))
    assert sorted(r.index for r in resumed) == [0, 1, 2]
    for record in resumed:
        assert numbers(record) == numbers(whole[record.index])
    assert sum(model.batches) == 4 * 3 * (3 - left)
    ids = [json.loads(line)["structure_id"] for line in path.read_text().splitlines()[1:]]
    assert len(ids) == len(set(ids)) == 3


def test_a_full_disk_keeps_no_part_of_a_step(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    inputs = [crystal(5.5, 0.05 * i) for i in range(1, 4)]
    list(relax(inputs[:1], Argon(), max_steps=2, journal=path))
    before = path.read_bytes()

    def full(_file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        list(relax(inputs, Argon(), max_steps=2, max_batch_atoms=100, journal=path))
    assert path.read_bytes() == before


def test_records_of_a_step_are_kept_when_the_caller_stops(tmp_path):
    inputs, path = [crystal(5.5, 0.05 * i) for i in range(1, 4)], tmp_path / "j.jsonl"
    records = relax(inputs, Argon(), max_steps=2, max_batch_atoms=100, journal=path)
    next(records)
    records.close()
    model = Argon()
    assert sorted(r.index for r in relax(inputs, model, max_steps=2, max_batch_atoms=100, journal=path)) == [0, 1, 2]
    assert model.batches == []
