"""Plausibility of compositions (first version)."""

from __future__ import annotations


def chemistry_problem(composition, known, *, charge_balance: bool) -> str | None:  # noqa: ANN001
    """Say what is implausible."""
    return None
