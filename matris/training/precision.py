"""Precision of a training, whatever torch's default type is in the process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def single_precision() -> Iterator[None]:
    """
    Create tensors in single precision; also a decorator.

    Labels, networks and optimizers are in single precision. A process that has set torch's default type to double would
    otherwise mix the two.

    Examples
    --------
    >>> before = torch.get_default_dtype()
    >>> with single_precision():
    ...     torch.zeros(1).dtype
    torch.float32
    >>> torch.get_default_dtype() == before
    True
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
