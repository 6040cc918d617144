"""The server of a store: searches, candidates, downloads, progress; errors as sentences; nothing becomes markup."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Structure
from pymongo.errors import AutoReconnect

from matris.errors import MatrisError
from matris.stores.query.export import FORMATS
from matris.stores.query.language import parse_filter
from matris.stores.report.property_kinds import KINDS
from matris.stores.serving.served_store import ServedStore
from tests.stores.serving.small_store import ENERGIES, HOSTILE, REFERENCES, fill

pytest.importorskip("fastapi", reason="no web server: pip install 'matris-flows[serve]'")

from fastapi.testclient import TestClient

from matris.stores.serving.app import make_app

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HERE = "http://127.0.0.1:8000"
FEO = "feo-abababab-00000000"


class Page(HTMLParser):
    """Texts, tags and links of a page; tags must balance."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text, self.links = source, "", []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in {"meta", "br", "input"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"script", "style"}:
            self.text += data


class Campaigns:
    """Two campaigns, one of them with a report."""

    def __init__(self) -> None:
        self.n_reports = 0

    def progress(self) -> Sequence[dict[str, Any]]:
        stage = {"name": "relax", "done": 3, "total": 10, "rate": "2.0/s", "remaining": "< 1 min"}
        running = {"phase": "running", "read": 10, "stages": [stage], "problems": [f"a chunk {HOSTILE}"]}
        common = {"title": HOSTILE, "checkpoint": "tiny"}
        return [
            {**common, "name": "one", **running},
            {**common, "name": "two", "phase": "reading", "read": 5, "stages": [], "problems": []},
        ]

    def report(self, name: str, folder: Path) -> Path | None:
        if name != "one":
            return None
        folder.mkdir(exist_ok=True)
        self.n_reports += 1
        page = folder / "index.html"
        page.write_text(f"<h1>report {self.n_reports}</h1>")
        return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("serving") / "results"
    fill(place)
    return place


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return TestClient(make_app(ServedStore(folder), Campaigns(), name="<b>mine"), base_url=HERE)


def test_all_candidates_without_references(client: TestClient) -> None:
    answer = client.get("/")
    page = Page(answer.text)
    assert answer.status_code == 200
    assert "Results in <b>mine demonstrator" in page.text
    assert "5 found" in page.text
    for formula in ENERGIES.keys() - set(REFERENCES):
        assert f"/candidate/{formula.lower()}-abababab-00000000" in page.links
    assert page.text.count("extrapolates") == 1
    assert "7 converged" not in page.text
    assert "6 converged, 1 failed, 1 not converged" in page.text
    everything = Page(client.get("/", params={"references": "yes"}).text)
    assert "8 found" in everything.text


def test_a_search_is_that_of_the_command_line(client: TestClient) -> None:
    page = Page(client.get("/", params={"filter": "has Fe, O and state = converged", "sort": "-nsites"}).text)
    assert "2 found" in page.text
    assert page.source.index("/candidate/feo-") < page.source.index("/candidate/lifeo3-")
    assert "/?filter=has+Fe%2C+O+and+state+%3D+converged&sort=formula_pretty" in [
        link.replace("%20", "+") for link in page.links
    ]
    for wrong in ("ehull <", "colour = red", "has Xx"):
        with pytest.raises(MatrisError) as error:
            parse_filter(wrong)
        answer = client.get("/", params={"filter": wrong})
        assert answer.status_code == 400
        assert str(error.value) in Page(answer.text).text
    assert client.get("/", params={"sort": "no_such_field"}).status_code == 400
    assert client.get("/", params={"page": "0"}).status_code == 400
    assert client.get("/", params={"filter": "nsites = " + "9" * 40}).status_code in {200, 400}
    assert client.get("/?filter=source%20%3D%20%ED%A0%80").status_code in {200, 400}  # no UTF-8


def test_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matris.stores.serving.pages.PAGE_SIZE", 2)
    seen = []
    for number in (1, 2, 3):
        page = Page(client.get("/", params={"page": number}).text)
        assert f"page {number} of 3" in page.text
        seen += [link for link in page.links if link.startswith("/candidate/")]
    assert len(seen) == len(set(seen)) == 5


def test_a_candidate_with_its_properties(client: TestClient) -> None:
    answer = client.get(f"/candidate/{FEO}")
    page = Page(answer.text)
    assert answer.status_code == 200
    for kind in KINDS.values():
        assert kind.title in page.text
    assert page.source.count('class="figure"') == sum(len(kind.plots) for kind in KINDS.values())
    assert "No picture" not in page.text
    assert page.source.count(f"beware of {HOSTILE}") == 0
    assert page.text.count(f"beware of {HOSTILE}") >= len(KINDS)
    assert '<script src="/plotly.js">' in page.source
    assert "plotly.js v" in client.get("/plotly.js").text[:400]
    plain = Page(client.get("/candidate/li2o-abababab-00000000").text)
    assert "/plotly.js" not in plain.source
    assert "extrapolates" in plain.text
    failed = Page(client.get("/candidate/broken-abababab-00000000").text)
    assert f"exploded: {HOSTILE}" in failed.text
    assert "POSCAR" not in failed.text


def test_structures_and_documents(client: TestClient) -> None:
    for form, suffix in (("cif", "cif"), ("symmetrized-cif", "cif"), ("poscar", "vasp")):
        answer = client.get(f"/candidate/{FEO}/structure", params={"format": form})
        name = answer.headers["content-disposition"].partition("filename=")[2].strip('"')
        assert name == f"FeO-feo.{suffix}"
        crystal = Structure.from_str(answer.text, fmt="poscar" if form == "poscar" else "cif")
        assert crystal.composition.reduced_formula == "FeO"
    assert "unconverged" in client.get("/candidate/slow-abababab-00000000/structure").headers["content-disposition"]
    document = client.get(f"/candidate/{FEO}/document").json()
    assert document["formula_pretty"] == "FeO"
    assert client.get("/candidate/broken-abababab-00000000/structure").status_code == 404
    assert client.get(f"/candidate/{FEO}/structure", params={"format": "../etc"}).status_code == 400


@pytest.mark.parametrize("form", FORMATS)
def test_results_in_all_formats(client: TestClient, form: str) -> None:
    answer = client.get("/results", params={"format": form, "filter": "has Fe and state = converged"})
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    if form == "csv":
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert len(rows) == 3
        assert {row[0] for row in rows[1:]} == {"FeO", "LiFeO3"}
    elif form == "jsonl":
        assert {json.loads(line)["formula_pretty"] for line in answer.text.splitlines()} == {"FeO", "LiFeO3"}
    elif form == "entries":
        assert len(answer.json()) == 2
    elif form == "extxyz":
        assert answer.text.count("Lattice=") == 2
    else:
        assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 2


def test_progress_and_reports(client: TestClient) -> None:
    page = Page(client.get("/progress").text)
    assert page.text.count(HOSTILE) == 3
    assert "script" not in page.tags
    assert "3 / 10" in page.text
    assert "2.0/s" in page.text
    assert "5 read" in page.text
    assert "/campaign/one" in page.links
    assert client.get("/campaign/one").text == "<h1>report 1</h1>"
    assert client.get("/campaign/one").text == "<h1>report 1</h1>"  # nothing has changed
    assert client.get("/campaign/other").status_code == 404


def test_a_report_is_written_again_when_results_come(tmp_path: Path) -> None:
    store = fill(tmp_path)
    client = TestClient(make_app(ServedStore(tmp_path), Campaigns()), base_url=HERE)
    assert client.get("/campaign/one").text == "<h1>report 1</h1>"
    store.set_fields({FEO: {"stage": "hull window"}})
    assert client.get("/campaign/one").text == "<h1>report 2</h1>"


def test_only_this_machine_and_only_reading(client: TestClient, folder: Path) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:8000", ""):
        assert client.get("/", headers={"Host": host}).status_code == 400
    for host in ("localhost:8000", "127.0.0.1:1", "[::1]:8000"):
        assert client.get("/progress", headers={"Host": host}).status_code == 200
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)("/").status_code == 405
    headers = client.get("/", headers={"Origin": "http://evil.example"}).headers
    assert "access-control-allow-origin" not in headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    anyone = TestClient(make_app(ServedStore(folder), hosts=("*",)), base_url="http://cluster.example")
    assert anyone.get("/progress").status_code == 200


def test_a_store_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "results"
    fill(place)
    client = TestClient(make_app(ServedStore(place)), base_url=HERE, raise_server_exceptions=False)
    assert client.get("/").status_code == 200
    place.rename(tmp_path / "moved")
    for path in ("/", "/progress", f"/candidate/{FEO}", "/results", "/campaign/one"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "The store cannot be read now" in Page(answer.text).text
        assert str(tmp_path) not in answer.text
    assert not place.exists()  # and no empty one is made
    (tmp_path / "moved").rename(place)
    assert "5 found" in Page(client.get("/").text).text


@pytest.mark.parametrize(
    "error", [AutoReconnect("10.0.0.7: connection closed"), OSError(5, "Input/output error", "/home/me/results")]
)
def test_errors_of_the_store_say_nothing_of_the_machine(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedStore(folder)
    client = TestClient(make_app(served), base_url=HERE, raise_server_exceptions=False)

    def fail() -> Any:
        raise error

    monkeypatch.setattr(served, "open", fail)
    answer = client.get("/")
    assert answer.status_code == 503
    assert str(error) not in answer.text
    assert str(error) in caplog.text
    monkeypatch.setattr(served, "open", lambda: 1 / 0)
    assert client.get("/").status_code == 500


def test_a_damaged_structure_is_named(tmp_path: Path) -> None:
    store = fill(tmp_path)
    store.data.update([{"document_id": FEO, "structure": {"lattice": "gone"}}], key="document_id")
    client = TestClient(make_app(ServedStore(tmp_path)), base_url=HERE, raise_server_exceptions=False)
    page = client.get(f"/candidate/{FEO}")
    assert page.status_code == 200
    assert f"the structure of document {FEO} cannot be read" in page.text
    answer = client.get("/results", params={"format": "cif"})
    assert answer.status_code == 500
    assert FEO in answer.text


def test_an_empty_store(tmp_path: Path) -> None:
    from matris.stores.candidate_store import CandidateStore

    CandidateStore.open(tmp_path)
    page = Page(TestClient(make_app(ServedStore(tmp_path)), base_url=HERE).get("/").text)
    assert "The store holds no candidates yet." in page.text
    assert "0 found" in page.text


def test_optimade_beside_the_pages(folder: Path) -> None:
    pytest.importorskip("optimade", reason="OPTIMADE's tools are not installed")
    from matris.stores.optimade.server import make_app as make_optimade
    from matris.stores.optimade.server import open_published, publish

    candidates, published = open_published(folder)
    publish(candidates, published)
    app = make_app(ServedStore(folder))
    app.mount("/optimade", make_optimade(published, "/optimade"))
    client = TestClient(app, base_url=HERE)
    answer = client.get(
        "/optimade/v1/structures",
        params={"filter": 'elements HAS "O"', "page_limit": 1},
        headers={"Origin": "http://evil.example"},
    )
    assert answer.json()["meta"]["data_returned"] > 1
    assert "access-control-allow-origin" not in answer.headers
    following = answer.json()["links"]["next"]
    assert following.startswith(f"{HERE}/optimade/v1/structures?")
    assert client.get(following).json()["data"][0]["id"] != answer.json()["data"][0]["id"]
    assert "Results in" in client.get("/").text


def test_no_torch(folder: Path) -> None:
    code = (
        "import sys; from fastapi.testclient import TestClient; from matris.stores.serving.app import make_app; "
        "from matris.stores.serving.served_store import ServedStore; "
        f"client = TestClient(make_app(ServedStore({str(folder)!r})), base_url={HERE!r}); "
        f"print(client.get('/').status_code, client.get('/candidate/{FEO}').status_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "200 200 False\n"
