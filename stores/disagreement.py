"""How far two checkpoints are apart, and what that says about the stability of a candidate."""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, isfinite, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.errors import MatrisError
from matris.stores.report.discovery import by_candidate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

type Document = Mapping[str, Any]

QUANTITIES = ("energy_above_hull", "formation_energy_per_atom")
"""What is compared, eV/atom."""


@dataclass(frozen=True)
class Spread:
    """
    Differences of one quantity, the second checkpoint's value minus the first's, eV/atom.

    Attributes
    ----------
    n
        Candidates of which both have a value.
    mean, mean_absolute, rms, largest
        Of the differences; the largest by magnitude. NaN if there are none.
    """

    n: int
    mean: float
    mean_absolute: float
    rms: float
    largest: float

    @property
    def sigma(self) -> float:
        """
        Standard error (eV/atom) of one checkpoint: rms/√2.

        Var(a − b) = 2σ² holds if both err equally and independently. Checkpoints that learnt from the same data err
        alike in part, and then the error is larger than this.
        """
        return self.rms / sqrt(2)


@dataclass(frozen=True)
class Disagreement:
    """
    Two checkpoints on the same candidates.

    Attributes
    ----------
    differences
        Candidate to the difference of each quantity (eV/atom), second minus first; None where one has no value.
    energy_above_hull, formation_energy_per_atom
        Summaries.
    n_only_one
        Candidates that only one of them has relaxed.
    """

    differences: Mapping[str, Mapping[str, float | None]]
    energy_above_hull: Spread
    formation_energy_per_atom: Spread
    n_only_one: int


def disagreement(first: Iterable[Document], second: Iterable[Document]) -> Disagreement:
    """
    Compare two checkpoints on the candidates that both have relaxed.

    Parameters
    ----------
    first, second
        Candidate documents, those of one checkpoint with one set of settings each, with hulls of one type.

    Returns
    -------
    Disagreement

    Raises
    ------
    MatrisError
        If a candidate has two documents on one side, or the two sides' hulls are of different types.
    """
    one, other = (by_candidate(d for d in side if d["state"] == "converged") for side in (first, second))
    common = sorted(one.keys() & other.keys())
    hulls = {d["hull_type"] for name in common for d in (one[name], other[name]) if d.get("hull_type")}
    if len(hulls) > 1:
        raise MatrisError(f"distances to hulls of different types ({', '.join(sorted(hulls))}) cannot be compared")
    differences = {name: {q: _difference(one[name], other[name], q) for q in QUANTITIES} for name in common}
    spreads = {q: _spread([d for row in differences.values() if (d := row[q]) is not None]) for q in QUANTITIES}
    return Disagreement(differences=differences, n_only_one=len(one.keys() ^ other.keys()), **spreads)


def stability_probability(energy_above_hull: float, sigma: float) -> float:
    """
    Probability that a candidate is stable, if errors of its distance to the hull are normal.

    P = Φ(−E/σ) = erfc(E/(σ√2))/2; the model of G. Hautier, S. P. Ong, A. Jain, C. J. Moore and G. Ceder,
    Phys. Rev. B 85, 155208 (2012).

    Parameters
    ----------
    energy_above_hull
        eV/atom. On a self-consistent hull, where it is 0 for whatever is stable, the result is at most 1/2.
    sigma
        Standard error, eV/atom: a checkpoint's measured one, or that of a `Spread`.

    Raises
    ------
    MatrisError
        If the error is no positive number.
    """
    if not (isfinite(sigma) and sigma > 0):
        raise MatrisError(f"the standard error of a distance to the hull must be a positive number, not {sigma}")
    return erfc(energy_above_hull / (sigma * sqrt(2))) / 2


def most_probable(documents: Iterable[Document], sigma: float | Mapping[str, float]) -> list[tuple[Document, float]]:
    """
    Rank relaxed candidates by their probability of being stable.

    Parameters
    ----------
    documents
        Candidate documents; those without a distance to the hull are left out.
    sigma
        Standard error (eV/atom): one for all, or by ``candidate_id``.

    Returns
    -------
    list of tuple
        Documents and probabilities, the most probable first; of like ones the closest to the hull, then by id.

    Raises
    ------
    MatrisError
        If there is no error for a candidate, or it is no positive number.
    """
    placed = [d for d in documents if d["state"] == "converged" and d.get("energy_above_hull") is not None]
    found = [(d, stability_probability(d["energy_above_hull"], _sigma(d, sigma))) for d in placed]
    return sorted(found, key=lambda row: (-row[1], row[0]["energy_above_hull"], row[0]["candidate_id"]))


def _sigma(document: Document, sigma: float | Mapping[str, float]) -> float:
    if isinstance(sigma, float | int):
        return sigma
    if document["candidate_id"] not in sigma:
        raise MatrisError(f"there is no standard error for candidate {document['candidate_id']}")
    return sigma[document["candidate_id"]]


def _difference(one: Document, other: Document, quantity: str) -> float | None:
    if one.get(quantity) is None or other.get(quantity) is None:
        return None
    return float(other[quantity] - one[quantity])


def _spread(differences: Sequence[float]) -> Spread:
    if not differences:
        return Spread(0, *[float("nan")] * 4)
    values = np.asarray(differences)
    return Spread(
        n=len(values),
        mean=float(values.mean()),
        mean_absolute=float(np.abs(values).mean()),
        rms=float(np.sqrt((values**2).mean())),
        largest=float(values[np.argmax(np.abs(values))]),
    )
