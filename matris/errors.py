"""Exceptions of this package."""

from __future__ import annotations


class MatrisError(Exception):
    """Base class of the exceptions that this package raises."""


class CheckpointError(MatrisError):
    """A checkpoint that cannot be found, read, verified or used."""


class StructureError(MatrisError, ValueError):
    """An input structure that the potential cannot compute."""


class DeviceError(MatrisError):
    """A device that cannot compute, whatever the structure is."""


class StoreError(MatrisError):
    """A store that cannot be opened, or a request that it cannot answer."""
