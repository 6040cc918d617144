"""The trainer: it learns, it resumes exactly, and it refuses bad data."""

from __future__ import annotations

import csv
import re
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch import distributed, multiprocessing

from matris.errors import MatrisError
from matris.model.checkpoints import load_plain
from matris.model.config import ModelConfig
from matris.model.network import MatRIS, evaluate
from matris.training import batches, compiled_step
from matris.training.data.element_energies import regress_reference_energies
from matris.training.data.frame import collate
from matris.training.data.reading import read_frames
from matris.training.loss import LossWeights, errors
from matris.training.objective import LabelObjective
from matris.training.trainer import LOG, STATE, TrainSettings, train, validate

CONFIG = ModelConfig(
    num_layers=1, node_feat_dim=16, edge_feat_dim=16, three_body_feat_dim=8, mlp_hidden_dims=(16,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=5.0, three_body_cutoff=4.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Strained and rattled Lennard-Jones argon and neon."""
    rng = np.random.default_rng(3)
    frames = []
    for number in range(32):
        symbol, sigma, lattice = (("Ar", 3.4, 5.2), ("Ne", 2.8, 4.3))[number % 2]
        atoms = bulk(symbol, "fcc", a=lattice, cubic=True)
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.05), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = LennardJones(sigma=sigma, epsilon=0.1, rc=9.0)
        kept = SinglePointCalculator(
            atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress()
        )
        frame = atoms.copy()
        frame.calc = kept
        frame.info |= {"material": f"{symbol}{number}", "split": "val" if number >= 26 else "train"}
        frames.append(frame)
    path = tmp_path_factory.mktemp("frames") / "lj.extxyz.gz"
    write(path, frames, format="extxyz")
    return path


def quick(**changes):
    """Settings for a few steps of a tiny network."""
    return TrainSettings(**{"learning_rate": 3e-3, "weight_decay": 1e-3, **changes})


def fresh(frames):
    torch.manual_seed(0)
    network = MatRIS(CONFIG, magmoms=False)
    network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(frames)))
    return network


def split(path):
    frames = list(read_frames([path]))
    return [f for f in frames if not f.validation], [f for f in frames if f.validation]


def test_labels_survive_the_file(labelled):
    training, validation = split(labelled)
    assert (len(training), len(validation)) == (26, 6)
    assert {f.material for f in training}.isdisjoint({f.material for f in validation})
    atoms = training[0]
    assert atoms.stress.shape == (3, 3)
    assert {frozenset(f.symbols) for f in training} == {frozenset({"Ar"}), frozenset({"Ne"})}


def test_it_learns(labelled, tmp_path):
    training, validation = split(labelled)
    network = fresh(training)
    before = validate(network, validation)
    after = train(network, training, validation, quick(steps=60, batch_size=4, warmup=5, validate_every=60), tmp_path)
    assert after["energy"] < 0.7 * before["energy"]
    assert after["force"] < 0.8 * before["force"]
    assert (tmp_path / "log.csv").read_text().count("\n") == 2


def test_batches_cost_the_same():
    costs = np.random.default_rng(1).lognormal(3, 0.7, 700)
    results = batches.epoch(costs, 7, [0, 0])
    assert len(results) == batches.per_epoch(len(costs), 7) == 100
    assert sorted(np.concatenate(results)) == list(range(700))
    totals = [costs[b].sum() for b in results]
    assert np.std(totals) / np.mean(totals) < 0.15
    assert len({len(b) for b in results}) > 1
    other = batches.epoch(costs, 7, [0, 1])
    assert [sorted(b) for b in results] != [sorted(b) for b in other]
    assert all(np.array_equal(a, b) for a, b in zip(results, batches.epoch(costs, 7, [0, 0]), strict=True))


@pytest.mark.parametrize(("n", "size"), [(1, 8), (3, 8), (26, 4), (27, 4), (33 * 7 + 3, 7)])
def test_every_frame_is_in_one_batch(n, size):
    costs = np.arange(1.0, n + 1) ** 3  # the largest costs more than many others
    results = batches.epoch(costs, size, [2, 0])
    assert len(results) == batches.per_epoch(n, size)
    assert sorted(np.concatenate(results)) == list(range(n))
    assert all(len(b) for b in results)
    for batch in results:
        parts = batches.pieces(batch, costs, 1e3)
        assert sorted(np.concatenate(parts)) == sorted(batch)
        assert all(len(p) for p in parts)


def _train_as_one_of_two(rank, path, directory):
    distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    training, validation = split(path)
    torch.set_num_threads(1)
    train(fresh(training), training, validation, TWO_STEPS, directory)
    distributed.destroy_process_group()


TWO_STEPS = quick(steps=2, batch_size=5, warmup=1, validate_every=2, clip=1e9)


def test_two_processes_equal_one(labelled, tmp_path):
    training, validation = split(labelled)
    whole = fresh(training)
    alone = train(whole, training, validation, TWO_STEPS, tmp_path / "one")
    (tmp_path / "two").mkdir()
    multiprocessing.spawn(_train_as_one_of_two, (labelled, tmp_path / "two"), nprocs=2)
    state = load_plain(tmp_path / "two" / STATE)
    assert state["step"] == 2
    assert state["summary"] == pytest.approx(alone, rel=1e-3)
    for name, tensor in whole.state_dict().items():
        # AdamW's first steps follow the sign of the gradient, so compare with the distance travelled
        assert torch.allclose(tensor, state["average"][name], atol=3e-4), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumes_exactly(labelled, tmp_path, optimizer):
    training, validation = split(labelled)
    settings = quick(steps=8, batch_size=4, warmup=2, validate_every=4, optimizer=optimizer)
    whole = fresh(training)
    train(whole, training, validation, settings, tmp_path / "whole")

    broken = fresh(training)
    calls = []

    def stop_in_the_middle(group):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return group

    frames = list(training)
    with pytest.raises(KeyboardInterrupt):
        train(broken, _Interrupting(frames, stop_in_the_middle, 4), validation, settings, tmp_path / "broken")
    again = fresh(training)
    train(again, training, validation, settings, tmp_path / "broken")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with pytest.raises(MatrisError, match="other settings"):
        train(fresh(training), training, validation, replace(settings, seed=5), tmp_path / "broken")
    with pytest.raises(MatrisError, match="other frames"):
        train(fresh(training), training[1:], validation, settings, tmp_path / "broken")
    (tmp_path / "broken" / STATE).write_bytes(b"rubbish")
    with pytest.raises(MatrisError, match="truncated"):
        train(fresh(training), training, validation, settings, tmp_path / "broken")


LONG = quick(steps=90, batch_size=4, warmup=5, validate_every=3)


def _train_for_long(path, directory):
    torch.set_num_threads(1)
    training, validation = split(path)
    train(fresh(training), training, validation, LONG, directory)


def test_killed_at_any_moment_it_ends_the_same(labelled, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    spawn = multiprocessing.get_context("spawn")
    killed = spawn.Process(target=_train_for_long, args=(labelled, broken))
    killed.start()
    while not (broken / STATE).exists():
        assert killed.is_alive()
        time.sleep(0.005)
    time.sleep(np.random.default_rng().uniform(0, 0.2))
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    threads = torch.get_num_threads()
    try:
        _train_for_long(labelled, whole)
        assert load_plain(broken / STATE)["step"] < LONG.steps
        _train_for_long(labelled, broken)
    finally:
        torch.set_num_threads(threads)
    first, second = (load_plain(folder / STATE) for folder in (whole, broken))
    for weights in ("network", "average"):
        for name, tensor in first[weights].items():
            assert torch.equal(tensor, second[weights][name]), name
    curves = [[row.rsplit(",", 1)[0] for row in (f / LOG).read_text().splitlines()] for f in (whole, broken)]
    assert curves[0] == curves[1]  # but for the seconds
    assert len(curves[0]) == 1 + LONG.steps // LONG.validate_every


class _Interrupting(list):
    """A list of frames that calls a hook once per batch drawn from it."""

    def __init__(self, frames, hook, size):
        super().__init__(frames)
        self.hook, self.size, self.drawn = hook, size, 0

    def __getitem__(self, index):
        self.drawn += 1
        if self.drawn % self.size == 0:
            self.hook(None)
        return super().__getitem__(index)


def test_loss_is_the_stated_one(labelled):
    training, _ = split(labelled)
    torch.manual_seed(0)
    network = MatRIS(CONFIG, magmoms=True)
    moments = [np.full(4, 2.0), np.array([-1.0, np.nan, np.nan, 1.0]), None]
    frames = [replace(f, magmoms=m) for f, m in zip(training[:3], moments, strict=True)]
    frames[1] = replace(frames[1], stress=None)
    batch = collate(frames, CONFIG)
    result = errors(network, batch, differentiable=False)
    energies, forces, stresses, magmoms, *_ = evaluate(network, batch.graph, magmoms=True)
    for i, frame in enumerate(frames):
        here, results = slice(4 * i, 4 * i + 4), result.loss(LossWeights())[i]
        energy = abs(float(energies[i]) - frame.energy) / 4
        force = float(np.linalg.norm(forces[here].numpy() - frame.forces, axis=1).mean())
        stress = 0.0 if frame.stress is None else 160.21766208 * np.abs(stresses[i].numpy() - frame.stress).mean()
        m = magmoms[here].numpy()
        magmom = (np.abs(m - 2).mean(), np.abs(m[[0, 3]] - 1).mean(), 0.0)[i]
        assert float(result.energy[i]) == pytest.approx(energy, rel=1e-4)
        assert float(results) == pytest.approx(5 * energy + 5 * force + 0.1 * stress + 0.1 * magmom, rel=1e-4)
    assert result.n_stresses.tolist() == [1, 0, 1]
    assert result.n_magmoms.tolist() == [4, 2, 0]
    # a mean is over what has labels, and frames without any say nothing
    summary = validate(network, frames)
    assert summary["stress"] == pytest.approx(float(result.stress[[0, 2]].mean()), rel=1e-5)
    assert summary["magmom"] == pytest.approx(float(result.magmom @ result.n_magmoms.float()) / 6, rel=1e-5)
    assert "magmom" not in validate(network, training[:3])


def test_missing_labels_leave_the_gradient_finite(labelled):
    training, _ = split(labelled)
    network = MatRIS(CONFIG, magmoms=True)
    batch = collate([replace(training[0], stress=None), training[1]], CONFIG)
    errors(network, batch, differentiable=True).loss(LossWeights()).mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_pieces_of_a_batch_add_up_to_its_gradient(labelled, tmp_path, monkeypatch):
    training, validation = split(labelled)
    settings = replace(TWO_STEPS, batch_size=9, steps=1)
    weights = []
    for number, piece in enumerate((1e12, 1e5)):
        monkeypatch.setattr(batches, "_CPU_PIECE", piece)
        network = fresh(training)
        train(network, training, validation, settings, tmp_path / str(number))
        weights.append(network.state_dict())
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=3e-4), name


def test_the_average_follows_the_weights(labelled, tmp_path):
    training, validation = split(labelled)
    settings = quick(steps=3, batch_size=8, warmup=1, validate_every=1)
    states = []
    for steps in (1, 2, 3):
        network = fresh(training)
        start = {name: p.clone() for name, p in network.named_parameters()}
        summary = train(network, training, validation, replace(settings, steps=steps), tmp_path / str(steps))
        states.append(load_plain(tmp_path / str(steps) / STATE))
        assert validate(network, validation) == pytest.approx(summary, rel=1e-5)  # of the average
    name = "energy_head.0.weight"
    assert torch.equal(states[-1]["average"][name], network.state_dict()[name])
    share = 1 - 1 / 10  # the first step's
    expected = start[name] + share * (states[0]["network"][name] - start[name])
    assert torch.allclose(states[0]["average"][name], expected, atol=1e-7)


def test_a_batch_that_spoils_the_weights_is_skipped_and_named(labelled, tmp_path, caplog):
    training, validation = split(labelled)
    bad = replace(training[0], energy=np.inf, material="the culprit")
    frames = [bad, *training[1:4]]
    settings = quick(steps=6, batch_size=2, warmup=1, validate_every=6)
    network = fresh(training)
    train(network, frames, validation, settings, tmp_path)
    assert all(p.isfinite().all() for p in network.parameters())
    assert load_plain(tmp_path / STATE)["skipped"] == 3  # once in each of three epochs
    assert "because of the culprit; the step is skipped" in caplog.text
    with pytest.raises(MatrisError, match=r"because of the culprit; 20 batches were skipped"):
        train(fresh(training), [bad], validation, replace(settings, steps=30), tmp_path / "all")


def test_rows_after_the_saved_state_are_logged_once(labelled, tmp_path):
    training, validation = split(labelled)
    settings = quick(steps=4, batch_size=8, warmup=1, validate_every=2)
    train(fresh(training), training, validation, settings, tmp_path)
    path = tmp_path / LOG
    whole = path.read_text()
    path.write_text(whole + "6,1,0.1,0.1\n8,1")  # killed before the state was saved
    train(fresh(training), training, validation, settings, tmp_path)
    assert path.read_text() == whole


def test_gradients_of_the_loss_reach_every_weight_in_use(labelled):
    training, _ = split(labelled)
    config = replace(CONFIG, num_layers=2)
    torch.manual_seed(0)
    network = MatRIS(config, magmoms=False)
    errors(network, collate(training[:2], config), differentiable=True).loss(LossWeights()).mean().backward()
    idle = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    last = {n for n in idle if n.startswith("blocks.1.") and ".edge_" in n}
    assert idle == last  # only what the last block computes for no one
    assert idle


def test_bad_frames_are_named(tmp_path):
    atoms = bulk("Ar", cubic=True)
    write(tmp_path / "bare.extxyz", atoms)
    with pytest.raises(MatrisError, match=r"bare\.extxyz:0"):
        list(read_frames([tmp_path / "bare.extxyz"]))
    atoms.calc = SinglePointCalculator(atoms, energy=np.nan, forces=np.zeros((4, 3)), stress=np.zeros(6))
    write(tmp_path / "nan.extxyz", atoms)
    with pytest.raises(MatrisError, match="NaN"):
        list(read_frames([tmp_path / "nan.extxyz"]))
    with pytest.raises(MatrisError, match="absent"):
        list(read_frames([tmp_path / "absent.extxyz"]))
    with pytest.raises(MatrisError, match="0 training"):
        train(MatRIS(CONFIG, magmoms=False), [], [], quick(steps=1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"smooth": True, "three_body_expansion": "chebyshev"}], ids=["", "smooth"])
def test_a_compiled_step_is_the_same(labelled, changes):
    training, _ = split(labelled)
    training = [replace(training[0], stress=None), replace(training[1], magmoms=np.ones(4)), *training[2:]]
    torch.manual_seed(0)
    network = MatRIS(replace(CONFIG, **changes), magmoms=True)
    network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(training)))
    objective = LabelObjective(network, LossWeights())
    parts = (training[:2], training[2:7], training[:1])
    results = []
    for compiled in (False, True):
        if compiled:
            objective.compile(training[4:7])
        gradients = []
        for part in parts:
            for p in network.parameters():
                p.grad = torch.zeros_like(p)
            gradients.append([objective.backward(part, 0.5, []), *(p.grad for p in network.parameters())])
        results.append(gradients)
    for plain, fused in zip(*results, strict=True):
        for a, b in zip(plain, fused, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)
    assert any(g.abs().max() > 1e-3 for g in results[1][1][1:])


class Recorded:
    """Stands in for a traced step, which takes long to trace."""

    def __init__(self, step):
        self.step, self.graph = step, SimpleNamespace(eliminate_dead_code=lambda: None, nodes=range(1022))

    def recompile(self):
        pass

    @torch.enable_grad()
    def __call__(self, *tensors):
        return self.step(*tensors)


@pytest.fixture
def _untraced(monkeypatch):
    monkeypatch.setattr(compiled_step, "make_fx", lambda step, **_: lambda *_: Recorded(step))
    monkeypatch.setattr(compiled_step, "standalone_compile", lambda recorded, _inputs: recorded)


@pytest.mark.usefixtures("_untraced")
def test_what_computes_a_compiled_step_is_said(labelled, tmp_path, caplog):
    """In the log, and in its table: the share of the batches that the compiled step computes."""
    training, validation = split(labelled)
    settings = quick(steps=2, batch_size=6, validate_every=1, compiled_step=True)
    with caplog.at_level("INFO", "matris.training"):
        train(fresh(training), training, validation, settings, tmp_path)
    said = [record.message for record in caplog.records if record.name == "matris.training.compiled_step"]
    assert len(said) == 1
    assert "on cpu: inductor made 1022 operations into C++ for this processor" in said[0]
    assert re.search(r"differs from torch by 0\.0e\+00", said[0])
    rows = list(csv.DictReader((tmp_path / LOG).open()))
    assert [float(row["compiled"]) for row in rows] == [1.0, 1.0]
    assert "compiled=1 " in caplog.text


@pytest.mark.usefixtures("_untraced")
def test_batches_that_torch_computes_are_counted(labelled):
    training, _ = split(labelled)
    objective = LabelObjective(fresh(training), LossWeights())
    assert objective.compiled_share() is None
    for p in objective.module.parameters():
        p.grad = torch.zeros_like(p)
    objective.compile(training[4:7])
    for part in (training[:1], training[:2], training[2:5], training[5:7]):
        objective.backward(part, 1.0, [])
    assert objective.compiled_share() == 0.75  # one structure is computed by torch
    assert objective.compiled_share() is None


@pytest.mark.usefixtures("_untraced")
@pytest.mark.parametrize(
    ("what", "message"),
    [("differs", "differs from torch on cpu by 1.0e-02"), ("fails", r"\(RuntimeError: no compiler\)")],
)
def test_a_compiled_step_that_is_wrong_is_not_used(labelled, monkeypatch, what, message):
    training, _ = split(labelled)

    def compiled(recorded, _inputs):
        if what == "fails":
            raise RuntimeError("no compiler\nmore")
        return lambda *tensors: (1.01 * recorded(*tensors)[0], *recorded(*tensors)[1:])

    monkeypatch.setattr(compiled_step, "standalone_compile", compiled)
    with pytest.raises(MatrisError, match=message) as caught:
        LabelObjective(fresh(training), LossWeights()).compile(training[4:7])
    assert "train with compiled_step: false" in str(caught.value)


def test_energies_of_atoms_are_a_target(labelled):
    training, _ = split(labelled)
    torch.manual_seed(0)
    network = MatRIS(CONFIG, magmoms=False)
    result = evaluate(network, collate(training[:2], CONFIG).graph)
    assert result.atom_energies.double().sum().item() == pytest.approx(result.energies.sum().item(), rel=1e-5)
    labels = result.atom_energies.numpy().astype(float)
    wrong = labels[:4] + np.array([0.3, -0.1, 0.0, np.nan])
    frames = [replace(training[0], energy=np.nan, atom_energies=wrong), training[1]]
    found = errors(network, collate(frames, CONFIG), differentiable=True)
    assert found.atom_energy.detach().tolist() == pytest.approx([0.4 / 3, 0.0], abs=1e-5)
    assert found.energy[0] == 0  # without a label
    assert (found.n_energies.tolist(), found.n_atom_energies.tolist()) == ([0, 1], [3, 0])
    default, weighted = (found.loss(LossWeights(atom_energy=weight)) for weight in (0.0, 2.0))
    assert (weighted - default).detach().tolist() == pytest.approx([0.8 / 3, 0.0], abs=1e-4)
    weighted.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert validate(network, frames)["energy"] == pytest.approx(found.energy[1].item(), rel=1e-4)


def test_a_batch_has_one_order_in_memory(labelled):
    frame = split(labelled)[0][0]
    fortran = replace(frame, forces=np.asfortranarray(frame.forces))
    assert collate([fortran], CONFIG).forces.is_contiguous()
    assert torch.equal(collate([fortran], CONFIG).forces, collate([frame], CONFIG).forces)
