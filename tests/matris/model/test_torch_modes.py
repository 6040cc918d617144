"""Settings of torch that others leave behind: default types and devices, inference mode, reduced precision."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk

import matris
from matris.model import checkpoints, kernels, potential
from matris.model.precision import full_precision
from matris.properties.dynamics import DynamicsSettings, dynamics
from tests.conftest import SMALL_PUBLISHED


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: default_device("meta"),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(autouse=True)
def _load_anew():
    """Checkpoints and memory of kernels are made within the mode."""
    potential._resident.cache_clear()
    kernels._threads.arena = kernels.Arena()
    yield
    potential._resident.cache_clear()
    kernels._threads.arena = kernels.Arena()


def rattled():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def everything(dtype):
    """Numbers from all entry points."""
    model = matris.load(SMALL_PUBLISHED, device="cpu", dtype=dtype)
    prediction = model.predict(rattled())
    atoms = rattled()
    atoms.calc = matris.MatRISCalculator(model)
    wrapped = matris.MatRISTorchSimModel(model)
    state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    (record,) = matris.relax(rattled(), model, max_steps=3)
    (moved,) = dynamics([rattled()], model, settings=DynamicsSettings(n_steps=3, interval=1, ensemble="npt"))
    assert record.error is None, record.error
    assert moved.error is None, moved.error
    return [
        prediction.energy, prediction.forces, prediction.stress, atoms.get_forces(), atoms.get_stress(),
        wrapped(state)["forces"].cpu().numpy(), record.energy, record.forces, moved.series.total_energy,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", MODES)
def test_no_mode_changes_a_number(mode, dtype):
    expected = everything(dtype)
    potential._resident.cache_clear()
    kernels._threads.arena = kernels.Arena()
    with MODES[mode]():
        actual = everything(dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-11
    for one, other in zip(actual, expected, strict=True):
        assert np.asarray(one) == pytest.approx(np.asarray(other), abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("mode", MODES)
def test_weights_have_all_digits_of_the_file(mode):
    with MODES[mode]():
        network, _ = checkpoints.read_file(SMALL_PUBLISHED)
    state, (expected, _) = network.state_dict(), checkpoints.read_file(SMALL_PUBLISHED)
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)


def test_a_potential_loaded_in_inference_mode_computes_outside_of_it():
    with torch.inference_mode():
        model = matris.load(SMALL_PUBLISHED, device="cpu")
        relaxation = matris.relax(rattled(), model, max_steps=2)
    assert model.predict(rattled()).forces.any()
    assert next(relaxation).error is None


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_have_all_digits_whatever_the_process_has_set(precision, monkeypatch):
    seen = []
    evaluate = potential.evaluate

    def watched(*arguments, **options):
        seen.append((torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision))
        return evaluate(*arguments, **options)

    monkeypatch.setattr(potential, "evaluate", watched)
    torch.set_float32_matmul_precision(precision)
    try:
        matris.load(SMALL_PUBLISHED, device="cpu").predict(rattled())
        with pytest.raises(RuntimeError, match="inside"), full_precision():
            raise RuntimeError("inside")
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [("ieee", "ieee")]
