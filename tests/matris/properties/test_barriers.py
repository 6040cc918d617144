"""Barriers of vacancy hops by effective-medium theory, against ASE's nudged elastic band."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.mep import NEB
from ase.optimize import FIRE

import matris
from matris.errors import MatrisError
from matris.properties.barriers import MigrationPath, barriers, migrations, vacancy_hops
from matris.structures import to_structure


def hop(element, a=None):
    """An atom of an fcc crystal next to a vacancy, before and after its jump."""
    crystal = bulk(element, a=a, cubic=True).repeat(2)
    start, end = crystal[1:], crystal[1:]
    end.positions[0] = crystal.positions[0]
    return start, end


def by_ase(start, end, n_images):
    ends = []
    for atoms in (start.copy(), end.copy()):
        atoms.calc = EMT()
        FIRE(atoms, logfile=None).run(fmax=0.01)
        ends.append(atoms)
    images = [ends[0], *(ends[0].copy() for _ in range(n_images)), ends[1]]
    for image in images[1:-1]:
        image.calc = EMT()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate("idpp", mic=True)
    FIRE(band, logfile=None).run(fmax=0.01, steps=300)
    return np.array([image.get_potential_energy() for image in images])


@pytest.fixture(scope="module")
def records():
    cu, al = hop("Cu"), hop("Al")
    wrong = (cu[0], cu[1].copy())
    wrong[1].numbers[0] = 13
    return barriers([cu, wrong, al, (cu[0], cu[0])], matris.AseModel(EMT()), n_images=3, fmax=0.01)


@pytest.mark.parametrize(("index", "element"), [(0, "Cu"), (2, "Al")])
def test_ase(records, index, element):
    energies = by_ase(*hop(element), 3)
    barrier = records[index].barrier
    assert records[index].is_reliable
    assert barrier.forward == pytest.approx(energies.max() - energies[0], abs=1e-3)
    assert barrier.backward == pytest.approx(energies.max() - energies[-1], abs=1e-3)
    assert barrier.energies == pytest.approx(barrier.energies[::-1], abs=1e-3)  # both ends are alike
    assert barrier.fmax < 0.01
    assert len(barrier.images) == 5
    assert barrier.distances[-1] > 2.5  # Å, the distance of neighbors


def test_failures_of_one_path_stay_its_own(records):
    assert records[1].error.startswith("the ends differ: site 0 is Cu in one and Al")
    assert "both ends relax to the same structure" in records[3].error


def test_a_band_that_is_cut_short_says_so():
    (record,) = barriers([hop("Cu")], matris.AseModel(EMT()), n_images=1, fmax=1e-4, max_steps=2)
    assert record.state == "max_steps"
    assert "not below fmax: the band" in record.warnings[-1]


def test_vacancy_hops():
    pytest.importorskip("pymatgen.analysis.diffusion", reason="needs the extra diffusion")
    copper = to_structure(bulk("Cu"))
    (path,) = vacancy_hops(copper, "Cu", min_length=7)
    assert isinstance(path, MigrationPath)
    moved = np.diag(path.start.lattice.get_all_distances(path.start.frac_coords, path.end.frac_coords))
    assert len(path.start) == 31
    assert moved.max() == pytest.approx(3.61 / 2**0.5, abs=1e-2)
    assert (moved > 0.1).sum() == 1
    with pytest.raises(MatrisError, match="Cu has no Li that could hop"):
        vacancy_hops(copper, "Li")


def test_hops_of_materials():
    """Hops in a crystal, beside a material that fails; the barrier is that of the path made by hand."""
    pytest.importorskip("pymatgen.analysis.diffusion", reason="needs the extra diffusion")
    good, other = migrations(
        [bulk("Cu"), bulk("Al")], matris.AseModel(EMT()), vacancy="Cu", min_length=7, n_images=1, fmax=0.02
    )
    relaxed = (4 * good.structure.volume) ** (1 / 3)
    (by_hand,) = barriers([hop("Cu", relaxed)], matris.AseModel(EMT()), n_images=1, fmax=0.02)
    assert good.is_reliable
    assert good.names == ("Cu 2.54 Å",)
    assert good.lowest == pytest.approx(by_hand.barrier.forward, abs=1e-3)
    assert other.error == "MatrisError: Al has no Cu that could hop"
    with pytest.raises(ValueError, match="either vacancy"):
        migrations([bulk("Cu")], matris.AseModel(EMT()))


def test_settings():
    with pytest.raises(ValueError, match="n_images=0"):
        barriers([hop("Cu")], matris.AseModel(EMT()), n_images=0)
