"""How far two sources of energies agree on what is stable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field
from scipy.stats import kendalltau, norm

if TYPE_CHECKING:
    from collections.abc import Sequence

EDGES = (0.0, 0.025, 0.05, 0.1, 0.2)
"""Upper ends of the bins of the calibration, eV/atom; the last bin has none."""

_FEW = 3  # pairs from which ranks are compared


class Compared(BaseModel):
    """One candidate by both sources."""

    document_id: str = Field(description="Document of the first source.")
    formula_pretty: str | None = Field(default=None, description="Reduced formula.")
    first: float = Field(description="Energy above the hull by the first source (eV/atom).")
    second: float = Field(description="Energy above the hull by the second source (eV/atom).")


class Bin(BaseModel):
    """Candidates in a range of the first source's energy above the hull."""

    above: float | None = Field(description="Lower end of the range (eV/atom), exclusive; None: no lower end.")
    up_to: float | None = Field(description="Upper end (eV/atom), inclusive; None: no upper end.")
    n: int = Field(description="Number of candidates.")
    n_stable: int = Field(description="How many the second source puts on the hull.")
    expected: float = Field(description="Mean of the calibrated probabilities of stability of these candidates.")

    def range(self) -> str:
        """Write the range in meV/atom."""
        lower, upper = (None if end is None else f"{1e3 * end:g}" for end in (self.above, self.up_to))
        return f"up to {upper}" if lower is None else f"above {lower}" if upper is None else f"{lower} to {upper}"


class Validation(BaseModel):
    """Agreement of two sources on the distances of candidates to their hulls."""

    first: str = Field(description="First source, such as the checkpoint of a campaign.")
    second: str = Field(description="Second source: another checkpoint, or a file of entries.")
    n: int = Field(description="Number of candidates that both place on a hull.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Other candidates, counted by reason.")
    tau: float | None = Field(
        default=None,
        description="Kendall's τ-b of the two rankings; None for fewer than three candidates, or equal ones.",
    )
    p_value: float | None = Field(default=None, description="Probability of such a τ if the rankings were independent.")
    mae: float | None = Field(default=None, description="Mean absolute difference of the distances (eV/atom).")
    bias: float | None = Field(default=None, description="Mean of second minus first (eV/atom).")
    spread: float | None = Field(default=None, description="Standard deviation of second minus first (eV/atom).")
    n_stable: int = Field(default=0, description="Number of candidates that are stable by the first source.")
    n_still_stable: int = Field(default=0, description="How many of these are stable by the second source.")
    no_longer_stable: list[str] = Field(default_factory=list, description="Documents of the others of these.")
    calibration: list[Bin] = Field(
        default_factory=list, description="Stability by the second source, against the first."
    )
    candidates: list[Compared] = Field(default_factory=list, description="Both distances of each candidate.")

    def sentences(self) -> list[str]:
        """Say what was found, for the terminal and the page."""
        if not self.n:
            return ["No candidate has a distance to the hull by both.", *self._others()]
        tau = "" if self.tau is None else f"Kendall's τ {self.tau:.2f} (p {self.p_value:.2g}); "
        spread = "" if self.spread is None else f", spread {1e3 * self.spread:.1f}"
        difference = f"{1e3 * (self.mae or 0.0):.1f} meV/atom (mean {1e3 * (self.bias or 0.0):+.1f}{spread})"
        lines = [
            f"{self.n} candidates by {self.first} and by {self.second}: {tau}distances differ by {difference}",
            f"{self.n_still_stable} of {self.n_stable} stable candidates stay stable",
        ]
        if (chance := self.probability(0.0)) is not None:
            lines.append(f"A candidate on the hull is stable by the second source with probability {chance:.2f}")
        return [*lines, *self._others()]

    def _others(self) -> list[str]:
        return [f"{count} left out: {reason}" for reason, count in self.left_out.items()]

    def calibration_error(self) -> float | None:
        """Mean difference of observed and expected fractions of stable candidates, by ranges of distances."""
        if not self.n:
            return None
        return sum(abs(each.n_stable - each.n * each.expected) for each in self.calibration) / self.n

    def probability(self, distance: float) -> float | None:
        """
        Probability that a candidate is stable by the second source.

        The difference of the two distances is taken to be normal, with the mean and the standard deviation found.

        Parameters
        ----------
        distance
            Energy above the hull by the first source, eV/atom.

        Returns
        -------
        float or None
            None without a spread.
        """
        if self.bias is None or not self.spread:
            return None
        return float(norm.cdf(-(distance + self.bias) / self.spread))


def validation(first: str, second: str, candidates: Sequence[Compared], left_out: dict[str, int]) -> Validation:
    """
    Compare the distances to the hull of candidates by two sources.

    Parameters
    ----------
    first, second
        Names of the sources.
    candidates
        Candidates that both sources place on a hull.
    left_out
        Number of other candidates, by reason.

    Examples
    --------
    >>> pairs = [(0.0, 0.01), (0.02, 0.0), (0.10, 0.12), (0.30, 0.25)]
    >>> compared = [Compared(document_id=str(i), first=a, second=b) for i, (a, b) in enumerate(pairs)]
    >>> found = validation("one", "two", compared, {})
    >>> round(found.tau, 3), round(found.mae, 3), found.n_stable, found.no_longer_stable
    (0.667, 0.025, 1, ['0'])
    """
    found = Validation(first=first, second=second, n=len(candidates), left_out=left_out, candidates=list(candidates))
    if not candidates:
        return found
    a, b = (np.array([getattr(each, name) for each in candidates]) for name in ("first", "second"))
    if len(candidates) >= _FEW and np.ptp(a) > 0 and np.ptp(b) > 0:
        ranks = kendalltau(a, b)
        found.tau, found.p_value = float(ranks.statistic), float(ranks.pvalue)
    found.mae, found.bias = float(np.abs(b - a).mean()), float((b - a).mean())
    found.spread = float(np.std(b - a, ddof=1)) if len(candidates) > 1 else None
    stable = [each for each in candidates if each.first <= 0]
    found.n_stable = len(stable)
    found.no_longer_stable = [each.document_id for each in stable if each.second > 0]
    found.n_still_stable = len(stable) - len(found.no_longer_stable)
    lower: float | None = None
    for upper in (*EDGES, None):
        inside = [
            each
            for each in candidates
            if (lower is None or each.first > lower) and (upper is None or each.first <= upper)
        ]
        if inside:
            chances = [found.probability(each.first) for each in inside]
            known = [p if p is not None else float(each.second <= 0) for each, p in zip(inside, chances, strict=True)]
            expected = float(np.mean(known))
            n_stable = sum(each.second <= 0 for each in inside)
            found.calibration.append(Bin(above=lower, up_to=upper, n=len(inside), n_stable=n_stable, expected=expected))
        lower = upper
    return found
