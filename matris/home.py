"""
Caches of dependencies on machines whose home directory cannot be written.

Compute nodes mount it read-only, containers run under users without one. Warp, which computes neighbour lists on GPUs,
makes its cache there when it is imported, and so does torch-sim: without this module their import fails.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.files.cache import cache_directory, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_WARP = "WARP_CACHE_PATH"


def prepare_caches() -> None:
    """
    Provide for the caches of Warp and torch-sim, which are made when one of them is imported.

    Warp's is in `matris.files.cache.cache_directory`, unless ``WARP_CACHE_PATH`` is set. What cannot be written is
    replaced by a temporary folder, which the process removes at its end.
    """
    if not any(isinstance(finder, _Importer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importer())


def made(folder: Path) -> bool:
    """Make a folder; whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


class _Importer(MetaPathFinder, Loader):
    """
    Prepares caches when Warp or torch-sim is imported.

    Torch-sim has no setting for its folder. If that cannot be made, ``HOME`` is a temporary folder while torch-sim is
    imported; everything else keeps the user's.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave all modules to other finders, except torch-sim without a home."""
        if name in {"warp", "torch_sim"} and _WARP not in os.environ:
            warp = cache_directory() / "warp"
            os.environ[_WARP] = str(warp if made(warp) else temporary_directory() / "warp")
        if name != "torch_sim":
            return None
        try:
            if made(Path.home() / ".torchsim"):
                return None
        except RuntimeError:  # a user without a home
            pass
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            self._loader: Any = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the module's creation to its own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        before = os.environ.get("HOME")
        os.environ["HOME"] = str(temporary_directory())
        try:
            self._loader.exec_module(module)
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before
