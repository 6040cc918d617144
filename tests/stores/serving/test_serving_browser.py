"""The served pages in a real browser: no script errors, no labels that meet, progress that updates."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from matris.stores.serving.served_store import ServedStore
from tests.browser import chromium, complaints, draw_all, opened
from tests.stores.serving.small_store import HOSTILE, fill

pytest.importorskip("fastapi", reason="no web server: pip install 'matris-flows[serve]'")

import uvicorn

from matris.stores.serving.app import make_app
from matris.stores.serving.listening import address_of, listen
from tests.stores.serving.test_serving import FEO, Campaigns

if TYPE_CHECKING:
    from collections.abc import Iterator


class Growing(Campaigns):
    """A campaign that gets further with each look."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def progress(self) -> Any:
        self.done += 1
        stage = {"name": "relax", "done": self.done, "total": 1000, "rate": "2.0/s", "remaining": "9 min"}
        problems = [HOSTILE]
        common = {"name": "one", "title": HOSTILE, "checkpoint": "tiny", "phase": "running", "read": 1000}
        return [{**common, "stages": [stage], "problems": problems}]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browser") / "results"
    fill(folder)
    with listen(port=0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(ServedStore(folder), Growing()), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield address_of(listener)
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize(("mode", "width"), [("dark", 400), ("light", 1400)])
def test_a_search_and_a_candidate(browser: Any, address: str, mode: str, width: int) -> None:
    with opened(browser, address, mode, width) as (page, errors):
        assert complaints(page) == []
        page.fill("input[name=filter]", "has Fe, O and state = converged")
        page.click("button[type=submit]")
        assert page.locator("#found tbody tr").count() == 2
        page.click(f"#found a[href='/candidate/{FEO}']")
        page.wait_for_selector(".figure")
        draw_all(page)
        assert page.locator(".figure .main-svg").count() > 5
        assert complaints(page) == []
        with page.expect_download() as download:
            page.click("text=POSCAR")
        assert download.value.suggested_filename == "FeO-feo.vasp"
        assert errors == []


def test_a_wrong_filter_is_answered_in_the_page(browser: Any, address: str) -> None:
    with opened(browser, f"{address}/?filter=ehull+<", "light", 900) as (page, _):
        assert "expected a number" in page.locator("[role=alert]").inner_text()
        assert page.input_value("input[name=filter]") == "ehull <"


def test_progress_updates_and_text_stays_text(browser: Any, address: str) -> None:
    with opened(browser, address, "dark", 900) as (page, errors):
        asked = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        cell = page.locator("#progress td.number").first
        before = cell.inner_text()
        page.wait_for_function("text => document.querySelector('#progress td.number').innerText !== text", arg=before)
        assert "1000" in cell.inner_text().replace("\u202f", "")
        assert HOSTILE in page.locator("#progress").inner_text()
        assert page.locator("#progress script").count() == 0
        page.route("**/progress", lambda route: route.abort())
        page.wait_for_function("document.getElementById('progress-note').innerText.includes('cannot read the store')")
        assert asked == []
        assert [error for error in errors if "ERR_FAILED" not in error] == []
