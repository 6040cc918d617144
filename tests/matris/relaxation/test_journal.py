from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.relaxation.journal import Journal, JournalError
from matris.relaxation.records import RelaxRecord, RelaxSettings

HEADER = {"checkpoint": "c0ffee", "settings": {"fmax": 0.05}}


def record(name: str, index: int = 0) -> RelaxRecord:
    structure = Structure(
        Lattice.from_parameters(3.1, 4.2, 5.3, 80, 95, 111), ["Fe2+", "O"], [[0.1, 0, 0], [0.5, 1 / 3, 0.7]]
    )
    return RelaxRecord(
        index,
        name,
        "converged",
        structure=structure,
        energy=-1 / 3,
        forces=np.arange(6.0).reshape(2, 3) / 7,
        stress=np.eye(3) / 9,
        magmoms=np.array([0.1, 4.0]),
        n_steps=17,
        fmax=0.01,
        smax=1 / 9,
        seconds=0.5,
    )


def test_record_survives_json_number_for_number():
    first = record("a")
    second = RelaxRecord.from_dict(json.loads(json.dumps(first.to_dict())))
    assert second.to_dict() == first.to_dict()
    assert second.structure == first.structure
    assert np.array_equal(second.forces, first.forces)
    failed = RelaxRecord(3, None, "failed", error="unsupported element Xx")
    assert RelaxRecord.from_dict(json.loads(json.dumps(failed.to_dict()))).to_dict() == failed.to_dict()


def test_settings_digest_follows_the_values_alone():
    assert RelaxSettings(fmax=1).digest() == RelaxSettings(fmax=1.0).digest()
    digests = {RelaxSettings(*values).digest() for values in [(), (0.1,), (0.05, 10), (0.05, 500, False)]}
    assert len(digests) == 4
    assert all(len(digest) == 12 and int(digest, 16) >= 0 for digest in digests)
    with pytest.raises(ValueError, match="fmax"):
        RelaxSettings(fmax=float("nan"))
    with pytest.raises(ValueError, match="max_steps"):
        RelaxSettings(max_steps=-1)


@pytest.mark.parametrize("on_disk", [True, False])
def test_records_are_found_by_identity(tmp_path, on_disk):
    with Journal(tmp_path / "new" / "j.jsonl" if on_disk else None, HEADER) as journal:
        for name in "abc":
            journal.append(record(name))
        assert "b" in journal
        assert "z" not in journal
        assert len(journal) == 3
        assert journal["b"].to_dict() == record("b").to_dict()
        journal.append(record("d"))  # after reading in the middle
        assert journal["d"].structure_id == "d"
        with pytest.raises(ValueError, match="structure_id"):
            journal.append(RelaxRecord(0, None, "failed", error="no crystal"))


def test_reopened_journal_holds_what_was_written(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
    with Journal(path, HEADER) as journal:
        assert journal["a"].to_dict() == record("a").to_dict()
        journal.append(record("b"))
    lines = path.read_text().splitlines()
    assert [json.loads(line).get("structure_id") for line in lines] == [None, "a", "b"]


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_unfinished_last_line_is_dropped(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
        whole = path.read_bytes()
        journal.append(record("b"))
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, HEADER) as journal:
        assert "a" in journal
        assert "b" not in journal
        assert path.read_bytes() == whole
        journal.append(record("c"))
    with Journal(path, HEADER) as journal:
        assert journal["c"].structure_id == "c"


def test_unfinished_header_is_written_again(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER):
        pass
    header = path.read_bytes()
    for length in (0, 1, len(header) - 1):
        path.write_bytes(header[:length])
        with Journal(path, HEADER) as journal:
            assert len(journal) == 0
        assert path.read_bytes() == header


def test_journal_of_another_run_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
    before = path.read_bytes()
    with pytest.raises(JournalError, match="checkpoint is c0ffee in the journal, 5eed in this run"):
        Journal(path, {**HEADER, "checkpoint": "5eed"})
    assert path.read_bytes() == before


def test_other_files_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "POSCAR"
    for content in ("Si2\n1.0\n", '{"lattice": 1}\n', "{", "[1]\n"):
        path.write_text(content)
        expected = None if content == "{" else JournalError  # the header's first byte: an unfinished header
        if expected:
            with pytest.raises(expected, match="not a relaxation journal"):
                Journal(path, HEADER)
            assert path.read_text() == content


def test_damage_before_the_last_line_is_an_error(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
        journal.append(record("b"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:40] + "\n" + lines[2])
    with pytest.raises(JournalError, match="line 2"):
        Journal(path, HEADER)


def test_failed_write_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
        before = path.read_bytes()

        def full(_file):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(record("b"))
        assert path.read_bytes() == before
        assert "b" not in journal
        monkeypatch.undo()
        journal.append(record("b"))
        assert journal["b"].structure_id == "b"


def test_a_journal_in_use_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append(record("a"))
        with pytest.raises(JournalError, match="in use by another process"):
            Journal(path, HEADER)
        assert "a" in journal
    with Journal(path, HEADER) as journal:
        assert len(journal) == 1
