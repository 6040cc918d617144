"""Events that a campaign tells its caller, such as a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

type Watch = Callable[[dict[str, Any]], None]
"""Function that is called with every event of a campaign: a dictionary with the name of the event as ``event``."""
