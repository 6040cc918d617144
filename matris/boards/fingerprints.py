"""Distance of two crystals by the fingerprints of their sites, by matminer where it is installed."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure


def fingerprint_distance(one: Structure, other: Structure) -> float | None:
    """
    Distance d of MatCalc's equilibrium benchmark.

    The Euclidean distance of mean, deviation, minimum and maximum of matminer's order parameters of the sites
    (``CrystalNNFingerprint``, preset "ops").

    Returns
    -------
    float or None
        None if matminer is not installed, or cannot describe a site.
    """
    if find_spec("matminer") is None:
        return None
    try:
        return float(np.linalg.norm(np.subtract(*(_featurizer().featurize(structure) for structure in (one, other)))))
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError):  # a site without neighbors
        return None


@lru_cache(maxsize=1)
def _featurizer() -> Any:
    from matminer.featurizers.site import CrystalNNFingerprint
    from matminer.featurizers.structure import SiteStatsFingerprint

    sites = CrystalNNFingerprint.from_preset("ops", distance_cutoffs=None, x_diff_weight=0)
    return SiteStatsFingerprint(sites, stats=("mean", "std_dev", "minimum", "maximum"))
