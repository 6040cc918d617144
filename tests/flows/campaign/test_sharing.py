from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matris.flows.campaign.chunks import chunked
from matris.flows.campaign.sharing import ALONE, Sharing
from matris.stores.documents.candidate import Candidate

ATOM = Candidate.from_structure(Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]), "iron")


@pytest.mark.parametrize(("n", "n_processes", "most"), [(300, 2, 20), (300, 16, 80), (10_000, 2, 60), (7, 2, 2)])
def test_each_process_gets_its_share(n: int, n_processes: int, most: int) -> None:
    sizes = [len(chunk) for chunk in chunked([ATOM] * n, 500, sharing=Sharing(n_processes, smallest=4))]
    assert sum(sizes) == n
    assert len(sizes) <= most
    assert max(sizes) <= 500
    loads = [0] * n_processes
    for size in sorted(sizes, reverse=True):  # the queue hands out the costliest chunk first
        loads[loads.index(min(loads))] += size
    assert max(loads) <= max(1.15 * n / n_processes, n / n_processes + 4)


def test_one_process_gets_chunks_of_full_size() -> None:
    assert [len(chunk) for chunk in chunked([ATOM] * 300, 120, sharing=ALONE)] == [120, 120, 60]
    assert ALONE.of_properties().limit(50, 0) == 50


def test_properties_take_longer() -> None:
    assert Sharing(8, 4).of_properties().limit(20, 0) == 1
    assert Sharing(2, 50).of_properties().limit(20, 0) == 5
    assert Sharing(2, 50).of_properties().limit(20, 1000) == 20
