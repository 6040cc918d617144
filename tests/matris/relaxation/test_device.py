"""A device that cannot compute is not a fault of the structures."""

from __future__ import annotations

import json

import pytest
import torch
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import DeviceError
from matris.relaxation.guard import Budget
from tests.conftest import SMALL_PUBLISHED

CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
BROKEN = [
    CUBLAS,
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm( handle, opa, opb)`",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "HIP error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: device-side assert triggered",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
    "HIP out of memory. Tried to allocate 20.00 MiB.",
]


@pytest.fixture(autouse=True)
def _no_remembered_limits(monkeypatch):
    monkeypatch.setattr(Budget, "_limits", {})


SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.5), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])


def salts(n=6):
    return [Structure(Lattice.cubic(5.5 + 0.02 * i), SALT.species, SALT.frac_coords) for i in range(n)]


class Troubled(matris.MatRISTorchSimModel):
    """A potential whose calls fail while `trouble` says so."""

    def __init__(self, trouble):
        super().__init__(matris.load(SMALL_PUBLISHED, device="cpu"))
        self.trouble, self.calls = trouble, 0

    def forward(self, state, **_):
        self.calls += 1
        if message := self.trouble(state):
            raise RuntimeError(message)
        return super().forward(state)


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_device_stops_the_run_and_nothing_is_recorded(message, tmp_path):
    model, journal = Troubled(lambda _: message), tmp_path / "journal.jsonl"
    with pytest.raises(DeviceError, match=r"cpu cannot compute.*known crystal of Cu") as caught:
        list(matris.relax(salts(), model, max_steps=1, journal=journal, max_batch_atoms=100))
    assert message[:30] in str(caught.value)
    assert len(journal.read_text().splitlines()) == 1  # its header
    model.trouble = lambda _: None
    records = list(matris.relax(salts(), model, max_steps=1, journal=journal, max_batch_atoms=100))
    assert {record.state for record in records} == {"max_steps"}
    assert len(json.loads(json.dumps([r.to_dict() for r in records]))) == 6


def test_a_device_that_breaks_in_the_middle_keeps_what_it_had(tmp_path):
    model, journal = Troubled(lambda _: CUBLAS if model.calls > 4 else None), tmp_path / "journal.jsonl"
    records = []
    with pytest.raises(DeviceError):
        records.extend(matris.relax(salts(), model, max_steps=1, journal=journal, max_batch_atoms=8))
    done = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert len(done) == 2
    assert {record["state"] for record in done} == {"max_steps"}


def test_a_structure_that_no_device_can_compute_still_fails_alone():
    """Others in the call are computed, or, if it is alone, the known crystal is."""
    bad = salts(1)[0]
    model = Troubled(lambda state: "no such structure" if (state.atomic_numbers == 19).any() else None)
    bad.replace_species({"Na": "K"})
    (alone,) = matris.relax(bad, model, max_steps=1)
    assert (alone.state, alone.error) == ("failed", "RuntimeError: no such structure (after 0 steps)")
    records = sorted(matris.relax([bad, *salts(2)], model, max_steps=1, max_batch_atoms=100), key=lambda r: r.index)
    assert [record.state for record in records] == ["failed", "max_steps", "max_steps"]


@pytest.mark.parametrize("message", BROKEN[:5])
def test_no_memory_for_a_handle_halves_the_batch(message):
    model = Troubled(lambda state: message if state.n_atoms > 16 else None)
    records = list(matris.relax(salts(), model, max_steps=1, max_batch_atoms=48))
    assert {record.state for record in records} == {"max_steps"}


def test_numbers_that_are_none_from_all_structures(tmp_path):
    class Empty(Troubled):
        def forward(self, state, **_):
            return {name: torch.full_like(values, torch.nan) for name, values in super().forward(state).items()}

    with pytest.raises(DeviceError, match="its energy or forces are NaN"):
        list(matris.relax(salts(2), Empty(lambda _: None), journal=tmp_path / "journal.jsonl"))
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_predictions_are_halved_without_memory_for_a_handle(monkeypatch):
    potential = matris.load(SMALL_PUBLISHED, device="cpu")
    monkeypatch.setattr(type(potential), "batch_bytes", 1e12)
    whole = list(potential.predict(salts(4)))
    evaluate = type(potential).evaluate

    def small(self, graph):
        if len(graph.n_atoms) > 1:
            raise RuntimeError(CUBLAS)
        return evaluate(self, graph)

    monkeypatch.setattr(type(potential), "evaluate", small)
    for one, other in zip(potential.predict(salts(4)), whole, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
