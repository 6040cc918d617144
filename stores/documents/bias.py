"""Errors of a checkpoint on the phases of a reference set, by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGE = 0.05  # eV/atom: the window in which many campaigns look for stable phases
_NAMED = 5  # elements in a sentence


class PhaseError(BaseModel):
    """Error of one phase."""

    entry_id: str = Field(description="Id of the reference entry.")
    formula_pretty: str = Field(description="Reduced formula.")
    composition: dict[str, float] = Field(description="Number of atoms by element.")
    error: float = Field(description="Corrected energy by the checkpoint minus that of the entry (eV/atom).")


class ElementBias(BaseModel):
    """Errors of the phases with one element."""

    element: str = Field(description="Symbol.")
    n: int = Field(description="Number of phases that contain it.")
    mean: float = Field(description="Mean error of these phases (eV/atom).")
    mae: float = Field(description="Mean absolute error of these phases (eV/atom).")
    offset: float = Field(
        description="Energy (eV) that each atom of the element adds to the error, by least squares over all phases."
    )


class Bias(BaseModel):
    """Errors of a checkpoint on the phases of a reference set."""

    checkpoint: str = Field(description="Key of the checkpoint.")
    references: str = Field(description="Label of the reference set.")
    n: int = Field(description="Number of phases compared.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Other phases, counted by reason.")
    mean: float | None = Field(default=None, description="Mean error (eV/atom).")
    mae: float | None = Field(default=None, description="Mean absolute error (eV/atom).")
    remaining: float | None = Field(
        default=None, description="Mean absolute error that offsets by element would leave (eV/atom)."
    )
    elements: list[ElementBias] = Field(default_factory=list, description="By element, the largest offset first.")
    phases: list[PhaseError] = Field(default_factory=list, description="Phases, the largest error first.")

    def sentences(self) -> list[str]:
        """Say what was found, for the terminal and the page."""
        others = [f"{count} left out: {reason}" for reason, count in self.left_out.items()]
        if not self.n:
            return ["No phase could be compared.", *others]
        mae, mean, remaining = (1e3 * (value or 0.0) for value in (self.mae, self.mean, self.remaining))
        lines = [
            f"{self.n} phases of {self.references} by {self.checkpoint}: off by {mae:.1f} meV/atom (mean {mean:+.1f})",
            f"Offsets by element would leave {remaining:.1f} meV/atom",
        ]
        if large := [each for each in self.elements if abs(each.offset) > _LARGE]:
            names = ", ".join(f"{each.element} {1e3 * each.offset:+.0f}" for each in large[:_NAMED])
            more = f" and {len(large) - _NAMED} more" if len(large) > _NAMED else ""
            lines.append(
                f"Do not believe distances to a hull of these references for compounds of {names}{more} meV/atom: "
                "compute the known phases by the checkpoint instead (--known-phases)"
            )
        return [*lines, *others]


def bias(checkpoint: str, references: str, phases: Sequence[PhaseError], left_out: dict[str, int]) -> Bias:
    """
    Sum up the errors of phases by element.

    Parameters
    ----------
    checkpoint, references
        Names of the checkpoint and of the reference set.
    phases
        Errors of the phases.
    left_out
        Number of other phases, by reason.

    Examples
    --------
    >>> errors = [("Mg", {"Mg": 1}, 0.1), ("O2", {"O": 2}, -0.02), ("MgO", {"Mg": 1, "O": 1}, 0.04)]
    >>> phases = [PhaseError(entry_id=f, formula_pretty=f, composition=c, error=e) for f, c, e in errors]
    >>> {each.element: round(each.offset, 6) for each in bias("mine", "theirs", phases, {}).elements}
    {'Mg': 0.1, 'O': -0.02}
    """
    found = Bias(checkpoint=checkpoint, references=references, n=len(phases), left_out=left_out)
    if not phases:
        return found
    symbols = sorted({symbol for phase in phases for symbol in phase.composition})
    shares = np.array([[phase.composition.get(symbol, 0.0) for symbol in symbols] for phase in phases])
    shares /= shares.sum(axis=1, keepdims=True)
    errors = np.array([phase.error for phase in phases])
    offsets = np.linalg.lstsq(shares, errors, rcond=None)[0]
    found.mean, found.mae = float(errors.mean()), float(np.abs(errors).mean())
    found.remaining = float(np.abs(errors - shares @ offsets).mean())
    elements = []
    for symbol, share, offset in zip(symbols, shares.T, offsets, strict=True):
        of_element = errors[share > 0]
        mean, mae = float(of_element.mean()), float(np.abs(of_element).mean())
        elements.append(ElementBias(element=symbol, n=len(of_element), mean=mean, mae=mae, offset=float(offset)))
    found.elements = sorted(elements, key=lambda each: -abs(each.offset))
    found.phases = sorted(phases, key=lambda phase: -abs(phase.error))
    return found
