"""Jobs put together into workflows; the names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if TYPE_CHECKING:
    from matris.flows.campaign import Campaign
    from matris.flows.funnel import Funnel
    from matris.flows.runner import run
    from matris.flows.screening import ScreeningFlowMaker

__all__ = ["Campaign", "Funnel", "ScreeningFlowMaker", "run"]

__getattr__, __dir__ = lazily(
    __name__,
    {"Campaign": "campaign", "Funnel": "funnel", "ScreeningFlowMaker": "screening", "run": "runner"},
)
