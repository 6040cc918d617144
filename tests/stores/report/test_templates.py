"""Text of users in the pages: it is shown as it is, and never becomes markup, script or template."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from jinja2 import UndefinedError

from matris.stores.report import Report, write_report
from matris.stores.report.discovery import Discovery
from matris.stores.report.formats import decimals, formula_html, grouped, plural, short, symbol_html
from matris.stores.report.hull_points import HullPoint
from matris.stores.report.property_kinds import KINDS
from matris.stores.report.property_page import write_property_report
from matris.stores.report.templating import environment, script_json
from tests.stores.report.campaign_documents import document, lost, structure
from tests.stores.report.test_property_page import failed, sound
from tests.stores.report.test_property_plots import phonon_document

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = """<script>alert(1)</script><!-- " ' {{ 7 * 7 }} {% raw %} {# & &lt; </td></section><img src=x onerror=a>"""
HARMLESS = HOSTILE.translate(dict.fromkeys(map(ord, "<>\"'&{}%#=/!"), "x"))


class Tags(HTMLParser):
    """Tags and the names of their attributes; text outside of scripts, and values of attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(("end", tag))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "script":
            self.texts.append(data)


def campaign(folder: Path, text: str) -> Tags:
    """A page with the text wherever a user's text can appear."""
    broken = {"state": "failed", "error": text, "bulk_modulus": None, "has_imaginary_modes": None}
    drawn = {"state": "converged", "has_imaginary_modes": False}
    checkpoint = {"key": text, "sha256": "c" * 64, "energy_scale": "mp"}
    origin = {"device": text, "dtype": text, "correction_scheme": text, "versions": {text: text}}
    documents = [
        document(1, "FeO", 0.0, formula_pretty=f"Fe2{text}", source=text, checkpoint=checkpoint, **origin),
        document(2, "Li2O", 0.05, provenance={"prototype": text}, is_extrapolating=True, extrapolation=2.5),
        document(3, "Li2O", 0.0, symmetry={"symbol": f"F-3_1{text}", "number": 3}, hull_type=text, hull_reference=text),
        document(4, "FeO", 0.2, decomposes_to=[{"formula": text, "amount": 1.0}]),
        document(5, "FeO", 0.0, elastic=broken, phonon=broken),
        document(6, "FeO", 0.0, phonon=drawn),
        document(7, "FeO", 0.0, hull_state=text, energy_above_hull=None, chemsys=text),
        document(12, "FeO", 0.0, phonon=drawn),
        document(13, "FeO", 0.0, hull_lacks=[text], elastic={"is_reliable": False, "warnings": [text]}),
        document(8, "O", 0.0, source="elemental reference", formula_pretty=text),
        lost(9, "FeO", state="failed", stage="relaxation", error=text),
        lost(10, "FeO", state="rejected", stage="reading", error=f"odd: {text}", source=text),
        lost(11, "FeO", state="duplicate", stage="duplicates", duplicate_of=text),
    ]
    report = Report(
        documents,
        lambda _: structure("FeO"),
        card={"key": text, "description": text, text: [text], "details": {text: {text: text}}},
        title=text,
        phonons=lambda d: phonon_document() if d["candidate_id"].endswith("06") else {"error": text},
        discovery=Discovery(9, 8, 1, 1, 1, (text,), {}),
        remarks=[text],
        reference_points=[HullPoint("Fe2O3", {"Fe": 2.0, "O": 3.0}, -1.7, None, text)],
    )
    return Tags(write_report(report, folder))


def property_page(folder: Path, text: str, kind: str) -> Tags:
    """A page with the text wherever a user's text can appear."""
    common = {
        "formula_pretty": f"Fe2{text}",
        "source": text,
        "symmetry": {"symbol": f"F-3_1{text}", "number": 3},
        "checkpoint": {"key": text, "sha256": "c" * 64, text: text},
        "settings": {text: text, "list": [text]},
        "versions": {text: text},
        "device": text,
    }
    documents = [sound(kind, warnings=[text], **common), failed(kind, error=text, **common)]
    if kind == "md":
        documents[0]["trajectory"] = text[:16]  # has no slash
    return Tags(write_property_report(documents, folder, text))


@pytest.mark.parametrize("kind", ["campaign", *KINDS])
def test_text_of_users_stays_text(kind: str, tmp_path: Path) -> None:
    pages = [
        campaign(tmp_path / name, text) if kind == "campaign" else property_page(tmp_path / name, text, kind)
        for name, text in (("hostile", HOSTILE), ("harmless", HARMLESS))
    ]
    assert pages[0].tags == pages[1].tags
    counts = ["".join(page.texts).count(text) for page, text in zip(pages, (HOSTILE, HARMLESS), strict=True)]
    assert counts[0] == counts[1] > 10
    if kind == "campaign":
        assert f"No phonon bands: the document has no phonon_bandstructure: {HOSTILE}." in "".join(pages[0].texts)


def test_data_of_scripts_are_json_that_cannot_end_its_element() -> None:
    content = {"a": [HOSTILE, 1.5, None]}
    for given in (content, json.dumps(content)):
        text = script_json(given)
        assert "<" not in text
        assert json.loads(text) == content
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([float("nan")])


def test_missing_variables_are_errors() -> None:
    with pytest.raises(UndefinedError, match="title"):
        environment().get_template("base.html").render(plotly_script="")


def test_formulas_and_symbols() -> None:
    assert formula_html("Fe2O3.5<") == "Fe<sub>2</sub>O<sub>3.5</sub>&lt;"
    assert symbol_html("P-42_1m&") == 'P<span class="over">4</span>2<sub>1</sub>m&amp;'
    assert symbol_html(None) == ""


def test_numbers() -> None:
    assert (decimals(-1.25, 1), decimals(None, 1)) == ("−1.2", "–")
    assert [short(n) for n in (0, 999, 1234, 12345)] == ["–", "999", "1.2k", "12k"]
    assert (plural(0, "phase"), plural(1, "phase"), grouped(12345)) == ("", "1 phase", "12\u202f345")
