"""What a user types: every row of docs/sources.md, and what is wrong is named."""

import gzip
import json
import re
import zipfile
from itertools import islice
from pathlib import Path

import ase.db
import pytest
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from matris.errors import MatrisError
from matris.flows.sources.opening import open_source
from matris.stores.candidate_store import CandidateStore
from matris.structures import content_id
from tests.stores.query.question_documents import document


def rock_salt(a, cation):
    h = a / 2
    return Structure(Lattice([[0, h, h], [h, 0, h], [h, h, 0]]), [cation, "O"], [[0, 0, 0], [0.5] * 3])


FEO, MGO = rock_salt(4.33, "Fe"), rock_salt(4.21, "Mg")
DOCS = Path(__file__).parents[3] / "docs" / "sources.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, and results."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "structures").mkdir()
    FEO.to(str(folder / "structures" / "FeO.cif"))
    MGO.to(str(folder / "structures" / "MgO.vasp"), fmt="poscar")
    FEO.to(str(folder / "POSCAR"), fmt="poscar")
    FEO.to(str(folder / "many.cif.gz"))
    atoms = [each.to_ase_atoms() for each in (FEO, MGO)]
    write(folder / "many.extxyz", atoms, format="extxyz")
    entries = [ComputedStructureEntry(each, -1.0).as_dict() for each in (FEO, MGO)]
    (folder / "entries.json.gz").write_bytes(gzip.compress(json.dumps(entries).encode()))
    (folder / "entries.jsonl").write_text("\n".join(map(json.dumps, entries)))
    with ase.db.connect(folder / "oqmd.db") as database:
        for each in atoms:
            database.write(each)
    with zipfile.ZipFile(folder / "generated_crystals_cif.zip", "w") as archive:
        archive.writestr("gen_0.cif", FEO.to(fmt="cif"))
        archive.writestr("gen_1.cif", MGO.to(fmt="cif"))
    store = CandidateStore.open(folder / "campaign")
    store.docs.update(
        [
            document("oxide", "FeO", is_stable=True, provenance={"frame": 3}),
            document("magnesia", "MgO", is_stable=True),
            document("lost", "FeO", state="failed", error="no"),
        ]
    )
    for name, structure in (("oxide", FEO), ("magnesia", MGO)):
        candidate = store.query().where(f"candidate_id = {name}").first()
        store.data.update([{"document_id": candidate["document_id"], "structure": structure.as_dict()}])
    return folder


EXPECTED = {
    "structures/": 2,
    "many.extxyz": 2,
    "many.cif.gz": 1,
    "POSCAR": 1,
    "entries.json.gz": 2,
    "entries.jsonl": 2,
    "oqmd.db": 2,
    "generated_crystals_cif.zip": 2,
    "campaign": 2,
    "campaign?stable and has Fe": 1,
    "prototypes:Li-Fe-O": 6,  # of some forty, the first of which are elements
    "random:Li2O?count=200&sizes=1-4": 6,
    "random:compositions:Li-Fe-O?max_amount=3?count=20": 6,
    "substitute:structures/?threshold=0.01": None,
    "swap:POSCAR?Fe=Co,Ni": 2,
    "rattle:POSCAR?n=5&amplitude=0.05&strain=0.02&seed=1": 5,
    "rattle:swap:POSCAR?Fe=Co,Ni?n=3": 6,
}


def test_every_source_in_the_documentation_is_tested():
    text = DOCS.read_text()
    first_columns = re.findall(r"^\| `([^`]+)` \|", text.split("## Generators")[0], re.MULTILINE)
    assert set(first_columns) - {"mongodb://HOST/DATABASE?ehull <= 50 meV"} <= set(EXPECTED)
    assert all(f"`{source}`" in text for source in EXPECTED)


@pytest.mark.parametrize("source", EXPECTED)
def test_a_source_gives_candidates(folder, monkeypatch, source):
    if source.startswith("random"):
        pytest.importorskip("pyxtal", reason="needs the extra random")
        pytest.importorskip("smact", reason="needs the extra chemistry")
    monkeypatch.chdir(folder)
    candidates = list(islice(open_source(source), 6))
    assert {c.error for c in candidates} == {None}
    assert len(candidates) == (EXPECTED[source] or len(candidates)) > 0
    assert len({c.candidate_id for c in candidates}) == len(candidates)


def test_results_name_their_document_and_checkpoint(folder):
    (candidate,) = open_source(f"{folder}/campaign?stable and has Fe")
    assert candidate.candidate_id == content_id(FEO)
    assert candidate.source.endswith(", relaxed by matris_10m_oam")
    assert candidate.provenance["generator"] == "results"
    assert candidate.provenance["parent"]["candidate_id"] == "oxide"
    assert candidate.provenance["parent"]["frame"] == 3
    assert candidate.provenance["checkpoint"]["key"] == "matris_10m_oam"
    assert candidate.provenance["document_id"]


def test_a_limit_is_kept_and_names_of_files_come_first(folder, tmp_path):
    assert len(list(open_source("prototypes:Li-Fe-O?limit=3"))) == 3
    assert len(list(open_source(f"rattle:{folder}/many.extxyz?n=5&limit=7"))) == 7
    odd = tmp_path / "rattle:a?n=2.cif"
    FEO.to(str(tmp_path / "a.cif"))
    (tmp_path / "a.cif").rename(odd)
    assert [c.source for c in open_source(str(odd))] == [str(odd)]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere/", "no such file"),
        ("shuffle:POSCAR", "no generator 'shuffle'.*prototypes, substitute, swap, random, rattle"),
        ("rattle:nowhere.cif?n=2", "nowhere.cif: no such file"),
        ("rattle:POSCAR?amplitud=0.1", "rattle has no option 'amplitud'; did you mean amplitude?"),
        ("rattle:POSCAR?n=two", "cannot read n=two, expected a whole number"),
        ("rattle:POSCAR?n=0", "n of at least 1"),
        ("rattle:POSCAR?strain=0.5", "strain below 1/3"),
        ("rattle:POSCAR?amplitude=nan", "finite amplitude"),
        ("rattle:POSCAR?limit=0", "limit is 0"),
        ("swap:POSCAR", "swap needs either elements"),
        ("swap:POSCAR?by=luck", "no rule 'luck'"),
        ("swap:POSCAR?Fe=Qq", "there is no element 'Qq'"),
        ("swap:POSCAR?Fe=Co&at_once=0", "at_once is 0"),
        ("substitute:POSCAR?threshold=0", "threshold is 0"),
        ("prototypes:Li-Xx", "'Xx'"),
        ("campaign?beauty > 3", "no field 'beauty'"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_read(folder, monkeypatch, source, told):
    monkeypatch.chdir(folder)
    with pytest.raises(MatrisError, match=told):
        open_source(source)


@pytest.mark.parametrize(
    ("uri", "location", "condition"),
    [
        ("mongodb://host/db", "mongodb://host/db", None),
        ("mongodb://host/db?retryWrites=false&w=1", "mongodb://host/db?retryWrites=false&w=1", None),
        ("mongodb://host/db?stable and has Fe", "mongodb://host/db", "stable and has Fe"),
        ("mongodb://host/db?state=converged", "mongodb://host/db", "state=converged"),
        ("mongodb://host/db?authSource=admin?stable", "mongodb://host/db?authSource=admin", "stable"),
    ],
)
def test_a_filter_is_parted_from_the_options_of_a_uri(monkeypatch, uri, location, condition):
    asked = []

    class Query:
        def where(self, text):
            asked.append(text)
            return self

    class Store:
        def query(self):
            return Query()

    monkeypatch.setattr(CandidateStore, "open", lambda place: asked.append(place) or Store())
    open_source(uri)
    assert asked == [location, *([condition] if condition else [])]
