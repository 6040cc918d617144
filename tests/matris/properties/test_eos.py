"""Equations of state: recovered from their own energies, and of a crystal with known stiffness."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.properties.eos import eos, fit_eos
from matris.properties.equations import EQUATIONS
from matris.units import GPA
from tests.matris.argon import EPSILON, FCC, Argon
from tests.matris.properties.test_elastic import STIFFNESS, primitive


@pytest.mark.parametrize("equation", EQUATIONS)
def test_parameters_are_recovered(equation):
    volumes = np.linspace(36, 44, 7)
    energies = EQUATIONS[equation](volumes, -12.3, 40.1, 90 / GPA, 4.6)
    fit = fit_eos(volumes, energies, 2, equation)
    assert (fit.e0, fit.v0, fit.b0, fit.b1) == pytest.approx((-12.3, 40.1, 90, 4.6), rel=1e-5)
    assert fit.residual < 1e-9


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equation_has_its_parameters_as_derivatives(equation):
    """b0 = V E'' and b1 = dB/dP at the minimum, by finite differences."""
    h, v0, b0, b1 = 1e-3, 40.0, 0.6, 4.4
    v = v0 + h * np.arange(-2, 3)
    e = EQUATIONS[equation](v, 0.0, v0, b0, b1)
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
