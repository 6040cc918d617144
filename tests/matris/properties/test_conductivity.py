"""Lattice thermal conductivity of Stillinger–Weber silicon, against phono3py alone."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure

import matris
from matris.properties.conductivity import ConductivitySettings, conductivity, solve
from tests.matris.silicon import COHESION, LATTICE_CONSTANT, Silicon, diamond, stillinger_weber

phono3py = pytest.importorskip("phono3py", reason="needs the extra kappa")

WATT_PER_METRE = 1.602176634e-19 * 1e24 * 1e-12 * 1e10  # W/m/K in one eV/K THz² ps / Å
SPREAD = 2e-3  # of phono3py itself on coarse meshes, between lattice constants that differ by 1e-9 Å
SETTINGS = ConductivitySettings(
    supercell=(3, 3, 3), supercell_fc3=(2, 2, 2), mesh=(8, 8, 8), temperatures=(300.0, 600.0)
)


@pytest.fixture(scope="module")
def silicon():
    """A strained cell, a crystal at a saddle point, an impossible one, and another strained cell."""
    body_centred = Structure(Lattice(1.6 * (np.ones((3, 3)) - 2 * np.eye(3))), ["Si"], [[0] * 3])
    overlapping = Structure(Lattice.cubic(5), ["Si", "Si"], [[0] * 3, [0, 0, 0.01]])
    return conductivity(
        [diamond(5.5), body_centred, overlapping, diamond(5.4)], Silicon(), settings=SETTINGS, fmax=1e-6
    )


def by_phono3py_alone(mesh):
    """The way of phono3py's manual, with forces of the potential itself."""
    cell = diamond()
    alone = phono3py.Phono3py(
        PhonopyAtoms(["Si", "Si"], cell=cell.lattice.matrix, scaled_positions=cell.frac_coords),
        supercell_matrix=[2, 2, 2],
        phonon_supercell_matrix=[3, 3, 3],
        primitive_matrix="auto",
    )
    alone.generate_displacements(distance=0.03)
    alone.forces = forces(alone.supercells_with_displacements)
    alone.phonon_forces = forces(alone.phonon_supercells_with_displacements)
    alone.produce_fc3()
    alone.symmetrize_fc3()
    alone.produce_fc2()
    alone.symmetrize_fc2()
    alone.mesh_numbers = mesh
    alone.init_phph_interaction(average_degenerate_weights=True)
    alone.run_thermal_conductivity(
        temperatures=SETTINGS.temperatures, is_isotope=True, transport_type="SMM19", boundary_mfp=1e6
    )
    return alone


def forces(cells):
    tensors = [(torch.tensor(cell.positions), torch.tensor(cell.cell)) for cell in cells]
    return np.array([stillinger_weber(*each)[1].numpy() for each in tensors])


def test_the_potential():
    (record,) = matris.relax([diamond(5.5)], Silicon(), fmax=1e-6)
    assert record.structure.volume == pytest.approx(LATTICE_CONSTANT**3 / 4, rel=1e-5)
    assert record.energy / 2 == pytest.approx(COHESION, rel=1e-6)


def test_phono3py_alone(silicon):
    alone = by_phono3py_alone([8, 8, 8])
    ours, theirs = silicon[0].conductivity, alone.thermal_conductivity
    second = ours.phono3py.fc2[alone.phonon_primitive.p2s_map]  # phono3py's own are in the compact form
    assert second == pytest.approx(alone.fc2, abs=1e-4 * np.abs(alone.fc2).max())
    assert ours.phono3py.fc3 == pytest.approx(alone.fc3, abs=1e-4 * np.abs(alone.fc3).max())
    assert ours.total == pytest.approx(theirs.kappa[0], rel=SPREAD, abs=1e-3)
    assert ours.particle == pytest.approx(theirs.kappa_intra[0], rel=SPREAD, abs=1e-3)
    assert ours.coherence[:, :3] == pytest.approx(theirs.kappa_inter[0][:, :3], rel=0.05)
    assert ours.mean[0] > 100  # W/m/K
    assert (ours.mesh, ours.coarse_mesh) == ((8, 8, 8), (6, 6, 6))
    coarse = by_phono3py_alone([6, 6, 6]).thermal_conductivity.kappa[0]
    assert ours.coarse == pytest.approx(coarse[:, :3].mean(axis=1), rel=SPREAD)


def test_failures_of_one_material_stay_its_own(silicon):
    good, unstable, overlapping, other = silicon
    assert unstable.conductivity is None
    assert re.match(r"dynamically unstable: a frequency of 1\.\d\di THz", unstable.error)
    assert overlapping.error.startswith("overlapping atoms")
    assert other.state == good.state == "converged"
    assert other.conductivity.mean == pytest.approx(good.conductivity.mean, rel=SPREAD)
    assert good.conductivity.n_displacements == (1, 57)


def test_modes_add_up(silicon):
    """The contributions of the modes are the conductivity, and follow from lifetimes and velocities."""
    result = silicon[0].conductivity
    modes = result.modes
    assert modes.weights.sum() == 8**3
    assert modes.conductivities.sum(axis=(1, 2)) == pytest.approx(result.total, rel=1e-9, abs=1e-9)
    # C v² τ / 3V, in eV/K THz² Å² ps / Å³; a wave vector stands for its star, over which the trace is the same
    volume = silicon[0].structure.volume
    squares = (modes.velocities**2).sum(axis=-1) * modes.weights[:, None]
    with np.errstate(invalid="ignore"):
        kappa = np.nansum(modes.heat_capacities * squares * modes.lifetimes, axis=(1, 2)) / (3 * volume * 8**3)
    assert kappa * WATT_PER_METRE == pytest.approx(result.particle[:, :3].mean(axis=1), rel=1e-3)


def test_isotopes_and_boundaries_lower_it(silicon):
    ph3 = silicon[0].conductivity.phono3py
    pure = solve(ph3, replace(SETTINGS, isotopes=False))
    grains = solve(ph3, replace(SETTINGS, boundary_mfp=0.1))
    normal = silicon[0].conductivity.mean
    assert (pure.mean > 1.02 * normal).all()
    assert (grains.mean < 0.9 * normal).all()
    assert (grains.modes.linewidths >= silicon[0].conductivity.modes.linewidths).all()


def test_a_coarse_mesh_is_told():
    (record,) = conductivity(
        [diamond()], Silicon(), settings=replace(SETTINGS, mesh=(3, 3, 3), temperatures=(300.0,)), max_steps=0
    )
    assert record.conductivity.mesh_change > 0.1
    assert not record.is_reliable
    assert "try a finer mesh" in record.warnings[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mesh": (8, 8, 0)}, "mesh must be"),
        ({"temperatures": (0.0, 300.0)}, "above 0 K"),
        ({"supercell_fc3": (2, 2)}, "three positive numbers"),
        ({"boundary_mfp": 0.0}, "boundary_mfp must be"),
        ({"displacement": 1.0}, "displacement must be"),
    ],
)
def test_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        ConductivitySettings(**wrong)
