"""The drop-ins, alone and inside unchanged flows of atomate2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase import units
from atomate2.common.schemas.qha import PhononQHADoc
from atomate2.forcefields.flows.elastic import ElasticMaker
from atomate2.forcefields.flows.eos import ForceFieldEosMaker
from atomate2.forcefields.flows.phonons import PhononMaker
from atomate2.forcefields.flows.qha import ForceFieldQhaMaker
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Molecule, Structure

import matris
from matris.makers import RelaxMaker, StaticMaker
from matris.properties.elastic import elastic
from matris.properties.eos import eos
from matris.properties.phonons import PhononSettings, phonons, supercell_matrix
from tests.conftest import SMALL_PUBLISHED

if TYPE_CHECKING:
    from pathlib import Path

SI = Structure(Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0, 0, 0], [0.25] * 3])
CHECKPOINT = str(SMALL_PUBLISHED)
DOUBLE = {"checkpoint": CHECKPOINT, "dtype": "float64"}
TIGHT = {**DOUBLE, "relax_kwargs": {"fmax": 1e-4}}


def run(job: Any, folder: Path) -> dict[str, Any]:
    """Outputs by name of the job, each job serialised as on its way to a worker."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))
    responses = run_locally(job, store=store, log=False, ensure_success=True, root_dir=folder)
    names = {j.uuid: j.name for j in job.jobs} if isinstance(job, Flow) else {job.uuid: job.name}
    return {names.get(uuid, uuid): r[max(r)].output for uuid, r in responses.items()}


@pytest.fixture(scope="module")
def relaxed() -> Structure:
    (record,) = matris.relax([SI], matris.load(CHECKPOINT, dtype="float64"), fmax=1e-4)
    return record.structure


@pytest.mark.parametrize("maker", [RelaxMaker(**TIGHT), StaticMaker(**DOUBLE)], ids=lambda m: m.name)
def test_it_survives_serialisation(maker):
    again = MontyDecoder().decode(json.dumps(maker, cls=MontyEncoder))
    assert again == maker
    assert again.dtype == "float64"


def test_a_relaxation_is_that_of_relax(relaxed, tmp_path):
    document = run(RelaxMaker(**TIGHT).make(SI), tmp_path)["MatRIS relax"]
    assert document.structure.volume == pytest.approx(relaxed.volume, rel=1e-4)
    assert document.state.value == "successful"
    assert document.is_force_converged
    assert document.checkpoint.key == matris.load(CHECKPOINT).card.key
    assert document.checkpoint.sha256 == matris.load(CHECKPOINT).card.sha256
    assert (document.dtype, document.device, document.forcefield_version) == ("float64", "cpu", matris.__version__)
    assert document.output.ionic_steps in (None, [])
    assert not list(tmp_path.rglob("*.xyz"))


def test_a_cell_that_has_not_settled_is_not_called_converged(tmp_path):
    squeezed = SI.copy()
    squeezed.scale_lattice(0.9 * SI.volume)  # atoms feel no force, but the cell does
    document = run(RelaxMaker(checkpoint=CHECKPOINT, steps=3).make(squeezed), tmp_path)["MatRIS relax"]
    assert document.state.value == "failed"
    assert document.is_force_converged is False


def test_steps_are_stored_when_asked_for(tmp_path):
    moved = SI.copy().perturb(0.05, seed=1)
    document = run(RelaxMaker(checkpoint=CHECKPOINT, ionic_step_data=("energy",)).make(moved), tmp_path)["MatRIS relax"]
    assert len(document.output.ionic_steps) == document.output.n_steps > 1


def test_a_static_calculation_is_a_prediction(tmp_path):
    wanted = matris.load(CHECKPOINT, dtype="float64").predict(SI)
    document = run(StaticMaker(**DOUBLE).make(SI), tmp_path)["MatRIS static"]
    assert document.output.energy == pytest.approx(wanted.energy, abs=1e-8)
    assert np.allclose(document.output.stress, -1602.1766208 * wanted.stress, atol=1e-3)  # kbar, VASP's sign


def test_lists_and_molecules(tmp_path):
    water = Molecule(["Si", "O"], [[0, 0, 0], [0, 0, 1.6]])
    one, other = run(StaticMaker(checkpoint=CHECKPOINT).make([SI, water]), tmp_path)["MatRIS static"]
    assert one.checkpoint.key == matris.load(CHECKPOINT).card.key
    assert np.isfinite(other.output.energy)


def test_a_small_strain_survives_fixed_symmetry(tmp_path):
    """A strain that a tolerance of 0.01 Å would take for noise."""
    aluminium = Structure(Lattice.cubic(4.04), ["Al"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    strained = aluminium.copy().apply_strain([0.002, 0, 0])
    maker = RelaxMaker(relax_cell=False, fix_symmetry=True, **TIGHT)
    document = run(maker.make(strained), tmp_path)["MatRIS relax"]
    assert np.allclose(document.structure.lattice.matrix, strained.lattice.matrix, atol=1e-5)


def test_elastic_flow(relaxed, tmp_path):
    makers = (RelaxMaker(**TIGHT), RelaxMaker(relax_cell=False, fix_symmetry=True, **TIGHT))
    flow = ElasticMaker(bulk_relax_maker=makers[0], elastic_relax_maker=makers[1]).make(relaxed)
    document = run(flow, tmp_path)["fit_elastic_tensor"]
    (record,) = elastic([relaxed], matris.load(CHECKPOINT, dtype="float64"))
    moduli = record.fit.moduli()
    assert document.derived_properties.k_vrh == pytest.approx(moduli["k_vrh"], rel=5e-3)
    assert document.derived_properties.g_vrh == pytest.approx(moduli["g_vrh"], rel=5e-3)


def test_eos_flow(relaxed, tmp_path):
    flow = ForceFieldEosMaker(
        initial_relax_maker=RelaxMaker(**TIGHT),
        eos_relax_maker=RelaxMaker(relax_cell=False, **TIGHT),
        linear_strain=(-0.02, 0.02),
    ).make(SI)
    equations = next(
        output for output in run(flow, tmp_path).values() if isinstance(output, dict) and "relax" in output
    )
    volumes = [volume / relaxed.volume for volume in equations["relax"]["volume"]]
    (record,) = eos([relaxed], matris.load(CHECKPOINT, dtype="float64"), fmax=1e-4, volumes=volumes)
    modulus = next(fit.b0 for fit in record.fits if fit.equation == "birch_murnaghan")
    assert float(equations["relax"]["EOS"]["birch_murnaghan"]["b0 GPa"]) == pytest.approx(modulus, rel=5e-3)


def phonon_maker(**options: Any) -> PhononMaker:
    static = StaticMaker(**DOUBLE)
    return PhononMaker(static_energy_maker=static, phonon_displacement_maker=static, **options)


def test_phonon_flow(relaxed, tmp_path):
    matrix = supercell_matrix(relaxed, 10, 1e-3)
    flow = phonon_maker(bulk_relax_maker=RelaxMaker(**TIGHT)).make(relaxed, supercell_matrix=matrix.tolist())
    outputs = run(flow, tmp_path)
    document = next(output for output in outputs.values() if hasattr(output, "phonon_dos"))
    (record,) = phonons([relaxed], matris.load(CHECKPOINT, dtype="float64"), settings=PhononSettings(min_length=10))
    highest = max(f.max() for f in record.phonons.frequencies)
    assert document.phonon_bandstructure.bands.max() == pytest.approx(highest, abs=0.02)
    assert np.array_equal(np.abs(document.supercell_matrix), np.abs(matrix))


@pytest.mark.slow
def test_qha_flow(tmp_path):
    flow = ForceFieldQhaMaker(
        initial_relax_maker=RelaxMaker(**TIGHT),
        eos_relax_maker=RelaxMaker(relax_cell=False, **TIGHT),
        phonon_maker=phonon_maker(bulk_relax_maker=None),
        min_length=5.0,
        linear_strain=(-0.02, 0.02),
        number_of_frames=5,
        t_max=500,
        ignore_imaginary_modes=True,
    ).make(SI)
    document = next(output for output in run(flow, tmp_path).values() if isinstance(output, PhononQHADoc))
    (record,) = eos([SI], matris.load(CHECKPOINT, dtype="float64"), fmax=1e-4)
    modulus = next(fit.b0 for fit in record.fits if fit.equation == "vinet")
    bulk_modulus = document.bulk_modulus / units.GPa  # it is phonopy's, in eV/Å³
    assert bulk_modulus == pytest.approx(modulus, rel=0.1)  # another range of volumes
    assert np.isfinite(document.free_energies).all()
