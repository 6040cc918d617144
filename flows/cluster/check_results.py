"""Results of the checks of a cluster."""

from __future__ import annotations

from typing import NamedTuple


class CheckResult(NamedTuple):
    """
    Result of one check.

    Parameters
    ----------
    check
        Name of the check.
    failed
        Whether the user has to do something.
    message
        Result, in one line; for a failed check with the remedy.
    """

    check: str
    failed: bool
    message: str


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank; empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
