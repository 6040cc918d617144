"""Exceptions of this package."""

from __future__ import annotations

from matris.masking import masked


class MatrisError(Exception):
    """Base class of the exceptions that this package raises. Their messages show no password of a database."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(masked(arg) if isinstance(arg, str) else arg for arg in args))


class CheckpointError(MatrisError):
    """A checkpoint that cannot be found, read, verified or used."""


class StructureError(MatrisError, ValueError):
    """An input structure that the potential cannot compute."""


class DeviceError(MatrisError):
    """A device that cannot compute, whatever the structure is."""


class StoreError(MatrisError):
    """A store that cannot be opened, or a request that it cannot answer."""


class BoardError(MatrisError):
    """A benchmark that cannot be run: missing data, data in another layout, or no such potential."""
