"""Progress bars: on standard error, only where they are asked for, and without effect on results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

import matris
from matris.progress import shown
from matris.properties.dynamics import dynamics
from matris.properties.ensembles import DynamicsSettings
from matris.properties.eos import eos

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

COPPER = bulk("Cu", a=3.65)


def test_a_relaxation_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model = matris.AseModel(EMT())
    records = list(matris.relax([COPPER, COPPER, bulk("Cu") * (0, 1, 1)], model, max_steps=1, progress=True))
    told = capsys.readouterr()
    assert told.out == ""
    assert "relax" in told.err
    assert "3/3" in told.err
    assert "1 failed" in told.err
    assert len(records) == 3
    assert len(list(matris.relax([COPPER], model, max_steps=1))) == 1
    assert capsys.readouterr().err == ""


def test_predictions_and_properties(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    potential = matris.load(tiny_checkpoint, device="cpu")
    crystals = [bulk("NaCl", "rocksalt", a=a) for a in (5.5, 5.7)]
    one = potential.predict(crystals[0])
    assert capsys.readouterr().err == ""
    first, _ = potential.predict(iter(crystals), progress=True)
    assert first.energy == pytest.approx(one.energy, abs=1e-5)
    assert "2/?" in capsys.readouterr().err
    (record,) = eos(COPPER, matris.AseModel(EMT()), max_steps=0, progress=True)
    assert record.index == 0
    told = capsys.readouterr().err
    assert "materials" in told
    assert "cells" in told
    settings = DynamicsSettings(ensemble="nve", n_steps=3, interval=1)
    dynamics([bulk("Cu", cubic=True)], matris.AseModel(EMT()), settings=settings, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_an_abandoned_run_is_closed() -> None:
    ended = []

    def numbers() -> Generator[int]:
        try:
            yield from range(10)
        finally:
            ended.append(True)

    running = shown(numbers(), "count", progress=True, total=10)
    assert next(running) == 0
    running.close()
    assert ended == [True]
