"""The cache directory."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def cache_directory() -> Path:
    """
    Name the folder of downloaded checkpoints, compiled kernels and Warp's cache; it need not exist.

    It is ``$MATRIS_CACHE``, else ``~/.cache/matris`` as the published package has it. A user without a home has it in
    a temporary folder.
    """
    if chosen := os.environ.get("MATRIS_CACHE"):
        return Path(chosen).expanduser()
    try:
        home = Path.home()
    except RuntimeError:
        home = temporary_directory()
    return home / ".cache" / "matris"


@cache
def temporary_directory() -> Path:
    """Make a folder of this process, which is removed when the process ends (not when a fork of it does)."""
    folder, owner = Path(tempfile.mkdtemp(prefix="matris-")), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder
