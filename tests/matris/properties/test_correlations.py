"""Radial distribution functions, against systems whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from matris.properties.correlations import (
    MAX_FRAMES,
    REACH,
    Snapshot,
    kept_frames,
    radial_distribution,
)

SKEW = np.array([[14.0, 0.0, 0.0], [5.0, 13.0, 0.0], [-4.0, 3.0, 15.0]])


def test_an_ideal_gas_has_no_order():
    random = np.random.default_rng(0)
    symbols = ["Ar"] * 100 + ["Ne"] * 300
    frames = [Snapshot(t, random.uniform(size=(400, 3)) @ SKEW, SKEW) for t in range(3)]
    found = radial_distribution(symbols, frames)
    r = np.array(found["distances"])
    assert list(found["pairs"]) == ["Ar-Ar", "Ar-Ne", "Ne-Ne"]
    weights = r**2 * (r > 2)
    for g in found["pairs"].values():
        assert np.average(g, weights=weights) == pytest.approx(1, abs=0.03)


def test_a_cell_and_its_supercell_have_the_same_distances():
    """The number of neighbours within the reach is that of a lattice sum, and images count."""
    places = np.array([[0.0, 0, 0], [2.1, 0.1, 0]])
    lattice = np.diag([4.211, 4.327, 4.443])
    small = radial_distribution(["Mg", "O"], [Snapshot(0, places, lattice)])
    shifts = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1, 2)]) @ lattice
    copies = (shifts[:, None] + places).reshape(-1, 3)
    large = radial_distribution(["Mg", "O"] * 12, [Snapshot(0, copies, np.diag([2, 2, 3]) @ lattice)])
    for pair, g in small["pairs"].items():
        assert g == pytest.approx(large["pairs"][pair], abs=2e-4)
    cells = np.array([[i, j, k] for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)]) @ lattice
    distances = np.linalg.norm(cells + places[1] - places[0], axis=1)
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, REACH, len(small["distances"]) + 1) ** 3)
    counted = (np.array(small["pairs"]["Mg-O"]) * shells).sum() / np.linalg.det(lattice)
    assert counted == pytest.approx((distances < REACH).sum(), rel=1e-4)


def test_kept_frames():
    assert list(kept_frames(1)) == [0]
    for n_frames in (2, 399, 400, 401, 123_457):
        kept = kept_frames(n_frames)
        assert n_frames // 2 <= kept[0] < n_frames
        assert 0 < len(kept) <= MAX_FRAMES
        assert kept[-1] < n_frames
