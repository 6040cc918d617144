"""Makers: one jobflow job each."""

from __future__ import annotations

from matris.makers.batch_relax import BatchRelaxMaker

__all__ = ["BatchRelaxMaker"]
