"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import stat

import pytest

from matris.files.whole_file import whole_file


def test_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with whole_file(path) as draft:
        draft.write_text("a,b\n")
        assert draft.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "a,b\n"
    assert list(path.parent.iterdir()) == [path]


def test_error_removes_the_draft_and_leaves_an_older_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def interrupted() -> None:
        with whole_file(path) as draft:
            draft.write_text("half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "table.csv"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second, longer")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_draft(tmp_path):
    secret, public = tmp_path / "secret", tmp_path / "public"
    with whole_file(secret) as draft:
        draft.touch(0o600)
        draft.write_text("key")
    with whole_file(public) as draft:
        draft.write_text("key")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o666 & ~mask


def test_file_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "missing"):
        pass
