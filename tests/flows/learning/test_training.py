"""Fine-tuning on labels: checks of the labels, and reasons to reject the new checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import MatrisError
from matris.flows.learning.plan import Plan, stop_reason
from matris.flows.learning.snapshot import errors_after, starts
from matris.flows.learning.training import learn, objections, set_aside
from matris.stores.dft_labels import DftLabel, DftResult
from matris.stores.documents.learning import Agreement, Round, Trained
from tests.flows.learning.small_loop import checkpoint_of

if TYPE_CHECKING:
    from pathlib import Path

COMMON = {"campaign_id": "c", "checkpoint": "k", "sha256": "0", "n_ranked": 9, "n_steps": 0, "first_steps": 0}


def labels(n: int = 12, sign: float = 1.0, functional: str = "EMT", scale: str = "emt"):
    """Strained and rattled copper and gold: neighbours, so that the work of forces and stress is checked."""
    rng = np.random.default_rng(0)
    for symbol in ("Cu", "Au"):
        for i in range(n):
            atoms = bulk(symbol, cubic=True)
            atoms.set_cell(atoms.cell * (1 + 0.004 * i), scale_atoms=True)
            atoms.rattle(0.02, rng=rng)
            atoms.calc = EMT()
            result = DftResult(
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces().tolist(),
                stress=(sign * atoms.get_stress(voigt=False)).tolist(),
                code="EMT",
                functional=functional,
                energy_scale=scale,
            )
            yield DftLabel.of(symbol, AseAtomsAdaptor.get_structure(atoms), result).model_dump()


def test_labels_that_contradict_the_work_they_do_are_refused(tmp_path: Path) -> None:
    start = checkpoint_of(tmp_path / "start.safetensors")
    with pytest.raises(MatrisError, match="the stress has the wrong sign"):
        learn(start, list(labels(sign=-1.0)), {"Au"}, tmp_path / "wrong", Plan(epochs=1), key="new", device="cpu")
    assert not (tmp_path / "wrong" / "data").exists()
    mp = checkpoint_of(tmp_path / "mp.safetensors", "mp")
    wrong = list(labels(2, functional="r2SCAN", scale="mp"))
    with pytest.raises(MatrisError, match="is by r2SCAN, but energies on the scale mp are by PBE"):
        learn(mp, wrong, {"Au"}, tmp_path / "functional", Plan(epochs=1), key="new", device="cpu")
    trained = learn(start, list(labels()), {"Au"}, tmp_path / "right", Plan(epochs=1), key="new", device="cpu")
    assert (trained.n_training, trained.n_aside) == (12, 12)
    again = learn(start, list(labels()), {"Au"}, tmp_path / "right", Plan(epochs=1), key="new", device="cpu")
    assert again.after == pytest.approx(trained.after)  # resumed: nothing is left to train


def test_what_speaks_against_a_checkpoint():
    before, better = {"energy": 0.02, "force": 0.1, "stress": 1.0}, {"energy": 0.01, "force": 0.1, "stress": 1.0}
    assert objections(before, better, {}, {}, 0.1) == []
    assert "was 20.0" in objections(before, before, {}, {}, 0.1)[0]
    assert objections(before, better | {"energy": float("nan")}, {}, {}, 0.1)[0] == "its errors are not finite"
    worse_forces = objections(before, better | {"force": 0.2}, {}, {}, 0.1)
    assert worse_forces == ["the loss on labels set aside is 1.15, and was 0.7"]
    old = {"energy": 0.02, "force_component": 0.1}
    assert objections(before, better, old, {"energy": 0.022, "force_component": 0.11}, 0.11) == []
    forgot = objections(before, better, old, {"energy": 0.02, "force_component": 0.15}, 0.1)
    assert forgot == ["errors of forces on the old data grow by 50 %, more than 10 %"]


def test_labels_set_aside_stay_one_in_five():
    aside: list[str] = []
    for n in range(6):
        new = [f"{n}-{i}" for i in range(7)]
        chosen = set_aside(new, len(aside), 7 * n)
        assert set(chosen) <= set(new)
        aside += chosen
        assert len(aside) == 7 * (n + 1) // 5


def trained(before: float, after: float, *, taken: bool) -> Trained:
    errors = {"before": {"energy": before}, "after": {"energy": after}}
    about = {"key": "k", "sha256": "1", "path": "p", "parent": "0", "energy_scale": "mp", "n_training": 9, "n_aside": 3}
    return Trained(taken=taken, **about, **errors)


def test_errors_shrink_as_labels_set_aside_say():
    agreement = Agreement(n=20, spread=0.06, bias=0.02)
    kept = Round(number=0, agreement=agreement, trained=trained(0.03, 0.04, taken=False), **COMMON)
    assert (errors_after([kept], 0.05).spread, errors_after([kept], 0.05).bias) == (0.06, 0.02)
    learned = kept.model_copy(update={"trained": trained(0.03, 0.01, taken=True)})
    assert errors_after([learned], 0.05).spread == pytest.approx(0.02)
    assert errors_after([learned], 0.05).bias == 0
    few = Round(number=0, agreement=Agreement(n=2, spread=0.001), **COMMON)
    assert errors_after([few], 0.05).spread == 0.05
    perfect = learned.model_copy(update={"trained": trained(0.03, 1e-9, taken=True)})
    assert errors_after([perfect], 0.05).spread == 0.005


def rounds(*stable: str, taus=(), labels: int = 5):
    taus = taus or [0.5] * len(stable)
    for n, (each, tau) in enumerate(zip(stable, taus, strict=True)):
        yield Round(
            number=n,
            stable=list(each),
            n_labelled=labels * (n + 1),
            label_ids=["l"],
            agreement=Agreement(n=9, tau=tau, calibration_error=0.1),
            **COMMON,
        )


def test_stops_when_nothing_moves_or_the_budget_is_spent():
    plan = Plan(budget=100, patience=2)
    assert stop_reason(list(rounds("ab", "ba", "ab")), plan).startswith("in 2 rounds neither")
    assert stop_reason(list(rounds("ab", "ac", "ac")), plan) is None
    assert stop_reason(list(rounds("ab", "ab")), plan) is None
    assert stop_reason(list(rounds("ab", "ab", "ab", taus=(0.5, 0.5, 0.7))), plan) is None
    assert stop_reason(list(rounds("ab", "ab", "ab", taus=(0.5, None, 0.5))), plan) is None
    assert stop_reason(list(rounds("a", "b")), Plan(budget=10)) == "the budget of 10 labels is spent"
    silent = [each.model_copy(update={"label_ids": []}) for each in rounds("a")]
    assert stop_reason(silent, plan) == "round 0 brought no label"


def test_the_next_round_starts_where_the_last_one_stopped():
    copper = AseAtomsAdaptor.get_structure(bulk("Cu", cubic=True))
    relaxed = copper.copy().scale_lattice(40.0)
    common = {"source": "a.cif", "provenance": {"prototype": "A1"}}
    documents = [
        {"document_id": "1", "candidate_id": "a", "state": "converged", **common},
        {"document_id": "2", "candidate_id": "b", "state": "max_steps", **common, "provenance": {"root": "z"}},
        {"document_id": "3", "candidate_id": "c", "state": "failed", **common},
        {"document_id": "4", "candidate_id": "d", "state": "converged", "duplicate_of": "a", **common},
        {"document_id": "5", "candidate_id": "e", "state": "rejected", **common},
        {"document_id": "6", "candidate_id": "f", "state": "converged", "source": "references"},
    ]
    found = list(starts(documents, lambda _, initial: copper if initial else relaxed))
    assert [(c.provenance["root"], c.provenance["start"], c.structure.volume) for c in found] == [
        ("a", "1", pytest.approx(relaxed.volume)),
        ("z", "2", pytest.approx(relaxed.volume)),
        ("c", "3", pytest.approx(copper.volume)),
    ]
    assert found[0].provenance["prototype"] == "A1"
