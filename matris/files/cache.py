"""Where files are kept that can be had again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Folder of downloaded checkpoints: ``$MATRIS_CACHE``, else ``~/.cache/matris`` as the published package has it."""
    return Path(os.environ.get("MATRIS_CACHE") or Path.home() / ".cache" / "matris")
