"""Errors against labels: the numbers are those of errors that were made on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from markupsafe import escape

from matris.model.graph import Geometry
from matris.model.potential import Prediction, load
from matris.training.assess import COLUMNS, PARITY, assess
from matris.training.curve import write_curve
from matris.training.data.frame import Frame
from matris.training.data.thinned import Thinned
from matris.training.parity import parity_figure, write_parity_page
from matris.units import GPA
from recipes.embedded.evaluate import frame_errors


def frames(n=12):
    dice = np.random.default_rng(0)
    for number in range(n):
        atoms = bulk("NaCl" if number % 2 else "MgO", "rocksalt", a=5.6 if number % 2 else 4.2)
        atoms.set_cell(atoms.cell * dice.uniform(0.97, 1.03), scale_atoms=True)
        stress = None if number == 0 else 0.1 * np.eye(3)
        moments = np.array([0.0, -1.0]) if number == 2 else None
        yield Frame(Geometry.of(atoms), dice.normal() - 8.0, dice.normal(size=(2, 3)), stress, "x", magmoms=moments)


class Wrong:
    """A potential that is wrong on purpose."""

    elements = ("Na", "Cl", "Mg", "O")

    def __init__(self, answers):
        self._answers = iter(answers)

    def predict_geometries(self, geometries):
        for _ in geometries:
            yield next(self._answers)


def off_by(frame, energy=0.0, force=0.0, pressure=0.0):
    moments = np.array([0.25, 0.5])
    stress = (np.zeros((3, 3)) if frame.stress is None else frame.stress) - pressure * np.eye(3)
    return Prediction(frame.energy + 2 * energy, frame.forces + force, stress, moments)


def test_errors_of_a_card_are_those_that_were_made():
    labels = list(frames())
    results = frame_errors(Wrong(off_by(f, energy=0.05, force=0.1, pressure=3 / GPA) for f in labels), labels)
    assert results["frames"] == 12
    assert results["energy"] == pytest.approx(50)
    assert results["force_component"] == pytest.approx(0.1)
    assert results["force_component_zero"] == pytest.approx(np.mean([np.abs(f.forces).mean() for f in labels]))
    assert results["stress"] == pytest.approx(
        1.0
    )  # a pressure of 3 GPa is a third of it in a mean over nine components
    assert frame_errors(Wrong([]), []) == {"frames": 0}


def test_errors_are_those_that_were_made():
    labels = list(frames())
    answers = [off_by(f, energy=0.05, force=0.1, pressure=3 / GPA) for f in labels]
    answers[1] = off_by(labels[1], energy=-0.35, force=-0.3, pressure=3 / GPA)
    sets = ["a" if i < 6 else "b" for i in range(12)]
    rows = assess(Wrong(answers), zip(sets, labels, strict=True)).rows()
    by_name = {row["name"]: row for row in rows}
    assert [row["kind"] for row in rows] == ["all", "set", "set", "element", "element", "element", "element"]
    everything, a, b = by_name["all"], by_name["a"], by_name["b"]
    assert (everything["frames"], everything["atoms"]) == (12, 24)
    assert everything["energy_mae"] == pytest.approx(1e3 * (11 * 0.05 + 0.35) / 12)
    assert everything["energy_median"] == pytest.approx(50)
    assert everything["force_mae"] == pytest.approx(1e3 * (11 * 0.1 + 0.3) / 12)
    assert everything["force_rmse"] == pytest.approx(1e3 * np.sqrt((11 * 0.01 + 0.09) / 12))
    assert b["force_length"] == pytest.approx(1e3 * 0.1 * np.sqrt(3))
    assert everything["force_zero"] == pytest.approx(1e3 * np.mean([np.abs(f.forces).mean() for f in labels]))
    assert everything["stress_mae"] == pytest.approx(1.0)  # 3 GPa on a third of the components
    assert everything["pressure_mae"] == pytest.approx(3.0)
    assert a["magmom_mae"] == pytest.approx((0.25 + 0.5) / 2)
    assert b["magmom_mae"] is None
    assert by_name["Mg"]["magmom_mae"] == pytest.approx(0.25)
    assert by_name["O"]["magmom_mae"] == pytest.approx(0.5)
    assert by_name["Mg"]["energy_mae"] == pytest.approx(50)
    assert by_name["Na"]["force_mae"] == pytest.approx(1e3 * (5 * 0.1 + 0.3) / 6)
    assert all(set(row) == {"kind", "name", *COLUMNS} for row in rows)


def test_cosines_count_forces_that_have_a_direction():
    labels = [replace(f, forces=np.array([[1.0, 0, 0], [0.01, 0, 0]])) for f in frames(3)]
    answers = [off_by(f) for f in labels]
    answers[0] = replace(answers[0], forces=np.array([[0.0, 1.0, 0], [5.0, 0, 0]]))
    assert assess(Wrong(answers), [("a", f) for f in labels]).rows()[0]["force_cosine"] == pytest.approx(2 / 3)


def test_energies_on_another_scale_are_noticed():
    labels = list(frames(14))
    shift = {11: 1.0, 17: -0.5, 12: 0.3, 8: 0.2}
    answers = [off_by(f, energy=sum(shift[z] for z in f.geometry.numbers) / 2) for f in labels]
    answers[3] = off_by(labels[3], energy=5.0)  # one that is wild moves no shift
    results = assess(Wrong(answers), [("a", f) for f in labels])
    row = results.rows()[0]
    assert row["energy_mae"] > 250
    assert row["energy_mae_shifted"] == pytest.approx(1e3 * (5.0 - 0.25) / 14, rel=0.01)
    results = assess(
        Wrong([a for i, a in enumerate(answers) if i != 3]), [("a", f) for f in labels if f is not labels[3]]
    )
    assert results.rows()[0]["energy_mae_shifted"] < 1
    assert "different energy scales" in results.remark()
    few = assess(Wrong(answers), [("a", f) for f in labels[:6]])
    assert few.rows()[0]["energy_mae_shifted"] is None
    assert few.remark() is None


def test_what_cannot_be_compared_is_counted():
    labels = list(frames(4))
    strange = replace(labels[0], geometry=replace(labels[0].geometry, numbers=np.array([79, 79])))
    answers = [off_by(f) for f in labels]
    answers[2] = replace(answers[2], energy=np.nan)
    results = assess(Wrong(answers), [("a", f) for f in (labels[0], strange, *labels[1:])])
    assert results.rows()[0]["frames"] == 3
    assert results.left_out == {"elements that the checkpoint does not know": 1, "predictions that are not finite": 1}
    assert results.unknown == {"Au": 1}
    assert assess(Wrong([]), []).rows() == []


def test_a_real_potential_agrees_with_its_own_predictions(tiny_checkpoint):
    potential = load(tiny_checkpoint, device="cpu")
    answers = list(potential.predict_geometries(f.geometry for f in frames(5)))
    labels = [
        replace(f, energy=p.energy + 0.02, forces=p.forces, stress=p.stress, magmoms=-p.magmoms)
        for f, p in zip(frames(5), answers, strict=True)
    ]
    row = assess(potential, [("a", f) for f in labels]).rows()[0]
    assert row["energy_mae"] == pytest.approx(10, abs=0.1)
    assert row["force_mae"] == pytest.approx(0, abs=1e-2)
    assert row["stress_mae"] == pytest.approx(0, abs=1e-3)
    assert row["magmom_mae"] == pytest.approx(0, abs=1e-5)


def test_the_page(tmp_path):
    labels = list(frames())
    answers = [off_by(f, force=0.1) for f in labels]
    results = assess(Wrong(answers), [("a <b>" if i % 2 else "c", f) for i, f in enumerate(labels)])
    points = results.points()
    assert list(points) == list(PARITY)
    assert points["force component"].shape == (72, 3)
    assert np.allclose(points["force component"][:, 2] - points["force component"][:, 1], 0.1)
    figure = parity_figure(points, results.sets)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["c", "a <b>"]
    write_parity_page(tmp_path / "new" / "page.html", "x & y", results.rows(), figure, ["mind <this>"])
    page = (tmp_path / "new" / "page.html").read_text()
    assert "x &amp; y" in page
    assert "mind &lt;this&gt;" in page
    assert "<td>a &lt;b&gt;</td><td>6</td>" in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_hostile_names_stay_text(tmp_path):
    hostile = """</script><script>alert(1)</script> " ' {{ 7 * 7 }} {% raw %} &"""
    found = assess(Wrong([off_by(f) for f in frames()]), [(hostile, f) for f in frames()])
    write_parity_page(
        tmp_path / "parity.html", hostile, found.rows(), parity_figure(found.points(), found.sets), [hostile]
    )
    log = tmp_path / "log.csv"
    log.write_text("step,train_loss,loss,energy\n1,0.5,0.6,0.1\n2,0.4,,0.05\n")
    write_curve(log, tmp_path / "curve.html", hostile)
    for name, times in (("parity", 4), ("curve", 2)):
        page = (tmp_path / f"{name}.html").read_text()
        assert page.count(str(escape(hostile))) == times  # window, headline, remark, row
        assert "<script>alert" not in page


def test_thinning_keeps_an_even_spread():
    thinned = Thinned(100)
    for start in range(0, 10_000, 37):
        thinned.add(np.arange(start, min(start + 37, 10_000))[:, None])
    rows = thinned.rows()[:, 0]
    assert 100 <= len(rows) < 200
    assert len(np.unique(rows)) == len(rows)
    assert np.abs(rows.mean() - 5000) < 200
    assert np.diff(rows).max() <= 2 * np.diff(rows).min()
