"""A server of MongoDB's protocol that a test may kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


class KillableServer:
    """A server process of our own, writing to disk at each commit."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"mongodb://127.0.0.1:{self.port}"
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(folder / "data")]
        self.command = [program, *place, "--standalone", "--sync-on-commit", "--log-file-max", "64MB"]
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self.command, "--cache-size", "256M"], stdout=log, stderr=log)
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            time.sleep(0.1)
        raise AssertionError(f"no server within 30 s: {self.log.read_text(errors='replace')}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def killable_server(tmp_path):
    """Never the server that `MONGO_TEST_URI` names."""
    program = shutil.which(
        "secantusd-rs", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if program is None:
        pytest.skip("no server to kill: secantusdb is not installed")
    server = KillableServer(program, tmp_path)
    yield server
    server.kill()
