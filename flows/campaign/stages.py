"""Which job does what is asked of a chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matris import makers

if TYPE_CHECKING:
    from pathlib import Path

    from matris.makers.batch import BatchMaker
    from matris.makers.batch_relax import BatchRelaxMaker

RELAX = "relax"
CHUNK_SIZES = {"elastic": 50, "phonon": 20}
"""Survivors in a job; one of them takes many times as long as a relaxation."""

_MAKERS = {"elastic": "BatchElasticMaker", "phonon": "BatchPhononMaker"}  # they load when they are asked for


def stage_maker(
    stage: str, relax_maker: BatchRelaxMaker, journal: str | Path | None = None, device: str | None = None
) -> BatchMaker:
    """
    Give the Maker of a stage's jobs.

    Parameters
    ----------
    stage
        ``"relax"`` or a property.
    relax_maker
        Of the campaign; properties take its checkpoint.
    journal
        Folder in which the job keeps what is finished.
    device
        Where it computes; by default where `relax_maker` says.
    """
    folder = None if journal is None else str(journal)
    where = device or relax_maker.device
    if stage == RELAX:
        return replace(_on(relax_maker, where), journal_dir=folder)
    maker: BatchMaker = getattr(makers, _MAKERS[stage])(
        checkpoint=relax_maker.checkpoint, device=where, journal_dir=folder
    )
    return maker


def _on(maker: BatchRelaxMaker, device: str | None) -> BatchRelaxMaker:
    """Make a Maker compute on a device, with what comes before it."""
    return replace(maker, device=device, first=maker.first and _on(maker.first, device))
