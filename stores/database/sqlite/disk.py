"""File system of a path: SQLite needs a local disk."""

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
"""Types of network file systems; also with the prefix ``fuse.``, which the types in `_FUSE` have too."""

_FUSE = {"sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "juicefs", "davfs2", "mount.davfs", "smbnetfs", "blobfuse2"}


def on_network_disk(path: str | Path) -> bool:
    """
    Return whether a path is on a network file system; refuse such a path unless the user allows it.

    Parameters
    ----------
    path
        Database file, which need not exist.

    Returns
    -------
    bool
        True only if the environment variable ``MATRIS_NETWORK_DISK`` is ``1``. False on a local disk, and on systems
        without a list of mounts (macOS).

    Raises
    ------
    StoreError
        If the path is on a network file system and the variable is not set.
    """
    mount_point, kind = file_system(path)
    if kind not in NETWORK and kind.removeprefix("fuse.") not in NETWORK | _FUSE:
        return False
    if os.environ.get(ALLOW) == "1":
        return True
    raise StoreError(
        f"{path} is on a network file system ({kind} at {mount_point}), where SQLite can lose documents "
        "that two machines write. Name a folder on a local disk with --store, or a MongoDB database "
        f"(--store mongodb://HOST/DATABASE). If only one machine will ever open the file, set {ALLOW}=1: slower, and "
        "only as safe as the locks of the file system"
    )


def file_system(path: str | Path) -> tuple[str, str]:
    """Return mount point and type of the file system of a path; empty strings without a list of mounts."""
    if not MOUNTS.exists():
        return "", ""
    real = Path(path).resolve()
    best = ("", "")
    for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
        mount_point, kind = (_unescaped(part) for part in line.split(" ")[1:3])
        if real.is_relative_to(mount_point) and len(mount_point) >= len(best[0]) and kind != "autofs":
            best = (mount_point, kind)
    return best


def _unescaped(text: str) -> str:
    """Replace octal escapes by the blanks and tabs they stand for."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
