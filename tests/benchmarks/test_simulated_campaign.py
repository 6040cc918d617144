"""The simulation of campaigns: it loses no candidate, and gives the known results of simple cases."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.simulated_campaign import Clock, Cost, Setup, Station, simulate

STEPS = {
    "intake": Cost(host=(0.1, 0.001), commands=(12, 0.05), server=(0, 0.0002)),
    "compute": Cost(host=(0, 0.004), commands=(12, 0), server=(0, 0.0002)),
    "finish": Cost(commands=(1, 0), server=(0.0004, 0)),
    "build": Cost(host=(0, 0.001), commands=(16, 0.01), server=(0, 0.001)),
}
SETUP = Setup(20_000, 250, workers=12, workers_per_machine=4, seconds=0.05, steps=STEPS, look=0.0003, held=1e-5)


@pytest.mark.parametrize("changes", [{}, {"deaths": 20.0}, {"walltime": 40.0}, {"deaths": 20.0, "walltime": 60.0}])
def test_each_candidate_is_computed_once(changes: dict[str, float]) -> None:
    setup = replace(SETUP, **changes)
    out = simulate(setup)
    assert out.n_computed == out.n_finished == 20_000
    assert out.n_chunks == 80
    assert (out.deaths > 3) == ("deaths" in changes)
    assert (out.endings > 3) == ("walltime" in changes)
    assert out.read < out.computed < out.built <= out.ranked
    assert out.computed > 20_000 * 0.054 / 12
    assert simulate(setup) == out
    assert simulate(replace(setup, seed=1)) != out


def test_one_worker_without_delays() -> None:
    out = simulate(Setup(1050, 100, seconds=0.5, spread=0.0, start=7.0))
    assert out.computed == pytest.approx(7.0 + 1050 * 0.5)
    assert (out.n_chunks, out.read, out.lost_swaps) == (11, 0.0, 0)


def test_one_worker_step_by_step() -> None:
    """Reading beside the start of the worker; then commands, device, host and documents, one after the other."""
    steps = {
        "compute": Cost(host=(0.5, 0.01), commands=(4, 0), server=(0.2, 0)),
        "finish": Cost(commands=(1, 0), server=(0.1, 0)),
        "build": Cost(host=(2.0, 0.0), commands=(5, 0), server=(1.0, 0)),
        "rank": Cost(host=(0, 0.02), commands=(0, 1), server=(0, 0.01)),
    }
    out = simulate(Setup(200, 100, seconds=0.3, spread=0.0, start=10.0, steps=steps, look=0.01))
    of_chunk = 4 * 0.01 + 30.0 + 1.5 + 0.2 + 0.1
    assert out.computed == pytest.approx(10.0 + 2 * of_chunk)
    assert out.built == pytest.approx(out.computed + 3.0)
    assert out.ranked == pytest.approx(out.built + 6.0)
    beside = simulate(Setup(200, 100, seconds=0.3, spread=0.0, start=10.0, steps=steps, look=0.01, beside=True))
    assert beside.computed == pytest.approx(out.computed - 2 * 1.5)


def test_the_reader_is_the_bottleneck_of_many_workers() -> None:
    steps = {"read": Cost(host=(0.0, 0.002)), "build": Cost(host=(0.0, 0.001))}
    out = simulate(Setup(50_000, 500, workers=64, seconds=0.01, steps=steps, start=0.0))
    assert 50_000 * 0.002 <= out.read <= 50_000 * (0.002 + 0.001)  # the first runner builds what its workers computed
    assert out.busy["first runner"] > 0.95
    assert out.busy["devices"] < 0.2


def test_the_wait_for_the_database_is_that_of_the_queue_m_d_1() -> None:
    """Mean wait ρ s / (2 (1 − ρ)) of arrivals at random times and a constant time of service (Pollaczek–Khinchine)."""
    service, load, clock, rng = 0.01, 0.7, Clock(), random.Random(1)
    station = Station(clock, 1)

    def arrivals():
        for _ in range(100_000):
            yield rng.expovariate(load / service)
            station.visit(service)

    clock.plan(arrivals())
    clock.run()
    assert station.waited / station.n == pytest.approx(load * service / (2 * (1 - load)), rel=0.04)
    assert station.busy / clock.now == pytest.approx(load, rel=0.01)
