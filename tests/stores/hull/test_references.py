"""Reference sets from files, the Materials Project's client (a stub) and documents; entries of each energy scale."""

import json
import sys
from datetime import datetime
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from matris.errors import MatrisError
from matris.stores.documents.corrections import corrected_entry, correction_scheme, mp_parameters
from matris.stores.hull.references import (
    References,
    load_references,
    references_from_documents,
    references_from_mp,
)

LI_FE_O = Path(__file__).parents[4] / "shared/data/li_fe_o_entries.json.gz"


def rock_salt(cation, anion):
    face_centred = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    other = [[x + 0.5, y, z] for x, y, z in face_centred]
    return Structure(Lattice.cubic(4.3), [cation] * 4 + [anion] * 4, face_centred + other)


def write(path, entries):
    path.write_text(json.dumps([e.as_dict() for e in entries]))
    return path


def test_references_must_belong_on_the_scale(tmp_path):
    oxide = rock_salt("Fe", "O")
    plain = ComputedEntry("FeO", -10.0, entry_id="plain")
    without_u = ComputedStructureEntry(oxide, -50.0, parameters={"run_type": "GGA", "hubbards": {}}, entry_id="no-u")
    good = ComputedStructureEntry(oxide, -50.0, parameters=mp_parameters(oxide.composition), entry_id="good")
    r2scan = ComputedStructureEntry(oxide, -50.0, parameters={"run_type": "R2SCAN"}, entry_id="r2")
    everything = write(tmp_path / "all.json", [plain, without_u, good, r2scan])
    references = load_references(everything, "mp")
    assert [e.entry_id for e in references.entries] == ["good"]
    assert references.left_out == 3
    assert references.name == "all.json"
    assert references.label == f"all.json (mp, {references.date}, sha256 {references.sha256[:12]}, 1 entries)"
    assert [e.entry_id for e in load_references(everything, "matpes-r2scan").entries] == ["plain", "r2"]
    assert [e.energy for e in load_references(everything, "matpes-r2scan").entries] == [-10.0, -50.0]
    with pytest.raises(
        MatrisError, match=r"none of the 1 entries .*: 1 × run type R2SCAN, but this scale takes GGA or GGA\+U"
    ):
        load_references(write(tmp_path / "r2.json", [r2scan]), "mp")
    with pytest.raises(
        MatrisError, match=r"this scale takes only entries with the parameter .*'energy_scale': 'omat24'"
    ):
        load_references(everything, "omat24")
    with pytest.raises(
        MatrisError, match="this scale takes PBE"
    ):  # GGA of the Materials Project has other pseudopotentials
        load_references(write(tmp_path / "gga.json", [without_u, good]), "matpes-pbe")


def test_a_correction_that_a_file_carries_is_not_applied_twice(tmp_path):
    oxide = rock_salt("Fe", "O")
    entry = corrected_entry(oxide, -50.0, "mp", "feo")
    (again,) = load_references(write(tmp_path / "a.json", [entry]), "mp").entries
    assert again.energy == pytest.approx(entry.energy)


def test_errors_name_files_without_entries(tmp_path):
    path = tmp_path / "bad.json"
    with pytest.raises(MatrisError, match=r"cannot read reference entries from .*bad\.json"):
        load_references(path, "mp")
    path.write_text("[{}]")
    with pytest.raises(MatrisError, match=r"1 of the 1 entries in .*bad\.json are broken: entry 1, it has no comp"):
        load_references(path, "mp")


def test_entries_that_name_their_scale_belong_there_and_nowhere_else(tmp_path):
    oxide = ComputedStructureEntry(rock_salt("Fe", "O"), -50.0, parameters={"energy_scale": "omat24"}, entry_id="o")
    path = write(tmp_path / "omat.json", [oxide])
    (read,) = load_references(path, "omat24").entries
    assert read.correction == pytest.approx(4 * (-0.657 - 2.428))
    for scale in ("mp", "matpes-pbe", "matpes-r2scan"):
        with pytest.raises(MatrisError, match="none of the 1 entries"):
            load_references(path, scale)


def test_the_hash_is_that_of_the_content():
    entries = [ComputedEntry("Li", -1.9, entry_id="a"), ComputedEntry("LiF", -9.0, entry_id="b")]
    one = References("one", "matpes-pbe", tuple(entries))
    assert References("other", "matpes-pbe", tuple(entries[::-1])).sha256 == one.sha256
    assert len(one.sha256) == 64
    assert References("one", "matpes-r2scan", tuple(entries)).sha256 != one.sha256
    lower = ComputedEntry("LiF", -9.001, entry_id="b")
    assert References("one", "matpes-pbe", (entries[0], lower)).sha256 != one.sha256


def test_a_set_written_is_the_set_read_and_keeps_its_scale(tmp_path):
    oxide = rock_salt("Fe", "O")
    entries = (corrected_entry(oxide, -50.0, "mp", "feo"), corrected_entry(rock_salt("Fe", "Al"), -40.0, "mp", "feal"))
    written = References("my phases", "mp", entries, date="2024-02-29")
    for name in ("set.json", "set.json.gz"):
        written.write(tmp_path / name)
        read = load_references(tmp_path / name, "mp")
        assert (read.name, read.date, read.sha256, read.label) == (
            written.name,
            written.date,
            written.sha256,
            written.label,
        )
    with pytest.raises(
        MatrisError, match="on the energy scale 'mp'; they cannot be compared with energies on 'omat24'"
    ):
        load_references(tmp_path / "set.json", "omat24")


class Client:
    """Stub of mp_api.client.MPRester."""

    db_version = "2025_09_25"

    def __init__(self, entries):
        self.entries = entries
        self.asked = []

    def get_entries_in_chemsys(self, elements, additional_criteria):
        self.asked.append((elements, additional_criteria))
        return self.entries

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_the_materials_project_is_asked_for_the_energies_of_the_scale(monkeypatch):
    oxide = rock_salt("Fe", "O")
    good = ComputedStructureEntry(oxide, -50.0, parameters=mp_parameters(oxide.composition), entry_id="mp-1-GGA+U")
    wrong = ComputedStructureEntry(oxide, -50.0, parameters={"run_type": "r2SCAN"}, entry_id="mp-1-r2SCAN")
    client = Client([good, wrong])
    references = references_from_mp("O-Fe", client=client)
    assert client.asked == [(["Fe", "O"], {"thermo_types": ["GGA_GGA+U"]})]
    assert [e.entry_id for e in references.entries] == ["mp-1-GGA+U"]
    assert references.entries[0].correction == pytest.approx(4 * (-0.687 - 2.256))
    assert (references.name, references.date, references.left_out) == ("Materials Project Fe-O", "2025-09-25", 1)
    monkeypatch.setattr("matris.stores.hull.references._mp_client", lambda: client)
    r2scan = references_from_mp(["Fe", "O"], "matpes-r2scan")
    assert client.asked[1][1] == {"thermo_types": ["R2SCAN"]}
    assert [(e.entry_id, e.correction) for e in r2scan.entries] == [("mp-1-r2SCAN", 0)]
    for scale in ("omat24", "matpes-pbe"):
        with pytest.raises(MatrisError, match=f"no energies on the scale '{scale}'"):
            references_from_mp("Fe-O", scale, client)
    with pytest.raises(MatrisError, match="has no phases of Fe-O"):
        references_from_mp("Fe-O", client=Client([]))


def test_without_client_or_key_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(MatrisError, match=r"pip install 'matris-flows\[mp\]'"):
        references_from_mp("Fe-O")
    stub = type(sys)("mp_api.client")
    stub.MPRester = lambda key: Client([]) if key == "secret" else None
    monkeypatch.setitem(sys.modules, "mp_api", type(sys)("mp_api"))
    monkeypatch.setitem(sys.modules, "mp_api.client", stub)
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(MatrisError, match="set MP_API_KEY"):
        references_from_mp("Fe-O")
    monkeypatch.setenv("MP_API_KEY", "secret")
    with pytest.raises(MatrisError, match="has no phases"):
        references_from_mp("Fe-O")


def computed(structure, energy, scale="mp", **other):
    """Candidate document of a structure."""
    entry = corrected_entry(structure, energy, scale)
    return {
        "document_id": f"{structure.composition.reduced_formula} {energy}",
        "state": "converged",
        "composition": structure.composition.get_el_amt_dict(),
        "uncorrected_energy_per_atom": energy / len(structure),
        "energy_per_atom": entry.energy_per_atom,
        "corrections": {a.name: a.value for a in entry.energy_adjustments},
        "correction_scheme": correction_scheme(scale, structure.composition),
        "checkpoint": {"key": "demo", "sha256": "a" * 64, "energy_scale": scale},
        "settings": {"digest": "0123456789ab"},
        "last_updated": datetime(2026, 3, 1, 12),  # noqa: DTZ001 - as BSON keeps it
    } | other


@pytest.mark.parametrize("scale", ["mp", "omat24", "matpes-pbe"])
def test_documents_of_a_checkpoint_become_a_reference_set_with_the_same_energies(scale, tmp_path):
    lithium_peroxide = Structure(
        Lattice.hexagonal(3.14, 7.65),
        ["Li", "Li", "Li", "Li", "O", "O", "O", "O"],
        [
            [0, 0, 0],
            [0, 0, 0.5],
            [1 / 3, 2 / 3, 0.25],
            [2 / 3, 1 / 3, 0.75],
            [1 / 3, 2 / 3, 0.649],
            [2 / 3, 1 / 3, 0.149],
            [2 / 3, 1 / 3, 0.351],
            [1 / 3, 2 / 3, 0.851],
        ],
    )
    structures = [rock_salt("Fe", "O"), rock_salt("Fe", "S"), rock_salt("Na", "Cl"), lithium_peroxide]
    documents = [computed(structure, -40.0, scale) for structure in structures]
    references = references_from_documents([*documents, computed(structures[0], -1.0, scale, state="failed")])
    expected = {d["document_id"]: d["energy_per_atom"] for d in documents}
    assert {e.entry_id: e.energy_per_atom for e in references.entries} == pytest.approx(expected, abs=1e-12)
    if scale == "mp":
        assert any("(peroxide)" in name for name in documents[3]["corrections"])
    assert (references.energy_scale, references.left_out, references.date) == (scale, 1, "2026-03-01")
    assert references.name == "demo sha256 aaaaaaaaaaaa settings 0123456789ab"
    references.write(tmp_path / "set.json")
    assert load_references(tmp_path / "set.json", scale).sha256 == references.sha256


def test_documents_of_several_checkpoints_make_no_reference_set():
    documents = [computed(rock_salt("Fe", "Al"), -40.0)]
    other = computed(rock_salt("Na", "Cl"), -40.0, checkpoint={"key": "b", "sha256": "b" * 64, "energy_scale": "mp"})
    with pytest.raises(MatrisError, match="one checkpoint and one set of settings; there are 2, of 2"):
        references_from_documents([*documents, other])
    with pytest.raises(MatrisError, match="there are 0, of 0"):
        references_from_documents([])


@pytest.mark.skipif(
    not LI_FE_O.exists(), reason="needs shared/data/li_fe_o_entries.json.gz, which is not in the repository"
)
def test_a_file_of_the_materials_project_is_dated_by_its_newest_entry_and_refused_elsewhere():
    assert load_references(LI_FE_O, "mp").date[:4] == "2021"
    for scale in ("omat24", "matpes-pbe", "matpes-r2scan"):
        with pytest.raises(MatrisError, match="none of the 375 entries"):
            load_references(LI_FE_O, scale)
