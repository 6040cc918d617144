"""Properties by several processes; here their chunks are computed in this process, by the function of the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest
from pymatgen.core import Lattice, Structure

from matris.errors import MatrisError
from matris.flows.local import property_run, worker
from matris.flows.local.property_run import compute_properties
from matris.makers import BatchEosMaker, BatchMDMaker
from matris.stores.database.jobstore import open_job_store, sibling_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matris.flows.local.property_queue import PropertyQueue

DEVICES = ["cpu", "cpu"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, lattice, species in (("iron", 2.9, ["Fe"]), ("salt", 3.2, ["Na", "Cl"]), ("radon", 4.4, ["Rn"])):
        places = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)]
        Structure(Lattice.cubic(lattice), species, places).to(filename=str(tmp_path / f"{name}.cif"))
    (tmp_path / "copy.cif").write_text((tmp_path / "iron.cif").read_text())
    (tmp_path / "empty.cif").write_text("")
    return [tmp_path / f"{name}.cif" for name in ("salt", "iron", "radon", "copy", "empty")]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Compute chunks in this process; returns what the worker processes would have been given, then events."""
    told: list[Any] = []

    class Here:
        def __init__(self, work: PropertyQueue, devices: Sequence[str | None], watch: Any, _: bool) -> None:
            self.opened = worker._opened(work.task())  # as another process does
            assert (self.opened.name, self.opened.origin) == (work.name, work.origin)
            self.devices, self.watch = devices, watch

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def attend(self, _: float) -> None:
            def emit(event: str, **fields: Any) -> None:
                told.append({"event": event, **fields})

            worker.work(self.opened, self.devices[0], emit, lambda _: True)

    monkeypatch.setattr(property_run, "Workers", Here)
    monkeypatch.setattr(worker, "_PAUSES", (0.0, 0.0, 0.0))
    return told


def test_documents_of_processes_are_those_of_one(
    files: list[Path], tmp_path: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = BatchEosMaker(fmax=0.05)
    alone = compute_properties(files, maker, tmp_path / "alone", ["cpu"])
    shared = compute_properties(files, maker, tmp_path / "shared", DEVICES)
    assert [each["n"] for each in told if each["event"] == "done"] == [1] * 4  # the copy is computed once
    assert [document["source"] for document in shared] == list(map(str, files))
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys()
        for name in ("source", "state", "formula_pretty", "candidate_id", "settings", "checkpoint"):
            assert one[name] == other[name], name
        assert bool(one["energies"]) == (one["state"] != "failed")
        assert other["energies"] == pytest.approx(one["energies"], abs=1e-4)
    assert [document["state"] == "failed" for document in shared] == [False, False, True, False, True]

    def computed_again(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("matris.model.potential.Potential.evaluate", computed_again)
    again = compute_properties(files[:3], maker, tmp_path / "shared", DEVICES)  # a part of the list: from its journals
    assert [each["energies"] for each in again] == [each["energies"] for each in shared[:3]]
    queue = sibling_store(open_job_store(tmp_path / "shared"), "work_queue", "work_id")
    assert queue.count() == 0


def test_an_interrupted_call_goes_on(
    files: list[Path], tiny_checkpoint: Path, tmp_path: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = BatchEosMaker(checkpoint=str(tiny_checkpoint), max_steps=0)
    finish = worker.chunk_job

    def stops(maker: BatchEosMaker, work_id: str) -> Any:
        if any(each["event"] == "done" for each in told):
            raise KeyboardInterrupt
        return finish(maker, work_id)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "chunk_job", stops)
        with pytest.raises(KeyboardInterrupt):
            compute_properties(files[:2], maker, tmp_path / "store", DEVICES)
    documents = compute_properties(files[:2], maker, tmp_path / "store", DEVICES)
    assert [document["formula_pretty"] for document in documents] == ["NaCl", "Fe"]


def test_a_job_that_cannot_be_done_is_named(
    files: list[Path], tiny_checkpoint: Path, tmp_path: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = BatchEosMaker(checkpoint=str(tiny_checkpoint), max_steps=0)

    computed = BatchEosMaker.compute

    def fails(maker: BatchEosMaker, structures: Sequence[Structure], potential: Any) -> Any:
        if len(structures[0]) == 2:
            raise RuntimeError("no reason")
        return computed(maker, structures, potential)

    with monkeypatch.context() as patch:
        patch.setattr(BatchEosMaker, "compute", fails)
        with pytest.raises(MatrisError, match=r"the job for .*salt.cif failed: RuntimeError: no reason"):
            compute_properties(files[:2], maker, tmp_path / "store", DEVICES)
    assert any(each["event"] == "failed" and each["given_up"] for each in told)
    documents = compute_properties(files[:2], maker, tmp_path / "store", DEVICES)
    assert [document["formula_pretty"] for document in documents] == ["NaCl", "Fe"]
    assert not any("no reason" in (document["error"] or "") for document in documents)


def test_dynamics_of_processes_is_that_of_one(
    files: list[Path], tiny_checkpoint: Path, tmp_path: Path, told: list[Any]
) -> None:
    """Velocities and files follow from a material, not from its place among others."""
    found = []
    for name, devices in (("alone", ["cpu"]), ("shared", DEVICES)):
        maker = BatchMDMaker(
            checkpoint=str(tiny_checkpoint), n_steps=4, interval=2, trajectory_dir=str(tmp_path / name)
        )
        found.append(compute_properties(files[:2], maker, tmp_path / f"store-{name}", devices))
    assert len([each for each in told if each["event"] == "done"]) == 2
    for one, other in zip(*found, strict=True):
        assert one["state"] == other["state"]
        if one["state"] == "completed":
            assert other["mean_temperature"] == pytest.approx(one["mean_temperature"], rel=1e-4)
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("alone", "shared")]
    assert names[0] == names[1] != []
