"""Elastic constants against the analytic ones of a crystal held by springs between nearest neighbors."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.elasticity import Deformation, Strain
from pymatgen.analysis.elasticity.elastic import diff_fit
from pymatgen.core import Lattice, Structure
from pymatgen.core.tensors import symmetry_reduce

from matris.properties import elastic as elastic_module
from matris.properties.elastic import STRAINS, VOIGT, elastic, strained, strained_cells
from matris.units import GPA
from tests.matris import argon
from tests.matris.argon import EPSILON, FCC, NEIGHBOR, SIGMA, Argon, crystal

STIFFNESS = 72 * EPSILON / (2 ** (1 / 3) * SIGMA**2)  # second derivative of the pair energy at its minimum, eV/Å²


def primitive(a: float = FCC) -> Structure:
    return Structure(Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]), ["Ar"], [[0, 0, 0]])


def hcp(a: float, c_over_a: float = (8 / 3) ** 0.5) -> Structure:
    return Structure(Lattice.hexagonal(a, c_over_a * a), ["Ar", "Ar"], [[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]])


@pytest.mark.parametrize("strains", [(-0.01, -0.005, 0.005, 0.01), (-0.002, 0.002)], ids=str)
def test_springs_between_nearest_neighbors(strains):
    """Born's sum over bonds: C11 = 2k/a, C12 = C44 = k/a."""
    (record,) = elastic([crystal(FCC * 1.01, 0.02)], Argon(), strains=strains)
    assert record.state == "converged"
    assert not record.warnings
    unit = GPA * STIFFNESS / FCC
    expected = unit * np.array([[2, 1, 1, 0, 0, 0], [1, 2, 1, 0, 0, 0], [1, 1, 2, 0, 0, 0], *(np.eye(6)[3:])])
    assert record.fit.tensor == pytest.approx(expected, abs=5e-3 * unit)
    assert record.fit.stable
    assert record.fit.residual < 1e-3 * unit
    assert np.abs(record.fit.stress).max() < 1e-3 * unit
    moduli = record.fit.moduli()
    assert moduli["k_vrh"] == pytest.approx(4 / 3 * unit, rel=5e-3)
    assert moduli["g_voigt"] == pytest.approx(4 / 5 * unit, rel=5e-3)
    assert moduli["y_mod"] < 10 * unit  # GPa, not Pa
    assert 0 < moduli["homogeneous_poisson"] < 0.5


def test_atom_that_no_other_feels_fails_with_a_reason():
    lone, solid = elastic([Structure(Lattice.cubic(20), ["Ar"], [[0, 0, 0]]), primitive()], Argon())
    assert (lone.state, lone.fit, solid.state) == ("failed", None, "converged")
    assert "farther apart than the cutoff" in lone.error


def test_layer_in_vacuum_resists_no_strain_across_it():
    layer = Structure(Lattice.hexagonal(1.09 * SIGMA, 30), ["Ar"], [[0, 0, 0]])
    (record,) = elastic([layer], Argon(), relax_first=False)
    moduli = record.fit.moduli()
    assert moduli["k_voigt"] > 0.01
    assert moduli["k_reuss"] == pytest.approx(0, abs=1e-6 * moduli["k_voigt"])
    assert moduli["g_reuss"] == pytest.approx(0, abs=1e-6 * moduli["g_voigt"])
    assert moduli["universal_anisotropy"] == np.inf
    assert not record.is_reliable


def test_small_hexagonal_cell_keeps_its_strains(monkeypatch):
    """Where strain times length is a hundredth of an ångström: C66 from shear is that from two stretches."""
    monkeypatch.setattr(argon, "SIGMA", 2.0)
    monkeypatch.setattr(argon, "CUTOFF", 2.7)
    (record,) = elastic([hcp(2.24)], Argon())
    assert record.structure.lattice.a == pytest.approx(2.245, abs=2e-3)
    raw = record.fit.raw
    assert raw[5, 5] == pytest.approx((raw[0, 0] - raw[0, 1]) / 2, rel=2e-3)
    assert raw[0, 0] == pytest.approx(raw[1, 1], rel=2e-3)
    assert raw == pytest.approx(record.fit.tensor, abs=2e-3 * raw[0, 0])


def test_symmetry_saves_cells_and_changes_nothing():
    cubic = primitive()
    tilted = cubic.copy()
    tilted.apply_strain([1e-3, -2e-3, 0])
    assert len(strained_cells(cubic).cells) == 6
    assert len(strained_cells(tilted).cells) > 6
    with_symmetry, without = elastic([cubic, tilted], Argon(), relax_first=False)
    assert with_symmetry.fit.tensor == pytest.approx(without.fit.tensor, rel=0.05, abs=0.6)


def test_strain_is_what_was_asked_for():
    strain = np.array([[0.01, 0.002, 0], [0.002, -0.005, 0.003], [0, 0.003, 0.0]])
    start = hcp(3.1)
    gradient = Deformation((np.linalg.inv(start.lattice.matrix) @ strained(start, strain).lattice.matrix).T)
    assert gradient == pytest.approx(gradient.T)  # no rotation
    assert gradient.green_lagrange_strain == pytest.approx(strain)


@pytest.mark.parametrize("structure", [primitive(), hcp(3.1)], ids=["fcc", "hcp"])
def test_symmetry_leaves_the_cells_that_pymatgen_leaves(structure):
    wanted = [Strain.from_index_amount(mode, size) for mode in VOIGT for size in STRAINS]
    expected = symmetry_reduce(wanted, structure, tol=1e-6, symprec=1e-2)
    plan = strained_cells(structure)
    assert np.array([strain for strain, _ in plan.cells]) == pytest.approx(np.array(list(expected)))
    assert [len(images) for images in plan.images] == [len(operations) for operations in expected.values()]


def test_the_fit_is_that_of_central_differences(monkeypatch):
    """pymatgen's differences of all points have the slope of the cubic; a straight line through them misses it."""
    kept = {}
    fit = elastic_module.fit_tensor

    def keep(plan, stresses, unstrained, pressure):
        kept.update(plan=plan, stresses=stresses, unstrained=unstrained)
        return fit(plan, stresses, unstrained, pressure)

    monkeypatch.setattr(elastic_module, "fit_tensor", keep)
    (record,) = elastic([hcp(NEIGHBOR)], Argon())
    strains, responses = [], []
    for (strain, _), stress, rotations in zip(kept["plan"].cells, kept["stresses"], kept["plan"].images, strict=True):
        for r in [np.eye(3), *rotations]:
            strains.append(Strain(r @ strain @ r.T).zeroed(1e-5))
            responses.append(GPA * r @ stress @ r.T)
    (expected,) = diff_fit(strains, responses, eq_stress=GPA * kept["unstrained"])
    raw = record.fit.raw
    assert (raw + raw.T) / 2 == pytest.approx(expected.voigt, abs=1e-10 * raw.max())


def test_a_broken_material_costs_only_itself():
    def strained_cells_explode(state, output):
        small = state.n_atoms_per_system == 1
        output["energy"][small] = np.nan

    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    records = elastic([primitive(), overlapping, crystal(FCC)], Argon(after=strained_cells_explode))
    assert [r.state for r in records] == ["failed", "failed", "converged"]
    assert [r.index for r in records] == [0, 1, 2]
    assert "NaN" in records[0].error


def test_an_analysis_that_breaks_costs_only_its_material(monkeypatch):
    fit = elastic_module.fit_tensor

    def breaks(plan, *arguments):
        if len(plan.structure) == 1:
            raise RuntimeError("no tensor today")
        return fit(plan, *arguments)

    monkeypatch.setattr(elastic_module, "fit_tensor", breaks)
    broken, whole = elastic([primitive(), crystal(FCC)], Argon(), relax_first=False)
    assert broken.state == "failed"
    assert "no tensor today" in broken.error
    assert whole.state == "converged"


def test_too_large_strains_are_told():
    (record,) = elastic([primitive()], Argon(), strains=(-0.06, -0.03, 0.03, 0.06))
    assert any("size of the strain" in warning for warning in record.warnings)


def test_unstable_crystal_is_told():
    """Simple cubic, held by nearest neighbors alone, does not resist shear."""
    cubic = Structure(Lattice.cubic(3.6), ["Ar"], [[0, 0, 0]])
    (record,) = elastic([cubic], Argon(), relax_first=False)
    assert not record.fit.stable
    assert any("unstable" in warning for warning in record.warnings)


def test_nothing_and_wrong_strains():
    assert elastic([], Argon()) == []
    with pytest.raises(ValueError, match="both signs"):
        elastic([primitive()], Argon(), strains=(0.01, 0.02))


def test_a_killed_run_goes_on(tmp_path):
    model = Argon()
    (first,) = elastic([primitive(FCC * 1.01)], model, journal_dir=tmp_path)
    calls = len(model.batches)
    (second,) = elastic([primitive(FCC * 1.01)], model, journal_dir=tmp_path)
    assert len(model.batches) == calls
    assert second.fit.tensor == pytest.approx(first.fit.tensor)
