"""What checks of a cluster find."""

from __future__ import annotations

from typing import NamedTuple


class CheckResult(NamedTuple):
    """
    What a check found.

    Parameters
    ----------
    what
        Was checked.
    wrong
        Whether something must be done.
    told
        What was found; if wrong, with the way out.
    """

    what: str
    wrong: bool
    told: str


def last_line(text: str) -> str:
    """Last line of a message that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
