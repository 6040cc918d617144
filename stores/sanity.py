"""Plausibility of structures (first version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class SanityLimits:
    """Limits."""


def sanity_problem(structure: Structure, limits: SanityLimits) -> str | None:
    """Say what is implausible."""
    return None
