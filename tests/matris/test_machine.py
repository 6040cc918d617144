from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from matris import machine
from matris.errors import MatrisError
from matris.model.potential import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put this process into control groups: `groups` as in /proc/self/cgroup, and files by their path."""

    def limit(groups: str = "", bound: int = 64, **files: str) -> None:
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "own").write_text(groups)
        monkeypatch.setattr(machine, "_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)

    return limit


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("", {}, 64),
        ("0::/\n", {"cpu_DOT_max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu_DOT_max": "250000 100000\n"}, 3),
        ("0::/job/step\n", {"job__cpu_DOT_max": "400000 100000\n", "job__step__cpu_DOT_max": "max 100000\n"}, 4),
        ("0::/job/step\n", {"cpu_DOT_max": "10000 100000\n"}, 1),
        ("0::/seen/from/the/host\n", {"cpu_DOT_max": "200000 100000\n"}, 2),  # in a container
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu__a__cpu_DOT_cfs_quota_us": "-1\n", "cpu__a__cpu_DOT_cfs_period_us": "100000\n"},
            64,
        ),
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu__a__cpu_DOT_cfs_quota_us": "5000\n", "cpu__a__cpu_DOT_cfs_period_us": "1000\n"},
            5,
        ),
        ("3:memory:/a\n", {"cpu__cpu_DOT_cfs_quota_us": "5000\n", "cpu__cpu_DOT_cfs_period_us": "1000\n"}, 64),
    ],
)
def test_cores_within_quotas(limited: Callable[..., None], groups: str, files: dict[str, str], cores: int) -> None:
    limited(groups, **files)
    assert machine.usable_cores() == cores


@pytest.mark.parametrize("bound", [1, 2])
def test_cores_that_the_process_is_bound_to(limited: Callable[..., None], bound: int) -> None:
    limited("0::/\n", bound, cpu_DOT_max="800000 100000")
    assert machine.usable_cores() == bound


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory_DOT_max": "max\n"}, MEMORY),
        ("0::/job\n", {"memory_DOT_max": "900000000\n", "job__memory_DOT_max": "500000000\n"}, 5e8),
        ("4:memory:/job\n", {"memory__job__memory_DOT_limit_in_bytes": "9223372036854771712\n"}, MEMORY),
        ("4:memory:/job\n", {"memory__memory_DOT_limit_in_bytes": "700000000\n"}, 7e8),
    ],
)
def test_memory_within_limits(limited: Callable[..., None], groups: str, files: dict[str, str], limit: float) -> None:
    limited(groups, **files)
    assert machine.total_memory() == limit
    assert 0 < machine.free_memory() <= limit


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 16000000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n")
    monkeypatch.setattr(machine, "_MEMORY", file)
    assert machine.free_memory() == 2000 * 1024
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "none")
    assert machine.free_memory() == machine.total_memory()


def test_processes_share_the_memory(
    limited: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    limited("0::/\n", memory_DOT_max="8000000000")
    load.__globals__["_resident"].cache_clear()
    kept = []
    for n in ("", "4", "16"):
        monkeypatch.setenv(machine.PROCESSES, n)
        kept.append(load(tiny_checkpoint, device="cpu", dtype="float64").memory)
        load.__globals__["_resident"].cache_clear()
    assert kept == [1e9, 1e9, 0.25e9]
    monkeypatch.setenv(machine.PROCESSES, "two")
    with pytest.raises(MatrisError, match="MATRIS_PROCESSES_PER_DEVICE=two"):
        load(tiny_checkpoint, device="cpu", dtype="float64")
