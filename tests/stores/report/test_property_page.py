"""The HTML page of property documents."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure

from matris.stores.documents.properties import EosDocument
from matris.stores.report import property_page as property_report
from matris.stores.report.property_kinds import KINDS, kind_of
from matris.stores.report.property_page import write_property_report
from tests.stores.report.test_property_plots import (
    COPPER,
    cubic,
    defects_document,
    diffusion_document,
    dynamics_document,
    elastic_document,
    eos_document,
    kappa_document,
    neb_document,
    phonon_document,
    qha_document,
    surfaces_document,
)

if TYPE_CHECKING:
    from pathlib import Path

MODULI = {
    "bulk_modulus": {"voigt": 137.1, "reuss": 137.1, "vrh": 137.1},
    "shear_modulus": {"voigt": 54.6, "reuss": 40.0, "vrh": 47.3},
    "young_modulus": 127.2,
    "homogeneous_poisson": 0.345,
    "universal_anisotropy": 1.8,
    "fit_residual": 0.01,
    "is_mechanically_stable": True,
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "elastic": {**elastic_document(cubic(*COPPER)), **MODULI},
    "eos": eos_document(),
    "phonon": phonon_document(lowest=-2.0),
    "qha": qha_document(),
    "kappa": kappa_document(),
    "neb": neb_document(),
    "defects": defects_document(),
    "surfaces": surfaces_document(),
    "md": dynamics_document(),
    "diffusion": diffusion_document(),
}


def sound(kind: str, **changes: Any) -> dict[str, Any]:
    settings = {"fmax": 1e-4, "strains": [-0.01, 0.01], "relax_first": True}
    common = {"error": None, "warnings": [], "settings": settings, "versions": {"torch": "2"}, "source": "in/<a>.cif"}
    return {**DOCUMENTS[kind], **common, **changes}


def failed(kind: str, **changes: Any) -> dict[str, Any]:
    """As a store holds it: all fields, those of results without any."""
    empty = dict.fromkeys(DOCUMENTS[kind])
    kept = ("candidate_id", "checkpoint", "device", "dtype")
    same = {name: DOCUMENTS[kind][name] for name in kept}
    fields = {
        "state": "failed",
        "error": "overlapping <atoms> & more",
        "source": "bad.cif",
        "formula_pretty": "<i>U</i>",
    }
    return {**empty, **same, **fields, **changes}


class Page(HTMLParser):
    """Text of each section, data of scripts, and whatever a browser would load; tags must balance."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.sections: dict[str, str] = {}
        self.figures: list[str] = []
        self.scripts: dict[str, str] = {}
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.rows: dict[str, int] = {}
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(at["href"])
        if "src" in at or tag == "link":
            self.loaded.append(str(at))
        if at.get("class") == "figure":
            self.figures.append(at["id"])
        if tag == "tr":
            self.rows[self._section] = self.rows.get(self._section, 0) + 1
        if tag not in {"meta", "br", "input"}:
            self.stack.append((tag, at.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1][0] == "script":
            self.scripts[self.stack[-1][1]] = data
        elif self.stack and self.stack[-1][0] != "style":
            self.text += data
            self.sections[self._section] = self.sections.get(self._section, "") + data

    @property
    def _section(self) -> str:
        return next((name for tag, name in self.stack if tag == "section"), "")


@pytest.mark.parametrize("kind", KINDS)
def test_page_of_each_kind(kind: str, tmp_path: Path) -> None:
    documents = [sound(kind, warnings=["beware of <this>"]), failed(kind)]
    path = write_property_report(documents, tmp_path / "new", f"{kind} & <more>")
    assert path == tmp_path / "new" / f"{kind}.html"
    page = Page(path)
    assert page.loaded == []
    assert not re.search(r"https?://|//cdn", page.text)
    assert f"{kind} & <more>" in page.sections[""]
    assert "checkpoint tiny" in page.sections[""]
    assert "2 materials" in page.sections[""]
    assert page.rows["results"] == 3
    for text in ("Fe2O3", "in/<a>.cif", "beware of <this>", "<i>U</i>", "bad.cif", "overlapping <atoms> & more"):
        assert text in page.sections["results"]
    for name, value in zip(
        KINDS[kind].columns, KINDS[kind].row(sound(kind)), strict=True
    ):  # empty columns are left out
        assert (name.replace("\n", "") in page.sections["results"]) == (value is not None)
    assert "overlapping <atoms> & more" in page.sections["failures"]
    assert "Fe2O3" not in page.sections["failures"]
    assert page.links == ["#material-0"]
    assert "beware of <this>" in page.sections["material-0"]
    assert "material-1" not in page.sections
    assert len(page.figures) == len(KINDS[kind].plots)
    for name in page.figures:
        assert json.loads(page.scripts[f"{name}-data"])["data"]
    assert path.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_numbers_of_the_table(tmp_path: Path) -> None:
    page = Page(write_property_report([sound("elastic"), sound("elastic")], tmp_path, "E"))
    for shown in ("137.1", "47.3", "127.2", "0.345", "1.8", "0.01", "yes"):
        assert page.sections["results"].count(shown) == 2
    assert "fmax 0.0001 · strains -0.01, 0.01 · relax first yes" in page.sections[""]
    assert KINDS["qha"].row(sound("qha")) == pytest.approx([40.3, 3.0, 97.0, 15.0, 1.5])
    assert KINDS["phonon"].row(sound("phonon")) == [-2.0, 5.0, None, None, True, None, None]  # up to 100 K only
    assert KINDS["kappa"].row(sound("kappa")) == pytest.approx([50.0, 0.6, 3.0, "9×9×9", 148])
    assert KINDS["neb"].row(sound("neb")) == pytest.approx([0.4, 0.7, 3])
    assert KINDS["diffusion"].row(sound("diffusion"))[:3] == ["O", 1.0, 0.05]
    assert KINDS["diffusion"].row(sound("diffusion"))[4:6] == ["1.0e-03 (5.0e-04 to 2.0e-03)", "Fe +3, O -2"]
    parts = KINDS["defects"].parts
    assert parts is not None
    assert parts.rows(failed("defects")) == []
    assert parts.rows(sound("defects")) == [
        ["v_Fe", 1, 2.0, "O2", 4.0, "Fe", 0.2, "converged"],
        ["v_O", 1, 1.0, "Fe", 3.5, "O2", 0.2, "converged"],
        ["Fe_i", 1, None, None, None, None, None, "failed"],
    ]
    assert KINDS["eos"].row(failed("eos")) == [None] * 4


def test_different_settings_are_left_out(tmp_path: Path) -> None:
    other = sound("eos", settings={"fmax": 1e-3, "strains": [-0.01, 0.01]})
    page = Page(write_property_report([sound("eos"), other], tmp_path, "E"))
    assert "strains" in page.sections[""]
    assert "fmax" not in page.text


def test_file_name_is_taken(tmp_path: Path) -> None:
    path = write_property_report([sound("eos")], tmp_path / "deep" / "page.html", "E")
    assert path == tmp_path / "deep" / "page.html"
    assert path.exists()


def test_models_make_a_page(tmp_path: Path) -> None:
    page = Page(write_property_report([EosDocument(**eos_document())], tmp_path, "E"))
    assert "40.1" in page.sections["results"]
    assert page.figures == ["figure-0-0"]


def test_pictures_of_many_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(property_report, "MAX_PICTURES", 2)
    page = Page(write_property_report([failed("eos"), *[sound("eos")] * 5, failed("eos")], tmp_path, "E"))
    assert page.figures == ["figure-1-0", "figure-2-0"]
    assert page.rows["results"] == 1 + 7
    assert "pictures of 3 further materials are left out" in page.sections["left-out"]
    assert "plot_eos(document).show()" in page.sections["left-out"]


def test_a_picture_that_cannot_be_drawn_has_a_reason(tmp_path: Path) -> None:
    soft = sound("elastic", elastic_tensor={"raw": cubic(100, 120, 50).tolist()}, is_mechanically_stable=False)
    page = Page(write_property_report([soft], tmp_path, "E"))
    assert page.figures == []
    assert "not positive definite" in page.sections["material-0"]


def test_only_failures_need_no_plotly(tmp_path: Path) -> None:
    path = write_property_report([failed("phonon")], tmp_path, "P")
    assert path.stat().st_size < 50_000
    assert "overlapping" in Page(path).sections["failures"]


def test_failed_run_shows_how_far_it_came(tmp_path: Path) -> None:
    broken = sound("md", state="failed", error="exploded at step 80")
    page = Page(write_property_report([broken], tmp_path, "D"))
    assert page.figures == ["figure-0-0", "figure-0-1", "figure-0-2"]
    assert "exploded at step 80" in page.sections["failures"]


def test_data_cannot_end_its_script(tmp_path: Path) -> None:
    path = write_property_report([sound("eos", formula_pretty="</script><b>")], tmp_path, "E")
    page = Page(path)  # tags balance
    assert "</script><b>" in page.sections["results"]
    assert "</script><b>: equation of state" in page.sections["material-0"]
    assert "text" not in json.loads(page.scripts["figure-0-0-data"])["layout"]["title"]


@pytest.mark.parametrize("documents", [[], [{"state": "failed"}], [sound("eos"), sound("qha")]])
def test_kind_must_be_clear(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of one kind"):
        write_property_report(documents, tmp_path, "?")
    assert kind_of([sound("qha")]) == "qha"


def test_demonstrators_and_extrapolation_are_marked(tmp_path: Path) -> None:
    tag = {"key": "tiny", "sha256": "ab" * 32, "energy_scale": "mp"}
    plain = Page(write_property_report([sound("md", extrapolation=0.9)], tmp_path, "D"))
    assert "demonstrator" not in plain.text
    assert "extrapolates" not in plain.text
    marked = [
        sound("md", checkpoint={**tag, "is_demonstrator": True}, extrapolation=2.34),
        sound("md", checkpoint={**tag, "is_demonstrator": True}, start={"record": {"extrapolation": 1.2}}),
    ]
    path = write_property_report(marked, tmp_path, "D")
    page = Page(path)
    assert "checkpoint tiny demonstrator" in page.sections[""]
    assert page.sections["results"].count("extrapolates") == 2
    assert page.sections["material-1"].count("extrapolates") == 1
    assert "2.3 times the limit of its domain" in path.read_text(encoding="utf-8")


def test_whether_results_are_reliable_is_shown(tmp_path: Path) -> None:
    documents = [sound("eos", is_reliable=answer, warnings=warnings) for answer, warnings in RELIABLE]
    page = Page(write_property_report(documents, tmp_path, "E"))
    assert re.findall("Reliable|yes|no$|no(?=\n)", page.sections["results"]) == ["Reliable", "yes", "no"]
    assert "B0' of -20 is outside of 1 to 10" in page.sections["results"]


RELIABLE = [(True, []), (False, ["B0' of -20 is outside of 1 to 10"]), (None, [])]


def test_elastic_constants(tmp_path: Path) -> None:
    """Those that symmetry leaves independent in the table, the whole tensor with the material."""
    tensor = cubic(*COPPER)
    tensor[0, 3] = tensor[3, 0] = -0.04  # noise
    symmetry = {"crystal_system": "Cubic", "number": 225, "symbol": "Fm-3m"}
    document = sound(
        "elastic", symmetry=symmetry, elastic_tensor={"raw": tensor.tolist(), "ieee_format": tensor.tolist()}
    )
    page = Page(write_property_report([document, failed("elastic")], tmp_path, "E"))
    heads, *_ = re.findall(r"<thead>.*?</thead>", (tmp_path / "elastic.html").read_text(encoding="utf-8"), re.DOTALL)
    assert re.findall(r"C\d\d", heads) == ["C11", "C12", "C44"]
    assert all(value in page.sections["results"] for value in ("168.4", "121.4", "75.4"))
    matrix = page.sections["material-0"]
    assert matrix.count("121.4") == 6
    assert matrix.count("168.4") == matrix.count("75.4") == 3
    assert "in the standard axes (IEEE)" in page.sections["material-0"]


def test_where_an_unstable_mode_leads(tmp_path: Path) -> None:
    iron = Structure(Lattice.cubic(2.9), ["Fe"], [[0, 0, 0]])
    mode = {"qpoint": [0.5, 0.5, 0.0], "frequency": -2.0, "state": "max_steps", "energy_gain": -0.0123}
    mode |= {"symmetry": {"symbol": "P4mm"}, "structure": iron.as_dict()}
    page = Page(write_property_report([sound("phonon", unstable_mode=mode)], tmp_path, "P"))
    text = " ".join(page.sections["material-0"].split())
    assert "Most unstable mode: 2.00i THz at q = (0.5, 0.5, 0)" in text
    assert "space group P4mm, −12.30 meV/atom, not converged" in text
    assert "P4mm (max_steps)" in page.sections["results"]
    (link,) = (link for link in page.links if link.startswith("data:"))
    (tmp_path / "a.cif").write_bytes(b64decode(link.partition("base64,")[2]))
    assert Structure.from_file(tmp_path / "a.cif") == iron
    assert "Fe2O3-followed-unconverged.cif" in (tmp_path / "phonon.html").read_text(encoding="utf-8")
    alone = Page(write_property_report([sound("phonon")], tmp_path, "P"))
    assert "followed" not in alone.sections["results"]
