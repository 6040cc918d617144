"""What a potential says of how far a structure is from what it has learnt, in the documents of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from matris.makers import BatchStaticMaker, StaticMaker
from matris.model.checkpoints import locate, read_file, save
from matris.model.potential import Potential
from matris.stores.documents.documents import unwind
from matris.training.fit_domain import fit_domain
from tests.matris.model.test_domain import frames_of, rocksalt

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    network, card = read_file(locate())
    potential = Potential(network, card)
    fit_domain(potential, frames_of(potential))
    path: Path = tmp_path_factory.mktemp("judged") / "judged.safetensors"
    save(path, network, card)
    return str(path)


def test_documents_of_candidates_tell_it(checkpoint, tmp_path):
    maker = BatchStaticMaker(checkpoint=checkpoint, journal_dir=str(tmp_path))
    chunk = maker.make.original(maker, [rocksalt(5.6, ("Na", "Cl")), rocksalt(5.6, ("Na", "Cl"), 0.75)])
    known, odd = (document for document, _ in unwind(chunk))
    assert (known.is_extrapolating, odd.is_extrapolating) == (False, True)
    assert 0 < known.mean_extrapolation <= known.extrapolation <= 1 < odd.extrapolation


def test_documents_of_drop_ins_tell_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maker = StaticMaker(checkpoint=checkpoint)
    found = maker.make.original(maker, rocksalt(5.6, ("Na", "Cl"), 0.75))
    assert found.is_extrapolating is True
    assert found.extrapolation > 1
