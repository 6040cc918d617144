"""Several processes that train together: ``torchrun --nproc-per-node 2 -m matris.cli train CONFIG.yaml``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed

from matris.model.potential import chosen_device

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def together(device: str | None) -> Iterator[tuple[torch.device, bool]]:
    """
    Join the process group, if torchrun started this process.

    Parameters
    ----------
    device
        As for `matris.model.potential.chosen_device`. By default, each process trains on its own GPU.

    Yields
    ------
    device
        Of this process.
    is_first
        Whether this process writes the files.

    Raises
    ------
    CheckpointError
        If there is no such device.
    """
    chosen = chosen_device(device)
    if not distributed.is_torchelastic_launched():
        yield chosen, True
        return
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen, distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()
