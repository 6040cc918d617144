"""What a potential says of how far a structure is from what it has learnt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import MatrisError
from matris.model import checkpoints
from matris.model.checkpoints import read_file, save
from matris.model.graph import Geometry
from matris.model.potential import Potential
from matris.training.data.frame import Frame
from matris.training.fit_domain import fit_domain, judge, label_ranges
from tests.conftest import SMALL_PUBLISHED


def rocksalt(a, x, scale=1.0):
    half = a * scale / 2
    lattice = Lattice([[0, half, half], [half, 0, half], [half, half, 0]])
    return Structure(lattice, list(x), [[0, 0, 0], [0.5, 0.5, 0.5]])


def frames_of(potential, n=8, error=0.0):
    """Shaken crystals, labelled by the potential itself but for an error of the forces."""
    structures = []
    for seed in range(n):
        for a, x in ((5.6, "NaCl"), (4.2, "MgO")):
            symbols = ("Na", "Cl") if x == "NaCl" else ("Mg", "O")
            structures.append(rocksalt(a, symbols, 1 + 0.04 * np.sin(seed)).perturb(0.05, seed=seed))
    return [
        Frame(Geometry.of(s), p.energy, p.forces + error, p.stress, f"{i}", validation=i % 5 == 0)
        for i, (s, p) in enumerate(zip(structures, potential.predict(structures), strict=True))
    ]


@pytest.fixture(scope="module")
def potential():
    """One of our own: the resident one belongs to all tests."""
    network, card = read_file(SMALL_PUBLISHED)
    network.domain = None
    potential = Potential(network, card)
    fit_domain(potential, frames_of(potential))
    return potential


@pytest.fixture(scope="module")
def frames(potential):
    return frames_of(potential)


def test_what_was_learnt_is_within_and_what_is_odd_is_not(potential):
    near, hot, pressed = (
        potential.predict(s)
        for s in (
            rocksalt(5.6, ("Na", "Cl"), 1.01),
            rocksalt(5.6, ("Na", "Cl")).perturb(0.5, seed=1),
            rocksalt(5.6, ("Na", "Cl"), 0.75),
        )
    )
    assert near.extrapolation < 1
    assert near.is_extrapolating is False
    assert min(hot.extrapolation, pressed.extrapolation) > 2
    assert hot.is_extrapolating
    assert pressed.is_extrapolating
    assert near.mean_extrapolation <= near.extrapolation


def test_elements_swapped_are_noticed(potential):
    swapped = potential.predict(rocksalt(4.2, ("Na", "O")))
    assert swapped.is_extrapolating


def test_an_element_of_no_frame_is_infinitely_far(potential):
    prediction = potential.predict(rocksalt(5.1, ("Li", "Cl")))
    assert prediction.extrapolation == np.inf


def test_most_learnt_frames_set_aside_are_within(potential, frames):
    aside = [j.extrapolation for j in judge(potential, frames) if j.frame.validation]
    assert np.mean(np.array(aside) <= 1) >= 0.75  # four in all


def test_it_changes_no_prediction_and_does_not_depend_on_the_batch(potential):
    structures = [rocksalt(5.6, ("Na", "Cl"), 0.9), rocksalt(4.2, ("Mg", "O")), rocksalt(5.6, ("Na", "Cl"), 0.8)]
    structures[1].make_supercell([2, 1, 1])
    together = list(potential.predict(structures))
    alone = [potential.predict(s) for s in structures]
    assert [p.extrapolation for p in together] == pytest.approx([p.extrapolation for p in alone], rel=1e-3)
    resident = [matris.load(SMALL_PUBLISHED).predict(s) for s in structures]
    assert [p.energy for p in resident] == [p.energy for p in alone]
    unit = potential.predict(rocksalt(4.2, ("Mg", "O")))
    assert together[1].extrapolation == pytest.approx(unit.extrapolation, rel=1e-3)


def test_the_file_holds_it(potential, tmp_path):
    path = tmp_path / "judged.safetensors"
    save(path, potential.network, potential.card)
    structure = rocksalt(5.6, ("Na", "Cl"), 0.9)
    again = matris.load(path)
    assert again.predict(structure).extrapolation == potential.predict(structure).extrapolation
    double = matris.load(path, dtype="float64")
    assert double.predict(structure).extrapolation == pytest.approx(again.predict(structure).extrapolation, rel=1e-3)
    assert path.stat().st_size - SMALL_PUBLISHED.stat().st_size < 30_000


def test_records_and_calculators_tell_it(potential):
    pressed = rocksalt(5.6, ("Na", "Cl"), 0.93)
    (relaxed,) = matris.relax(pressed, potential, fmax=0.05)
    (static,) = matris.relax(rocksalt(5.6, ("Na", "Cl"), 0.75), potential, max_steps=0)
    expected = potential.predict(relaxed.structure)
    assert relaxed.extrapolation == pytest.approx(expected.extrapolation, rel=1e-3)
    assert relaxed.mean_extrapolation == pytest.approx(expected.mean_extrapolation, rel=1e-3)
    assert relaxed.is_extrapolating is False
    assert static.is_extrapolating is True
    assert matris.RelaxRecord.from_dict(relaxed.to_dict()).extrapolation == relaxed.extrapolation
    atoms = relaxed.structure.to_ase_atoms()
    atoms.calc = matris.MatRISCalculator(potential)
    atoms.get_potential_energy()
    assert atoms.calc.extrapolation.shape == (2,)
    assert atoms.calc.extrapolation.max() == pytest.approx(relaxed.extrapolation, rel=1e-3)


def test_records_of_a_failure_in_the_batch_keep_their_values(potential):
    lost = rocksalt(5.6, ("Na", "Cl"))
    lost.translate_sites([0], [0.499, 0, 0])
    records = sorted(
        matris.relax([rocksalt(5.6, ("Na", "Cl")), lost, rocksalt(4.2, ("Mg", "O"))], potential, max_steps=0),
        key=lambda r: r.index,
    )
    assert records[0].extrapolation < 1
    assert records[2].extrapolation < 1
    assert records[1].extrapolation is None or records[1].extrapolation > 1


def test_without_a_domain_nothing_is_said():
    network, card = read_file(SMALL_PUBLISHED)
    network.domain = None
    plain = Potential(network, card)
    prediction = plain.predict(rocksalt(5.6, ("Na", "Cl")))
    assert (prediction.extrapolation, prediction.mean_extrapolation, prediction.is_extrapolating) == (None, None, None)
    (record,) = matris.relax(rocksalt(5.6, ("Na", "Cl")), plain, max_steps=0)
    assert record.extrapolation is None
    assert record.is_extrapolating is None


def test_nothing_learnt_is_no_domain():
    network, card = read_file(SMALL_PUBLISHED)
    unlearnt = Potential(network, card)
    with pytest.raises(MatrisError, match="0 were learnt"):
        fit_domain(unlearnt, frames_of(unlearnt, n=3, error=1.0))


def test_frames_that_were_not_learnt_do_not_count(potential, frames):
    bad = [dataclasses.replace(f, forces=f.forces + 5, validation=False) for f in frames[:4]]
    network, card = read_file(SMALL_PUBLISHED)
    other = Potential(network, card)
    summary = fit_domain(other, [*frames, *bad])
    assert summary["frames"] == sum(not f.validation for f in frames)
    assert torch.equal(other.network.domain.reach, potential.network.domain.reach)


def test_a_damaged_domain_is_refused(potential, tmp_path):
    path = tmp_path / "damaged.safetensors"
    whole = potential.network.domain.reach.clone()
    potential.network.domain.reach[0] = torch.nan
    save(path, potential.network, potential.card)
    potential.network.domain.reach.copy_(whole)
    with pytest.raises(checkpoints.CheckpointError, match=r"domain\.reach has NaN"):
        matris.load(path)


def test_ranges_of_labels(frames):
    ranges = label_ranges(frames)
    assert ranges["atoms"] == 2
    assert ranges["pressure_GPa"][0] < ranges["pressure_GPa"][1]
    assert ranges["force_eV_per_A"] <= max(np.linalg.norm(f.forces, axis=1).max() for f in frames) + 0.01
