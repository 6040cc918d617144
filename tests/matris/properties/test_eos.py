"""Equations of state: recovered from their own energies, and of a crystal with known stiffness."""

from __future__ import annotations

import numpy as np
import pytest
from phonopy.qha.eos import get_eos
from pymatgen.analysis.eos import EOS
from pymatgen.core import Lattice, Structure
from scipy.optimize import least_squares

from matris.properties.eos import EQUATIONS, eos, fit_eos
from matris.units import GPA
from tests.matris.argon import EPSILON, FCC, Argon
from tests.matris.properties.test_elastic import STIFFNESS, primitive


@pytest.mark.parametrize("equation", EQUATIONS)
def test_parameters_are_recovered(equation):
    """From energies of phonopy's formulas, which are not those that are fitted."""
    volumes = np.linspace(36, 44, 7)
    energies = get_eos(equation)(volumes, [-12.3, 90 / GPA, 4.6, 40.1])
    fit = fit_eos(volumes, energies, 2, equation)
    assert (fit.e0, fit.v0, fit.b0, fit.b1) == pytest.approx((-12.3, 40.1, 90, 4.6), rel=1e-5)
    assert fit.residual < 1e-9


@pytest.mark.parametrize("equation", EQUATIONS)
def test_noise_leaves_the_least_squares(equation):
    """Of 1e-4 eV/atom, and of a large offset: no parameters leave less of the energies than those of the fit."""
    formula = get_eos(equation)
    volumes = np.linspace(36, 44, 7)
    noise = 2e-4 * np.random.default_rng(3).standard_normal(7)
    fit = fit_eos(volumes, formula(volumes, [-2e4, 90 / GPA, 4.6, 40.1]) + noise, 2, equation)
    energies = formula(volumes, [0, 90 / GPA, 4.6, 40.1]) + noise
    best = least_squares(lambda x: 1e4 * (formula(volumes, x) - energies), [0, 0.5, 4, 40], x_scale="jac", xtol=1e-14)
    assert fit.e0 == pytest.approx(best.x[0] - 2e4, abs=1e-6)
    assert (fit.v0, fit.b0, fit.b1) == pytest.approx((best.x[3], GPA * best.x[1], best.x[2]), rel=1e-4)
    assert fit.residual == pytest.approx(1e-4 * np.sqrt(2 * best.cost / 7) / 2, rel=1e-6)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equation_has_its_parameters_as_derivatives(equation):
    """b0 = V E'' and b1 = dB/dP at the minimum, by finite differences."""
    h, v0, b0, b1 = 1e-3, 40.0, 0.6, 4.4
    v = v0 + h * np.arange(-2, 3)
    curve = EOS(equation).model(v, np.zeros(5))
    curve.eos_params = (0.0, b0, b1, v0)
    e = curve(v)
    second = (e[1] - 2 * e[2] + e[3]) / h**2
    third = (e[4] - 2 * e[3] + 2 * e[1] - e[0]) / (2 * h**3)
    assert (e[3] - e[1]) / (2 * h) == pytest.approx(0, abs=1e-6)
    assert v0 * second == pytest.approx(b0, rel=1e-5)
    assert -1 - v0 * third / second == pytest.approx(b1, rel=1e-2)


def test_springs_between_nearest_neighbors():
    """B = 4k / 3a, and the energy of six bonds."""
    (record,) = eos([primitive(FCC * 1.02)], Argon(), fmax=1e-4)
    assert record.state == "converged"
    assert len(record.volumes) == len(record.energies) == 7
    for fit in record.fits:
        assert fit.b0 == pytest.approx(4 / 3 * GPA * STIFFNESS / FCC, rel=0.02)
        assert fit.v0 == pytest.approx(FCC**3 / 4, rel=1e-3)
        assert fit.e0 == pytest.approx(-6 * EPSILON, rel=1e-3)


def test_what_cannot_be_fitted_is_told():
    with pytest.raises(ValueError, match="no equation"):
        fit_eos([1, 2, 3, 4, 5], [1, 0, 0, 0, 1], 1, "wrong")
    with pytest.raises(ValueError, match="too few"):
        fit_eos([1, 2, 3], [1, 0, 1], 1, "vinet")
    with pytest.raises(ValueError, match="no minimum"):
        fit_eos([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], 1, "vinet")
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    broken, whole = eos([overlapping, primitive()], Argon())
    assert broken.state == "failed"
    assert broken.error
    assert whole.state == "converged"
    assert eos([], Argon()) == []
