"""Smooth networks: energy, force and stress are continuous at every cutoff, and have no kink at 0° and 180°."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch.func import functional_call

import matris
from matris.errors import CheckpointError
from matris.model import kernels
from matris.model.basis import ChebyshevBasis, envelope, positive_envelope
from matris.model.checkpoints import Card, save
from matris.model.chunked import Chunks, IndexedTable
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, build_graph
from matris.model.network import Attention, MatRIS, evaluate
from matris.model.potential import Potential
from matris.testing import PotentialTests
from tests.matris.golden import structures

PAIR, ANGLES, BOX = 6.0, 4.5, 32.0  # Å; a box whose fractions of these lengths are exact
PUBLISHED = ModelConfig(
    num_layers=2, node_feat_dim=32, edge_feat_dim=32, three_body_feat_dim=16, mlp_hidden_dims=(16,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=PAIR, three_body_cutoff=ANGLES,
    use_smoothed_for_delta_edge=True,
)  # fmt: skip
SMOOTH = replace(PUBLISHED, three_body_expansion="chebyshev", smooth=True)
KINDS = {
    "chebyshev": SMOOTH,
    "harmonics": replace(SMOOTH, three_body_expansion="sh", norm_type="rms"),
    "no gate": replace(SMOOTH, graph_conv_mlp="mlp", use_smoothed_for_delta_edge=False, use_bias=True),
}


def network_of(config: ModelConfig, dtype: torch.dtype = torch.float64) -> MatRIS:
    """A network with drawn weights whose attention matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MatRIS(config, magmoms=False)
        with torch.no_grad():
            for block in network.blocks:
                for attention in (block.line_attention, block.atom_attention):
                    attention.logits.mul_(3)
    return network.requires_grad_(False).eval().to(dtype)


def graph_of(network, *crystals):
    batch = Batch.of([Geometry.of(crystal) for crystal in crystals])
    dtype = network.reference_energies.dtype
    return build_graph(batch, network.config.pairwise_cutoff, network.config.three_body_cutoff, dtype=dtype)


def results_of(network, crystals, chunks=None):
    """Energies (S,), forces (S, N, 3) and virials (S, 3, 3) of crystals with the same number of atoms."""
    result = evaluate(network, graph_of(network, *crystals), chunks=chunks)
    volumes = torch.tensor([crystal.volume for crystal in crystals], dtype=torch.float64)
    forces = result.forces.view(len(crystals), -1, 3)
    return result.energies.numpy(), forces.numpy(), (result.stresses * volumes[:, None, None]).numpy()


def molecule(*places):
    species = ["Na", "Cl", "O", "Mg", "Fe"][: len(places)]
    return Structure(Lattice.cubic(BOX), species, places, coords_are_cartesian=True)


def rock_salt(lattice):
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(lattice), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


# The second atom crosses: name, cutoff, structure as a function of the distance.
CROSSINGS = {
    "bond beside others": (PAIR, lambda d: molecule([0, 0, 0], [d, 0, 0], [2.4, 0.3, 0.1], [3.5, 2.0, 1.0])),
    "last bond of two atoms": (PAIR, lambda d: molecule([0, 0, 0], [d, 0, 0])),
    "last bond of one atom": (PAIR, lambda d: molecule([0, 0, 0], [d, 0, 0], [-1.0, 2.2, 0.4], [0.4, -2.0, 0.0])),
    "angles beside others": (ANGLES, lambda d: molecule([0, 0, 0], [d, 0, 0], [2.4, 0.3, 0.1], [3.5, 2.0, 1.0])),
    "last angle of a bond": (ANGLES, lambda d: molecule([0, 0, 0], [d, 0, 0], [0, 2.4, 0], [-4.0, 3.0, 0.5])),
    "last angle": (ANGLES, lambda d: molecule([0, 0, 0], [d, 0, 0], [0, 2.4, 0])),
    "shell, pair": (PAIR, rock_salt),
    "shell, angles": (ANGLES, rock_salt),
}


def jumps(config, crossing):
    """Jumps of energy, forces and virial at a cutoff, to which they are extrapolated from both sides."""
    cutoff, place = CROSSINGS[crossing]
    steps = [i * 1e-9 for i in (-10, -1, 0, 1, 10)]
    for values in results_of(network_of(config), [place(cutoff + step) for step in steps]):
        far_before, before, at, after, far_after = values
        yield np.abs(before + (before - far_before) / 9 - at).max()
        yield np.abs(after + (after - far_after) / 9 - at).max()


@pytest.mark.parametrize("crossing", CROSSINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_jumps_at_a_cutoff(kind, crossing):
    assert max(jumps(KINDS[kind], crossing)) < 2e-12


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_the_published_attention_jumps(crossing):
    """So the test above can fail."""
    assert max(jumps(PUBLISHED, crossing)) > 1e-5


@pytest.mark.parametrize(
    ("crossing", "removed"), [("angles beside others", "angles"), ("last bond of two atoms", "bonds")]
)
def test_crossings_change_the_graph(crossing, removed):
    """A bond at the cutoff of the angles has one-sided angles, as a target but not as a source."""
    cutoff, place = CROSSINGS[crossing]
    inside, at, outside = (graph_of(network_of(SMOOTH), place(cutoff + i * 1e-9)) for i in (-1, 0, 1))
    assert float(torch.linalg.vector_norm(at.vectors, dim=1).sub(cutoff).abs().min()) == 0
    if removed == "bonds":
        assert (inside.n_bonds, at.n_bonds, outside.n_bonds) == (1, 1, 0)
    else:
        assert inside.n_angles > at.n_angles > outside.n_angles > 0


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_slopes_across_a_cutoff(crossing):
    """Forces and stress at a cutoff are the slopes between both sides of it."""
    cutoff, place = CROSSINGS[crossing]
    network, step = network_of(SMOOTH), 1e-5
    crystals = [place(cutoff + i * step) for i in (-1, 0, 1)]
    energies, forces, virials = results_of(network, crystals)
    slope = (energies[2] - energies[0]) / (2 * step)
    expected = np.trace(virials[1]) / cutoff if "shell" in crossing else -forces[1, 1, 0]
    assert abs(expected) > 1e-4 or crossing == "last bond of two atoms"  # where the slope is zero
    assert slope == pytest.approx(expected, abs=1e-7 * len(crystals[0]))


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_force_constants_are_continuous(crossing):
    """Second derivatives on both sides of a cutoff approach each other with the step; third ones need not."""
    cutoff, place = CROSSINGS[crossing]
    network, gaps = network_of(SMOOTH), []
    for step in (1e-2, 1e-3):
        _, forces, virials = results_of(network, [place(cutoff + i * step) for i in (-1, 0, 1)])
        slopes = np.trace(virials, axis1=1, axis2=2) / cutoff if "shell" in crossing else -forces[:, 1, 0]
        before, after = np.diff(slopes) / step
        gaps.append(abs(after - before))
    assert gaps[1] < 0.2 * gaps[0]


@pytest.mark.parametrize(("exponent", "order"), product((1, 2, 6, 8), (0, 1, 2, 3)))
def test_the_envelope_has_two_continuous_derivatives(exponent, order):
    """For any exponent, which only sets how flat the envelope is at zero length."""
    x = torch.tensor(1 - 1e-9, dtype=torch.float64, requires_grad=True)
    y = positive_envelope(x, exponent)
    for _ in range(order):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
    assert (abs(float(y.detach())) < 1e-5) == (order < 3)


def test_the_positive_envelope_is_the_published_one():
    x = torch.linspace(0.01, 1.2, 997, dtype=torch.float64)
    for exponent in (1, 5, 8):
        assert torch.allclose(positive_envelope(x, exponent), envelope(x, exponent), rtol=0, atol=1e-12)
    single = torch.linspace(0.9, 1.0, 10001)
    assert envelope(single, 8).min() < 0  # what weights must not be
    exact = positive_envelope(single.double(), 8)
    assert positive_envelope(single, 8).min() == 0
    assert torch.allclose(positive_envelope(single, 8).double(), exact, rtol=1e-6, atol=0)


def test_chebyshev_polynomials_are_cosines_of_multiples():
    theta = torch.linspace(0, torch.pi, 100001, dtype=torch.float64)
    values = ChebyshevBasis(7)(torch.cos(theta))
    assert torch.allclose(values[:, 1:], (2 / torch.pi) ** 0.5 * torch.cos(theta[:, None] * torch.arange(1, 7)))
    overlaps = torch.trapezoid(values[:, :, None] * values[:, None], theta, dim=0)
    assert torch.allclose(overlaps, torch.eye(7, dtype=torch.float64), atol=1e-9)


# An atom moves by t across the line of two others; both angles of 0° and of 180° occur.
LINES = {
    "180 degrees": lambda t: molecule([0, 0, 0], [2.4, t, 0], [4.8, 0, 0], [1.0, 3.0, 2.0]),
    "0 degrees": lambda t: molecule([0, 0, 0], [4.2, t, 0], [2.1, 0, 0], [1.0, 3.0, 2.0]),
}


def curvatures(config, line, step):
    """Second differences of the energy about −step, 0 and step."""
    energies, *_ = results_of(network_of(config), [LINES[line](i * step) for i in range(-2, 3)])
    return np.diff(energies, 2) / step**2


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_kink_where_three_atoms_are_on_a_line(kind, line):
    coarse, fine = (curvatures(KINDS[kind], line, step) for step in (1e-2, 1e-3))
    assert abs(coarse[1]) > 1e-3
    assert np.ptp(fine) < 0.2 * np.ptp(coarse) + 1e-6
    assert fine[1] == pytest.approx(coarse[1], rel=1e-2)


@pytest.mark.parametrize("line", LINES)
def test_the_published_basis_has_a_kink(line):
    at_line, beside = curvatures(PUBLISHED, line, 1e-2)[[1, 2]]
    assert abs(at_line - beside) > 0.1 * abs(beside)


def optical(config):
    """Changes of the force constants of an atom in rock salt between steps of 1e-4 and 1e-3, and of 1e-4 and 1e-2 Å."""
    crystal, slopes = rock_salt(4.25), []
    for step in (1e-4, 1e-3, 1e-2):
        moved = [crystal.copy().translate_sites([0], [i * step, 0, 0], frac_coords=False) for i in (-1, 1)]
        _, forces, _ = results_of(network_of(config), moved)
        slopes.append((forces[1] - forces[0]) / (2 * step))
    return [np.abs(slope - slopes[0]).max() / np.abs(slopes[0]).max() for slope in slopes[1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_force_constants_do_not_depend_on_the_displacement(kind):
    fine, coarse = optical(KINDS[kind])
    assert coarse < 1e-2
    assert fine < 0.02 * coarse  # what remains is anharmonic, of second order in the step


def test_published_force_constants_do():
    assert max(optical(PUBLISHED)) > 0.1


ISOLATED = Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]])
CASES = {
    "mixed": [structures()[n] for n in ("Si8", "Cu1_fcc", "CuInSe2_triclinic", "no_angles")]
    + [ISOLATED, *(place(cutoff) for cutoff, place in CROSSINGS.values())],
    "no angles": [structures()["no_angles"]],
    "one atom": [ISOLATED],
    "one angle, at the cutoff": [CROSSINGS["last angle"][1](ANGLES)],
}
in_c = pytest.mark.skipif(kernels.library() is None, reason="no C compiler")


@in_c
@pytest.mark.parametrize("chunks", [Chunks(7, 0, True), Chunks(50, 0.6, True), Chunks(10**6, 1, True)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_c_gives_the_numbers_of_torch(case, chunks):
    exact, network = network_of(SMOOTH), network_of(SMOOTH, torch.float32)
    expected = evaluate(exact, graph_of(exact, *CASES[case]))
    plain, ours = (evaluate(network, graph_of(network, *CASES[case]), chunks=c) for c in (Chunks(64), chunks))
    for right, torchs, c, floor in zip(expected[:3], plain, ours, (2e-6, 2e-6, 1e-7), strict=False):
        assert (c.double() - right).abs().max() <= 2 * (torchs.double() - right).abs().max() + floor


@pytest.mark.parametrize("chunks", [Chunks(7, 0), Chunks(64), Chunks(50, 0.6)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_chunks_change_nothing(case, chunks):
    network = network_of(SMOOTH)
    graph = graph_of(network, *CASES[case])
    for whole, pieces in zip(evaluate(network, graph)[:3], evaluate(network, graph, chunks=chunks), strict=False):
        assert torch.allclose(whole, pieces, rtol=1e-10, atol=1e-10)


def attention_of(dtype, scale=1.0):
    """An attention, its inputs, and envelopes of which some are zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = Attention(32, 16, SMOOTH, copies=2).requires_grad_(False)
        edge, table = torch.randn(41, 16), torch.randn(9, 2 * layer.edge_mlp.hidden)
        ends, u = torch.randint(8, (2, 41)), torch.rand(41)  # node 8 has no edges
        layer.logits.mul_(scale)
    u[::5] = 0
    tables = [IndexedTable(table.to(dtype), index) for index in (ends, ends.flip(0))]
    return layer.to(dtype), edge.to(dtype), tables, u.to(dtype)


def averages(layer, edge, tables, u, chunks):
    """Means of messages by target and by source, and the gradients of a function of all results."""
    edge, u = edge.clone().requires_grad_(), u.clone().requires_grad_()
    if chunks is not None and chunks.kernels:
        weights = (layer.edge_mlp, layer.logits, layer.edge_residual)
        new, *sums = kernels.attention(*weights, edge, *tables, chunks, u)
    else:
        new, *sums = layer.messages(edge, *tables, u, chunks)
    means = [x / y.clamp(min=torch.finfo(y.dtype).tiny) for x, y in (sums[:2], sums[2:])]
    total = sum((x.cos() * (1 + i)).sum() for i, x in enumerate((new, *means)))
    return [x.detach() for x in (new, *means, *torch.autograd.grad(total, (edge, u)))]


PATHS = [None, Chunks(7, 0), pytest.param(Chunks(7, 0.5, True), marks=in_c)]


@pytest.mark.parametrize("chunks", PATHS, ids=str)
@pytest.mark.parametrize("scale", [1, 3, 30])
def test_weights_are_those_of_the_definition(scale, chunks):
    layer, edge, tables, u = attention_of(torch.float64, scale)
    message = layer.edge_mlp.finish(
        layer.edge_mlp.project(0, edge).repeat(2, 1) + sum(t.table[t.index.flatten()] for t in tables)
    )
    dtype = torch.float32 if chunks and chunks.kernels else torch.float64
    results = averages(*attention_of(dtype, scale), chunks)
    for table, logits, mean in zip(tables, (edge @ layer.logits.T).chunk(2, 1), results[1:3], strict=True):
        for node in range(9):
            here = (table.index == node).flatten().nonzero().flatten()
            weights = u.repeat(2)[here, None] * torch.exp(logits.repeat(2, 1)[here])
            expected = (weights * message[here]).sum(0) / (1 + weights.sum(0))
            assert torch.allclose(mean[node].double(), expected, atol=3e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("chunks", PATHS, ids=str)
def test_an_edge_of_no_weight_has_no_influence_though_its_logit_is_large(chunks):
    layer, edge, tables, u = attention_of(torch.float32)
    some, few = u > 0, [IndexedTable(t.table, t.index[:, u > 0]) for t in tables]
    edge[~some] *= 120 / (edge[~some] @ layer.logits.T).max()  # e^120 overflows
    results, expected = averages(layer, edge, tables, u, chunks), averages(layer, edge[some], few, u[some], chunks)
    for mean, right in zip(results[1:3], expected[1:3], strict=True):
        assert torch.allclose(mean, right, atol=1e-6)
    assert all(torch.isfinite(x).all() for x in results)


@pytest.mark.parametrize("chunks", PATHS, ids=str)
def test_logits_far_apart_stay_finite(chunks):
    assert all(torch.isfinite(x).all() for x in averages(*attention_of(torch.float32, 1e4), chunks))


@in_c
def test_gradients_in_c_are_those_of_torch():
    exact = averages(*attention_of(torch.float64, 3), None)
    for right, ours in zip(exact, averages(*attention_of(torch.float32, 3), Chunks(7, 0.5, True)), strict=True):
        read = attention_of(torch.float64)[-1] > 0 if right.ndim == 1 else slice(None)  # at u = 0, u has no slope
        assert torch.allclose(ours.double()[read], right[read], rtol=1e-4, atol=1e-5 * float(right.abs().max()))


@in_c
def test_threads_and_chunks_do_not_change_a_bit():
    results, threads = [], torch.get_num_threads()
    try:
        for n, rows in product((1, 2, 3), (7, 100)):
            torch.set_num_threads(n)
            results.append(averages(*attention_of(torch.float32, 3), Chunks(rows, 0.5, True)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", ["line_attention", "atom_attention"])
def test_gradients_of_weights_and_of_their_forces(name):
    """As in training: forces are first derivatives, so their gradients are second ones."""
    config = replace(SMOOTH, node_feat_dim=4, edge_feat_dim=3, three_body_feat_dim=2, mlp_hidden_dims=(3,))
    network = network_of(config)
    graph = graph_of(network, molecule([0, 0, 0], [ANGLES, 0, 0], [2.4, 0.3, 0.1], [-3.3, 2.0, 1.0]), ISOLATED)
    prefix = f"blocks.0.{name}."
    names = [f"{prefix}{rest}" for rest in ("logits", "edge_mlp.weight_in", "edge_mlp.norm.weight")]
    weights = [dict(network.named_parameters())[n].detach().clone().requires_grad_() for n in names]

    class Evaluated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return evaluate(self.network, graph, differentiable=True)[:3]

    def results(*values):
        state = {f"network.{n}": value for n, value in zip(names, values, strict=True)}
        energies, forces, stresses = functional_call(Evaluated(), state, ())
        return energies, forces, 1e4 * stresses

    assert torch.autograd.gradcheck(results, weights, atol=1e-7)


class TestSmooth(PotentialTests):
    """What any potential must obey, crossing of cutoffs included."""

    def make_potential(self):
        return Potential(network_of(SMOOTH, torch.float32), CARD)


CARD = Card(key="smooth", predicts="efs", elements=("Na", "Cl", "Cu", "Si", "Mg", "O"))


def test_a_checkpoint_keeps_it(tmp_path):
    path = tmp_path / "smooth.safetensors"
    network = network_of(SMOOTH, torch.float32)
    save(path, network, CARD)
    potential = matris.load(path, device="cpu")
    assert potential.config == SMOOTH
    prediction = potential.predict(rock_salt(4.2))
    assert prediction.energy == Potential(network, CARD).predict(rock_salt(4.2)).energy
    unaware = {k: v for k, v in PUBLISHED.to_dict().items() if k != "smooth"}
    assert ModelConfig.from_dict(unaware).smooth is False


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"three_body_expansion": "fourier"}, "kink at 180°; use 'chebyshev' or 'sh'"),
        ({"distance_expansion": "gaussian"}, "no envelope; use 'bessel'"),
        ({"smooth": "no"}, "smooth='no' must be true or false"),
        ({"envelope_exponent": 0}, "positive integer as envelope_exponent, not 0"),
    ],
)
def test_configs_that_are_not_smooth_are_refused(changes, says):
    with pytest.raises(CheckpointError, match=says):
        ModelConfig.from_dict(SMOOTH.to_dict() | changes)
