"""Processes that are there, that are gone, and of which nothing is known."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from matris.flows.queue import process_identity
from matris.flows.queue.process_identity import is_gone, this_process

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
NAME = "from matris.flows.queue.process_identity import this_process; print(this_process(), flush=True); input()"


@pytest.fixture
def other():
    process = subprocess.Popen([sys.executable, "-c", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process, process.stdout.readline().decode().strip()
    process.kill()
    process.communicate()


@linux
def test_a_killed_process_is_gone_at_once(other):
    process, name = other
    assert (is_gone(name), is_gone(this_process())) == (False, False)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but is still in the process table
    assert is_gone(name)
    process.wait()
    assert is_gone(name)


@linux
def test_another_process_with_the_same_number(other):
    host, pid, started, place = other[1].rsplit(":", 3)
    assert is_gone(f"{host}:{pid}:{int(started) - 1}:{place}")


def test_processes_elsewhere_are_not_known_to_be_gone(other):
    process, name = other
    process.kill()
    process.wait()
    host, pid, started, place = name.rsplit(":", 3)
    boot, _, namespace = place.partition("/")
    for elsewhere in (f"another-boot/{namespace}", f"{boot}/another-container", ""):
        assert not is_gone(f"{host}:{pid}:{started}:{elsewhere}")
    assert not is_gone(f"{host}:{pid}::{place}")


@linux
def test_processes_of_others_that_are_hidden(monkeypatch, other):
    def refuse(*_):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        assert not is_gone(other[1])
        patch.setattr(process_identity, "_status", lambda _: None)
        assert not is_gone(other[1])
