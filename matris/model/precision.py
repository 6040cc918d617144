"""Matrix products with all digits of float32, whatever the settings of the process are."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

Precision = Literal["ieee", "tf32x3", "bf16x3"]
"""
How the kernels of `matris.model.triton_messages` multiply matrices: in float32; or on tensor cores, in three products
of rounded factors. One product of factors rounded to TF32 is not offered: energies would be off by meV/atom.
"""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FEWER_DIGITS: frozenset[Precision] = frozenset({"bf16x3"})
"""Precisions with fewer digits than float32: journals and documents name them."""


@contextmanager
def full_precision() -> Iterator[None]:
    """
    Compute float32 matrix products in float32, not in TF32, bfloat16 or what autocast takes.

    ``torch.set_float32_matmul_precision("high")`` holds for the whole process. With it, a GPU rounds the factors of
    products to ten bits: energies are off by some meV/atom, and relaxations end elsewhere. Under ``torch.autocast`` a
    product has half the bytes that the C functions expect. The settings of the process are the old ones after the
    block.

    Examples
    --------
    >>> torch.set_float32_matmul_precision("high")
    >>> with full_precision():
    ...     print(torch.backends.cuda.matmul.fp32_precision)
    ieee
    >>> torch.get_float32_matmul_precision()
    'high'
    >>> torch.set_float32_matmul_precision("highest")
    """
    settings: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
