"""The pages in a real browser, in both modes and three widths: no script errors, no labels that meet."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from matris.stores.report import Report, write_report
from matris.stores.report.property_kinds import KINDS
from matris.stores.report.property_page import write_property_report
from tests.browser import MODES, WIDTHS, chromium, complaints, draw_all, opened
from tests.stores.report.campaign_documents import campaign_documents, document, structure
from tests.stores.report.test_page import phonons
from tests.stores.report.test_property_page import failed, sound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CROWDED = ("LiFePO4", "Li3PO4", "FePO4", "Fe2P", "FeP", "Li3P", "P2O5", "LiPO3", "LiFeO2", "Li5FeO4", "LiFe5O8", "FeO")
EVERYDAY = {("light", 400), ("dark", 1400)}
VIEWS = [
    pytest.param(mode, width, marks=() if (mode, width) in EVERYDAY else pytest.mark.slow)
    for mode, width in product(MODES, WIDTHS)
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = [*campaign_documents(60), *(document(10**6 + n, f, 0.0) for n, f in enumerate(CROWDED))]
    formulas = {d["document_id"]: d["formula_pretty"] for d in documents}
    report = Report(iter(documents), lambda name: structure(formulas[name]), title="Crowded", phonons=phonons)
    return write_report(report, tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def properties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("properties")
    warning = "the residual of the fit is 12 GPa, which is large"
    return {
        kind: write_property_report([sound(kind, warnings=[warning], is_reliable=False), failed(kind)], folder, "P")
        for kind in KINDS
    }


@pytest.mark.parametrize(("mode", "width"), VIEWS)
def test_a_campaign(browser: Any, campaign: Path, mode: str, width: int) -> None:
    with opened(browser, campaign.as_uri(), mode, width) as (page, errors):
        draw_all(page)
        systems = ["Fe–Li–O–P", "Fe–Li–O", "Fe–O"]
        labels = {}
        for system in systems:
            page.select_option("#systems", label=system)
            draw_all(page)
            assert complaints(page) == []
            texts = page.locator(".hull:not([hidden]) svg text").all_text_contents()
            labels[system] = [text.replace("\u200b", "") for text in texts]  # plotly's sign around subscripts
        assert errors == []
        assert "LiFePO4" in labels["Fe–Li–O–P"]
        assert "Li5FeO4" in labels["Fe–Li–O"]
        assert "FeO" in labels["Fe–O"]
        page.locator("#ranked .scroll").scroll_into_view_if_needed()
        page.fill("#filter", "LiFePO4")
        assert page.locator("#ranking tbody tr:visible").count() == 1
        page.locator("#ranking th", has_text="Formula").click()
        page.locator(".name").nth(1).click()
        assert page.locator(".fact:visible").count() == 1
        assert errors == []


@pytest.mark.parametrize(("mode", "width"), VIEWS)
def test_properties(browser: Any, properties: dict[str, Path], mode: str, width: int) -> None:
    for kind, path in properties.items():
        with opened(browser, path.as_uri(), mode, width) as (page, errors):
            draw_all(page)
            assert page.locator(".figure .main-svg").count() > 0
            assert complaints(page) == [], kind
            assert errors == [], kind


def test_the_mode_may_change_while_the_page_is_open(browser: Any, properties: dict[str, Path]) -> None:
    with opened(browser, properties["eos"].as_uri(), "light", 900) as (page, errors):
        draw_all(page)
        page.emulate_media(color_scheme="dark")
        draw_all(page)
        assert complaints(page) == []
        page.set_viewport_size({"width": 400, "height": 900})
        page.wait_for_function("[...document.querySelectorAll('.figure')].every(f => f.dataset.drawn === 'narrow')")
        draw_all(page)
        assert complaints(page) == []
        assert errors == []
