"""Names of campaigns are literal, for every command."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from matris.cli import app
from matris.errors import StoreError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.finder import campaign_record
from matris.flows.campaign.status import read_status
from matris.stores.database.jobstore import open_job_store, sibling_store

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore

NAMES = {"0123ab": 2021, "0123abcd": 2024, "0123cd": 2023, "fff": 2020}


@pytest.fixture
def location(tmp_path: Path) -> Path:
    common: dict[str, Any] = {"title": "t", "checkpoint": {"key": "tiny"}, "intake": None}
    store = open_job_store(tmp_path)
    sibling_store(store, "campaigns", "campaign_id").update(
        [
            {**common, "campaign_id": name, "last_updated": datetime(year, 1, 1)}  # noqa: DTZ001 - stores have no zones
            for name, year in NAMES.items()
        ]
    )
    store.close()
    return tmp_path


@pytest.fixture
def job_store(location: Path) -> JobStore:
    return open_job_store(location)


@pytest.mark.parametrize(
    ("name", "campaign"),
    [
        (None, "0123abcd"),
        ("f", "fff"),
        ("0123abc", "0123abcd"),
        ("0123c", "0123cd"),
        ("0123", "0123abcd"),  # the newest of three
        ("0123ab", "0123ab"),  # an exact name, although a newer one begins with it
    ],
)
def test_a_name_or_its_beginning(job_store: JobStore, name: str | None, campaign: str) -> None:
    assert campaign_record(job_store, name)["campaign_id"] == campaign


@pytest.mark.parametrize("name", [".", ".*", "f*", "^f", "(", "fff.", "0123[a]", "123", "\\"])
def test_a_name_is_no_regular_expression(location: Path, name: str) -> None:
    for find in (Campaign.open, read_status):
        with pytest.raises(StoreError, match="holds no campaign") as caught:
            find(location, name)
        assert str(caught.value) == f"{location} holds no campaign {name}"


@pytest.mark.parametrize("command", ["status", "report", "cancel", "resume"])
def test_every_command_takes_names_literally(location: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, "--store", str(location), "--campaign", ".*"])
    assert result.exit_code == 1, result.output
    assert "holds no campaign .*" in result.output
