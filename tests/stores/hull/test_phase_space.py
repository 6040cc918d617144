"""Hulls of many systems, compared with pymatgen's PatchedPhaseDiagram; phases that are added later."""

import random

import pytest
from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry
from pymatgen.core import Composition

from matris.stores.hull.phase_space import Phase, PhaseSpace

SYMBOLS = ("Al", "Cl", "Fe", "Li", "Mg", "O", "S", "Zn")


def phases(seed, n=400):
    """Pure elements and random compounds of up to five elements."""
    rng = random.Random(seed)
    listed = [Phase(f"pure {s}", {s: 2.0}, -rng.uniform(1, 5)) for s in SYMBOLS]
    for i in range(n):
        symbols = rng.sample(SYMBOLS, rng.choice([1, 2, 2, 3, 3, 3, 4, 5]))
        amounts = {symbol: float(rng.randint(1, 6)) for symbol in symbols}
        listed.append(Phase(f"phase {i}", amounts, -3 - rng.gauss(0.4, 0.4) * len(symbols) ** 0.5))
    return listed


def by_system(listed):
    groups = {}
    for phase in listed:
        groups.setdefault(phase.system, []).append(phase)
    return groups


def places(space, listed):
    return {
        phase.identity: place
        for system, group in by_system(listed).items()
        for phase, place in zip(group, space.place(system, group), strict=True)
    }


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_patched_phase_diagram(seed):
    listed = phases(seed)
    entries = {p.identity: PDEntry(Composition(p.amounts), p.energy * sum(p.amounts.values())) for p in listed}
    peer = PatchedPhaseDiagram(list(entries.values()))
    by_identity = places(PhaseSpace.of(listed), listed)
    for phase in listed:
        entry, place = entries[phase.identity], by_identity[phase.identity]
        distance = peer.get_decomp_and_e_above_hull(entry, allow_negative=True, check_stable=False)[1]
        assert place.above_hull == pytest.approx(distance, abs=1e-9)
        assert place.formation_energy == pytest.approx(peer.get_form_energy_per_atom(entry), abs=1e-9)
        assert sum(amount for _, amount in place.parts) == pytest.approx(1)
        mixed = sum(amount * part.energy for part, amount in place.parts)
        assert mixed == pytest.approx(phase.energy - distance, abs=1e-7)
    stable = {p.identity for system in by_system(listed) for p in PhaseSpace.of(listed).stable(system)}
    assert stable == {identity for identity, entry in entries.items() if entry in peer.stable_entries}


@pytest.mark.parametrize("seed", range(3))
def test_added_phases_invalidate_only_the_hulls_they_change(seed):
    listed = phases(seed)
    first, later = listed[: len(SYMBOLS) + 200], listed[len(SYMBOLS) + 200 :]
    later.append(Phase("new lithium", {"Li": 1.0}, -6.0))
    space = PhaseSpace.of(first)
    before = places(space, first)
    cached = dict(space._stable)
    for i in range(0, len(later), 7):
        changed = space.add(later[i : i + 7])
        untouched = {s for s in cached if not any(set(c) <= set(s) for c in changed)}
        assert all(space._stable[s] is cached[s] for s in untouched)
        places(space, first[:40])
        cached = dict(space._stable)
    again, fresh = places(space, listed), places(PhaseSpace.of(first + later), listed)
    assert {i: p.above_hull for i, p in again.items()} == pytest.approx(
        {i: p.above_hull for i, p in fresh.items()}, abs=1e-9
    )
    assert any(again[i].above_hull > p.above_hull + 1e-3 for i, p in before.items())


def test_a_phase_above_the_hull_changes_nothing():
    space = PhaseSpace.of(phases(0))
    high = Phase("high", {"Li": 1.0, "O": 1.0}, 0.0)
    space.place(("Li", "O"), [high])
    before = dict(space._stable)
    assert space.add([high]) == set()
    assert space._stable == before
    assert high in space.phases["Li", "O"]


def test_missing_elements_are_listed_until_they_are_added():
    space = PhaseSpace.of([Phase("li", {"Li": 1.0}, -1.0), Phase("lif", {"Li": 1.0, "F": 1.0}, -4.0)])
    assert space.missing(("F", "Li")) == ["F"]
    assert space.add([Phase("f", {"F": 2.0}, -2.0)]) == {("F",)}
    assert space.missing(("F", "Li")) == []
    (place,) = space.place(("F", "Li"), [Phase("new", {"Li": 2.0, "F": 1.0}, -3.0)])
    assert place.formation_energy == pytest.approx(-3.0 - (-4 / 3))
    assert place.above_hull == pytest.approx(-3.0 - (-4 * 2 / 3 - 1 / 3))
    assert {part.identity: amount for part, amount in place.parts} == pytest.approx({"lif": 2 / 3, "li": 1 / 3})


def test_many_phases_of_one_system_are_filtered_in_blocks():
    rng = random.Random(5)
    elements = [Phase(s, {s: 1.0}, 0.0) for s in ("Fe", "Li", "O")]
    many = [
        Phase(str(i), {s: float(rng.randint(1, 60)) for s in ("Fe", "Li", "O")}, -rng.random()) for i in range(3000)
    ]
    space = PhaseSpace.of(elements + many)
    entries = [PDEntry(Composition(p.amounts), p.energy * sum(p.amounts.values()), name=p.identity) for p in many]
    peer = PatchedPhaseDiagram([*entries, *(PDEntry(Composition(p.amounts), 0.0) for p in elements)])
    assert {p.identity for p in space.stable(("Fe", "Li", "O"))} == {
        e.name for e in peer.stable_entries if len(e.composition) == 3
    }
