"""Pictures of property documents, made by hand: what the traces hold, not how they look."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from phonopy.qha.eos import get_eos
from pymatgen.core import Lattice, Structure
from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine
from pymatgen.phonon.dos import CompletePhononDos, PhononDos
from scipy.constants import e, k

from matris.stores.documents.properties import ElasticDocument
from matris.stores.report import property_plots as plots
from matris.stores.report.band_lines import Segment, point_label, split_at_zero, ticks_of
from matris.stores.report.young_modulus import extreme_young_moduli, unit_vectors, young_modulus
from matris.units import GPA

if TYPE_CHECKING:
    from numpy.typing import NDArray

COPPER = (168.4, 121.4, 75.4)
"""C11, C12, C44 of copper, GPa (W. C. Overton and J. Gaffney, Phys. Rev. 98, 969 (1955))."""

COMMON = {
    "candidate_id": "0" * 20,
    "state": "converged",
    "formula_pretty": "Fe2O3",
    "checkpoint": {"key": "tiny", "sha256": "ab" * 32, "energy_scale": "mp"},
    "device": "cpu",
    "dtype": "float64",
}


def cubic(c11: float, c12: float, c44: float) -> NDArray[np.float64]:
    tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    tensor[:3, :3] += c12
    return tensor


def rotated(tensor: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a tensor by its definition, index by index, without any product in Voigt notation."""
    at = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    full = tensor[at[:, :, None, None], at[None, None]]
    full = np.einsum("ai,bj,ck,dl,ijkl->abcd", turn, turn, turn, turn, full)
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    return np.array([[full[(*a, *b)] for b in pairs] for a in pairs])


def elastic_document(tensor: NDArray[np.float64]) -> dict[str, Any]:
    return {**COMMON, "elastic_tensor": {"raw": tensor.tolist(), "ieee_format": tensor.tolist()}}


def phonon_document(lowest: float = 1.0) -> dict[str, Any]:
    """Three bands on Γ–X|K–Γ–L; the first goes down to `lowest` (THz) in the middle of the first segment."""
    x = np.linspace(0, 1, 5)
    down = lowest * np.array([0.0, 0.5, 1.0, 0.5, 0.0]) if lowest < 0 else x
    flat = np.ones(5)
    segments = [
        np.stack([down, 2 * flat, 3 * flat], axis=1),
        np.stack([0.5 * flat, 2 * flat, 4 * flat], axis=1),
        np.stack([0.5 * flat, 2 * flat, 4 + x], axis=1),
    ]
    points = {r"\Gamma": [0, 0, 0], "X": [1, 0, 0], "K": [0, 1, 0], "L_1": [0, 0, 1]}
    ends = [(r"\Gamma", "X"), ("K", r"\Gamma"), (r"\Gamma", "L_1")]
    bands = PhononBandStructureSymmLine(
        np.concatenate([np.linspace(points[start], points[end], 5) for start, end in ends]),
        np.concatenate(segments).T,
        Lattice(np.eye(3)),
        labels_dict=points,
    )
    frequencies = np.linspace(min(lowest, 0.0), 5, 21)
    iron = Structure(Lattice.cubic(2.9), ["Fe"], [[0, 0, 0]])
    dos = CompletePhononDos(iron, PhononDos(frequencies, np.ones(21)), {iron[0]: np.ones(21)})
    temperatures = np.arange(0, 101, 10.0)
    return {
        **COMMON,
        "min_frequency": min(lowest, 0.0),
        "has_imaginary_modes": lowest < -0.1,
        "phonon_bandstructure": bands.as_dict(),
        "phonon_dos": dos.as_dict(),
        "temperatures": temperatures.tolist(),
        "free_energies": (5000 - temperatures).tolist(),
        "entropies": (0.1 * temperatures).tolist(),
        "heat_capacities": (0.2 * temperatures).tolist(),
        "nsites_primitive": 2,
    }


def eos_document() -> dict[str, Any]:
    volumes = np.linspace(36, 44, 7)
    parameters = {"e0": -12.3, "v0": 40.1, "b0": 90.0, "b1": 4.6}
    energies = get_eos("vinet")(volumes, [-12.3, 90 / GPA, 4.6, 40.1])
    fits = [{"equation": name, **parameters, "residual": 1e-4} for name in ("vinet", "birch_murnaghan")]
    return {**COMMON, "volumes": volumes.tolist(), "energies": energies.tolist(), "fits": fits}


def qha_document() -> dict[str, Any]:
    t = np.linspace(0, 1000, 11)
    return {
        **COMMON,
        "temperatures": t.tolist(),
        "volume_temperature": (40 + 1e-3 * t).tolist(),
        "thermal_expansion": (1e-8 * t).tolist(),
        "bulk_modulus_temperature": (100 - 0.01 * t).tolist(),
        "heat_capacity_p_numerical": (0.05 * t).tolist(),
        "average_gruneisen": 1.5,
    }


def kappa_document() -> dict[str, Any]:
    return {
        **COMMON,
        "temperatures": [200.0, 400.0],
        "kappa_mean": [60.0, 40.0],
        "kappa_coherence_mean": [0.5, 0.7],
        "kappa_mean_coarse": [58.0, 39.0],
        "mesh": [9, 9, 9],
        "mesh_change": 0.03,
        "n_displacements": 2,
        "n_displacements_third": 146,
        "modes": {
            "temperature": 300.0,
            "qpoints": [[0.0, 0, 0], [0.5, 0, 0]],
            "weights": [1, 3],
            "frequencies": [[0.0, 7.0], [3.0, 6.0]],
            "lifetimes": [[None, 2.0], [40.0, 4.0]],
            "conductivities": [[0.0, 2.0], [38.0, 10.0]],
        },
    }


def neb_document() -> dict[str, Any]:
    path = {"name": "Fe 2.5 Å", "distances": [0.0, 1.0, 2.0], "energies": [0.0, 0.7, 0.1], "forward": 0.7}
    lower = {"name": "Fe 3.5 Å", "distances": [0.0, 1.5, 3.0], "energies": [0.0, 0.4, 0.0], "forward": 0.4}
    return {**COMMON, "lowest_barrier": 0.4, "paths": [path, lower, {"name": "Fe 4 Å", "energies": []}]}


def defects_document() -> dict[str, Any]:
    both = {"kind": "vacancy", "multiplicity": 1, "displacement": 0.2, "state": "converged", "error": None}
    iron = {**both, "name": "v_Fe", "formation_energies": [4.0, 2.0]}
    oxygen = {**both, "name": "v_O", "formation_energies": [1.0, 3.5]}
    failed = {**both, "name": "Fe_i", "formation_energies": [], "displacement": None, "state": "failed", "error": "…"}
    return {
        **COMMON,
        "lowest_formation_energy": 1.0,
        "lowest_defect": "v_O",
        "image_distance": 10.1,
        "references": "elements",
        "limits": [{"phases": ["Fe"], "potentials": {}}, {"phases": ["O2"], "potentials": {}}],
        "defects": [iron, oxygen, failed],
    }


def surfaces_document() -> dict[str, Any]:
    """A cube of (1 0 0) faces."""
    common = {"thickness": 11.0, "nsites": 6, "displacement": 0.1, "state": "converged"}
    square = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    faces = [np.insert(square, axis, side, axis=1) for axis in range(3) for side in (1, -1)]
    return {
        **COMMON,
        "surfaces": [
            {**common, "name": "(1 1 0)", "surface_energy": 1.8, "area_fraction": 0.0},
            {**common, "name": "(1 0 0)", "surface_energy": 1.0, "area_fraction": 1.0},
            {**common, "name": "(1 1 1)", "surface_energy": None, "area_fraction": None, "state": "failed"},
        ],
        "skipped": [],
        "lowest_surface_energy": 1.0,
        "lowest_surface": "(1 0 0)",
        "weighted_surface_energy": 1.0,
        "surface_anisotropy": 0.0,
        "wulff_faces": [{"miller_index": [1, 0, 0], "corners": face.tolist()} for face in faces],
    }


def dynamics_document(*, barostat: bool = True, pressures: bool = True) -> dict[str, Any]:
    time = np.arange(0, 100, 10.0)
    return {
        **COMMON,
        "state": "completed",
        "n_steps": 90,
        "mean_temperature": 301.0,
        "mean_potential_energy": -5.0,
        "mean_volume": 64.0,
        "mean_pressure": 0.1 if pressures else None,
        "energy_drift": None,
        "trajectory": None,
        "series": {
            "time": time.tolist(),
            "temperature": (300 + time).tolist(),
            "potential_energy": (-5 + 1e-3 * time).tolist(),
            "total_energy": (-4.9 + 1e-3 * time).tolist(),
            "volume": (64 + (0.01 * time if barostat else 0 * time)).tolist(),
            "pressure": (0.1 * time).tolist() if pressures else None,
        },
        "radial_distribution": {
            "distances": [1.0, 2.0, 3.0],
            "pairs": {"Fe-Fe": [0, 0, 3.0], "Fe-O": [0, 4.0, 1.0], "O-O": [0, 0.5, 2.0]},
        },
        "mean_square_displacement": {
            "times": [0.0, 10.0, 20.0],
            "elements": {"Fe": [0, 0.01, 0.02], "O": [0, 0.02, 0.03]},
            "errors": {"Fe": [0, 0.001, 0.002], "O": [0, 0.002, 0.003]},
        },
        "vibrational_dos": {
            "frequencies": [0.0, 1.0, 2.0, 3.0, 4.0],
            "elements": {"Fe": [0.1, 1.5, 0.2, 0.0, 0.0], "O": [0.0, 0.5, 1.5, 0.001, 0.0]},
            "resolution": 1.0,
        },
        "diffusion": {
            "Fe": {"coefficient": None, "problem": "2e-06 ± 2e-06 cm²/s in 0.1 ps does not differ from 0"},
            "O": {"coefficient": 1.67e-5, "error": 2e-6, "window": [10.0, 20.0], "n_hops": 40.0, "problem": None},
        },
    }


def diffusion_document() -> dict[str, Any]:
    """The activation energy of oxygen is 1 eV; iron does not diffuse."""

    def run(kelvin: float) -> dict[str, Any]:
        value = 1e-5 * np.exp(-(1000 / kelvin - 1) / (1000 * k / e))
        return {
            "temperature": kelvin,
            "state": "completed",
            "diffusion": {
                "Fe": {"coefficient": None, "problem": "does not differ from 0"},
                "O": {"coefficient": value, "error": value / 10, "window": [10.0, 20.0], "problem": None},
            },
            "conductivity": 100 * value,
        }

    room = 1e-5 * np.exp(-(1000 / 300 - 1) / (1000 * k / e))
    line = {"activation_energy": 1.0, "error": 0.05, "room": {"value": room, "low": room / 2, "high": 2 * room}}
    return {
        **COMMON,
        "state": "completed",
        "runs": [run(800.0), run(1000.0)],
        "arrhenius": {"Fe": {"activation_energy": None, "room": None}, "O": line},
        "charges": {"Fe": 3.0, "O": -2.0},
        "conductivity": {"value": 1e-3, "low": 5e-4, "high": 2e-3},
        "displacements": [None, dynamics_document()["mean_square_displacement"]],
    }


DOCUMENTS = {
    plots.plot_elastic: elastic_document(cubic(*COPPER)),
    plots.plot_phonons: phonon_document(),
    plots.plot_thermal: phonon_document(),
    plots.plot_eos: eos_document(),
    plots.plot_qha: qha_document(),
    plots.plot_kappa: kappa_document(),
    plots.plot_barriers: neb_document(),
    plots.plot_defects: defects_document(),
    plots.plot_surfaces: surfaces_document(),
    plots.plot_wulff: surfaces_document(),
    plots.plot_dynamics: dynamics_document(),
    plots.plot_correlations: dynamics_document(),
    plots.plot_vibrations: dynamics_document(),
    plots.plot_arrhenius: diffusion_document(),
    plots.plot_displacements: diffusion_document(),
}


def test_isotropic_modulus_is_the_same_everywhere() -> None:
    """E = 9KG/(3K + G)."""
    bulk, shear = 120.0, 55.0
    tensor = cubic(bulk + 4 * shear / 3, bulk - 2 * shear / 3, shear)
    expected = 9 * bulk * shear / (3 * bulk + shear)
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert young_modulus(tensor, directions) == pytest.approx(np.full(50, expected), rel=1e-12)
    assert extreme_young_moduli(tensor) == pytest.approx((expected, expected), rel=1e-9)
    figure = plots.plot_elastic(elastic_document(tensor))
    assert f"from {expected:.1f} to {expected:.1f} GPa" in figure.layout.title.text


def cubic_modulus(direction: tuple[float, ...]) -> float:
    """1/E = s11 − 2 (s11 − s12 − s44/2)(n₁²n₂² + n₂²n₃² + n₃²n₁²), Nye, chapter VIII."""
    c11, c12, c44 = COPPER
    s11 = (c11 + c12) / ((c11 - c12) * (c11 + 2 * c12))
    s12 = -c12 / ((c11 - c12) * (c11 + 2 * c12))
    a, b, c = np.square(direction) / np.sum(np.square(direction))
    return 1 / (s11 - 2 * (s11 - s12 - 1 / (2 * c44)) * (a * b + b * c + c * a))


@pytest.mark.parametrize("turned", [False, True])
def test_copper_is_stiffest_along_the_diagonal(turned: bool) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] if turned else np.eye(3)
    tensor = rotated(cubic(*COPPER), turn)
    for direction in ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0)):
        along = turn @ np.array(direction) / np.linalg.norm(direction)
        assert float(young_modulus(tensor, along)) == pytest.approx(cubic_modulus(direction), rel=1e-9)
    expected = cubic_modulus((1, 0, 0)), cubic_modulus((1, 1, 1))
    assert expected[1] > 2 * expected[0]
    assert extreme_young_moduli(tensor) == pytest.approx(expected, rel=1e-6)
    figure = plots.plot_elastic(elastic_document(tensor))
    assert f"from {expected[0]:.1f} to {expected[1]:.1f} GPa" in figure.layout.title.text
    (surface,) = figure.data
    radius = np.sqrt(surface.x**2 + surface.y**2 + surface.z**2)
    assert radius == pytest.approx(surface.surfacecolor, rel=1e-5)
    assert radius.min() >= expected[0] * (1 - 1e-6)
    assert expected[1] * 0.99 < radius.max() <= expected[1] * (1 + 1e-6)


def test_unit_vectors() -> None:
    assert unit_vectors(np.array(np.pi / 2), np.array(0.0)) == pytest.approx([1, 0, 0])
    assert unit_vectors(np.array(0.0), np.array(1.0)) == pytest.approx([0, 0, 1])


def test_unstable_tensor_has_no_surface() -> None:
    with pytest.raises(ValueError, match="Fe2O3: the elastic tensor is not positive definite"):
        plots.plot_elastic(elastic_document(cubic(100, 120, 50)))


def test_bands() -> None:
    document = phonon_document()
    figure = plots.plot_phonons(document)
    bands = [trace for trace in figure.data if (trace.name or "").startswith("band")]
    assert [trace.name for trace in bands] == ["band 1", "band 2", "band 3"]
    for trace, branch in zip(bands, document["phonon_bandstructure"]["bands"], strict=True):
        there = np.isfinite(trace.y)
        assert trace.y[there] == pytest.approx(branch)
        assert np.flatnonzero(~there).tolist() == [5]  # broken at X|K, joined at Γ
        assert trace.x[0] == 0
        assert trace.x[-1] == 3
    axis = figure.layout.xaxis
    assert axis.ticktext == ("Γ", "X|K", "Γ", "L<sub>1</sub>")
    assert axis.tickvals == (0, 1, 2, 3)
    (dos,) = [trace for trace in figure.data if trace.xaxis == "x2"]
    assert dos.y == pytest.approx(document["phonon_dos"]["frequencies"])
    assert figure.layout.yaxis2.matches == "y"


def test_bands_break_where_frequencies_jump() -> None:
    """As the non-analytic correction makes them do at Γ."""
    document = phonon_document()
    bands = document["phonon_bandstructure"]
    bands["bands"][2][10:] = [frequency + 1 for frequency in bands["bands"][2][10:]]
    first = plots.plot_phonons(document).data[0]
    assert np.flatnonzero(~np.isfinite(first.y)).tolist() == [5, 11]


def test_imaginary_modes_stand_out() -> None:
    figure = plots.plot_phonons(phonon_document(lowest=-2.0))
    (red,) = [trace for trace in figure.data if trace.name == "band 1, imaginary"]
    teal = figure.data[0]
    assert red.line.color != teal.line.color
    assert red.y[np.isfinite(red.y)].tolist() == [0, -1, -2, -1, 0]
    assert teal.y[np.isfinite(teal.y)].min() >= 0
    assert len([trace for trace in figure.data if trace.xaxis == "x2"]) == 2  # the density of states too
    rounding = plots.plot_phonons(phonon_document(lowest=-1e-3))
    assert not any("imaginary" in (trace.name or "") for trace in rounding.data)


def test_lines_are_split_where_they_cross() -> None:
    x = np.arange(7.0)
    (_, above), below = split_at_zero(x, np.array([1.0, -1.0, -3.0, 1.0, 2.0, -2.0, np.nan]))
    assert below is not None
    assert below[0][np.isfinite(below[1])] == pytest.approx([0.5, 1, 2, 2.75, 4.5, 5])
    assert below[1][np.isfinite(below[1])] == pytest.approx([0, -1, -3, 0, 0, -2])
    assert above[np.isfinite(above)].tolist() == [1, 0, 0, 1, 2, 0]
    assert split_at_zero(x, x)[1] is None


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        ("$\\Gamma$", "Γ"),
        ("GAMMA", "Γ"),
        ("$\\mathrm{X}$", "X"),
        ("$\\mathrm{C_0}$", "C<sub>0</sub>"),
        ("$\\Sigma_0$", "Σ<sub>0</sub>"),
        ("SIGMA_0", "Σ<sub>0</sub>"),
        ("K", "K"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_labels(label: str, plain: str) -> None:
    assert point_label(label) == plain


def test_labels_of_a_path_without_breaks() -> None:
    none = np.zeros((2, 1))
    segments = [Segment("GAMMA", "X", np.array([0, 1]), none), Segment("X", "M", np.array([1, 3]), none)]
    assert ticks_of(segments) == [(0, "Γ"), (1, "X"), (3, "M")]


def test_thermal() -> None:
    document = phonon_document()
    energy, entropy, capacity = plots.plot_thermal(document).data
    assert energy.y == pytest.approx(np.array(document["free_energies"]) / 1e3)
    assert entropy.y == pytest.approx(document["entropies"])
    assert capacity.y == pytest.approx(document["heat_capacities"])
    (limit,) = [shape for shape in plots.plot_thermal(document).layout.shapes if shape.type == "line"]
    assert limit.y0 == pytest.approx(3 * 8.314462618)


def test_eos_curves_pass_the_points() -> None:
    document = eos_document()
    figure = plots.plot_eos(document)
    curves = [trace for trace in figure.data if trace.mode == "lines"]
    assert [curve.name.split(":")[0] for curve in curves] == ["Vinet", "Birch–Murnaghan"]
    volumes, energies = document["volumes"], document["energies"]
    assert np.interp(volumes, curves[0].x, curves[0].y) == pytest.approx(energies, abs=1e-4)
    assert curves[0].x[0] < min(volumes)
    assert curves[0].x[-1] > max(volumes)
    (points,) = [trace for trace in figure.data if trace.mode == "markers"]
    assert points.y == pytest.approx(energies)
    exact, other = (trace for trace in figure.data if trace.mode == "lines+markers")
    assert np.abs(exact.y).max() < 1e-6
    assert 1e-3 < np.abs(other.y).max() < 100  # meV


def test_qha() -> None:
    document = qha_document()
    volume, expansion, bulk, capacity = plots.plot_qha(document).data
    assert volume.y == pytest.approx(document["volume_temperature"])
    assert expansion.y == pytest.approx(1e6 * np.array(document["thermal_expansion"]))
    assert bulk.y == pytest.approx(document["bulk_modulus_temperature"])
    assert capacity.y == pytest.approx(document["heat_capacity_p_numerical"])
    assert len({trace.yaxis for trace in (volume, expansion, bulk, capacity)}) == 4


def test_kappa() -> None:
    document = kappa_document()
    total, coherence, coarse, below, lifetimes = plots.plot_kappa(document).data
    assert (total.y, coherence.y, coarse.y) == tuple(
        pytest.approx(document[name]) for name in ("kappa_mean", "kappa_coherence_mean", "kappa_mean_coarse")
    )
    assert below.x == pytest.approx([0, 3, 6, 7])
    assert below.y == pytest.approx([0, 38, 48, 50])
    assert lifetimes.y == pytest.approx([np.nan, 2, 40, 4], nan_ok=True)


def test_barriers() -> None:
    first, second = plots.plot_barriers(neb_document()).data
    assert (first.name, second.name) == ("Fe 2.5 Å", "Fe 3.5 Å")
    assert first.x == pytest.approx([0, 1, 2])
    assert second.y == pytest.approx([0, 0.4, 0])


def test_defects_are_lines_from_limit_to_limit() -> None:
    figure = plots.plot_defects(defects_document())
    assert [trace.name for trace in figure.data] == ["v_Fe", "v_O"]
    assert [list(trace.y) for trace in figure.data] == [[4.0, 2.0], [1.0, 3.5]]
    assert list(figure.data[0].x) == ["Fe", "O2"]


def test_surfaces_are_bars_in_order() -> None:
    (bars,) = plots.plot_surfaces(surfaces_document()).data
    assert list(bars.x) == ["(1 0 0)", "(1 1 0)"]
    assert bars.marker.color[0] != bars.marker.color[1]


def test_triangles_of_an_equilibrium_shape_are_its_faces() -> None:
    faces, edges = plots.plot_wulff(surfaces_document()).data
    corners = np.array([faces.x, faces.y, faces.z]).T
    sides = [corners[list(getattr(faces, index))] for index in "ijk"]
    areas = np.linalg.norm(np.cross(sides[1] - sides[0], sides[2] - sides[0]), axis=1) / 2
    assert len(areas) == 12
    assert areas.sum() == pytest.approx(6 * 4)
    assert len(edges.x) == 6 * 6  # four corners, the first again, and a gap


def test_dynamics_draws_what_there_is() -> None:
    full = plots.plot_dynamics(dynamics_document())
    assert [trace.name for trace in full.data] == [
        "temperature",
        "potential energy",
        "total energy",
        "volume",
        "pressure",
    ]
    assert full.data[0].x[-1] == pytest.approx(0.09)  # ps
    held = plots.plot_dynamics(dynamics_document(barostat=False, pressures=False))
    assert [trace.name for trace in held.data] == ["temperature", "potential energy", "total energy"]


def test_correlations_of_a_short_run_have_no_displacements() -> None:
    whole = plots.plot_correlations(dynamics_document())
    assert [trace.name for trace in whole.data] == ["Fe–Fe", "Fe–O", "O–O", "Fe", "O", "O: 6 D t"]
    assert whole.data[3].x.tolist() == [0, 0.01, 0.02]  # ps
    assert whole.data[4].error_y.array == pytest.approx([0, 0.002, 0.003])
    assert whole.data[5].y == pytest.approx([0.02, 0.03], abs=1e-4)  # 1.67e-5 cm²/s is 1 Å²/ps
    short = plots.plot_correlations({**dynamics_document(), "mean_square_displacement": None})
    assert [trace.name for trace in short.data] == ["Fe–Fe", "Fe–O", "O–O"]


def test_vibrations_end_where_there_are_none() -> None:
    iron, oxygen = plots.plot_vibrations(dynamics_document()).data
    assert iron.x == pytest.approx([0, 1, 2, 3])
    assert oxygen.y == pytest.approx([0, 0.5, 1.5, 0.001])
    with pytest.raises(ValueError, match="no vibrational density of states: too far"):
        plots.plot_vibrations({**dynamics_document(), "vibrational_dos": {"problem": "too far apart"}})


def test_diffusion() -> None:
    points, line, room = plots.plot_arrhenius(diffusion_document()).data
    assert [points.name, line.name, room.name] == ["O", "O: 1.000 eV", "O at 300 K"]
    assert points.x == pytest.approx([1.25, 1])
    assert line.y[0] == pytest.approx(1e-5)  # at 1000 K
    assert line.y[1] == pytest.approx(room.y[0])
    assert room.error_y.array == pytest.approx(room.y)
    assert room.error_y.arrayminus == pytest.approx(room.y / 2)
    moved = plots.plot_displacements(diffusion_document()).data
    assert [trace.name for trace in moved] == ["Fe 1000 K", "O 1000 K", "O 1000 K: 6 D t"]
    with pytest.raises(ValueError, match="too few frames"):
        plots.plot_displacements({**diffusion_document(), "displacements": [None, None]})


@pytest.mark.parametrize("plot", DOCUMENTS)
def test_failed_material_has_no_picture(plot: Any) -> None:
    assert plot(DOCUMENTS[plot]).layout.title.text.startswith("Fe<sub>2</sub>O<sub>3</sub>")
    failed = {**COMMON, "state": "failed", "error": "unsupported element U"}
    with pytest.raises(ValueError, match=r"Fe2O3 has no \w+: unsupported element U"):
        plot(failed)


def test_model_and_mapping_give_the_same_picture() -> None:
    document = elastic_document(cubic(*COPPER))
    assert plots.plot_elastic(ElasticDocument(**document)) == plots.plot_elastic(document)
    with pytest.raises(ValueError, match="has no elastic_tensor"):
        plots.plot_elastic(ElasticDocument(**COMMON))


def test_arrays_that_were_not_loaded() -> None:
    document = {**phonon_document(), "phonon_dos": {"@class": "x", "blob_uuid": "0", "store": "data"}}
    with pytest.raises(ValueError, match="load=True"):
        plots.plot_phonons(document)


def test_pictures_need_no_engine() -> None:
    code = (
        "import sys; from matris.stores.report import property_page; "
        "print([m for m in sys.modules if m == 'torch' or m.startswith(('matris.makers', 'matris.flows', 'plotly'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
