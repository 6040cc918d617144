"""The script for a machine with a GPU runs here in a tiny form."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return import_module("gpu")


def test_the_script_for_gpus_runs_resumes_and_reports(gpu, tmp_path, capsys, monkeypatch):
    options = ["--device", "cpu", "--quick", "--output", str(tmp_path)]
    gpu.main([*options, "--minutes", "0"])
    assert "no time left" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["machine.json"]

    broken = dict(gpu.PARTS, Screening=lambda _: 1 / 0)
    monkeypatch.setattr(gpu, "PARTS", broken)
    gpu.main(options)
    shown = capsys.readouterr()
    first, _, *lines = shown.out.splitlines()
    assert first == "| goal | asked for | measured | others |"
    assert lines[0] == "| Si, 64 atoms | 15 ms a call | no GPU | 37.9: MatRIS with CUDA graphs |"
    assert "Screening: failed" in shown.err
    assert "ZeroDivisionError" in shown.out
    assert (tmp_path / "report.md").read_text() in shown.out
    rows = json.loads((tmp_path / "neighbour-lists.json").read_text())["rows"]
    assert [row["right"] for row in rows] == [row["same bits twice"] for row in rows] == [2, True, True]
    rows = json.loads((tmp_path / "numbers--against-the-cpu-in-float64.json").read_text())["rows"]
    assert [(row["network"], row["same bits twice"]) for row in rows] == [("published", True), ("smooth", True)]
    assert max(row["force, eV/Å"] for row in rows) < 1e-4 < max(row["of"] for row in rows)
    assert "| CUDA graphs against calls" not in shown.out

    monkeypatch.undo()
    monkeypatch.setattr(gpu, "lists", pytest.fail)  # what is there is not computed again
    monkeypatch.setattr(gpu, "PARTS", dict(gpu.PARTS, **{"Neighbour lists": pytest.fail}))
    gpu.main(options)
    shown = capsys.readouterr()
    assert "Screening: done" in shown.err
    assert "Neighbour lists" not in shown.err
    rows = json.loads((tmp_path / "screening.json").read_text())["rows"]
    assert [(row["structures"], row["failed"]) for row in rows] == [(3, 0), (3, 0)]


def test_results_of_two_machines_are_not_mixed(gpu, tmp_path, monkeypatch):
    options = ["--device", "cpu", "--quick", "--minutes", "0", "--output", str(tmp_path)]
    gpu.main(options)
    monkeypatch.setattr(gpu, "version", lambda _: "other")
    with pytest.raises(SystemExit, match="of another device or other versions"):
        gpu.main(options)


def test_without_warp_the_report_says_so(gpu, tmp_path, monkeypatch, capsys):
    version = gpu.version

    def missing(name):
        if name == "warp-lang":
            raise gpu.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(gpu, "version", missing)
    gpu.main(["--device", "cpu", "--quick", "--minutes", "0", "--output", str(tmp_path)])
    assert "Warp is not installed. Our neighbour lists need none" in capsys.readouterr().out


def test_goals_take_what_is_as_exact_as_float32(gpu):
    rows = [
        {"by": "torch", "ms": 9.0, "µs/atom": 90.0},
        {"by": "bf16x3, whole call", "ms": 10.0, "µs/atom": 10.0},
        {"by": "tf32x3, whole call", "ms": 12.0, "µs/atom": 12.0},
        {"by": "CUDA graph, whole call", "ms": 11.0, "µs/atom": 11.0},
    ]
    found = {"Times: Si, 64 atoms": {"rows": rows}, "Times: Si, 1,000 atoms": {"rows": rows[:3]}}
    assert gpu._measured(found, "Si, 64 atoms") == "11.0 (CUDA graph, whole call)"
    assert gpu._measured(found, "Si, 1,000 atoms") == "12.0 (tf32x3, whole call)"
    assert gpu._measured(found, "screening") == "not yet"
