"""What a notebook shows of the objects that users hold: one line, with what they ask first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure

import matris
from matris.flows import Campaign, Funnel
from matris.makers import BatchRelaxMaker
from matris.properties.eos import EosRecord
from matris.stores import Candidate, CandidateStore

if TYPE_CHECKING:
    from pathlib import Path

SALT = Structure(Lattice([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])


@pytest.fixture(scope="module")
def potential(tiny_checkpoint: Path) -> matris.Potential:
    return matris.load(tiny_checkpoint, device="cpu")


def test_potential_and_predictions(potential: matris.Potential) -> None:
    assert repr(potential) == "Potential('tiny': efsm, 7 elements, energy scale mp; torch.float32 on cpu)"
    prediction = potential.predict(SALT)
    energy = f"{prediction.energy:.4f}"
    assert repr(prediction).startswith(f"Prediction({energy} eV, 2 atoms, forces up to ")
    assert repr(prediction).endswith(" eV/Å)")


def test_records(potential: matris.Potential) -> None:
    gold = Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]])
    failed, evaluated = sorted(matris.relax([gold, SALT], potential, max_steps=0), key=lambda record: record.index)
    assert repr(failed) == "RelaxRecord(0, failed: unsupported element Au: the checkpoint does not know it)"
    assert repr(evaluated).startswith(f"RelaxRecord(1, NaCl: {evaluated.state}, {evaluated.energy:.4f} eV, 0 steps, ")
    record = EosRecord(index=2, state="max_steps", structure=SALT, warnings=("not below fmax: 0.98",))
    assert repr(record) == "EosRecord(2, NaCl: max_steps; not reliable; not below fmax: 0.98)"
    assert (
        repr(EosRecord(index=2, state="converged", structure=SALT, is_reliable=True)) == "EosRecord(2, NaCl: converged)"
    )


def test_stores(tmp_path: Path, tiny_checkpoint: Path) -> None:
    store = CandidateStore.open(tmp_path)
    assert repr(store) == f"CandidateStore(sqlite://{tmp_path}/matris.sqlite/candidates)"
    query = store.query(chemsys="Na-Cl").sort("-ehull").limit(3)
    told = repr(query)
    assert "{'chemsys': 'Cl-Na'}; sorted by -energy_above_hull; at most 3" in told
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu")
    campaign = Campaign(tmp_path, maker, Funnel(), title="Salts")
    assert repr(campaign) == f"Campaign('{campaign.name}': Salts; tiny; sqlite://{tmp_path}/matris.sqlite/candidates)"


def test_candidates() -> None:
    candidate = Candidate.from_structure(SALT, "salt.cif")
    assert repr(candidate) == f"Candidate('{candidate.candidate_id}', source='salt.cif', formula='NaCl')"
    broken = Candidate.unreadable("empty.cif", "the file is empty", b"")
    assert repr(broken) == f"Candidate('{broken.candidate_id}', source='empty.cif', error='the file is empty')"
