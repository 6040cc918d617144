"""The trainer: it learns, it resumes exactly, and it refuses bad data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch import distributed, multiprocessing

from matris.checkpoints import load_plain
from matris.config import ModelConfig
from matris.errors import MatrisError
from matris.network import MatRIS
from matris.training.data import collate, read_frames, regress_reference_energies
from matris.training.loss import LossWeights, errors
from matris.training.trainer import STATE, TrainSettings, deal, train, validate

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
    assert list(read_frames([labelled], elements=["Ar"])) != []
    assert all(f.symbols == {"Ar"} for f in read_frames([labelled], elements=["Ar"]))


def test_it_learns(labelled, tmp_path):
    training, validation = split(labelled)
    network = fresh(training)
    before = validate(network, validation)
    after = train(
        network, training, validation, TrainSettings(steps=60, batch_size=4, warmup=5, validate_every=60), tmp_path
    )
    assert after["energy"] < 0.7 * before["energy"]
    assert after["force"] < 0.8 * before["force"]
    assert (tmp_path / "log.csv").read_text().count("\n") == 2


def test_a_batch_is_dealt_evenly():
    sizes = np.array([64, 3, 8, 8, 30, 4])
    shares = deal(np.arange(6), sizes, 2)
    assert sorted(np.concatenate(shares)) == list(range(6))
    assert [len(s) for s in shares] == [3, 3]
    assert sizes[shares[0]].sum() == 64 + 8 + 4  # the largest, then the fourth and fifth


def _train_as_one_of_two(rank, path, directory):
    distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    training, validation = split(path)
    torch.set_num_threads(1)
    train(fresh(training), training, validation, TWO_STEPS, directory)
    distributed.destroy_process_group()


TWO_STEPS = TrainSettings(steps=2, batch_size=4, warmup=1, validate_every=2, clip=1e9)


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
        assert torch.allclose(tensor, state["network"][name], atol=3e-4), name


def test_resumes_exactly(labelled, tmp_path):
    training, validation = split(labelled)
    settings = TrainSettings(steps=8, batch_size=4, warmup=2, validate_every=4)
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
    (tmp_path / "broken" / STATE).write_bytes(b"rubbish")
    with pytest.raises(MatrisError, match="truncated"):
        train(fresh(training), training, validation, settings, tmp_path / "broken")


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
    network, batch = fresh(training), collate(training[:3], CONFIG)
    result = errors(network, batch, differentiable=False)
    zero = replace(batch, energies=batch.energies * 0, forces=batch.forces * 0, stresses=batch.stresses * 0)
    own = errors(network, zero, differentiable=False)
    assert float(own.force) > 0
    expected = 5 * result.energy + 5 * result.force + 0.1 * result.stress
    assert float(result.loss(LossWeights())) == pytest.approx(float(expected))
    # the mean over structures of the mean length over atoms
    lengths = []
    for frame in training[:3]:
        single = collate([frame], CONFIG)
        lengths.append(float(errors(network, single, differentiable=False).force))
    assert float(result.force) == pytest.approx(np.mean(lengths), rel=1e-4)


def test_gradients_of_the_loss_reach_every_weight_in_use(labelled):
    training, _ = split(labelled)
    config = replace(CONFIG, num_layers=2)
    torch.manual_seed(0)
    network = MatRIS(config, magmoms=False)
    errors(network, collate(training[:2], config), differentiable=True).loss(LossWeights()).backward()
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
        train(MatRIS(CONFIG, magmoms=False), [], [], TrainSettings(steps=1), tmp_path)
