"""Metrics of curves of two equal atoms: by hand, and as Matbench Discovery's own code gives them."""

from __future__ import annotations

import numpy as np
import pytest

from matris.boards.curves import Curve, curve_metrics, is_jumpy, window

# Na: covalent radius 1.66 Å, so the window starts at 1.494 Å and the wall at 1.328 Å
DISTANCES = np.linspace(1.4, 5.0, 37)


def curve(energies: np.ndarray, along: np.ndarray | None = None, distances: np.ndarray = DISTANCES) -> Curve:
    """A curve with given energies and forces along x on the first atom, by default the exact slopes."""
    along = np.gradient(energies, distances) if along is None else along
    forces = np.zeros((len(distances), 2, 3))
    forces[:, 0, 0], forces[:, 1, 0] = along, -along
    return Curve(distances, energies, forces)


def parabola(bottom: float, at: float, curvature: float = 10.0) -> np.ndarray:
    return bottom + curvature / 2 * (DISTANCES - at) ** 2


def test_two_wells_differ_by_what_they_are_made_of():
    reference, other = curve(parabola(-2.0, 3.0)), curve(parabola(-2.5, 3.1))
    metrics = curve_metrics("Na", other, reference)
    assert metrics["pbe_bond_length_error"] == pytest.approx(0.1)
    # depths: 10/2 · 2.0² = 20 and 10/2 · 1.9² = 18.05 eV
    assert metrics["pbe_well_depth_error"] == pytest.approx(1.95)
    assert metrics["pbe_vib_freq_error"] == pytest.approx(0, abs=1e-6)
    # the wall at h above the minimum lies at the minimum less sqrt(2 h / 10): the walls are 0.1 Å apart at 1, 5 and
    # 10 eV; 20 eV (2.0 Å inwards) and more are beyond the reference
    assert metrics["pbe_wall_dist_mae"] == pytest.approx(0.1, abs=2e-3)
    # both are zero at 5 Å: E - E(5) = 5 ((r - a)² - (5 - a)²), and the difference is linear: (5 - r) · 10 · 0.1
    assert metrics["pbe_energy_mae"] == pytest.approx(np.mean(5 - np.linspace(1.5, 5.0, 200)), abs=2e-3)
    assert metrics["pbe_force_mae"] == pytest.approx(10 * 0.1 / 3, rel=0.01)  # two of six components differ by 1 eV/Å


def test_frequency_of_a_well():
    low, high = curve(parabola(-2.0, 3.0, 10.0)), curve(parabola(-2.0, 3.0, 14.4))
    # ν = sqrt(k/μ) / 2πc: 130.2829 cm⁻¹ sqrt(k/μ) with k in eV/Å² · 16.0218 N/m and μ in u; here μ = 22.98977/2
    expected = [130.28 * np.sqrt(k * 16.0218 / (22.98977 / 2) * 10 / 10) for k in (10.0, 14.4)]
    assert curve_metrics("Na", high, low)["pbe_vib_freq_error"] == pytest.approx(expected[1] - expected[0], rel=1e-3)


def test_a_wall_that_is_never_reached_is_off_by_its_distance():
    reference = curve(parabola(-2.0, 3.0, 10.0))
    flat = curve(parabola(-2.0, 3.0, 0.1))  # 0.128 eV at 1.4 Å
    walls = 3.0 - np.sqrt(np.array([1.0, 5.0, 10.0]) / 5)
    assert curve_metrics("Na", flat, reference)["pbe_wall_dist_mae"] == pytest.approx(walls.mean(), abs=5e-3)


def test_smoothness_of_one_curve():
    distances = np.array([1.6, 2.0, 2.4, 2.8, 3.2, 3.6])
    energies = np.array([3.0, 1.0, 2.0, 0.0, 0.0005, 4.0])  # differences -2, 1, -2, (small), 4
    along = np.array([-5.0, 5.0, -0.001, 3.0, -2.0, -1.0])  # signs - + (small) + - -
    metrics = curve_metrics("Na", curve(energies, along, distances), None)
    assert metrics["energy_diff_flips"] == 3
    assert metrics["energy_jump"] == pytest.approx((2 + 1) + (1 + 2) + (2 + 3.9995))
    assert metrics["tortuosity"] == pytest.approx((2 + 1 + 2 + 0.0005 + 3.9995) / (3 + 4))
    assert metrics["force_flips"] == 2
    assert metrics["force_total_variation"] == pytest.approx(10 + 5.001 + 3.001 + 5 + 1)
    # differences 10, -5.001, 3.001, -5, 1: a flip between any two
    assert metrics["force_jump"] == pytest.approx(15.001 + 8.002 + 8.001 + 6)
    assert metrics["conservation_deviation"] == pytest.approx(np.abs(along - np.gradient(energies, distances)).mean())
    assert "pbe_energy_mae" not in metrics


def test_forces_conserve_that_are_the_slope_of_the_energy():
    energies = 2.0 * DISTANCES
    for off in (0.0, 0.3):
        metrics = curve_metrics("Na", curve(energies, np.full(37, 2.0 + off)), None)
        assert metrics["conservation_deviation"] == pytest.approx(off, abs=1e-12)


def test_only_the_window_counts():
    energies = parabola(-2.0, 3.0)
    inside = window("Na", 5.0)[0] <= DISTANCES
    wild = np.where(inside, energies, np.nan)
    metrics = curve_metrics("Na", curve(wild, np.where(inside, 1.0, np.nan)), None)
    assert metrics["energy_diff_flips"] == 1
    assert curve_metrics("Na", curve(np.where(DISTANCES > 3, np.nan, energies), np.ones(37)), None) == {}


def test_a_reference_that_jumps_is_found():
    energies = parabola(-2.0, 3.0, 1.0)
    assert not is_jumpy("Na", curve(energies))
    energies[[10, 20, 30]] += 1.0
    assert is_jumpy("Na", curve(energies))
