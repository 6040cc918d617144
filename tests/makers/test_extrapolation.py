"""Extrapolation of a potential beyond its training data, in the documents of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from matris.makers import BatchStaticMaker, StaticMaker
from matris.model.checkpoints import read_file, save
from matris.model.potential import Potential
from matris.stores.documents.documents import unwind
from matris.training.fit_domain import fit_domain
from tests.conftest import SMALL_PUBLISHED
from tests.matris.model.test_domain import frames_of, rocksalt

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    network, card = read_file(SMALL_PUBLISHED)
    potential = Potential(network, card)
    fit_domain(potential, frames_of(potential))
    path: Path = tmp_path_factory.mktemp("judged") / "judged.safetensors"
    save(path, network, card)
    return str(path)


def test_documents_of_candidates_have_it(checkpoint, tmp_path):
    maker = BatchStaticMaker(checkpoint=checkpoint, journal_dir=str(tmp_path))
    chunk = maker.make.original(maker, [rocksalt(5.6, ("Na", "Cl")), rocksalt(5.6, ("Na", "Cl"), 0.75)])
    interpolated, extrapolated = (document for document, _ in unwind(chunk))
    assert (interpolated.is_extrapolating, extrapolated.is_extrapolating) == (False, True)
    assert 0 < interpolated.mean_extrapolation <= interpolated.extrapolation <= 1 < extrapolated.extrapolation


def test_documents_of_drop_ins_have_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maker = StaticMaker(checkpoint=checkpoint)
    document = maker.make.original(maker, rocksalt(5.6, ("Na", "Cl"), 0.75))
    assert document.is_extrapolating is True
    assert document.extrapolation > 1
