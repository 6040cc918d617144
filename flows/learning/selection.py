"""Which candidates of a campaign to calculate from first principles, by a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.learning import root_of, stability
from matris.stores.report.outcomes import is_ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "provenance",
    "state",
    "duplicate_of",
    "formula_pretty",
    "chemsys",
    "composition",
    "correction_scheme",
    "energy_per_atom",
    "enthalpy_per_atom",
    "energy_above_hull",
    "equilibrium_reaction_energy_per_atom",
    "is_stable",
    "extrapolation",
    "is_extrapolating",
    "n_steps",
    "checkpoint",
    "settings",
)
"""Fields of a candidate document that a round of learning reads."""

LIKELY = (0.05, 0.95)
"""Probabilities of stability between which a label is worth its cost."""

_UNLIKELY = 0.001  # probability below which, or above one minus which, nothing is chosen
_WIDER = 2.0  # factor on the spread of errors of a candidate for which the potential extrapolates
_DISAGREEMENT = 1.0  # spreads by which the distances of two checkpoints must differ


@dataclass(frozen=True)
class Errors:
    """
    Errors of predicted distances to the hull, taken to be normal.

    Attributes
    ----------
    spread
        Standard deviation, eV/atom.
    bias
        Mean of the true minus the predicted distance, eV/atom.

    Examples
    --------
    >>> Errors(spread=0.05).probability(0.0), round(Errors(spread=0.05).probability(0.082), 2)
    (0.5, 0.05)
    """

    spread: float
    bias: float = 0.0

    def probability(self, distance: float, widen: float = 1.0) -> float:
        """Probability that a phase at a predicted distance to the hull (eV/atom; negative: below) is stable."""
        return float(norm.cdf(-(distance + self.bias) / (widen * self.spread)))


@dataclass(frozen=True)
class Chosen:
    """
    A candidate to calculate.

    Attributes
    ----------
    document_id, candidate_id, root
        Its document, its id, and the candidate of the first round that it descends from.
    reasons
        Why it was chosen.
    probability
        Probability of stability; None for competing phases.
    """

    document_id: str
    candidate_id: str
    root: str
    reasons: tuple[str, ...]
    probability: float | None = None


@dataclass(frozen=True)
class _Option:
    """A candidate that may be chosen, with its weight from 0 to 1."""

    document: Mapping[str, Any]
    reasons: tuple[str, ...]
    probability: float
    weight: float


def select(
    documents: Sequence[Mapping[str, Any]],
    budget: int,
    *,
    errors: Errors,
    features_of: Callable[[Sequence[str]], NDArray[np.float64]],
    labelled: Collection[str] = (),
    second: Mapping[str, float] | None = None,
    corners: bool = True,
) -> list[Chosen]:
    """
    Choose candidates for first-principles calculations.

    Elements without a label come first: every distance to a self-consistent hull depends on them. Then candidates are
    taken one by one, each time the one with the largest product of its weight and its distance, in feature space, from
    the nearest one that is labelled or chosen already. The weight is 4 p (1 - p), p being the probability of stability,
    and grows with the disagreement of two checkpoints. Where the potential extrapolates, its errors are taken to be
    twice as large.

    Parameters
    ----------
    documents
        Documents of a campaign with `FIELDS`. Candidates that failed, have not converged, duplicate another one or have
        no distance to the hull are not chosen.
    budget
        Largest number of candidates.
    errors
        Errors of the predicted distances.
    features_of
        Returns a vector for each structure by document id, shape (n, d), such as
        `matris.flows.learning.features.structure_features`.
    labelled
        Candidates of the first round (`matris.stores.documents.learning.root_of`) that have a label.
    second
        Distance to the hull (eV/atom) by another checkpoint, by the candidate of the first round.
    corners
        Whether to choose elements.

    Returns
    -------
    list of Chosen
        In the order of choice.

    Examples
    --------
    >>> common = {"source": "a.cif", "state": "converged", "formula_pretty": "LiCl"}
    >>> rows = [("far", 0.9), ("near", 0.03), ("on", 0.0)]
    >>> documents = [{"document_id": n, "candidate_id": n, "energy_above_hull": d} | common for n, d in rows]
    >>> features = lambda names: np.arange(float(len(names)))[:, None]
    >>> for each in select(documents, 2, errors=Errors(0.05), features_of=features):
    ...     print(each.document_id, each.reasons)
    on ('near the hull: stable with probability 0.50',)
    near ('near the hull: stable with probability 0.27',)
    """
    labelled = set(labelled)
    chosen = _corners(documents, labelled)[:budget] if corners else []
    taken = labelled | {each.root for each in chosen}
    options = [
        option
        for document in documents
        if is_ranked(document)
        and root_of(document) not in taken
        and (option := _option(document, errors, (second or {}).get(root_of(document)))) is not None
    ]
    options = _each_root_once(options)
    if len(options) <= budget - len(chosen):
        return chosen + [_chosen(option) for option in sorted(options, key=_rank)]
    known = [d["document_id"] for d in documents if d["state"] == "converged" and root_of(d) in labelled]
    vectors = _scaled(features_of([*(option.document["document_id"] for option in options), *known]))
    order = _spread_out(options, vectors[: len(options)], vectors[len(options) :], budget - len(chosen))
    return chosen + order


def _corners(documents: Sequence[Mapping[str, Any]], labelled: Collection[str]) -> list[Chosen]:
    """Choose the elements that have no label."""
    best: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        is_element = document["source"] in REFERENCE_SOURCES and "-" not in (document.get("chemsys") or "-")
        if document["state"] != "converged" or document.get("duplicate_of") or not is_element:
            continue
        before = best.get(document["chemsys"])
        if before is None or (document.get("energy_above_hull") or 0.0) < (before.get("energy_above_hull") or 0.0):
            best[document["chemsys"]] = document
    return [
        Chosen(d["document_id"], d["candidate_id"], root_of(d), ("element: a corner of the hulls",))
        for _, d in sorted(best.items())
        if root_of(d) not in labelled
    ]


def _option(document: Mapping[str, Any], errors: Errors, second: float | None) -> _Option | None:
    """Weigh a candidate; None if nothing speaks for it."""
    distance = stability(document)
    if distance is None or not np.isfinite(distance):
        return None
    extrapolates = bool(document.get("is_extrapolating"))
    chance = errors.probability(distance, _WIDER if extrapolates else 1.0)
    if not _UNLIKELY < chance < 1 - _UNLIKELY:
        return None
    reasons, weight = [], 4 * chance * (1 - chance)
    if LIKELY[0] <= chance <= LIKELY[1]:
        reasons.append(f"near the hull: stable with probability {chance:.2f}")
    if extrapolates:
        far = float(document.get("extrapolation") or np.inf)
        reasons.append(f"extrapolating: {far:.1f} times the reach of the training data")
    if second is not None and abs(second - distance) > _DISAGREEMENT * errors.spread:
        reasons.append(
            f"disagreement: the distances by two checkpoints differ by {1e3 * abs(second - distance):.0f} meV/atom"
        )
        other = errors.probability(second)
        weight = max(weight, 4 * other * (1 - other), abs(chance - other))
    return _Option(document, tuple(reasons), chance, weight)


def _rank(option: _Option) -> tuple[float, str]:
    return -option.weight, option.document["document_id"]


def _each_root_once(options: Sequence[_Option]) -> list[_Option]:
    """Keep one option of those that descend from one candidate."""
    kept: dict[str, _Option] = {}
    for option in sorted(options, key=_rank):
        kept.setdefault(root_of(option.document), option)
    return list(kept.values())


def _scaled(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each feature by its standard deviation; one without any becomes zero."""
    spread = vectors.std(axis=0)
    scaled: NDArray[np.float64] = (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    return scaled


def _spread_out(
    options: Sequence[_Option], vectors: NDArray[np.float64], known: NDArray[np.float64], n: int
) -> list[Chosen]:
    """Choose by weight and distance from what is known; options are sorted by weight."""
    weights = np.array([option.weight for option in options])
    nearest = np.full(len(options), np.inf)
    for vector in known:
        nearest = np.minimum(nearest, np.linalg.norm(vectors - vector, axis=1))
    left = np.ones(len(options), dtype=bool)
    chosen = []
    for _ in range(n):
        distances = np.where(np.isfinite(nearest), nearest, 1.0)
        index = int(np.argmax(np.where(left, weights * distances, -1.0)))
        chosen.append(_chosen(options[index], is_diverse=index != int(np.argmax(left))))
        left[index] = False
        nearest = np.minimum(nearest, np.linalg.norm(vectors - vectors[index], axis=1))
    return chosen


def _chosen(option: _Option, *, is_diverse: bool = False) -> Chosen:
    document, reasons = option.document, option.reasons
    if is_diverse or not reasons:
        reasons = (*reasons, "diverse: unlike those labelled or chosen before")
    return Chosen(
        document["document_id"], document["candidate_id"], root_of(document), reasons, round(option.probability, 4)
    )
