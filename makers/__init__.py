"""Makers, each of one jobflow job; the names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if not __name__.startswith("matris."):
    raise ImportError("import matris.makers, not makers: jobs made from the bare name cannot be loaded anywhere else")

if TYPE_CHECKING:
    from matris.makers.batch_elastic import BatchElasticMaker
    from matris.makers.batch_eos import BatchEosMaker
    from matris.makers.batch_md import BatchMDMaker
    from matris.makers.batch_phonon import BatchPhononMaker
    from matris.makers.batch_qha import BatchQhaMaker
    from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
    from matris.makers.relax import RelaxMaker, StaticMaker

__all__ = [
    "BatchElasticMaker",
    "BatchEosMaker",
    "BatchMDMaker",
    "BatchPhononMaker",
    "BatchQhaMaker",
    "BatchRelaxMaker",
    "BatchStaticMaker",
    "RelaxMaker",
    "StaticMaker",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "BatchElasticMaker": "batch_elastic",
        "BatchEosMaker": "batch_eos",
        "BatchMDMaker": "batch_md",
        "BatchPhononMaker": "batch_phonon",
        "BatchQhaMaker": "batch_qha",
        "BatchRelaxMaker": "batch_relax",
        "BatchStaticMaker": "batch_relax",
        "RelaxMaker": "relax",
        "StaticMaker": "relax",
    },
)
