"""Which disk a file is on: SQLite needs one of this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from matris.errors import StoreError

MOUNTS = Path("/proc/self/mounts")
ALLOW = "MATRIS_NETWORK_DISK"
NETWORK = {
    "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "cvmfs", "davfs", "fhgfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "moosefs", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs",
    "wekafs",
}  # fmt: skip
"""File systems that other machines reach too; any ``fuse.`` name of these, sshfs, s3fs, rclone and the like as well."""

_FUSE = {"sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "juicefs", "davfs2", "mount.davfs", "smbnetfs", "blobfuse2"}


def on_network_disk(path: str | Path) -> bool:
    """
    Ask whether a file is, or would be made, on a network file system, and refuse that unless it was allowed.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        True only if the environment variable ``MATRIS_NETWORK_DISK`` is ``1``. False on a local disk, and where the
        system does not tell (macOS).

    Raises
    ------
    StoreError
        If it is, and that was not allowed.
    """
    place, kind = file_system(path)
    if kind not in NETWORK and kind.removeprefix("fuse.") not in NETWORK | _FUSE:
        return False
    if os.environ.get(ALLOW) == "1":
        return True
    raise StoreError(
        f"{path} is on a network file system ({kind} at {place}), where SQLite can lose what two machines write. "
        "Name a folder on a local disk with --store, or a MongoDB (--store mongodb://HOST/DATABASE). "
        f"If one machine alone will ever open it, set {ALLOW}=1: slower, and only as safe as that file system's locks"
    )


def file_system(path: str | Path) -> tuple[str, str]:
    """Mount point and type of the file system that a path is on; two empty strings where the system does not tell."""
    if not MOUNTS.exists():
        return "", ""
    real = Path(path).resolve()
    best = ("", "")
    for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
        place, kind = (_unescaped(part) for part in line.split(" ")[1:3])
        if real.is_relative_to(place) and len(place) >= len(best[0]) and kind != "autofs":
            best = (place, kind)
    return best


def _unescaped(text: str) -> str:
    """Undo the octal numbers that stand for blanks and tabs."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
