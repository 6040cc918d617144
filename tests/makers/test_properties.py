"""Property Makers through real stores: one document per material, also if other materials fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jobflow import run_locally
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matris.makers import (
    BatchElasticMaker,
    BatchEosMaker,
    BatchKappaMaker,
    BatchPhononMaker,
    BatchQhaMaker,
    BatchRelaxMaker,
)
from matris.model.potential import load
from matris.properties.elastic import elastic
from matris.relaxation.relax import relax as relax_structures
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id
from matris.stores.documents.properties import ElasticDocument, EosDocument, KappaDocument, PhononDocument, QhaDocument
from matris.structures import content_id
from tests.conftest import SMALL_PUBLISHED

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore

    from matris.makers.batch import PropertyMaker

MGO = Structure(Lattice([[0, 2.13, 2.13], [2.13, 0, 2.13], [2.13, 2.13, 0]]), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
SI = Structure(Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0, 0, 0], [0.25] * 3])
CHECKPOINT: dict[str, Any] = {"checkpoint": str(SMALL_PUBLISHED), "device": "cpu"}
CANDIDATES = [
    Candidate.from_structure(MGO, "MgO.cif"),
    Candidate.unreadable("empty.cif", "the file is empty", b""),
    Candidate.from_structure(Structure(Lattice.cubic(4), ["Xe"], [[0, 0, 0]]), "Xe.cif"),
    SI,
]


def run(maker: PropertyMaker, store: JobStore, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Documents as stored, without and with the fields of the additional store `data`."""
    job = maker.make(CANDIDATES)
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))  # as it travels to a worker
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=folder)
    small = store.query_one({"uuid": job.uuid}, load=False)["output"]["documents"]
    whole = store.query_one({"uuid": job.uuid}, load=True)["output"]["documents"]
    return small, json.loads(json.dumps(whole, cls=MontyEncoder))


def check_common(documents: list[dict[str, Any]]) -> None:
    assert [d["formula_pretty"] for d in documents] == ["MgO", None, "Xe", "Si"]
    assert [d["state"] == "failed" for d in documents] == [False, True, True, False]
    assert documents[1]["error"] == "the file is empty"
    assert "Xe" in documents[2]["error"]
    assert documents[0]["symmetry"]["number"] == 225
    assert documents[3]["symmetry"]["number"] == 227
    assert all(d["checkpoint"]["energy_scale"] == "mp" and d["dtype"] == "float32" for d in documents)


def test_elastic(store: JobStore, tmp_path: Path) -> None:
    maker = BatchElasticMaker(**CHECKPOINT, fmax=0.02, max_steps=60, strains=(-0.005, 0.005))
    small, whole = run(maker, store, tmp_path)
    check_common(small)
    assert all("lattice" not in (d["structure"] or {}) for d in small)  # but a reference to it
    document = ElasticDocument.model_validate(whole[0])
    tensor = np.array(document.elastic_tensor["raw"])
    assert tensor == pytest.approx(tensor.T)
    assert tensor == pytest.approx(np.array(document.elastic_tensor["ieee_format"]), abs=1e-4)  # cubic, along its axes
    assert document.bulk_modulus.vrh == pytest.approx((tensor[0, 0] + 2 * tensor[0, 1]) / 3)
    assert document.settings["strains"] == [-0.005, 0.005]
    relaxed = Structure.from_dict(whole[0]["structure"])
    (direct,) = elastic([MGO], load(SMALL_PUBLISHED, device="cpu"), fmax=0.02, max_steps=60, strains=(-0.005, 0.005))
    assert relaxed.volume == pytest.approx(direct.structure.volume, rel=1e-5)
    assert tensor == pytest.approx(direct.fit.tensor, abs=0.01)


def test_candidates_of_properties(store: JobStore, tmp_path: Path) -> None:
    """The document of a material is that of a relaxation with the same settings, whatever its property."""
    small, _ = run(BatchEosMaker(**CHECKPOINT, fmax=0.02, max_steps=3, equations=("vinet",)), store, tmp_path)
    candidates = CandidateStore.beside(store)
    assert candidates.build(store).n_documents == 4
    found = {document["candidate_id"]: document for document in candidates.query()}
    oxide = found[CANDIDATES[0].candidate_id]
    assert oxide["eos"]["state"] == small[0]["state"]
    relax = BatchRelaxMaker(**CHECKPOINT, max_steps=3, fmax=0.02)
    assert oxide["document_id"] == document_id(CANDIDATES[0].candidate_id, *(relax.card().sha256, relax.tag().digest))
    (record,) = relax_structures([MGO], load(SMALL_PUBLISHED, device="cpu"), fmax=0.02, max_steps=3)
    assert oxide["state"] == record.state
    assert oxide["energy"] == pytest.approx(record.energy, abs=1e-5)
    assert oxide["n_steps"] == record.n_steps
    assert oxide["energy_per_atom"] < oxide["uncorrected_energy_per_atom"]
    arrays = candidates.arrays(oxide["document_id"])
    assert arrays["forces"] == pytest.approx(record.forces, abs=1e-4)
    assert arrays["stress"] == pytest.approx(record.stress, abs=1e-5)
    assert candidates.structure(oxide["document_id"], initial=True) == MGO
    states = [found[c.candidate_id if isinstance(c, Candidate) else content_id(c)]["state"] for c in CANDIDATES]
    assert states[1:3] == ["rejected", "rejected"]
    assert found[content_id(SI)]["source"] == "structure"


def test_eos(store: JobStore, tmp_path: Path) -> None:
    maker = BatchEosMaker(**CHECKPOINT, fmax=0.02, max_steps=60, equations=("birch_murnaghan",))
    small, whole = run(maker, store, tmp_path)
    check_common(small)
    document = EosDocument.model_validate(whole[0])
    (fit,) = document.fits
    assert fit.v0 == pytest.approx(document.volume, rel=0.02)
    assert 30 < fit.b0 < 500
    assert len(document.volumes) == len(document.energies) == 7


def test_phonon(store: JobStore, tmp_path: Path) -> None:
    maker = BatchPhononMaker(**CHECKPOINT, fmax=0.02, max_steps=60, min_length=4.0, t_max=300, t_step=100)
    small, whole = run(maker, store, tmp_path)
    check_common(small)
    assert all(len(json.dumps(d, default=str)) < 10_000 for d in small)
    document = PhononDocument.model_validate(whole[0])
    assert document.temperatures == [0, 100, 200, 300]
    assert document.heat_capacities[0] == 0
    assert 0 < document.heat_capacities[-1] < 6 * 8.32
    constants = np.array(document.force_constants)
    assert constants.shape[2:] == (3, 3)
    assert constants.sum(axis=1) == pytest.approx(0, abs=1e-6)  # the acoustic sum rule
    assert len(document.phonon_bandstructure.bands) == 6
    assert sum(document.phonon_dos.pdos.values()) == pytest.approx(document.phonon_dos.densities)


def test_phonon_with_born_charges(store: JobStore, tmp_path: Path) -> None:
    """Given charges come back in the document; a list of the wrong length is refused."""
    maker = BatchPhononMaker(**CHECKPOINT, fmax=0.1, max_steps=0, min_length=4.0, t_max=100, t_step=100)
    born = {"born": [(2 * np.eye(3)).tolist(), (-2 * np.eye(3)).tolist()], "epsilon_static": (3 * np.eye(3)).tolist()}
    job = maker.make([MGO, CANDIDATES[1]], born=[born, None])
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=tmp_path)
    document, failed = store.query_one({"uuid": job.uuid}, load=True)["output"]["documents"]
    assert document["born"] == born["born"]
    assert document["epsilon_static"] == born["epsilon_static"]
    assert failed["state"] == "failed"
    assert failed["born"] is None
    plain = maker.make([MGO])
    run_locally(plain, store=store, log=False, raise_immediately=True, root_dir=tmp_path)
    without = store.query_one({"uuid": plain.uuid}, load=True)["output"]["documents"][0]
    highest = [PhononDocument.model_validate(d).phonon_bandstructure.bands.max() for d in (without, document)]
    assert highest[1] > highest[0] + 1  # THz: the longitudinal branch
    with pytest.raises(ValueError, match="1 entries for 2 candidates"):
        run_locally(maker.make([MGO, SI], born=[born]), store=store, log=False, raise_immediately=True)


@pytest.mark.slow
def test_kappa(store: JobStore, tmp_path: Path) -> None:
    pytest.importorskip("phono3py", reason="needs the extra kappa")
    settings = {"min_length": 5.0, "min_length_fc3": 5.0, "mesh": 15.0, "t_min": 300, "t_max": 500, "t_step": 100}
    maker = BatchKappaMaker(device="cpu", fmax=0.01, max_steps=60, **settings)
    small, whole = run(maker, store, tmp_path)
    assert [d["state"] == "failed" for d in small][1:3] == [True, True]
    assert all(len(json.dumps(d, default=str)) < 10_000 for d in small)
    document = KappaDocument.model_validate(whole[3])
    assert document.temperatures == [300, 400, 500]
    assert document.kappa_mean == sorted(document.kappa_mean, reverse=True)
    tensors = np.array(document.kappa)
    assert tensors[:, :3].mean(axis=1) == pytest.approx(document.kappa_mean)
    assert tensors[0, :3] == pytest.approx(document.kappa_mean[0])  # a cubic crystal
    modes = document.modes
    assert sum(modes["weights"]) == np.prod(document.mesh)
    assert np.sum(modes["conductivities"]) == pytest.approx(document.kappa_mean[0])


def test_qha(store: JobStore, tmp_path: Path) -> None:
    maker = BatchQhaMaker(**CHECKPOINT, fmax=0.02, max_steps=60, min_length=4.0, t_max=300, t_step=100)
    small, whole = run(maker, store, tmp_path)
    assert [d["state"] == "failed" for d in small] == [False, True, True, False]
    assert all(len(json.dumps(d, default=str)) < 10_000 for d in small)
    document = QhaDocument.model_validate(whole[0])
    assert document.temperatures == [0, 100, 200, 300]
    assert len(document.helmholtz_volume) == 4
    assert len(document.helmholtz_volume[0]) == len(document.volumes) == 7
    assert document.volume_temperature[0] == pytest.approx(document.volume, rel=0.05)
    assert document.average_gruneisen == pytest.approx(document.gruneisen_temperature[-1], rel=0.3)
    assert np.shape(document.gruneisen_modes["parameters"])[1] == 6


def test_fields_that_cannot_be_computed_fail_their_material_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fields = BatchEosMaker.fields

    def broken(self, record):
        if record is not None and record.index == 0:
            raise np.linalg.LinAlgError("singular matrix")
        return fields(self, record)

    monkeypatch.setattr(BatchEosMaker, "fields", broken)
    documents = BatchEosMaker(**CHECKPOINT, fmax=0.1, max_steps=20).output([MGO, SI]).documents
    assert (documents[0].state, documents[0].error) == ("failed", "LinAlgError: singular matrix")
    assert not documents[0].is_reliable
    assert documents[1].fits
