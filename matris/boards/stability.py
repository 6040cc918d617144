"""
Metrics of Matbench Discovery: is a crystal on the hull, and how far from DFT is its relaxed structure.

The definitions are those of its modules ``metrics/discovery.py`` and ``metrics/geo_opt.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from matris.boards.board import mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from matris.boards.board import Metrics

MOST_STABLE = 10_000
_OUTLIER = 5.0  # eV/atom; a prediction farther from DFT counts as missing
_DIGITS = 3  # of energies, eV/atom


def discovery_metrics(
    e_form: NDArray[np.float64],
    dft_e_form: NDArray[np.float64],
    dft_e_hull: NDArray[np.float64],
    is_unique: NDArray[np.bool_],
    most_stable: int = MOST_STABLE,
) -> Metrics:
    """
    Compute the metrics of the three subsets: ``full``, ``unique`` and ``10k``.

    The hull is DFT's: the predicted distance is DFT's, shifted by the error of the formation energy. A crystal is
    stable at or below zero. Missing predictions count as unstable, and not in MAE, RMSE and R2. Energies are rounded to
    1 meV, but for the share of stable crystals in the unique set, to which the discovery acceleration factor (DAF)
    refers in the subsets ``unique`` and ``10k``.

    Parameters
    ----------
    e_form
        Predicted formation energies, eV/atom; NaN where missing. Shape (n,), as all others.
    dft_e_form, dft_e_hull
        DFT's formation energies and distances from the hull, eV/atom.
    is_unique
        Whether a crystal is in the set of unique prototypes.
    most_stable
        How many unique crystals of the lowest predicted distance form the third subset.
    """
    e_form = np.where(np.abs(e_form - dft_e_form) > _OUTLIER, np.nan, e_form)
    rounded, form, true = (np.round(values, _DIGITS) for values in (e_form, dft_e_form, dft_e_hull))
    predicted = true + rounded - form
    unique = np.flatnonzero(is_unique)
    lowest = unique[np.argsort(predicted[unique], kind="stable")][:most_stable]  # NaN comes last
    prevalence = float(np.mean(dft_e_hull[unique] <= 0)) if len(unique) else None
    metrics: Metrics = {}
    for name, rows, share in (
        ("full", np.arange(len(true)), None),
        ("unique", unique, prevalence),
        ("10k", lowest, prevalence),
    ):
        metrics |= {f"{name} {key}": value for key, value in _subset(true[rows], predicted[rows], share).items()}
    return metrics


def _subset(true: NDArray[np.float64], predicted: NDArray[np.float64], prevalence: float | None) -> Metrics:
    """Metrics of one subset; `prevalence` is the share of stable crystals for DAF, by default that of the subset."""
    stable, chosen = true <= 0, predicted <= 0  # NaN is not chosen
    tp, fn = int(np.sum(stable & chosen)), int(np.sum(stable & ~chosen))
    fp, tn = int(np.sum(~stable & chosen)), int(np.sum(~stable & ~chosen))
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    share = _ratio(tp + fn, len(true)) if prevalence is None else prevalence
    f1 = None if precision is None or recall is None else _ratio(2 * precision * recall, precision + recall)
    known = np.isfinite(predicted) & np.isfinite(true)
    errors, spread = (predicted - true)[known], true[known] - true[known].mean() if known.any() else np.zeros(0)
    squares = float(np.sum(spread**2))
    return {
        "F1": f1,
        "DAF": None if precision is None or not share else precision / share,
        "Precision": precision,
        "Recall": recall,
        "Accuracy": _ratio(tp + tn, len(true)),
        "TPR": recall,
        "FPR": _ratio(fp, fp + tn),
        "TNR": _ratio(tn, fp + tn),
        "FNR": _ratio(fn, tp + fn),
        "TP": tp,
        "FP": fp,
        "TN": tn,
        "FN": fn,
        "MAE": float(np.abs(errors).mean()) if len(errors) else None,
        "RMSE": float(np.sqrt((errors**2).mean())) if len(errors) else None,
        "R2": 1 - float(np.sum(errors**2)) / squares if squares else None,
        "missing": int(np.sum(~np.isfinite(predicted))),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def relaxation_metrics(rows: Sequence[tuple[float | None, dict[str, tuple[int, int, int, int]]]]) -> Metrics:
    """
    Compute RMSD, and how often the symmetry is that of DFT.

    Parameters
    ----------
    rows
        For each relaxed crystal the distance of its sites from DFT's (None if they do not match: it counts as 1), and
        for each tolerance the number of the space group and of the operations, then those of DFT's crystal.
    """
    metrics: Metrics = {"RMSD": mean(1.0 if rmsd is None else rmsd for rmsd, _ in rows)}
    for symprec in dict.fromkeys(name for _, groups in rows for name in groups):
        found = [groups[symprec] for _, groups in rows if symprec in groups]
        changed = [(n - dft_n) for group, n, dft_group, dft_n in found if group != dft_group]
        metrics |= {
            f"symmetry match {symprec}": 1 - len(changed) / len(found),
            f"symmetry decrease {symprec}": sum(change < 0 for change in changed) / len(found),
            f"symmetry increase {symprec}": sum(change > 0 for change in changed) / len(found),
            f"operations MAE {symprec}": mean(float(abs(n - dft_n)) for _, n, _, dft_n in found),
        }
    return metrics
