"""Agreement with the published package, on its own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matris.model.graph import Geometry
from matris.units import GPA
from tests.matris.golden import golden, golden_potential, structures

CASES = ("released_small", "released_uneven", "sh_rms", "gauss_mlp_bias")
# eV/atom, eV/Å, GPa, μB
TOLERANCE = {torch.float64: (1e-8, 1e-7, 1e-5, 1e-7), torch.float32: (1e-5, 1e-4, 1e-2, 1e-4)}


@pytest.mark.parametrize("together", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_published_package(name, dtype, together):
    case, potential = golden()["cases"][name], golden_potential(name, dtype)
    geometries = [Geometry.of(s) for s in structures().values()]
    groups = [geometries] if together else [[g] for g in geometries]
    expected = list(case["expected"].values())
    parts = [potential.evaluate(potential.graph(group)) for group in groups]
    energies, forces, stresses, magmoms = (
        torch.cat(part).double().numpy() for part in list(zip(*parts, strict=True))[:4]
    )
    counts = np.array([len(g.numbers) for g in geometries])
    raw = np.array([e["e"] for e in expected])
    per_atom = raw if potential.config.is_intensive else raw / counts
    worst = (
        np.abs(energies / counts - per_atom).max(),
        np.abs(forces - np.concatenate([e["f"] for e in expected])).max(),
        np.abs(stresses * GPA - np.array([e["s"] for e in expected])).max(),
        np.abs(magmoms - np.concatenate([e["m"] for e in expected])).max(),
    )
    print(  # noqa: T201 - `pytest -s` shows the deviations
        f"{name} {dtype} {'batch' if together else 'single'}: "
        f"e {worst[0]:.1e} eV/atom, f {worst[1]:.1e} eV/Å, s {worst[2]:.1e} GPa, m {worst[3]:.1e} μB"
    )
    assert all(w <= t for w, t in zip(worst, TOLERANCE[dtype], strict=True)), worst


@pytest.mark.parametrize("name", CASES)
def test_graphs_have_the_published_counts(name):
    potential = golden_potential(name, torch.float64)
    for label, structure in structures().items():
        expected = golden()["cases"][name]["expected"][label]
        graph = potential.graph([Geometry.of(structure)])
        assert (graph.n_bonds, graph.n_angles) == (expected["n_bonds"], expected["n_angles"]), label


@pytest.mark.parametrize("name", CASES)
def test_parameter_count(name):
    case = golden()["cases"][name]
    network = golden_potential(name, torch.float32).network
    ours = sum(t.numel() for n, t in network.state_dict().items() if not n.endswith((".offset", ".factor")))
    # element energies are 94 of them, also where the case has none
    assert ours == case["n_params"] + (0 if case["config"]["reference_energy"] else 94)
