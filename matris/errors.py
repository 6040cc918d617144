"""What can go wrong, as types a caller can tell apart."""

from __future__ import annotations


class MatrisError(Exception):
    """Base of every error this package raises on purpose."""


class CheckpointError(MatrisError):
    """A checkpoint that cannot be found, read, verified or used."""


class StructureError(MatrisError, ValueError):
    """An input structure the potential cannot compute."""


class StoreError(MatrisError):
    """A store that cannot be opened, or an answer it cannot give."""
