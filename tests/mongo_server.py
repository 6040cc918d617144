"""A server of MongoDB's protocol for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def server_program() -> str | None:
    """Find SecantusDB's daemon; None if it is not installed."""
    return shutil.which("secantusd-rs", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextmanager
def server(program: str, folder: Path) -> Iterator[str]:
    """Run a server with its data in a folder, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(folder / "data"), "--standalone"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *address, "--log-file-max", "64MB", "--cache-size", "256M"], stdout=log, stderr=log
        )
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, (folder / "log").read_text(errors="replace")
                time.sleep(0.1)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)
