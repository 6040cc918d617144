"""Hull energies compared with pymatgen's PhaseDiagram, for random and degenerate systems."""

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from matris.stores.hull.mixtures import Table, lowest_mixtures, on_hull

SYMBOLS = ("Fe", "Li", "Mn", "Na", "O", "P")


def table(amounts, energies):
    """Fractions and formation energies, the pure elements first, and the energies of the elements."""
    fractions = amounts / amounts.sum(axis=1, keepdims=True)
    n = amounts.shape[1]
    elements = np.array([energies[fractions[:, i] == 1].min() for i in range(n)])
    return np.vstack([np.eye(n), fractions]), np.append(np.zeros(n), energies - fractions @ elements), elements


def compare(amounts, energies):
    """Largest difference of hull energies from pymatgen's (eV/atom), at the compositions of all phases."""
    entries = [
        PDEntry(Composition(dict(zip(SYMBOLS, map(float, a), strict=False))), e * a.sum())
        for a, e in zip(amounts, energies, strict=True)
    ]
    diagram = PhaseDiagram(entries)
    peer = np.array([diagram.get_hull_energy_per_atom(entry.composition) for entry in entries])
    fractions, formation, elements = table(amounts, energies)
    n = len(elements)
    everything = Table(fractions, formation)
    (mixtures,) = lowest_mixtures([everything], [fractions[n:]])
    assert mixtures.amounts.min() >= -1e-12
    rebuilt = (mixtures.amounts[:, :, None] * fractions[mixtures.phases]).sum(axis=1)
    assert np.abs(rebuilt - fractions[n:]).max() < 1e-12  # the mixture has the composition
    (stable,) = on_hull([everything.take(slice(n))], [everything.take(slice(n, None))], 1e-9)
    assert (stable == (formation[n:] - mixtures.energies <= 1e-9)).all()
    return np.abs(mixtures.energies + fractions[n:] @ elements - peer).max()


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [9, 1], ids=["generic", "degenerate"])
def test_random_systems_have_pymatgens_hull(n, seed, digits):
    rng = np.random.default_rng(100 * n + seed)
    amounts = np.vstack([np.eye(n), rng.integers(0, 5, (300 if n < 5 else 60, n))])
    amounts = amounts[amounts.sum(axis=1) > 0]
    amounts = np.vstack([amounts, 2 * amounts[:10], amounts[-10:]])  # the same compositions again
    compound = (amounts > 0).sum(axis=1) > 1
    energies = rng.normal(-3, 0.3, len(amounts)) - compound * rng.random(len(amounts))
    assert compare(amounts, energies.round(digits)) < 1e-9  # one digit: many phases of one energy, flat facets


def test_phases_on_tie_lines_and_facets_of_other_phases():
    grid = np.array([[i, j, 6 - i - j] for i in range(7) for j in range(7 - i)])
    flat = np.zeros(len(grid))
    assert compare(grid, flat) < 1e-12
    bowl = ((grid / 6 - 1 / 3) ** 2).sum(axis=1)  # every phase a vertex
    assert compare(grid, bowl) < 1e-12
    ridge = -np.minimum.reduce([grid[:, 0], grid[:, 1]]) / 6.0  # two facets that share an edge full of phases
    assert compare(grid, ridge) < 1e-12


def test_compositions_that_nearly_coincide():
    amounts = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1000, 1000, 1], [1001, 1000, 1], [1, 1, 0], [1, 1000, 1]])
    energies = np.array([-1.0, -2.0, -3.0, -2.5, -2.5004, -2.4999, -2.2])
    assert compare(amounts, energies) < 1e-9


def test_systems_solved_together_and_alone_agree():
    rng = np.random.default_rng(3)
    tables, targets = [], []
    for size, count in ((0, 2), (40, 5), (7, 0), (200, 30), (3, 1)):
        x = rng.dirichlet(np.ones(4), size)
        tables.append(Table(np.vstack([np.eye(4), x]), np.append(np.zeros(4), -rng.random(size))))
        targets.append(rng.dirichlet(np.ones(4), count))
    together = lowest_mixtures(tables, targets)
    for table, rows, mixtures in zip(tables, targets, together, strict=True):
        (alone,) = lowest_mixtures([table], [rows])
        assert mixtures.energies == pytest.approx(alone.energies, abs=1e-12)
        assert mixtures.energies.shape == (len(rows),)
        assert (mixtures.phases == alone.phases).all()


def test_no_targets_give_no_mixtures():
    elements = Table(np.eye(3), np.zeros(3))
    (mixtures,) = lowest_mixtures([elements], [np.zeros((0, 3))])
    assert [part.shape for part in mixtures] == [(0,), (0, 3), (0, 3)]
    assert lowest_mixtures([], []) == []
    assert [mask.shape for mask in on_hull([elements], [elements.take(slice(0))], 1e-9)] == [(0,)]
