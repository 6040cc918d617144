"""The job of each stage of a campaign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matris import makers

if TYPE_CHECKING:
    from pathlib import Path

    from matris.makers.batch import BatchMaker
    from matris.makers.batch_relax import BatchRelaxMaker

RELAX = "relax"
CHUNK_SIZES = {
    "elastic": 50,
    "eos": 50,
    "phonon": 20,
    "qha": 5,
    "kappa": 5,
    "neb": 10,
    "defects": 5,
    "surfaces": 5,
    "md": 10,
    "diffusion": 2,
}
"""Number of materials in a property job; one of them takes many times as long as a relaxation."""

CHUNK_FAILED = "the job of its chunk failed"
"""First words of the error of candidates whose chunk failed too often and was given up."""

_MAKERS = {
    "elastic": "BatchElasticMaker",
    "phonon": "BatchPhononMaker",
    "kappa": "BatchKappaMaker",
}  # loaded on first use


def stage_maker(
    stage: str, relax_maker: BatchRelaxMaker, journal: str | Path | None = None, device: str | None = None
) -> BatchMaker:
    """
    Make the Maker of a stage's jobs.

    Parameters
    ----------
    stage
        ``"relax"`` or a property.
    relax_maker
        Maker of the campaign's relaxations; property jobs use the same checkpoint and pressure.
    journal
        Folder for the journal, which keeps finished results.
    device
        Device. Default: the device of `relax_maker`.
    """
    folder = None if journal is None else str(journal)
    device = device or relax_maker.device
    if stage == RELAX:
        return replace(_on(relax_maker, device), journal_dir=folder)
    maker: BatchMaker = getattr(makers, _MAKERS[stage])(
        checkpoint=relax_maker.checkpoint,
        device=device,
        dispersion=relax_maker.dispersion,
        pressure=relax_maker.final_pressure(),
        journal_dir=folder,
    )
    return maker


def _on(maker: BatchRelaxMaker, device: str | None) -> BatchRelaxMaker:
    """Set the device of a Maker, and of the Maker that runs first."""
    return replace(maker, device=device, first=maker.first and _on(maker.first, device))
