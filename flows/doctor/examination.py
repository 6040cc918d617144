"""All checks of this machine, one after the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from matris.flows.doctor.databases import check_project, check_store
from matris.flows.doctor.finding import Finding
from matris.flows.doctor.machine import check_compiler, check_folders, check_packages, check_torch
from matris.masking import masked
from matris.stores.database.jobstore import local_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def examine(
    *,
    checkpoint: str | None = None,
    device: str | None = None,
    store: str | None = None,
    project: str | None = None,
) -> Iterator[Finding]:
    """
    Check what this machine needs to compute. Nothing is downloaded, and nothing is left in a store.

    Parameters
    ----------
    checkpoint
        Checkpoint, as for `matris.load`.
    device
        Device, as for `matris.load`.
    store
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    project
        Project of jobflow-remote. Without a name, what is missing there is only a note.

    Yields
    ------
    Finding
        Result of each check, as soon as it ends, without passwords.

    Examples
    --------
    >>> findings = list(examine(device="cpu", store="results"))
    >>> [finding.message for finding in findings if finding.state == "wrong"]
    []
    """
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("packages", check_packages),
        ("torch", lambda: check_torch(device)),
        ("compiler", lambda: [check_compiler()]),
        ("folders", lambda: check_folders(local_folder(store))),
        ("store", lambda: check_store(store)),
        ("project", lambda: check_project(project)),
        ("checkpoint", lambda: _checkpoint(checkpoint)),
    )
    for name, check in checks:
        if name in {"compiler", "checkpoint"} and "torch" not in sys.modules:
            continue  # the line about torch says why
        try:
            for found in check():
                yield found._replace(message=masked(found.message), remedy=masked(found.remedy))
        except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others go on
            message = masked(f"{type(error).__name__}: {error}").splitlines()[0]
            yield Finding(name, "wrong", f"the check broke: {message}", "report this line")


def _checkpoint(key_or_path: str | None) -> Iterator[Finding]:
    from matris.flows.doctor.checkpoint import check_checkpoint

    return check_checkpoint(key_or_path)
