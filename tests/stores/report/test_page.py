"""The page about a campaign: what it tells, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import tracemalloc
from html.parser import HTMLParser
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matris.stores.report import FIELDS, Report, write_report
from matris.stores.report.crystals import conventional_cell
from matris.stores.report.discovery import Discovery
from matris.stores.report.outcomes import Outcomes, ranked
from matris.stores.report.tally import Tally
from tests.stores.report.campaign_documents import campaign_documents, document, lost, structure
from tests.stores.report.test_property_plots import phonon_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Page(HTMLParser):
    """Text by id of the section, data of scripts, and what a browser would load; tags must balance."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.sections: dict[str, str] = {}
        self.data: dict[str, Any] = {}
        self.loaded: list[str] = []
        self.rows: dict[str, int] = {}
        self.options: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if "src" in at or tag in {"link", "a"}:
            self.loaded.append(str(at))
        if tag == "tr":
            self.rows[self._section] = self.rows.get(self._section, 0) + 1
        if tag not in {"meta", "br", "input"}:
            self.stack.append((tag, at.get("id", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, name = self.stack[-1] if self.stack else ("", "")
        if tag == "script":
            if name:
                self.data[name] = json.loads(data)
        elif tag != "style":
            if tag == "option":
                self.options.append(data)
            self.sections[self._section] = self.sections.get(self._section, "") + data

    @property
    def _section(self) -> str:
        return next((name for tag, name in self.stack if tag == "section"), "")


def phonons(candidate: Any) -> dict[str, Any]:
    return phonon_document(-2.0 if candidate["phonon"]["has_imaginary_modes"] else 1.0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    documents = list(campaign_documents(400))
    formulas = {d["document_id"]: d["formula_pretty"] for d in documents}
    card = {"key": "tiny", "sha256": "ab" * 32, "description": "A <demonstrator>.", "details": {"force MAE": 0.123456}}
    counts = Discovery(400, 300, 40, 200, 100, tuple("abcd"), {0.0: 40})
    report = Report(
        iter(documents),
        lambda identity: structure(formulas[identity]),
        card,
        "Li–Fe–O & <script>alert(1)</script>",
        intake={"read": 450, "identical": 50},
        phonons=phonons,
        discovery=counts,
    )
    return Page(write_report(report, tmp_path_factory.mktemp("report") / "deep"))


def test_nothing_is_loaded(page: Page) -> None:
    assert page.loaded == []
    assert "<script>alert" not in page.source
    assert "url(" not in page.source.partition("</style>")[0]
    assert page.source.count("plotly.js v") == 1
    assert len(page.source) < 8_000_000


def test_head_and_funnel(page: Page) -> None:
    assert "<script>alert(1)</script>" in page.sections[""]
    assert "demonstrator" in page.sections[""]
    for text in ("450", "50 identical", "unreadable CIF", "atoms too close", "no charge balance", "out of steps"):
        assert text in page.sections["funnel"]
    assert "dynamically stable" in page.sections["funnel"]
    assert "not finished" not in page.sections["funnel"]


def test_what_extrapolates_is_marked_and_counted(page: Page, tmp_path: Path) -> None:
    documents = [
        document(1, "Li2O", 0.0, extrapolation=0.5, is_extrapolating=False),
        document(2, "FeO", 0.05, extrapolation=2.34, is_extrapolating=True),
        document(3, "LiFeO2", 0.2, extrapolation=5.0, is_extrapolating=True),
    ]
    marked = Page(write_report(Report(iter(documents), lambda _: None, {"key": "tiny"}), tmp_path))
    assert marked.sections["ranked"].count("extrapolates") == 2
    assert "2.3 times the limit of its domain" in marked.source
    assert (
        "1 of 2 survivors are unlike the training data of the checkpoint: their results are unreliable"
        in marked.sections["funnel"]
    )
    assert "training data" not in page.sections["funnel"]  # nobody knows


def test_remarks_on_the_hull_and_unreliable_results_are_shown(page: Page, tmp_path: Path) -> None:
    unreliable = {"is_reliable": False, "warnings": ["the residual is <12> GPa"], "bulk_modulus": 90.0}
    documents = [
        document(1, "Li2O", 0.0, only_elements_compete=True, hull_lacks=["Li-O"], elastic=unreliable),
        document(2, "FeO", 0.05, correction_state="undecided", hull_lacks=[f"Fe-{n}" for n in "OSCN"]),
        document(3, "LiFeO2", 0.06, only_elements_compete=False, hull_lacks=[], elastic={"is_reliable": True}),
    ]
    report = Report(iter(documents), lambda _: structure("FeO"), {"key": "tiny"}, remarks=["Hull: <mine> & theirs"])
    marked = Page(write_report(report, tmp_path))
    assert "Hull: <mine> & theirs" in marked.sections["hulls"]
    ranked = marked.sections["ranked"]
    assert "only the elements compete (Li–O); elastic: not reliable: " in ranked
    assert "the residual is <12> GPa" in ranked
    assert "no competing compounds in Fe–O, Fe–S, Fe–C and 1 more; corrections undecided" in ranked
    assert ranked.count("reliable") == 1
    assert "not reliable" in marked.sections["top"]
    assert "Caution" not in page.sections["ranked"]  # nothing to be careful with


def test_crystals_can_be_drawn(page: Page) -> None:
    held = page.data["crystals"]
    assert len(held["crystals"]) == 40
    for crystal in held["crystals"]:
        rebuilt = Structure(crystal["lattice"], [s[0] for s in crystal["sites"]], [s[1:] for s in crystal["sites"]])
        assert rebuilt.composition.reduced_formula == crystal["name"].partition("-")[0]
        assert {site[0] for site in crystal["sites"]} <= held["elements"].keys()
    assert all(re.fullmatch("#[0-9a-f]{6}", look["colour"]) for look in held["elements"].values())
    assert held["elements"]["O"]["radius"] == 0.66
    assert (held["elements"]["O"]["metal"], held["elements"]["Fe"]["metal"]) == (False, True)
    assert "no imaginary modes" in page.sections["top"]
    assert "imaginary modes down to −2.10 THz" in page.sections["top"]
    assert "GPa" in page.sections["top"]
    assert sum(name.startswith("phonons-") for name in page.data) == 15


@pytest.mark.parametrize(
    ("crystal", "n_sites", "lengths"),
    [
        (Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]), 8, [4.2] * 3),
        (Structure.from_spacegroup("Im-3m", Lattice.cubic(2.8), ["Fe"], [[0, 0, 0]]), 2, [2.8] * 3),
        (
            Structure.from_spacegroup(
                "R-3c", Lattice.hexagonal(5.07, 13.87), ["Fe", "O"], [[0, 0, 0.355], [0.306, 0, 0.25]]
            ),
            30,
            [5.07, 5.07, 13.87],
        ),
    ],
)
def test_the_conventional_cell_is_made_of_the_atoms_of_the_crystal(
    crystal: Structure, n_sites: int, lengths: list[float]
) -> None:
    assert conventional_cell(crystal) is None  # it is conventional
    assert conventional_cell(crystal * (2, 1, 1)) is None
    primitive = crystal.get_primitive_structure()
    primitive.perturb(0.01)
    cell = conventional_cell(primitive)
    assert cell is not None
    assert len(cell) == n_sites
    assert cell.lattice.abc == pytest.approx(lengths)
    matrix = cell.get_primitive_structure(tolerance=1e-4)
    assert len(matrix) == len(primitive)  # the moved atoms, not idealised ones
    assert StructureMatcher(ltol=1e-6, stol=1e-6).fit(matrix, primitive)


def test_hulls(page: Page) -> None:
    assert page.options[0] == "Fe–Li–O"
    assert len(page.options) == 60
    assert "all of <them>" in page.sections["hulls"]
    assert "further chemical systems are not drawn" in page.sections["hulls"]
    flat, in_energy = (page.data[f"hull-0-{n}-data"]["data"] for n in range(2))
    assert flat[0]["type"] == "scatterternary"
    surface = next(trace for trace in in_energy if trace["type"] == "mesh3d")
    assert max(surface["z"]) == 0  # the elements
    assert all(z < 0 for z in sorted(surface["z"])[:-3])
    assert all({"data", "layout"} <= page.data[f"hull-{n}-0-data"].keys() for n in range(60))
    assert "Fe–Li–O" in page.sections["hulls"]


def test_elements_and_distributions(page: Page) -> None:
    counts = Tally.of(campaign_documents(400), Outcomes()).with_element
    for name in ("hits", "failures", "candidates"):
        assert f'<i class="{name}">{counts[name]["Fe"]}</i>' in page.source
    assert sum(counts["hits"].values()) > 0
    assert f"Iron: {counts['candidates']['Fe']} candidates" in page.source
    assert page.source.count("<svg viewBox") == 5
    assert "Volume change on relaxation" in page.sections["distributions"]


def test_tables(page: Page) -> None:
    assert page.rows["ranked"] == 1 + Outcomes.of(campaign_documents(400)).left("duplicates after relaxing")
    for text in (
        "the cell exploded: volume 5.31 times larger",
        "500 steps, largest force 0.31",
        "no <block> & nothing",
    ):
        assert text in page.sections["failures"]
    assert "Bulk modulus" in page.sections["ranked"]
    assert "3 competing phases" in page.sections["references"]


def test_origin(page: Page) -> None:
    assert "A <demonstrator>." in page.sections["checkpoint"]
    assert "0.1235" in page.sections["checkpoint"]
    assert "cuda:0, float32" in page.sections["settings"]
    assert "MaterialsProject2020Compatibility" in page.sections["settings"]
    for text in ("40 of 300", "200 of 300", "100 of 200", "4 of 400 candidates (1.0%)"):
        assert text in page.sections["discovery"]


def make(
    documents: list[dict[str, Any]], folder: Path, find: Callable[[str], Any] = lambda _: None, **more: Any
) -> Page:
    return Page(write_report(Report(documents, find, **more), folder))


def test_nothing(tmp_path: Path) -> None:
    empty = make([], tmp_path)
    assert "No candidate converged" in empty.sections["ranked"]
    assert "every candidate converged" in empty.sections["failures"]
    assert "No chemical system" in empty.sections["hulls"]
    assert len(empty.source) < 60_000


def test_only_failures_need_no_plotly(tmp_path: Path) -> None:
    broken = [lost(1, "FeO", state="rejected", stage="reading", error="empty", chemsys=None, elements=[])]
    page = make(broken, tmp_path)
    assert "empty" in page.sections["failures"]
    assert "plotly.js v" not in page.source


def test_odd_numbers_do_not_break_it(tmp_path: Path) -> None:
    nan = float("nan")
    odd = [
        document(1, "FeO", 0.0, seconds=nan, volume_change=float("inf"), n_steps=None, symmetry=None, nsites=1),
        document(2, "Li2O", 0.0, energy_above_hull=None, formation_energy_per_atom=None, hull_state="missing: O"),
        document(3, "FeO", -0.3, seconds=0.0),
        document(4, "Fe", 0.2),
    ]
    page = make(odd, tmp_path, lambda _: None)
    assert "missing: O" in page.sections["ranked"]
    assert "−300.0" in page.sections["ranked"]
    assert "top" not in page.sections


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_counts_as_missing(wrong: float, tmp_path: Path) -> None:
    elastic = {"bulk_modulus": wrong, "shear_modulus": 20.0, "is_mechanically_stable": True}
    odd = [
        document(1, "FeO", 0.05, energy_above_hull=wrong, formation_energy_per_atom=wrong),
        document(2, "Fe2O3", 0.05, density=wrong, fmax=wrong, elastic=elastic),
        document(3, "Li2O", 0.07, energy_per_atom=wrong),
    ]
    page = make(odd, tmp_path)
    assert not re.search(r"(?<![A-Za-z])(nan|inf)(?![A-Za-z])", page.sections["ranked"])
    assert ranked(odd)[-1]["document_id"] == odd[0]["document_id"]  # like one without a hull


def test_running_campaign_and_no_hull(tmp_path: Path) -> None:
    page = make([document(1, "FeO", 3.0)], tmp_path, intake={"read": 10, "identical": 2}, window=None)
    assert "7 not finished yet" in page.sections["funnel"]
    assert "on the hull" not in page.sections["funnel"]


def test_mixed_origins_are_named(tmp_path: Path) -> None:
    other = document(2, "FeO", 0.0, checkpoint={"key": "other", "sha256": "c", "energy_scale": "mp"})
    page = make([document(1, "FeO", 0.0), other], tmp_path)
    assert "2 combinations of checkpoint and settings" in page.sections[""]


def test_too_large_crystals_are_left_out(tmp_path: Path) -> None:
    large = structure("FeO").make_supercell([4, 4, 4])
    assert len(large) > 300
    page = make([document(1, "FeO", 0.0)], tmp_path, lambda _: large)
    assert "top" not in page.sections


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make([], tmp_path)
    before = (tmp_path / "index.html").read_bytes()

    def break_off(*_: Any, **__: Any) -> Iterator[str]:
        yield "<!DOCTYPE html>"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matris.stores.report.templating.pieces", break_off)
    with pytest.raises(OSError, match="No space"):
        make([document(1, "FeO", 0.0)], tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_all_fields_that_are_read_are_asked_for(tmp_path: Path) -> None:
    """A document that has nothing but `FIELDS` makes the same page as the whole one."""
    outermost = {name.partition(".")[0] for name in FIELDS}
    whole = [*islice(campaign_documents(30), 30)]
    cut = [{name: value for name, value in d.items() if name in outermost} for d in whole]
    pages = [make(documents, tmp_path).source for documents in (whole, cut)]
    date = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert date.sub("", pages[0]) == date.sub("", pages[1])


def test_memory_does_not_grow_with_the_documents() -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        Tally.of((document(i, "LiFeO2", i % 977 / 977) for i in range(n)), Outcomes())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(7_000) < 1.2 * peak(2_500)
