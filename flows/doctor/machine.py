"""Python, packages, torch, the device, the C compiler, folders and disks."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from matris.errors import CheckpointError
from matris.files.cache import cache_directory
from matris.flows.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.flows.doctor.finding import State

_OURS, _AUTHORS = "matris-flows", "matris"
_LOW, _FULL = 5e9, 2e8  # bytes of free disk below which there is a note, and below which nothing should start


def check_packages() -> Iterator[Finding]:
    """Check Python, the required packages, and that the authors' package of the same name is absent."""
    python = f"{sys.version.split()[0]} at {sys.executable}"
    try:
        ours = distribution(_OURS)
    except PackageNotFoundError:
        remedy = "python -m pip install . in the checkout"
        yield Finding("python", "note", f"{python}; {_OURS} is not installed, but a source tree on the path", remedy)
        return
    yield Finding("python", "ok", f"{python}; {_OURS} {ours.version}")
    if unmet := unmet_requirements(ours):
        names = " ".join(f"'{requirement}'" for requirement, _ in unmet)
        told = ", ".join(f"{requirement.name} {found or 'missing'}" for requirement, found in unmet)
        yield Finding("packages", "wrong", f"not as required: {told}", f"{sys.executable} -m pip install {names}")
    else:
        yield Finding("packages", "ok", "as required")
    try:
        other = version(_AUTHORS)
    except PackageNotFoundError:
        return
    remedy = f"pip uninstall {_AUTHORS}; pip install --force-reinstall --no-deps {_OURS}"
    message = f"{_AUTHORS} {other}, the authors' package, has a module of the same name in this environment"
    yield Finding("packages", "wrong", message, remedy)


def unmet_requirements(ours: Distribution) -> list[tuple[Requirement, str | None]]:
    """
    Find required packages that are missing or of another version; those of extras are not required.

    Returns
    -------
    list of tuple
        Requirements, each with the version that is installed, or None.
    """
    unmet: list[tuple[Requirement, str | None]] = []
    for text in ours.requires or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            unmet.append((requirement, None))
        else:
            if not requirement.specifier.contains(found, prereleases=True):
                unmet.append((requirement, found))
    return unmet


def check_torch(device: str | None = None) -> Iterator[Finding]:
    """
    Check torch, and compute a sum on the device.

    Parameters
    ----------
    device
        Device that the user wants; by default the one on which everything computes.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding("torch", "wrong", f"cannot be imported: {error}", f"{sys.executable} -m pip install torch")
        return
    build = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "CPU"
    )
    yield Finding("torch", "ok", f"{torch.__version__}, built for {build}")
    from matris.model.potential import chosen_device

    try:
        chosen = chosen_device(device)
        torch.ones(2, device=chosen).sum().item()
    except (CheckpointError, RuntimeError) as error:
        remedy = "name one that is there: --device cpu, or MATRIS_DEVICE=cpu"
        yield Finding("device", "wrong", str(error).splitlines()[0], remedy)
        return
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen)
        name = torch.cuda.get_device_name(chosen)
        yield Finding("device", "ok", f"{chosen}, {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GB free")
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    message = f"cpu with {cores} cores, {torch.get_num_threads()} threads"
    if shutil.which("nvidia-smi") and device is None and not os.environ.get("MATRIS_DEVICE"):
        if torch.version.cuda is None:
            remedy = f"{sys.executable} -m pip install --force-reinstall torch"
            yield Finding("device", "note", f"{message}; there is a GPU, but torch is built without CUDA", remedy)
        else:
            remedy = "see nvidia-smi, CUDA_VISIBLE_DEVICES, and the driver that this CUDA needs"
            yield Finding("device", "note", f"{message}; torch sees no GPU, although there is nvidia-smi", remedy)
        return
    yield Finding("device", "ok", message)


def check_compiler() -> Finding:
    """Check that the machine's C compiler builds the functions for the CPU; they are kept in the cache."""
    from matris.model import kernels

    compiler = os.environ.get("CC", "cc")
    remedy = "install one, by apt-get install gcc, xcode-select --install, or conda install -c conda-forge c-compiler"
    if shutil.which(compiler) is None:
        return Finding("compiler", "note", f"no C compiler ({compiler}): a CPU takes 1.4 to 2.5 times as long", remedy)
    if kernels.library() is None:
        message = f"{compiler} cannot build {kernels.SOURCE.name}: a CPU takes 1.4 to 2.5 times as long"
        return Finding("compiler", "note", message, f"{remedy}; or name another one by CC")
    return Finding("compiler", "ok", f"{shutil.which(compiler)} builds the functions for the CPU")


def check_folders(folder: Path) -> Iterator[Finding]:
    """
    Check the cache, and the free space of the cache, of the results and of temporary files.

    Parameters
    ----------
    folder
        Folder of the results, which need not exist.
    """
    cache = cache_directory()
    if can_be_written(cache):
        yield Finding("cache", "ok", f"{cache} can be written")
    else:
        message = f"{cache} cannot be written: each process compiles again, and checkpoints cannot be downloaded"
        yield Finding("cache", "note", message, "set MATRIS_CACHE to a folder that you can write")
    for what, place in (("results", folder), ("cache", cache), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(nearest_existing(place)).free
        state: State = "ok" if free > _LOW else "note" if free > _FULL else "wrong"
        remedy = "" if state == "ok" else "free some space, or name another folder (--store, MATRIS_CACHE, TMPDIR)"
        yield Finding("disk", state, f"{free / 1e9:.1f} GB free for {what}, at {place.absolute()}", remedy)


def nearest_existing(path: Path) -> Path:
    """
    Return a path, or the innermost folder around it that exists.

    Examples
    --------
    >>> nearest_existing(Path("/dev/none/at/all"))
    PosixPath('/dev')
    """
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder that need not exist; nothing is made."""
    place = nearest_existing(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
