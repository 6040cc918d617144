"""Labels by atomate2's real VASP flows, with a fake VASP: inputs are written and checked, outputs parsed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase.calculators.emt import EMT
from atomate2.ase.jobs import EmtRelaxMaker
from atomate2.vasp.jobs.core import StaticMaker
from atomate2.vasp.jobs.matpes import MatPesMetaGGAStaticMaker
from atomate2.vasp.jobs.mp import MPGGARelaxMaker, MPGGAStaticMaker
from monty.io import zopen
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Incar, Kpoints
from pymatgen.io.vasp.sets import MPStaticSet

from matris.errors import MatrisError
from matris.makers.label import NO_OUTPUT, LabelMaker, calculation_maker
from matris.stores.dft_method import VASP_SCALES, Method, MethodError, check_method
from matris.stores.dft_tasks import TaskError, task_labels
from matris.stores.documents.corrections import corrected_entry
from tests.makers.fake_vasp import energy_of, forces_of, magmoms_of, stress_of
from tests.makers.vasp import IRON_OXIDE, MAGNESIA, run, with_fake_vasp

if TYPE_CHECKING:
    from pathlib import Path


def label_maker(scale: str = "mp", *, static_only: bool = False, **settings: Any) -> LabelMaker:
    return LabelMaker(
        energy_scale=scale, maker=with_fake_vasp(calculation_maker(scale, static_only=static_only)), **settings
    )


def static_folder(root: Path) -> Path:
    """Folder of the static calculation."""
    (found,) = (file.parent for file in root.rglob("INCAR.gz") if Incar.from_file(file)["NSW"] == 0)
    return found


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("relaxed")
    return folder, run(label_maker(ionic_steps=True).make(IRON_OXIDE, candidate_id="feo"), folder)


def test_labels_of_the_default_flow_are_what_vasp_calculated(relaxed):
    _, document = relaxed
    assert (document["state"], document["error"], document["candidate_id"]) == ("labelled", None, "feo")
    volumes = [27.0 * factor**3 for factor in (1, 0.99, 0.99, 0.99**2, 0.99**2)]
    assert len(document["labels"]) == len(volumes)  # two steps of each relaxation, one of the static calculation
    for label, volume in zip(document["labels"], volumes, strict=True):
        structure, dft = Structure.from_dict(label["structure"]), label["dft"]
        assert structure.volume == pytest.approx(volume, rel=1e-6)
        assert dft["energy"] == pytest.approx(energy_of(2, volume), abs=2e-6)  # not the wrong one of the ionic step
        assert dft["forces"] == forces_of(2)
        assert np.allclose(dft["stress"], stress_of(2, volume), rtol=0, atol=1e-6)
        assert (dft["code"], dft["functional"], dft["energy_scale"]) == ("VASP", "PBE+U", "mp")
    assert document["labels"][0]["dft"]["stress"][0][0] > 0  # the cell is too large: it is under tension
    assert document["labels"][-1]["dft"]["magmoms"] == magmoms_of(2)


def test_energy_of_an_oxide_gets_the_corrections_of_its_scale(relaxed):
    label = relaxed[1]["labels"][-1]
    entry = corrected_entry(Structure.from_dict(label["structure"]), label["dft"]["energy"], "mp")
    assert entry.uncorrected_energy == label["dft"]["energy"]
    assert entry.correction == pytest.approx(-2.256 - 0.687, abs=1e-3)  # MP2020: Fe with U, and an oxide
    assert entry.parameters["hubbards"] == {"Fe": 5.3}


def test_inputs_are_those_of_the_materials_project(relaxed):
    static = static_folder(relaxed[0])
    incar = Incar.from_file(static / "INCAR.gz")
    assert (incar["ENCUT"], incar["ISPIN"], incar["LDAU"], incar["LDAUU"]) == (520, 2, True, [5.3, 0])
    starts = [Incar.from_file(file)["MAGMOM"] for file in relaxed[0].rglob("INCAR.gz")]
    assert sorted(starts) == [magmoms_of(2), magmoms_of(2), [5, 0.6]]  # the Materials Project's, then VASP's own
    assert Kpoints.from_file(static / "KPOINTS.gz").style.name == "Gamma"
    (potcars,) = static.glob("POTCAR.spec*")
    assert zopen(potcars, "rt", encoding="utf-8").read().split() == ["Fe_pv", "O"]


def test_predicted_moments_are_not_the_start():
    predicted = IRON_OXIDE.copy(site_properties={"magmom": [0.0, 0.0]})
    calculation, _ = label_maker(static_only=True).make(predicted).jobs
    assert "magmom" not in calculation.function_args[0].site_properties


@pytest.mark.parametrize("scale", VASP_SCALES)
def test_default_makers_are_on_their_scale(scale):
    for static_only in (False, True):
        assert len(LabelMaker(energy_scale=scale, static_only=static_only).make(MAGNESIA).jobs) == 2


@pytest.mark.parametrize(
    ("scale", "maker", "words"),
    [
        ("mp", MatPesMetaGGAStaticMaker(), "r2SCAN, but the energy scale mp needs PBE+U"),
        ("mp", StaticMaker(), "PBEsol"),
        ("matpes-pbe", MPGGAStaticMaker(), "PBE+U, but the energy scale matpes-pbe needs PBE"),
        ("matpes-r2scan", MPGGAStaticMaker(), "needs r2SCAN"),
        ("omat24", MPGGAStaticMaker(), "POTCARs of PBE, but the energy scale omat24 needs those of PBE_54"),
        ("mp-d3bj", None, "without dispersion"),
        ("mine", None, "no settings are known for the energy scale 'mine'"),
    ],
)
def test_a_wrong_method_is_refused_before_a_job_is_made(scale, maker, words):
    with pytest.raises(MatrisError, match=re.escape(words)):
        LabelMaker(energy_scale=scale, maker=maker).make(IRON_OXIDE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user_incar_settings": {"LDAUU": {"O": {"Fe": 4}}}}, r"U\(Fe\) = 4 eV, but .* needs U\(Fe\) = 5.3 eV"),
        ({"user_incar_settings": {"LDAU": False}}, r"PBE, but the energy scale mp needs PBE\+U"),
        ({"user_potcar_settings": {"Fe": "Fe"}}, "the POTCAR Fe, .* needs Fe_pv"),
        ({"user_incar_settings": {"ENCUT": 400}}, "a cutoff of 400 eV"),
        ({"user_incar_settings": {"ISPIN": 1}}, "no spin polarization"),
        ({"user_incar_settings": {"IVDW": 12}}, "van der Waals"),
        ({"user_incar_settings": {"PSTRESS": 100}}, "an external pressure"),
    ],
)
def test_changed_settings_are_refused(settings, words):
    maker = MPGGAStaticMaker(input_set_generator=MPStaticSet(**settings))
    with pytest.raises(MethodError, match=words):
        LabelMaker(maker=maker).make(IRON_OXIDE)


def task_of(relaxed: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    from atomate2.vasp.jobs.base import get_vasp_task_document

    return json.loads(json.dumps(get_vasp_task_document(static_folder(relaxed[0])), cls=MontyEncoder))


def test_a_wrong_method_is_refused_when_vasp_has_run(relaxed):
    task = task_of(relaxed)
    labels, _ = task_labels(task, "feo", "mp")
    assert labels[0].dft.energy == pytest.approx(relaxed[1]["labels"][-1]["dft"]["energy"])
    for scale, words in (("matpes-r2scan", "needs r2SCAN"), ("omat24", "not in the library PBE_54")):
        with pytest.raises(MethodError, match=words):
            task_labels(task, "feo", scale)
    task["calcs_reversed"][0]["input"]["potcar_spec"][0]["titel"] = "PAW_PBE Fe 06Sep2000"
    with pytest.raises(MethodError, match=r"the POTCAR Fe, .* needs Fe_pv"):
        task_labels(task, "feo", "mp")
    task["calcs_reversed"][0]["input"]["potcar_spec"] = []
    with pytest.raises(TaskError, match="does not tell the POTCARs"):
        task_labels(task, "feo", "mp")


@pytest.mark.parametrize(("fault", "words"), [("crash", NO_OUTPUT), ("no forces", "no forces")])
def test_a_failed_calculation_gives_no_label(fault, words, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_VASP_FAULT", fault)
    document = run(label_maker(static_only=True).make(MAGNESIA), tmp_path)
    assert (document["state"], document["labels"]) == ("failed", [])
    assert words in document["error"]


def test_unconverged_electrons_give_no_label(monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_VASP_FAULT", "unconverged")
    maker = label_maker(static_only=True)
    maker.maker.stop_children_kwargs = {"handle_unsuccessful": False}  # as a user may set, to look at the results
    maker.maker.run_vasp_kwargs["handlers"] = ()
    document = run(maker.make(MAGNESIA), tmp_path)
    assert (document["state"], document["labels"]) == ("failed", [])
    assert "electrons did not converge" in document["error"]


def test_a_step_whose_electrons_did_not_converge_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_VASP_FAULT", "first step")
    maker = LabelMaker(maker=with_fake_vasp(MPGGARelaxMaker()), ionic_steps=True)
    document = run(maker.make(MAGNESIA), tmp_path)
    (label,) = document["labels"]
    assert Structure.from_dict(label["structure"]).volume == pytest.approx(0.99**3 * MAGNESIA.volume)
    assert document["left_out"] == {"the electrons did not converge within NELM steps": 1}


def test_another_code_needs_its_functional_named(tmp_path):
    squeezed = Structure(Lattice([[0, 1.9, 1.9], [1.9, 0, 1.9], [1.9, 1.9, 0]]), ["Al"], [[0, 0, 0]])
    maker = EmtRelaxMaker(steps=2, relax_kwargs={"fmax": 1e-9})
    with pytest.raises(MatrisError, match="functional of EmtRelaxMaker is not known"):
        LabelMaker(energy_scale="emt", maker=maker).make(squeezed)
    named = LabelMaker(energy_scale="emt", maker=maker, code="ASE", functional="EMT", ionic_steps=True)
    document = run(
        MontyDecoder().process_decoded(json.loads(json.dumps(named, cls=MontyEncoder))).make(squeezed), tmp_path
    )
    assert len(document["labels"]) > 1
    for label in document["labels"]:
        atoms = Structure.from_dict(label["structure"]).to_ase_atoms()
        atoms.calc = EMT()
        assert label["dft"]["energy"] == pytest.approx(atoms.get_potential_energy())
        assert np.allclose(label["dft"]["stress"], atoms.get_stress(voigt=False), rtol=0, atol=1e-6)
    assert document["labels"][0]["dft"]["stress"][0][0] < 0  # under compression


def test_a_method_without_known_scale_is_the_users():
    check_method(Method("HSE06"), IRON_OXIDE.composition, "mine")
