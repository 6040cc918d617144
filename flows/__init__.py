"""Flows: jobs put together."""

from __future__ import annotations

from matris.flows.campaign import Campaign, Intake
from matris.flows.screening import ScreeningFlowMaker

__all__ = ["Campaign", "Intake", "ScreeningFlowMaker"]
