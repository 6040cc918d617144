"""Known phases of the candidates' systems, as candidates."""

import gzip
import json

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from matris.errors import MatrisError
from matris.flows.sources.known_phases import known_phases
from matris.stores.hull.references import References


def crystal(*species, a=4.0):
    return Structure(Lattice.cubic(a), species, [[i / len(species)] * 3 for i in range(len(species))])


def entry(name, *species, a=4.0):
    return ComputedStructureEntry(crystal(*species, a=a), -1.0, entry_id=name)


ENTRIES = [
    entry("iron", "Fe"),
    entry("oxide", "Fe", "O"),
    entry("oxide again", "Fe", "O"),
    entry("larger", "Fe", "O", a=4.2),
    entry("chloride", "Fe", "Cl"),
]


def test_phases_within_the_systems_are_candidates_each_once():
    candidates = list(known_phases(ENTRIES, ["Li-Fe-O"]))
    assert [c.provenance for c in candidates] == [{"entry_id": "iron"}, {"entry_id": "oxide"}, {"entry_id": "larger"}]
    assert {c.source for c in candidates} == {"references"}
    assert candidates[1].structure == crystal("Fe", "O")
    assert list(known_phases(ENTRIES, [])) == []
    assert list(known_phases([], ["Fe"])) == []


def test_files_of_any_form_are_read(tmp_path):
    listed, written = tmp_path / "entries.json.gz", tmp_path / "references.json"
    with gzip.open(listed, "wt") as stream:
        json.dump([each.as_dict() for each in ENTRIES], stream)
    References("known", "mp", tuple(ENTRIES)).write(written)
    for path in (listed, str(written)):
        assert [c.provenance["entry_id"] for c in known_phases(path, ["Fe-Cl"])] == ["iron", "chloride"]


def test_a_broken_structure_costs_only_itself(tmp_path):
    items = [each.as_dict() for each in ENTRIES[:3]]
    del items[0]["structure"]
    items[1]["structure"]["lattice"] = {}
    path = tmp_path / "entries.json"
    path.write_text(json.dumps(items))
    without, broken, sound = known_phases(path, ["Fe-O"])
    assert without.structure is None
    assert "iron: KeyError" in without.error
    assert "no structure in the reference entry oxide: " in broken.error
    assert sound.error is None


def test_files_without_structures_are_refused(tmp_path):
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([ComputedEntry("FeO", -1.0).as_dict()]))
    with pytest.raises(MatrisError, match=r"entries\.json holds entries without structures"):
        known_phases(path, ["Fe-O"])
    for content in ('[{"energy": 1}]', "[1]", "3"):
        path.write_text(content)
        with pytest.raises(MatrisError, match="no ComputedStructureEntry"):
            known_phases(path, ["Fe-O"])
    path.write_text("[")
    with pytest.raises(MatrisError, match="cannot read reference entries"):
        known_phases(path, ["Fe-O"])
