"""Training from a configuration and fine-tuning: what comes out is a checkpoint that says what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

import matris
from matris.cli import app
from matris.errors import MatrisError
from matris.model.checkpoints import Card, read_file, save
from matris.model.config import ModelConfig
from matris.model.graph import Geometry
from matris.model.network import MatRIS
from matris.training import recipe
from matris.training.data.dataset import DataSet
from matris.training.data.element_energies import refit_reference_energies, regress_reference_energies
from matris.training.data.frame import Frame, collate
from matris.training.denoising import DenoiseObjective, Denoiser, DenoiseSettings
from matris.training.finetuning import GENTLE, finetune, introduce, set_of
from matris.training.fit_domain import fit_domain
from matris.training.trainer import TrainSettings, train, validate

CONFIG = ModelConfig(
    num_layers=2, node_feat_dim=16, edge_feat_dim=16, three_body_feat_dim=16, mlp_hidden_dims=(16,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=5.0, three_body_cutoff=4.0,
)  # fmt: skip
QUICK = replace(GENTLE, epochs=2, batch_size=6, validate_every=2, warmup=1)


def frames(symbols, shift, count, seed):
    """Lennard-Jones crystals, strained and rattled, with another zero of energy."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        symbol = symbols[number % len(symbols)]
        sigma, lattice = {"Ar": (3.4, 5.2), "Ne": (2.8, 4.3), "Kr": (3.6, 5.6)}[symbol]
        atoms = bulk(symbol, "fcc", a=lattice, cubic=True)
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.05), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = LennardJones(sigma=sigma, epsilon=0.1, rc=9.0)
        kept = SinglePointCalculator(
            atoms,
            energy=atoms.get_potential_energy() + 4 * shift,
            forces=atoms.get_forces(),
            stress=atoms.get_stress(),
            magmoms=np.full(4, 0.5),
        )
        frame = atoms.copy()
        frame.calc = kept
        frame.info |= {"material": f"{symbol}{number}", "split": "val" if number % 4 == 3 else "train"}
        made.append(frame)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="module")
def data(folder):
    """Sets of neon and krypton, a volt higher than the parent's argon and neon."""
    for name, symbols, shift, count in (("old", ("Ar", "Ne"), 0.0, 16), ("new", ("Ne",), 1.0, 12)):
        write(folder / f"{name}.extxyz", frames(symbols, shift, count, 5))
    sets = {}
    runner = CliRunner()
    for name in ("old", "new"):
        options = ["--output", str(folder / name), "--split-by", "material", "--no-check", "--energy-scale", name]
        result = runner.invoke(app, ["data", str(folder / f"{name}.extxyz"), *options])
        assert result.exit_code == 0, result.output
        sets[name] = DataSet(folder / name)
    return sets


@pytest.fixture(scope="module")
def parent(folder, data):
    """A checkpoint of the old data's scale, without a head for moments."""
    torch.manual_seed(0)
    network = MatRIS(CONFIG, magmoms=False)
    network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(data["old"])))
    path = folder / "parent.safetensors"
    save(path, network, Card(key="parent", energy_scale="old", elements=("Ar", "Ne")))
    return path


def test_refitted_energies_take_another_scale(data, parent, tmp_path):
    tuned = finetune(parent, data["new"], tmp_path, QUICK, key="mine", refit_energies=True, energy_scale="new")
    assert tuned.before["energy"] > 0.5  # a volt off
    assert tuned.after["energy"] < 0.3
    card = matris.load(tuned.path).card
    assert (card.key, card.energy_scale, card.predicts, card.elements) == ("mine", "new", "efsm", ("Ar", "Ne"))
    assert card.details["parent"]["sha256"] == read_file(parent)[1].sha256
    assert card.details["data"]["n_training"] == len(data["new"].part("training"))
    assert len(card.details["data"]["sha256"]) == 64
    assert card.details["errors"]["validation"] == tuned.after
    assert "plotly" in (tmp_path / "log.html").read_text()
    again = finetune(parent, data["new"], tmp_path, QUICK, key="mine", refit_energies=True, energy_scale="new")
    assert again.after == tuned.after  # it was finished


def test_scales_that_differ_are_refused(data, parent, tmp_path):
    with pytest.raises(MatrisError, match=r"labels are on the energy scale new.*--refit-energies --energy-scale new"):
        finetune(parent, data["new"], tmp_path, QUICK)
    with pytest.raises(MatrisError, match="name it"):
        finetune(parent, data["new"], tmp_path, QUICK, refit_energies=True)
    with pytest.raises(MatrisError, match="old frames are on the scale old"):
        finetune(parent, data["new"], tmp_path, QUICK, refit_energies=True, energy_scale="new", replay=data["old"])


def test_old_frames_are_replayed(data, parent, tmp_path):
    settings = replace(QUICK, replay_share=0.5, batch_size=4)
    tuned = finetune(parent, data["new"], tmp_path, settings, energy_scale="old", replay=data["old"])
    assert set(tuned.old_before) == set(tuned.old_after) >= {"energy", "force", "stress"}
    assert tuned.old_before != tuned.old_after
    assert read_file(tuned.path)[1].details["replay"]["name"] == "old"
    assert tuned.path.name == "parent-finetuned.safetensors"


def test_frozen_blocks_stay_and_deep_ones_move_less(data, parent, tmp_path):
    start = read_file(parent)[0].state_dict()
    settings = replace(QUICK, frozen_blocks=1, layer_decay=0.5)
    end = read_file(finetune(parent, data["new"], tmp_path / "a", settings, energy_scale="old").path)[0].state_dict()
    moved = {name.split(".")[0] + name.split(".")[1] for name in start if not torch.equal(start[name], end[name])}
    assert {"blocks1", "energy_head0"} <= moved
    assert not moved & {"blocks0", "atom_embeddingweight", "bond_linear_inweight"}
    settings = replace(QUICK, layer_decay=0.01)
    end = read_file(finetune(parent, data["new"], tmp_path / "b", settings, energy_scale="old").path)[0].state_dict()
    moved = {name: float((end[name] - start[name]).abs().max()) for name in start}
    assert 0 < moved["blocks.0.line_attention.logits"] < 0.1 * moved["blocks.1.line_attention.logits"]
    assert moved["blocks.1.line_attention.logits"] < 0.1 * moved["energy_head.0.weight"]


def test_new_elements_get_an_energy(parent):
    network = read_file(parent)[0]
    atoms = frames(("Kr",), 0.0, 1, 1)[0]
    frame = Frame(Geometry.of(atoms), -40.0, atoms.get_forces(), None, "Kr")
    before, off = network.reference_energies.clone(), validate(network, [frame])["energy"]
    refit_reference_energies(network, [frame], ["Ar"])
    assert torch.equal(network.reference_energies, before)
    refit_reference_energies(network, [frame], ["Kr", "Ar"])
    assert torch.equal(network.reference_energies[:35], before[:35])
    assert validate(network, [frame])["energy"] < 0.01 * off


def test_files_become_a_set_that_is_used_again(tmp_path):
    atoms = frames(("Ne",), 0.0, 12, 2)
    for number, frame in enumerate(atoms):
        del frame.info["split"]
        frame.numbers[: number % 3] = 18
    write(tmp_path / "mine.extxyz", atoms)
    write(tmp_path / "other.extxyz", atoms)
    made = set_of([tmp_path / "mine.extxyz"], tmp_path / "out" / "data")
    assert len(set_of([tmp_path / "mine.extxyz"], tmp_path / "out" / "data")) == len(made) > 0
    with pytest.raises(MatrisError, match=r"was made of mine\.extxyz"):
        set_of([tmp_path / "other.extxyz"], tmp_path / "out" / "data")


def test_patience_ends_with_the_best_weights(data, tmp_path):
    torch.manual_seed(1)
    network = MatRIS(CONFIG, magmoms=False)
    training = data["old"].part("training")
    settings = TrainSettings(
        steps=40, batch_size=4, learning_rate=0.3, warmup=1, validate_every=1, early_stopping=3, ema_decay=0
    )
    summary = train(network, training, data["old"].part("validation"), settings, tmp_path)
    rows = (tmp_path / "log.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[4]) for row in rows]
    assert len(rows) < 40
    assert np.argmin(losses) == len(losses) - 4
    assert float(rows[-4].split(",")[5]) == pytest.approx(summary["energy"])


def test_noise_is_learnt_and_symmetric(data, tmp_path):
    torch.manual_seed(0)
    network = MatRIS(CONFIG, magmoms=False)
    denoiser = Denoiser(network)
    objective = DenoiseObjective(denoiser, DenoiseSettings(largest=0.1))
    training = list(data["old"].part("training"))
    settings = TrainSettings(steps=30, batch_size=6, learning_rate=3e-3, warmup=3, validate_every=30)
    total, count = objective.sums([training]).flatten().tolist()
    before = total / count
    after = train(network, training, training, settings, tmp_path, objective=objective)["noise"]
    assert after < 0.95 * before
    # turned atoms are moved by turned noise
    batch = collate(training[:2], CONFIG)
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    turned = replace(batch.graph, vectors=batch.graph.vectors @ turn)
    sets = denoiser(batch.graph, batch.forces).detach()
    assert torch.allclose(sets @ turn, denoiser(turned, batch.forces @ turn), atol=1e-5)
    assert float(sets.abs().max()) > 1e-3
    assert torch.allclose(sets[:4].sum(0), torch.zeros(3), atol=1e-5)


def test_the_example_says_the_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(recipe.EXAMPLE)
    plain = recipe.read_config(path)
    assert plain.training == TrainSettings()
    assert plain.denoising is None
    lines = [
        line.replace("# ", "", 1) if line.strip().startswith("# ") else line for line in recipe.EXAMPLE.splitlines()
    ]
    path.write_text("\n".join(line for line in lines[1:] if "num_layers" not in line))
    full = recipe.read_config(path)
    assert full.training == plain.training
    assert full.denoising == DenoiseSettings()
    assert recipe.network_config(full.model) == recipe.network_config(plain.model)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data: a\noutput: b\nkey: c\ntraining: {batchsize: 3}", "unknown key training.batchsize: batch_size?"),
        ("data: a\noutput: b\nkey: c\ntrain: {}", "unknown key train: training?"),
        ("data: a\noutput: b", "key key is missing"),
        ("data: a\noutput: b\nkey: c\ntraining: {clip: -1}", "clip is out of range"),
        ("data: a\noutput: b\nkey: c\ntraining: {clip: much}", "training.clip: Input should be a valid number"),
        ("data: a\noutput: b\nkey: c\ntraining: {weights: {forces: 1}}", "training.weights.forces: force?"),
        ("data: a\noutput: b\nkey: c\nmodel: {size: XL}", "model.size is one of S, M, L"),
        ("data: a\noutput: b\nkey: c\nmodel: {num_layer: 3}", "unknown key model.num_layer: num_layers?"),
        ("data: a\noutput: b\nkey: c/d", "key: String should match"),
        ("data: [", "cannot read"),
        ("", "holds no keys"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_named(text, problem, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(MatrisError) as caught:
        recipe.read_config(path)
    assert problem in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_sizes_are_those_of_the_paper():
    counts = {}
    for size in recipe.SIZES:
        network = MatRIS(recipe.network_config({"size": size}), magmoms=True)
        counts[size] = sum(p.numel() for p in network.parameters()) + len(network.reference_energies)
    assert counts["L"] - counts["M"] == 10_443_505 - 6_344_433
    assert counts["M"] - counts["S"] == 6_344_433 - 4_294_897
    assert abs(counts["L"] - 10_443_505) < 5000  # ours are stored without what no one reads


def test_trained_from_a_configuration(data, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"data: {data['old'].path}\noutput: {tmp_path / 'out'}\nkey: tiny\n"
        "model: {size: S, num_layers: 1, node_feat_dim: 16, edge_feat_dim: 16, three_body_feat_dim: 16,\n"
        "  mlp_hidden_dims: [16], pairwise_cutoff: 5.0, three_body_cutoff: 4.0}\n"
        "training: {steps: 4, batch_size: 4, warmup: 1, validate_every: 2}\n"
        "denoising: {epochs: 1}\ndevice: cpu\n"
    )
    runner = CliRunner()
    result = runner.invoke(app, ["train", str(path)])
    assert result.exit_code == 0, result.output
    potential = matris.load(tmp_path / "out" / "tiny.safetensors", device="cpu")
    assert potential.card.energy_scale == "old"
    assert potential.card.elements == ("Ar", "Ne")
    assert potential.card.details["denoising"]["epochs"] == 1
    assert potential.card.details["errors"]["validation"]["force"] > 0
    assert (tmp_path / "out" / "denoising" / "log.csv").exists()
    assert potential.predict(frames(("Ar",), 0, 1, 3)[0]).forces.shape == (4, 3)
    result = runner.invoke(app, ["train", "--example"])
    assert result.output == recipe.EXAMPLE


def test_fine_tuned_on_the_command_line(data, parent, tmp_path):
    options = ["--output", str(tmp_path), "--replay", str(data["old"].path), "--epochs", "1", "--batch-size", "6"]
    runner = CliRunner()
    result = runner.invoke(app, ["finetune", str(parent), str(data["new"].path), *options, "--energy-scale", "old"])
    assert result.exit_code == 0, result.output
    assert "old, after" in result.output
    assert matris.load(tmp_path / "parent-finetuned.safetensors").card.energy_scale == "old"
    result = runner.invoke(app, ["finetune", str(parent), str(data["new"].path), "--output", str(tmp_path / "b")])
    assert result.exit_code == 1
    assert "--refit-energies" in result.output


def test_a_domain_needs_elements_of_the_training_frames():
    potential = matris.load(device="cpu")
    made = [
        Frame(Geometry.of(bulk(symbol)), 0.0, np.zeros((1, 3)), None, symbol, validation=symbol == "Ag")
        for symbol in ("Cu", "Ag")
    ]
    with pytest.raises(MatrisError, match="no learnt frame that was set aside"):
        fit_domain(potential, made)


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_device_that_is_missing_stops_training(command, data, parent, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("MATRIS_DEVICE", "cuda")
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {data['old'].path}\noutput: {tmp_path / 'out'}\nkey: tiny\n")
    options = {
        "train": [str(config)],
        "finetune": [str(parent), str(data["old"].path), "--output", str(tmp_path / "out")],
    }
    result = CliRunner().invoke(app, [command, *options[command]])
    assert result.exit_code == 1
    assert "device 'cuda' was asked for by MATRIS_DEVICE" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def trajectory(n, symbols=("Ne",)):
    """Frames of one trajectory, without parts of their own."""
    atoms = frames(symbols, 0.0, n, 3)
    for frame in atoms:
        del frame.info["split"]
        frame.info["material"] = "one"
    return atoms


def test_one_compound_is_split_by_blocks_of_consecutive_frames(parent, tmp_path, caplog):
    write(tmp_path / "neon.extxyz", trajectory(40))
    with caplog.at_level("INFO", logger="matris.training"):
        made = set_of([tmp_path / "neon.extxyz"], tmp_path / "data")
    assert "blocks of consecutive frames" in caplog.text
    assert made.meta["options"]["split_by"] == "block"
    aside = [np.asarray(f.geometry.positions).round(4).tolist() for f in made.part("validation")]
    rows = [i for i, f in enumerate(trajectory(40)) if f.positions.round(4).tolist() in aside]
    assert len(rows) == len(aside) == made.meta["n_validation"]
    assert 0 < len(rows) < 40
    assert len(rows) % 4 == 0
    for block in range(10):  # each block is in one part
        assert len({row in rows for row in range(4 * block, 4 * block + 4)}) == 1
    tuned = finetune(parent, made, tmp_path / "out", QUICK)
    assert tuned.path.exists()


def test_few_frames_of_one_compound_are_split_too(tmp_path):
    write(tmp_path / "neon.extxyz", trajectory(2))
    made = set_of([tmp_path / "neon.extxyz"], tmp_path / "data")
    assert (made.meta["n_training"], made.meta["n_validation"]) == (1, 1)
    write(tmp_path / "single.extxyz", trajectory(1))
    with pytest.raises(MatrisError, match="1 frames to train on and 0 to validate with"):
        set_of([tmp_path / "single.extxyz"], tmp_path / "other")


def test_a_checkpoint_is_written_if_no_frame_set_aside_has_only_learnt_elements(parent, tmp_path, caplog):
    made = frames(("Ne", "Ne", "Ne", "Kr"), 0.0, 16, 5)  # the fourth of each four is set aside
    write(tmp_path / "mixed.extxyz", made)
    data = set_of([tmp_path / "mixed.extxyz"], tmp_path / "data")
    assert {int(z) for f in data.part("validation") for z in f.geometry.numbers} == {36}
    tuned = finetune(parent, data, tmp_path / "out", replace(QUICK, epochs=1))
    network, card = read_file(tuned.path)
    assert "no domain" in caplog.text
    assert (network.domain, card.details["domain"]) == (None, None)
    assert card.details["errors"]["validation"] == tuned.after


def test_a_checkpoint_is_kept_whatever_comes_after_the_training(data, parent, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("matris.training.finetuning.domain_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(parent, data["new"], tmp_path, QUICK, energy_scale="old")
    assert read_file(tmp_path / "parent-finetuned.safetensors")[1].key == "parent-finetuned"


def test_the_default_type_of_torch_changes_no_number(data, parent, tmp_path):
    expected = finetune(parent, data["new"], tmp_path / "single", QUICK, energy_scale="old")
    torch.set_default_dtype(torch.float64)
    try:
        tuned = finetune(parent, data["new"], tmp_path / "double", QUICK, energy_scale="old")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (tuned.before, tuned.after) == (expected.before, expected.after)
    one, other = (read_file(each.path)[0].state_dict() for each in (expected, tuned))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_new_elements_without_an_electronegativity_start_as_the_nearest_one(parent):
    network = read_file(parent)[0]
    introduce(network, ("Ar", "Ne"), ["Kr", "He"])
    weights = network.atom_embedding.weight
    assert torch.equal(weights[35], weights[17])  # krypton as argon
    assert torch.equal(weights[1], weights[9])  # helium as neon
