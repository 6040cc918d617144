"""Campaigns and flows, from candidates to results; the names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if not __name__.startswith("matris."):
    raise ImportError("import matris.flows, not flows: jobs made from the bare name cannot be loaded anywhere else")

if TYPE_CHECKING:
    from matris.flows.campaign.campaign import Campaign
    from matris.flows.campaign.funnel import Funnel
    from matris.flows.local.runner import run
    from matris.flows.screening import ScreeningFlowMaker
    from matris.flows.sources.files import read_candidates
    from matris.flows.sources.known_phases import known_phases
    from matris.flows.sources.opening import open_source
    from matris.flows.sources.prototypes import elemental_references, generate_candidates

__all__ = [
    "Campaign",
    "Funnel",
    "ScreeningFlowMaker",
    "elemental_references",
    "generate_candidates",
    "known_phases",
    "open_source",
    "read_candidates",
    "run",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Campaign": "campaign.campaign",
        "Funnel": "campaign.funnel",
        "ScreeningFlowMaker": "screening",
        "elemental_references": "sources.prototypes",
        "generate_candidates": "sources.prototypes",
        "known_phases": "sources.known_phases",
        "open_source": "sources.opening",
        "read_candidates": "sources.files",
        "run": "local.runner",
    },
)
