"""Phonons as pymatgen's objects and phonopy's files: the numbers of the record, in the forms that others read."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import phonopy
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.core import Structure
from pymatgen.io.phonopy import get_ph_bs_symm_line
from pymatgen.phonon.plotter import PhononBSPlotter, PhononDosPlotter

from matris.ase_model import AseModel
from matris.properties.phonon_files import phonopy_of, write_phonon_files
from matris.properties.phonon_objects import band_structure, complete_dos
from matris.properties.phonons import PhononSettings, phonons
from matris.stores.documents.properties import PhononDocument

if TYPE_CHECKING:
    from pathlib import Path

    from matris.properties.phonons import PhononRecord

SETTINGS = PhononSettings(min_length=3.0, temperatures=(0.0, 300.0))


@pytest.fixture(scope="module")
def record() -> PhononRecord:
    """Cu3Au, with three equal atoms of copper, by effective-medium theory."""
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[0] = "Au"
    (found,) = phonons([atoms], AseModel(EMT()), settings=SETTINGS, fmax=1e-3)
    return found


@pytest.fixture(scope="module")
def document(record: PhononRecord) -> dict[str, Any]:
    """The fields of a stored document that the files need."""
    assert record.structure is not None
    assert record.phonons is not None
    of = record.phonons.phonopy
    return {
        "candidate_id": "0" * 20,
        "source": "in/Cu3Au.v2.cif",
        "state": "converged",
        "formula_pretty": "Cu3Au",
        "structure": record.structure.as_dict(),
        "settings": {"symprec": SETTINGS.symprec},
        "supercell_matrix": of.supercell_matrix.tolist(),
        "primitive_matrix": of.primitive_matrix.tolist(),
        "force_constants": np.asarray(of.force_constants)[of.primitive.p2s_map].tolist(),
        "masses": None,
        "born": None,
        "epsilon_static": None,
        "unstable_mode": None,
    }


def test_band_structure(record: PhononRecord) -> None:
    results = record.phonons
    assert results is not None
    bands = band_structure(results)
    assert bands.bands == pytest.approx(np.concatenate(results.frequencies).T)
    ends = [(branch["start_index"], branch["end_index"]) for branch in bands.branches]
    assert ends == [(51 * n, 51 * n + 50) for n in range(len(results.qpoints))]
    assert np.array(bands.distance) == pytest.approx(2 * np.pi * np.concatenate(results.distances))
    assert bands.branches[0]["name"] == r"\Gamma-X"
    names = [branch["name"].split("-") for branch in bands.branches]
    assert any(left[1] != right[0] for left, right in pairwise(names)), "the path has a jump"
    assert not bands.has_nac
    assert not bands.has_imaginary_freq(tol=0.1)
    ticks = PhononBSPlotter(bands).get_ticks()["label"]
    assert ticks[0] == r"$\Gamma$"
    assert not [label for label in ticks if "mathrm" in label]


def test_density_of_states_of_atoms(record: PhononRecord) -> None:
    """On the mesh reduced by symmetry it is that of phonopy on the whole mesh."""
    results = record.phonons
    assert results is not None
    dos = complete_dos(results)
    assert sum(dos.pdos.values()) == pytest.approx(dos.densities)
    assert np.trapezoid(dos.densities, dos.frequencies) == pytest.approx(12, rel=1e-3)
    of = results.phonopy
    symbols = of.primitive.symbols
    copper = [results.projected_dos[n] for n, symbol in enumerate(symbols) if symbol == "Cu"]
    assert copper[0] == pytest.approx(copper[1])
    assert np.trapezoid(copper[0], dos.frequencies) == pytest.approx(3, rel=1e-3)
    width = 2 * (dos.frequencies[1] - dos.frequencies[0])
    of.run_mesh(60.0, with_eigenvectors=True, is_mesh_symmetry=False)
    of.run_projected_dos(sigma=width, freq_min=dos.frequencies[0], freq_max=dos.frequencies[-1], freq_pitch=width / 2)
    whole = of.get_projected_dos_dict()["projected_dos"]
    n = min(whole.shape[1], results.projected_dos.shape[1])
    assert results.projected_dos[:, :n] == pytest.approx(whole[:, :n], abs=1e-4)
    plotter = PhononDosPlotter()
    plotter.add_dos("all", dos)
    plotter.get_plot()


def test_models_keep_the_objects(record: PhononRecord) -> None:
    assert record.phonons is not None
    fields = {"candidate_id": "x", "state": "converged", "device": "cpu", "dtype": "float64"}
    fields |= {"checkpoint": {"key": "k", "sha256": "0", "energy_scale": "mp"}}
    bands, dos = band_structure(record.phonons), complete_dos(record.phonons)
    model = PhononDocument(**fields, phonon_bandstructure=bands, phonon_dos=dos)
    assert (model.phonon_bandstructure, model.phonon_dos) == (bands, dos)
    read = PhononDocument.model_validate_json(model.model_dump_json())
    assert read.phonon_bandstructure.bands == pytest.approx(bands.bands)
    assert read.phonon_bandstructure.labels_dict.keys() == bands.labels_dict.keys()
    assert read.phonon_dos.densities == pytest.approx(dos.densities)
    assert len(read.phonon_dos.pdos) == 4


def test_files(record: PhononRecord, document: dict[str, Any], tmp_path: Path) -> None:
    assert record.phonons is not None
    frequencies = np.concatenate(record.phonons.frequencies)
    lost = {**document, "force_constants": None, "source": "lost.cif"}
    mode = {"structure": document["structure"], "state": "max_steps", "qpoint": [0, 0, 0], "frequency": -1.0}
    late = {**document, "state": "max_steps", "unstable_mode": mode}
    assert write_phonon_files([document, lost, late, document], tmp_path) == 3
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()) == [
        *(f"Cu3Au-00000000/{name}.yaml" for name in ("band", "phonopy")),
        *(f"Cu3Au-unconverged/{name}" for name in ("band.yaml", "followed-unconverged.cif", "phonopy.yaml")),
        *(f"Cu3Au/{name}.yaml" for name in ("band", "phonopy")),
    ]
    loaded = phonopy.load(tmp_path / "Cu3Au" / "phonopy.yaml", produce_fc=False, log_level=0)
    assert loaded.force_constants is not None
    loaded.run_qpoints(np.concatenate(record.phonons.qpoints))
    assert loaded.get_qpoints_dict()["frequencies"] == pytest.approx(frequencies, abs=1e-5)
    read = get_ph_bs_symm_line(str(tmp_path / "Cu3Au" / "band.yaml"))
    assert pytest.approx(frequencies, abs=1e-8) == read.bands.T
    followed = Structure.from_file(tmp_path / "Cu3Au-unconverged" / "followed-unconverged.cif")
    assert followed.composition.reduced_formula == "Cu3Au"


def test_masses_and_charges_come_back(document: dict[str, Any]) -> None:
    charges = [[[q, 0, 0], [0, q, 0], [0, 0, q]] for q in (3.0, -1.0, -1.0, -1.0)]
    heavy = {**document, "masses": [197.0, 65.0, 65.0, 65.0], "born": charges}
    heavy["epsilon_static"] = np.eye(3).tolist()
    of = phonopy_of(heavy)
    assert sorted(of.primitive.masses) == pytest.approx([65, 65, 65, 197])
    assert of.nac_params is not None
    with pytest.raises(ValueError, match="no force constants: exploded"):
        phonopy_of({**document, "force_constants": None, "error": "exploded"})
