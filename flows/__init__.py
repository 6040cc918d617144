"""Jobs put together into workflows."""

from matris.flows.campaign import Campaign
from matris.flows.funnel import Funnel
from matris.flows.runner import run
from matris.flows.screening import ScreeningFlowMaker

__all__ = ["Campaign", "Funnel", "ScreeningFlowMaker", "run"]
