"""The calculator inside flows of atomate2 that have no Maker of ours, and inside MatCalc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from atomate2.common.schemas.gruneisen import GruneisenParameterDocument
from atomate2.forcefields.flows.gruneisen import GruneisenMaker
from atomate2.forcefields.flows.mpmorph import MPMorphMLFFMDMaker
from atomate2.forcefields.flows.phonons import PhononMaker
from atomate2.forcefields.md import ForceFieldMDMaker
from atomate2.forcefields.neb import ForceFieldNebFromImagesMaker
from pymatgen.core import Lattice, Structure

import matris
from matris.makers import RelaxMaker, StaticMaker
from matris.properties.elastic import elastic
from matris.properties.eos import fit_eos
from matris.units import GPA
from tests.makers.test_drop_in import SI, TIGHT, run

if TYPE_CHECKING:
    from pathlib import Path

OURS: dict[str, Any] = {
    "calculator_meta": {"@module": "matris.calculator", "@callable": "MatRISCalculator"},
    "calculator_kwargs": {"dtype": "float64"},
}


def test_dynamics(tmp_path: Path) -> None:
    (document,) = run(ForceFieldMDMaker(n_steps=2, mb_velocity_seed=1, **OURS).make(SI), tmp_path).values()
    energy = next(iter(matris.load(dtype="float64").predict([SI]))).energy
    assert document.forcefield_name == "MatRISCalculator"
    assert document.output.energy == pytest.approx(energy, abs=0.2)  # it has moved for 4 fs


@pytest.mark.slow
def test_a_path(tmp_path: Path) -> None:
    """A vacancy of magnesium in MgO and a neighbour that hops into it: equal ends, and a barrier in the middle."""
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.25), ["Mg", "O"], [[0] * 3, [0.5] * 3])
    start = cell.copy()
    start.remove_sites([0])
    end = start.copy()
    end.translate_sites([0], -start[0].frac_coords, to_unit_cell=False)
    images = start.interpolate(end, nimages=4, autosort_tol=0)
    maker = ForceFieldNebFromImagesMaker(steps=20, relax_kwargs={"fmax": 0.2}, **OURS)
    (result,) = run(maker.make(images), tmp_path).values()
    energies = np.array(result.energies)
    assert energies[0] == pytest.approx(energies[-1], abs=1e-4)
    assert energies.argmax() == 2
    assert energies[2] - energies[0] > 0.1


@pytest.mark.slow
def test_gruneisen_parameters(tmp_path: Path) -> None:
    static = StaticMaker(dtype="float64")
    phonons = PhononMaker(
        bulk_relax_maker=None, static_energy_maker=None, phonon_displacement_maker=static, born_maker=None,
        min_length=6, generate_frequencies_eigenvectors_kwargs={"npoints_band": 11},
    )  # fmt: skip
    maker = GruneisenMaker(
        bulk_relax_maker=RelaxMaker(**TIGHT),
        const_vol_relax_maker=RelaxMaker(**TIGHT, relax_cell=False),
        phonon_maker=phonons,
        mesh=3000.0,
    )
    outputs = run(maker.make(SI), tmp_path).values()
    (document,) = (output for output in outputs if isinstance(output, GruneisenParameterDocument))
    assert np.isfinite(document.derived_properties.average_gruneisen)


@pytest.mark.slow
def test_a_melt(tmp_path: Path) -> None:
    md = ForceFieldMDMaker(mb_velocity_seed=1, **OURS)
    maker = MPMorphMLFFMDMaker.from_temperature_and_steps(
        temperature=500, n_steps_convergence=4, n_steps_production=4, md_maker=md
    )
    *_, last = run(maker.make(SI * (2, 2, 2)), tmp_path).values()
    assert len(last.structure) == 16


def test_matcalc() -> None:
    matcalc = pytest.importorskip("matcalc", reason="MatCalc is not installed: pip install matcalc")
    potential = matris.load(dtype="float64")
    calculator = matris.MatRISCalculator(potential)
    relaxed = matcalc.RelaxCalc(calculator, fmax=1e-3).calc(SI)
    (ours,) = matris.relax([SI], potential, fmax=1e-3)
    assert relaxed["energy"] == pytest.approx(ours.energy, abs=1e-4)
    found = matcalc.EOSCalc(calculator, fmax=1e-3).calc(SI)
    fit = fit_eos(found["eos"]["volumes"], found["eos"]["energies"], len(SI), "birch_murnaghan")
    assert found["bulk_modulus_bm"] == pytest.approx(fit.b0, rel=1e-3)
    (constants,) = elastic([SI], potential, fmax=1e-4)
    found = matcalc.ElasticityCalc(calculator, fmax=1e-3).calc(SI)
    assert found["bulk_modulus_vrh"] * GPA == pytest.approx(constants.fit.moduli()["k_vrh"], rel=0.1)
