"""Sets on disk: exact, complete or absent, split by material; labels that contradict each other are refused."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import re
import resource
import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.units import GPa

from matris.errors import MatrisError
from matris.model.config import ModelConfig
from matris.model.graph import Geometry, count_edges
from matris.training.data.dataset import DataSet
from matris.training.data.frame import Frame, collate
from matris.training.data.labelled import Labelled, LabelOptions, Rejected
from matris.training.data.reading import read_labelled
from matris.training.data.work import WorkCheck
from matris.training.data.writer import REJECTED, SetOptions, write_set
from tests.matris.training.labelled_frames import crystals

CONFIG = ModelConfig(pairwise_cutoff=5.0, three_body_cutoff=4.0)


def frame_of(atoms, **changes):
    results = atoms.calc.results
    frame = Frame(
        Geometry.of(atoms),
        float(results["energy"]),
        results["forces"],
        atoms.get_stress(voigt=False),
        atoms.info.get("material", "same"),
        magmoms=results.get("magmoms"),
    )
    return replace(frame, **changes)


def labelled(frames, **names):
    return [Labelled(frame, f"here:{i}", **names) for i, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def frames():
    return [frame_of(atoms) for atoms in crystals(24)]


@pytest.fixture(scope="module")
def made(frames, tmp_path_factory):
    taken = [*labelled(frames, scale="mp"), Rejected("here:24", "no energy")]
    bare = [replace(f, stress=None, magmoms=None) for f in frames[:4]]
    output = tmp_path_factory.mktemp("sets") / "set"
    return write_set(output, [("first", taken), ("second", labelled(bare))], SetOptions(validation=0.3))


def test_frames_are_what_was_put_in(made, frames):
    assert len(made) == 28
    for got, put in zip(made, [*frames, *frames[:4]], strict=True):
        assert got.energy == put.energy
        assert np.array_equal(got.geometry.positions, put.geometry.positions)
        assert np.array_equal(got.geometry.cell, put.geometry.cell)
        assert np.array_equal(got.geometry.numbers, put.geometry.numbers)
        assert got.geometry.pbc.all()
        assert np.allclose(got.forces, put.forces, rtol=1e-6)
        assert got.material == put.material
    assert np.allclose(made[3].stress, frames[3].stress, rtol=1e-6)
    assert np.allclose(made[3].magmoms, [0.5, -1, 0, 2])
    assert made[27].stress is None
    assert made[27].magmoms is None
    batch = collate([made[3], made[27]], CONFIG)
    assert batch.stresses[1].isnan().all()
    assert batch.magmoms[:4].tolist() == [0.5, 1.0, 0.0, 2.0]
    assert batch.magmoms[4:].isnan().all()


def test_a_set_is_a_sequence(made):
    assert made[-1].energy == made[27].energy
    with pytest.raises(IndexError):
        made[28]
    part = made[4:10:2]
    assert [f.energy for f in part] == [made[i].energy for i in (4, 6, 8)]
    again = pickle.loads(pickle.dumps(part))  # noqa: S301 - our own
    assert [f.energy for f in again] == [f.energy for f in part]
    assert len(pickle.dumps(part)) < 2000
    assert made.n_atoms().tolist() == [4] * 28
    assert [made.source_names[i] for i in made.sources()] == ["first"] * 24 + ["second"] * 4


def test_parts_are_whole_materials(made):
    training, validation = made.part("training"), made.part("validation")
    assert len(training) + len(validation) == 28
    assert {f.material for f in training}.isdisjoint({f.material for f in validation})
    assert all(f.validation for f in validation)
    assert not any(f.validation for f in training)


def test_what_is_known_of_it(made, frames):
    meta = made.meta
    assert meta["energy_scale"] == "mp"
    assert meta["rejected"] == {"no energy": 1}
    assert meta["elements"]["Ar"]["frames"] == 7
    assert meta["elements"]["Ar"]["atoms"] == 28
    assert meta["elements"]["Ne"]["energy"] == pytest.approx(
        np.median([f.energy / 4 for f in made if f.symbols == {"Ne"}])
    )
    lengths = np.concatenate([np.linalg.norm(f.forces, axis=1) for f in [*frames, *frames[:4]]])
    assert meta["labels"]["force (eV/Å)"]["max"] == pytest.approx(lengths.max(), rel=1e-6)
    assert meta["labels"]["force (eV/Å)"]["mean"] == pytest.approx(lengths.mean(), rel=1e-6)
    assert meta["labels"]["force (eV/Å)"]["median"] == pytest.approx(np.median(lengths), rel=1e-6)
    assert meta["labels"]["pressure (GPa)"]["n"] == 24
    rows = list(csv.reader((made.path / REJECTED).open()))
    assert rows[1] == ["here:24", "no energy", ""]


def test_edges_are_counted_once(made):
    bonds, angles = made.edges(CONFIG)
    expected = [count_edges(f.geometry, 5.0, 4.0) for f in made]
    assert list(zip(bonds.tolist(), angles.tolist(), strict=True)) == expected
    kept = made.path / "edges-5-4.npy"
    np.save(kept, np.zeros((28, 2), dtype=np.int64))  # what is there is believed
    assert not made.angles(CONFIG).any()
    np.save(kept, np.zeros((3, 2), dtype=np.int64))
    with pytest.raises(MatrisError, match="damaged"):
        made.angles(CONFIG)
    kept.unlink()
    assert made[:3].angles(CONFIG).tolist() == [angles for _, angles in expected[:3]]


def test_the_same_sources_give_the_same_set(frames, tmp_path):
    one, two = (write_set(tmp_path / name, [("a", labelled(frames))]) for name in ("one", "two"))
    assert one.identity == two.identity
    assert write_set(tmp_path / "less", [("a", labelled(frames[1:]))]).identity != one.identity
    one.edges(CONFIG)
    one.verify()
    with (one.path / "forces.npy").open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        stream.write(b"x")
    with pytest.raises(MatrisError, match=r"content of forces\.npy has changed"):
        one.verify()


def test_a_set_is_a_source(made, tmp_path):
    copy = write_set(tmp_path / "copy", [("old", read_labelled(made.path, LabelOptions()))])
    assert [f.energy for f in copy] == [f.energy for f in made]
    assert [f.validation for f in copy] == [f.validation for f in made]
    assert copy.meta["split_as_sources_say"]
    assert copy.meta["energy_scale"] == "mp"


def test_no_set_without_both_parts(frames, tmp_path):
    argon = [f for f in frames if f.symbols == {"Ar"}]
    with pytest.raises(MatrisError, match="0 to validate with: all are of 1 material"):
        write_set(tmp_path / "a", [("a", labelled(argon))])
    half = [replace(f, material=f"run {i % 2}") for i, f in enumerate(argon)]
    by_material = write_set(tmp_path / "b", [("a", labelled(half))], SetOptions(split_by="material"))
    assert {f.material for f in by_material.part("validation")} in ({"run 0"}, {"run 1"})
    torn = [*labelled(argon[:2], split="training"), *labelled(argon[2:], split="validation")]
    with pytest.raises(MatrisError, match="formula Ar into both parts"):
        write_set(tmp_path / "c", [("a", torn)])
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_the_part_of_a_material_is_the_same_in_any_set(frames, tmp_path):
    options = SetOptions(validation=0.5)
    whole = write_set(tmp_path / "whole", [("a", labelled(frames))], options)
    aside = {f.material for f in whole.part("validation")}
    some = [f for f in frames if f.symbols != {"Ar"}]
    less = write_set(tmp_path / "less", [("a", labelled(some))], options)
    assert {f.material for f in less.part("validation")} == aside - {"Ar-crystal"}


def test_scales_are_not_mixed(frames, tmp_path):
    sources = [("a", labelled(frames[:8], scale="mp")), ("b", labelled(frames[8:], scale="omat24"))]
    with pytest.raises(MatrisError, match=r"mp \(here:0\), omat24 \(here:0\)"):
        write_set(tmp_path / "a", sources)
    assert write_set(tmp_path / "a", sources, SetOptions(energy_scale="mine")).meta["energy_scale"] == "mine"


def test_energies_far_from_what_the_elements_explain_are_left_out(frames, tmp_path):
    wild = [replace(f, energy=f.energy + (400.0 if i == 5 else 0.0)) for i, f in enumerate(frames)]
    data = write_set(tmp_path / "a", [("a", labelled(wild))])
    assert data.meta["rejected"] == {"energy outlier": 1}
    assert len(data) == len(data.part("training")) + len(data.part("validation")) == 23
    assert data[5].energy == frames[6].energy
    where, reason, detail = list(csv.reader((data.path / REJECTED).open()))[1]
    assert (where, reason) == ("here:5", "energy outlier")
    assert "eV/atom, but -3." in detail


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(MatrisError, match=r"no energy \(2\)"):
        write_set(tmp_path / "a", [("a", [Rejected("x", "no energy"), Rejected("y", "no energy")])])
    with pytest.raises(MatrisError, match="the sources are empty"):
        write_set(tmp_path / "a", [])


def test_an_existing_folder_is_left_alone(made, frames):
    before = sorted(path.name for path in made.path.iterdir())
    with pytest.raises(MatrisError, match="exists"):
        write_set(made.path, [("a", labelled(frames))])
    assert sorted(path.name for path in made.path.iterdir()) == before


def test_an_interrupted_run_leaves_nothing(frames, tmp_path):
    def broken():
        yield from labelled(frames[:5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "a", [("a", broken())])
    assert list(tmp_path.iterdir()) == []


def _write_and_die(output):
    def dying():
        yield from labelled([frame_of(atoms) for atoms in crystals(4)])
        os.kill(os.getpid(), signal.SIGKILL)

    write_set(output, [("a", dying())])


def test_a_killed_run_leaves_no_set_and_the_next_one_clears_up(frames, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path / "a",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".a.partial"]
    write_set(tmp_path / "a", [("a", labelled(frames))])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert ".lock" not in {path.name for path in (tmp_path / "a").iterdir()}


def test_a_full_disk_leaves_nothing(frames, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_set(tmp_path / "a", [("a", labelled(frames * 20))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_set(frames, tmp_path):
    def meanwhile():
        with pytest.raises(MatrisError, match="another process is writing"):
            write_set(tmp_path / "a", [("a", labelled(frames))])
        yield from labelled(frames)

    assert len(write_set(tmp_path / "a", [("a", meanwhile())])) == 24


def test_damaged_sets_are_refused(frames, tmp_path):
    data = write_set(tmp_path / "a", [("a", labelled(frames))])
    with (data.path / "forces.npy").open("r+b") as stream:
        stream.truncate(500)
    with pytest.raises(MatrisError, match="damaged"):
        DataSet(data.path)
    meta = data.meta | {"format": "matris-data-9"}
    (data.path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(MatrisError, match=r"damaged|format"):
        DataSet(data.path)
    with pytest.raises(MatrisError, match="no set of 'matris data'"):
        DataSet(tmp_path)


def test_reading_takes_no_memory(frames, tmp_path):
    data = write_set(tmp_path / "a", [("a", labelled(frames * 60))], SetOptions(check_labels=False))
    tracemalloc.start()
    n = sum(len(frame.forces) for frame in data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 4 * 1440
    assert peak < 1e5


def compressions(n=12):
    """Argon at a row of volumes, where only stress works."""
    for a in np.linspace(5.0, 5.4, n):
        atoms = bulk("Ar", "fcc", a=a, cubic=True)
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.1, rc=12.0, smooth=True)
        atoms.get_potential_energy(), atoms.get_stress(), atoms.get_forces()
        yield frame_of(atoms)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, None),
        (-1.0, "wrong sign.*--flip-stress"),
        (1 / GPa, "stresses in GPa instead of eV/Å³"),
        (GPa, "stresses in eV/Å³ instead of GPa"),
        (-10 / GPa, "stresses in kbar instead of eV/Å³, and the sign is wrong"),
    ],
)
def test_wrong_stresses_are_found(factor, said):
    check = WorkCheck()
    for frame in compressions():
        check.add(replace(frame, stress=factor * frame.stress))
    problem = check.problem()
    if said is None:
        assert problem is None
        assert check.ratios()["stress"][0] == pytest.approx(1, abs=0.05)
    else:
        assert re.search(said, problem or "")


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, None),
        (-1.0, "the stress has the wrong sign: of 12 frames under pressure, 0%"),
        (1 / GPa, "stresses in GPa instead of eV/Å³"),
        (0.1 * GPa, "stresses in eV/Å³ instead of kbar"),
        (-10 / GPa, "stresses in kbar instead of eV/Å³, and the sign is wrong"),
    ],
)
def test_a_potential_judges_frames_that_are_alone(tmp_path, factor, said):
    true = [replace(f, stress=0.1 * i * np.eye(3) - 0.55 * np.eye(3)) for i, f in enumerate(compressions())]
    labels = [replace(f, material=f"alone {i}", stress=factor * f.stress) for i, f in enumerate(true)]
    sources = [("VASP's", labelled(labels)), ("b", labelled(list(map(frame_of, crystals(4)))))]
    known = {id(f.geometry): SimpleNamespace(stress=1.3 * f.stress) for f in true}
    calm = SimpleNamespace(stress=np.zeros((3, 3)))
    potential = SimpleNamespace(
        elements=("Ar", "Ne"),
        card=SimpleNamespace(key="knowing"),
        predict_geometries=lambda geometries: [known.get(id(geometry), calm) for geometry in geometries],
    )
    if said is None:
        made = write_set(tmp_path / "a", sources, potential=potential)
        assert made.meta["sources"][0]["pressures"]["agreeing"] == 1
        assert made.meta["sources"][1]["pressures"] is None
    else:
        with pytest.raises(MatrisError, match=f"VASP's: .*{said}"):
            write_set(tmp_path / "a", sources, potential=potential)


def test_wrong_forces_and_energies_are_found():
    dice = np.random.default_rng(1)
    start = bulk("Ar", "fcc", a=5.2, cubic=True)
    frames = []
    for _ in range(20):
        atoms = start.copy()
        atoms.positions += dice.normal(scale=0.08, size=(4, 3))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.1, rc=12.0, smooth=True)
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        frames.append(frame_of(atoms))
    for change, said in (
        (lambda f: f, None),
        (lambda f: replace(f, forces=-f.forces), "the forces have the wrong sign"),
        (lambda f: replace(f, energy=f.energy / 4), "look like those of one atom"),
        (lambda f: replace(f, energy=f.energy / 27.2114), "energies in Hartree instead of eV"),
    ):
        check = WorkCheck()
        for frame in frames:
            check.add(change(frame))
        problem = check.problem()
        assert problem is None if said is None else said in problem


def test_a_contradiction_refuses_the_source(tmp_path):
    flipped = [replace(f, stress=-f.stress) for f in compressions()]
    others = [f for f in map(frame_of, crystals(8)) if f.symbols != {"Ar"}]
    sources = [("good", labelled(others)), ("VASP's", labelled(flipped))]
    with pytest.raises(MatrisError, match=r"VASP's: the stress has the wrong sign.*--no-check"):
        write_set(tmp_path / "a", sources)
    assert list(tmp_path.iterdir()) == []
    assert len(write_set(tmp_path / "a", sources, SetOptions(check_labels=False))) == 18


def test_molecules_are_frames_too(tmp_path):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.1, rc=9.0)
    frame = Frame(Geometry.of(atoms), atoms.get_potential_energy() - 6.0, atoms.get_forces(), None, "dimer")
    others = [frame_of(a) for a in crystals(4)]
    data = write_set(tmp_path / "a", [("a", labelled([frame, *others]))])
    assert not data[0].geometry.pbc.any()
    assert np.array_equal(data[0].geometry.cell, frame.geometry.cell)


DATA = Path(__file__).parents[5] / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="needs the reference data in ../shared/data")
def test_labels_of_density_functional_theory_belong_together():
    ratios = {}
    for name in ("mptrj_highest_stress", "mpf_tp"):
        check = WorkCheck()
        for item in read_labelled(DATA / f"{name}.extxyz.gz", LabelOptions()):
            if isinstance(item, Labelled):
                check.add(item.frame)
        assert check.problem() is None
        ratios |= check.ratios()
    assert ratios["stress"][0] == pytest.approx(1, abs=0.1)
    assert ratios["forces"][0] == pytest.approx(1, abs=0.1)
