"""Makers: one jobflow job each."""

from __future__ import annotations

from matris.makers.batch_elastic import BatchElasticMaker
from matris.makers.batch_eos import BatchEosMaker
from matris.makers.batch_phonon import BatchPhononMaker
from matris.makers.batch_relax import BatchRelaxMaker

__all__ = ["BatchElasticMaker", "BatchEosMaker", "BatchPhononMaker", "BatchRelaxMaker"]
