"""
Messages of other packages that appear when they are imported, and that no user of this package can act on.

Warp prints a line on each machine without an NVIDIA driver, in native code. torch-sim compiles two functions by
``torch.jit.script``, of whose deprecation torch then warns.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NO_DRIVER = b"Warp CUDA warning: Could not find or load the NVIDIA CUDA driver. GPU execution will not be available.\n"
_USES_WARP = "nvalchemiops"
_USE_TORCH_JIT = {"torch_sim.math", "torch_sim.neighbors.utils"}
_kept: list[Any] = []  # native code of another thread may still hold a stream that has been replaced


def quiet_imports() -> None:
    """Keep these messages back when the packages are imported; everything else that they say appears as before."""
    if not any(isinstance(finder, _Importer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importer())


class _Importer(MetaPathFinder, Loader):
    """Starts Warp before the first package that uses it, and imports the two modules without torch's warning."""

    def __init__(self) -> None:
        self._loaders: dict[str, Any] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave all modules to other finders, except the two."""
        if name == _USES_WARP and name not in sys.modules:
            _start_warp()
        if name not in _USE_TORCH_JIT:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            self._loaders[name], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the module's creation to its own loader."""
        module: ModuleType | None = self._loaders[spec.name].create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        loader = self._loaders.pop(module.__name__)
        module.__loader__ = loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            loader.exec_module(module)


def _start_warp() -> None:
    """Start Warp as nvalchemiops does; what goes wrong here is reported when nvalchemiops does it again."""
    with suppress(ImportError, RuntimeError):
        import warp

        warp.config.log_level = warp.LOG_WARNING
        with native_messages_without(_NO_DRIVER):
            warp.init()


@contextmanager
def native_messages_without(line: bytes) -> Iterator[None]:
    r"""
    Keep a line back that native code prints to C's stream ``stderr``.

    The stream is replaced, not the file descriptor: what Python and other processes write goes where it went, whichever
    thread writes it. The rest of the messages of native code is printed at the end. Without such a stream that can be
    replaced, as in C libraries other than glibc, nothing is kept back.

    Parameters
    ----------
    line
        The line, with its end.

    Examples
    --------
    >>> with native_messages_without(b"no driver\n"):
    ...     pass
    """
    try:
        libc = ctypes.CDLL(None)
        stream = ctypes.c_void_p.in_dll(libc, "stderr")
        libc.gnu_get_libc_version  # noqa: B018 - elsewhere the stream may be a constant
        libc.open_memstream.restype = ctypes.c_void_p
    except (AttributeError, OSError, TypeError, ValueError):
        yield
        return
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    memory, before = libc.open_memstream(ctypes.byref(text), ctypes.byref(size)), stream.value
    if not memory:
        yield
        return
    _kept.append((text, size))
    stream.value = memory
    try:
        yield
    finally:
        stream.value = before
        libc.fflush(ctypes.c_void_p(memory))
        if rest := ctypes.string_at(text, size.value).replace(line, b""):
            libc.fputs(rest, stream)
            libc.fflush(stream)
