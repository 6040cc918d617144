"""Several processes that train together: ``torchrun --nproc-per-node 2 -m matris.cli train CONFIG.yaml``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def together(device: str | None) -> Iterator[tuple[torch.device, bool]]:
    """
    Meet the other processes, if torchrun started this one.

    Parameters
    ----------
    device
        Where to train; by default a GPU if there is one, each process on its own.

    Yields
    ------
    device
        Of this process.
    is_first
        Whether it is the one that writes files.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
