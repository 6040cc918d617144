"""Where a GPU would have to wait for the host, counted on a CPU."""

from __future__ import annotations

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ASK = {
    "_local_scalar_dense",  # .item(), bool(), int(), float()
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "bincount",
    "equal",
    "_linalg_check_errors",
}
"""Operations whose result, or its shape, the host must know before it goes on."""
_BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"cpu", "tolist"}


class Waits:
    """
    Counts, in a ``with`` statement, what would make a GPU wait, by operation, and transfers in both directions.

    Attributes
    ----------
    asked
        Operations for whose result the host would wait.
    fetched, sent
        Calls that copy to the host, and to a device.
    """

    def __init__(self):
        self.asked, self.fetched, self.sent = Counter(), Counter(), Counter()
        self._modes = [_Dispatched(self), _Called(self)]

    @property
    def total(self):
        """How often the host would wait for the device."""
        return sum(self.asked.values()) + sum(self.fetched.values())

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Dispatched(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name.removeprefix("aten::")
        by_mask = name in _BY_MASK and any(i is not None and i.dtype is torch.bool for i in args[1])
        unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in _ASK or by_mask or unsized:
            self.waits.asked[name] += 1
        return function(*args, **kwargs)


class _Called(TorchFunctionMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in _COPIES:
            self.waits.fetched[name] += 1
        if name == "to" and any(isinstance(x, torch.device) for x in (*args, *kwargs.values())):
            self.waits.sent[name] += 1
        return function(*args, **kwargs)
