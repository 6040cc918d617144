"""Errors that mean that a device has no memory left."""

from __future__ import annotations

import re

_WORDS = (
    "out of memory",  # CUDA, MPS, and torch.OutOfMemoryError
    "failed to allocate",  # Warp, which computes neighbor lists
    "can't allocate memory",  # the CPU allocator
    "not enough memory",
    "memory allocation",
    # cuBLAS, cuSOLVER, cuDNN and their counterparts on AMD devices: no memory for their own workspace, at their first
    # call on a full device
    "alloc_?failed",
    r"(blas|solver|sparse|fft|dnn)\w*_status_not_?initialized",
    r"(blas|solver|sparse|dnn)\w*create\(",
)
_OUT_OF_MEMORY = re.compile("|".join(_WORDS), re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """
    Whether an error means that a device or the machine has no memory left.

    Examples
    --------
    >>> message = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    >>> is_out_of_memory(RuntimeError(message)), is_out_of_memory(ValueError("overlapping atoms"))
    (True, False)
    """
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
