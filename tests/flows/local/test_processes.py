from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from matris.errors import CheckpointError
from matris.flows.local import processes, runner
from matris.flows.local.processes import WORKER_MEMORY, default_devices, environment_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def be(cores: int, memory: float = 1e12, gpus: int = 0) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("MATRIS_DEVICE", raising=False)
        monkeypatch.setattr(processes, "usable_cores", lambda: cores)
        monkeypatch.setattr(processes, "free_memory", lambda: memory)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return be


@pytest.mark.parametrize(
    ("cores", "memory", "n"),
    [(1, 1e12, 1), (2, 1e12, 2), (64, 1e12, 64), (64, 10.5 * WORKER_MEMORY, 10), (64, 0.1 * WORKER_MEMORY, 1)],
)
def test_a_process_for_each_core(on_machine: Callable[..., None], cores: int, memory: float, n: int) -> None:
    on_machine(cores, memory)
    assert default_devices() == [None] * n


def test_what_the_user_names_comes_first(on_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(8)
    assert default_devices("cpu") == [None]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert default_devices() == [None] * 2
    assert "OMP_NUM_THREADS" not in environment_of(2, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "16,2")
    assert default_devices() == [None]
    monkeypatch.setenv("MATRIS_DEVICE", "cuda")
    with pytest.raises(CheckpointError, match="MATRIS_DEVICE"):
        default_devices()


def test_a_process_for_each_gpu(on_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(64, gpus=3)
    assert default_devices() == ["cuda:0", "cuda:1", "cuda:2"]
    assert environment_of(3, 1)["OMP_NUM_THREADS"] == "21"
    monkeypatch.setenv("MATRIS_DEVICE", "cuda:1")  # a job that asked its scheduler for one
    assert default_devices() == [None]
    monkeypatch.setenv("MATRIS_DEVICE", "cpu")
    assert len(default_devices()) == 64
    on_machine(64, gpus=1)
    assert default_devices() == [None]


def test_threads_of_processes(on_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(8)
    threads = [environment_of(n, 1).get("OMP_NUM_THREADS") for n in (1, 3, 8, 16)]
    assert threads == [None, "2", "1", "1"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)  # as torch chooses on a machine with a quota for 8
    assert environment_of(1, 1)["OMP_NUM_THREADS"] == "8"


class Started(runner.Workers):
    """Workers that are not started: `started` are the devices and the number of processes that share the machine."""

    def __init__(self, devices: list[str | None], **options: Any) -> None:
        self.chunks = 0
        queue = SimpleNamespace(is_open=lambda _: self.chunks > 0, n_waiting=lambda _: self.chunks)
        campaign: Any = SimpleNamespace(name="any", queue=queue, maker=SimpleNamespace(device=None))
        super().__init__(campaign, devices, lambda _: None, **options)
        self.started: list[tuple[str | None, int]] = []

    def _start(self, device: str | None) -> None:
        self.started.append((device, self._n_processes))
        self._running.append(runner._Worker(device, None))  # type: ignore[arg-type]

    def _stop(self, *, at_once: bool = False) -> None:
        assert at_once  # told to finish, an idle one might take the next chunk
        self.started.append(("stopped", len(self._running)))
        self._running.clear()


@pytest.mark.parametrize(("chunks", "started"), [(0, []), (1, [(None, 1)]), (3, [(None, 3)] * 3), (9, [(None, 4)] * 4)])
def test_no_more_processes_than_chunks(chunks: int, started: list[tuple[None, int]]) -> None:
    workers = Started([None] * 4, fills_cores=True)
    workers.chunks = min(chunks, 3)
    workers.attend()
    assert workers.started == []  # more candidates may come
    workers.chunks = chunks
    workers.attend(1e-3)
    assert [each for each in workers.started if each[0] != "stopped"] == started


def test_processes_start_while_candidates_are_read_if_there_are_chunks_for_all() -> None:
    workers = Started([None] * 2, fills_cores=True)
    workers.chunks = 2
    workers.attend()
    workers.attend()
    assert workers.started[-2:] == [(None, 2)] * 2


def test_a_later_stage_with_more_chunks_gets_more_processes() -> None:
    workers = Started([None] * 4, fills_cores=True)
    workers.chunks = 1
    workers.attend(1e-3)
    (only,) = workers._running
    workers._handle(only, {"event": "took"})
    workers.chunks = 3
    workers.attend(1e-3)
    assert workers.started[1:] == [(None, 1)]  # it works, with the threads of all cores
    workers._handle(only, {"event": "done"})
    workers.attend(1e-3)
    assert workers.started[2:] == [("stopped", 1), *[(None, 3)] * 3]
    workers._handle(only, None)  # the end of a process that was told to stop
    assert len(workers._running) == 3


def test_gpus_start_as_chunks_come() -> None:
    workers = Started(["cuda:0", "cuda:1", "cuda:1"])
    for chunks, devices in ((1, ["cuda:0"]), (2, ["cuda:0", "cuda:1"]), (9, ["cuda:0", "cuda:1", "cuda:1"])):
        workers.chunks = chunks
        workers.attend()
        assert workers.started == [(device, 3) for device in devices]
