"""Pieces of work shared by processes."""

from __future__ import annotations

import subprocess
import sys
import time

from recipes.embedded.pieces import claim

HOLDER = """
import sys, time
from pathlib import Path
from recipes.embedded.pieces import claim
with claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_piece_belongs_to_one_process_until_that_dies(tmp_path):
    path = tmp_path / "folder" / "piece"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        with claim(path) as mine:
            assert not mine
        left = path.with_name(".piece.0123.part")  # of a killed process
        left.touch()
        holder.kill()
        holder.wait()
    with claim(path) as mine:
        assert mine
        assert not left.exists()
        path.write_text("made")
    assert [p.name for p in path.parent.iterdir()] == ["piece"]
    with claim(path) as mine:
        assert not mine


def test_who_waits_finds_the_file(tmp_path):
    path = tmp_path / "piece"
    program = HOLDER.replace("time.sleep(60)", "time.sleep(1); Path(sys.argv[1]).touch()")
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        start = time.monotonic()
        with claim(path, wait=True) as mine:
            assert not mine
            assert time.monotonic() - start > 0.5
