"""The cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the cache directory: ``$MATRIS_CACHE``, or ``~/.cache/matris`` as in the published package."""
    return Path(os.environ.get("MATRIS_CACHE") or Path.home() / ".cache" / "matris")
