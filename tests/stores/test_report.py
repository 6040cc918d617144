from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure

from matris.stores.ranking import Funnel, kind, lost, ranked
from matris.stores.report import Report, write_report
from matris.stores.report_plot import HullPoint, drawable_systems, hull_figure, hull_points

if TYPE_CHECKING:
    from pathlib import Path

FORMATION = {
    "Li": 0.0,
    "Fe": 0.0,
    "O": 0.0,
    "Li2O": -2.0,
    "FeO": -1.2,
    "Fe2O3": -1.7,
    "LiFeO2": -1.95,
    "LiFe": 0.3,
    "Na": 0.0,
    "Cl": 0.0,
    "NaCl": -2.0,
}
"""Formation energies (eV/atom), made up."""


def document(number: int, formula: str, **changes: Any) -> dict[str, Any]:
    composition = Composition(formula)
    entries = {f: PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in FORMATION.items()}
    elements = sorted(element.symbol for element in composition.elements)
    near = [entry for f, entry in entries.items() if entry.composition.chemical_system_set <= set(elements)]
    phases, distance = PhaseDiagram(near).get_decomp_and_e_above_hull(entries[formula])
    return {
        "document_id": f"{number:020d}-a-b",
        "candidate_id": f"{number:020d}",
        "source": "elemental reference" if len(elements) == 1 else f"in/<{formula}>.cif",
        "provenance": {},
        "state": "converged",
        "error": None,
        "formula_pretty": formula,
        "chemsys": "-".join(elements),
        "elements": elements,
        "nelements": len(elements),
        "nsites": int(composition.num_atoms),
        "composition_reduced": composition.get_el_amt_dict(),
        "symmetry": {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225, "symprec": 0.1},
        "energy_per_atom": FORMATION[formula] - 4,
        "correction_scheme": "none",
        "hull_type": "self-consistent",
        "hull_reference": "11 entries",
        "hull_state": "ok",
        "formation_energy_per_atom": FORMATION[formula],
        "energy_above_hull": max(0.0, distance),
        "is_stable": distance <= 0,
        "decomposes_to": [{"formula": p.composition.reduced_formula, "amount": x} for p, x in phases.items()],
        "n_steps": 12,
        "fmax": 0.01,
        "checkpoint": {"key": "tiny", "sha256": "ab" * 32, "energy_scale": "mp"},
        "settings": {"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "0" * 12},
        "versions": {"torch": "2"},
        "device": "cpu",
        "dtype": "float32",
        **changes,
    }


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    nothing = {"hull_state": "not converged", "energy_above_hull": None, "formation_energy_per_atom": None}
    good = [document(number, formula) for number, formula in enumerate(FORMATION)]
    bad = [
        {"state": "rejected", "error": "overlapping atoms: sites 0 and 1 are 0.20 Å apart"},
        {"state": "rejected", "error": "the file is empty", "formula_pretty": None},
        {"state": "failed", "error": "the cell exploded: volume 5 times larger"},
        {"state": "max_steps", "n_steps": 500, "fmax": 0.31},
    ]
    return good + [
        document(100 + n, "NaCl", **{**nothing, "source": f"bad-{n}.cif", **changes}) for n, changes in enumerate(bad)
    ]


class Page(HTMLParser):
    """Text by element id of the section, links, and balance of tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, str | None]] = []
        self.sections: dict[str, str] = {}
        self.links: list[str] = []
        self.outside: list[str] = []
        self.data: dict[str, str] = {}
        self.rows = 0
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = dict(attrs)
        if tag == "a":
            self.links.append(at["href"] or "")
        self.outside += [value or "" for name, value in attrs if name == "src"]
        if tag == "link":
            self.outside.append(at.get("href") or "")
        if tag == "tr" and any(name == "ranking" for _, name in self.stack):
            self.rows += 1
        if tag not in {"meta", "br", "input"}:
            self.stack.append((tag, at.get("id")))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1][0] == "script":
            self.data[self.stack[-1][1] or ""] = data
            return
        for tag, name in self.stack:
            if tag == "section" and name:
                self.sections[name] = self.sections.get(name, "") + data


def test_report_tells_everything(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    structure = Structure(Lattice.cubic(4), ["Fe"], [[0, 0, 0]])
    card = {"key": "tiny", "sha256": "ab" * 32, "description": "A demonstrator.", "details": {"force MAE": 0.123456}}
    path = write_report(Report(documents, lambda _: structure, card, "Li–Fe–O & <more>", n_read=14), tmp_path / "r")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.outside == []  # nothing is loaded from anywhere
    assert "14" in page.sections["funnel"]
    for told in ("1 overlapping atoms", "1 the file is empty", "1 the cell exploded", "1 not converged"):
        assert told in page.sections["funnel"]
    assert page.rows == 1 + 6  # header; elements are not ranked
    places = [page.sections["ranked"].index(f"<{formula}>") for formula in ("Fe2O3", "Li2O", "LiFeO2", "NaCl", "FeO")]
    assert places == sorted(places)
    for reason in ("0.20 Å apart", "the file is empty", "volume 5 times", "500 steps, largest force 0.31 eV/Å"):
        assert reason in page.sections["failures"]
    assert "demonstrator" in page.sections["checkpoint"]
    assert "0.1235" in page.sections["checkpoint"]
    assert "5 elemental references" in page.sections["references"]
    assert len(page.links) == 6
    for link in page.links:
        assert Structure.from_file(path.parent / link).composition.reduced_formula == "Fe"
    for number in range(5):  # Fe-Li-O and the binaries
        figure = json.loads(page.data[f"hull-{number}-data"])
        assert {"data", "layout"} <= set(figure)
    assert path.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_report_of_nothing(tmp_path: Path) -> None:
    page = Page(write_report(Report([], lambda _: None), tmp_path).read_text(encoding="utf-8"))
    assert "None converged" in page.sections["ranked"]
    assert "every candidate converged" in page.sections["failures"]


def test_report_without_a_picture_has_no_plotly(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    only_bad = [d for d in documents if d["state"] != "converged"]
    path = write_report(Report(only_bad, lambda _: None), tmp_path)
    assert path.stat().st_size < 50_000
    assert "No chemical system" in Page(path.read_text(encoding="utf-8")).sections["hulls"]


def test_systems_drawn(documents: list[dict[str, Any]]) -> None:
    systems = drawable_systems(hull_points(documents))
    assert systems[0] == ("Fe", "Li", "O")
    assert sorted(systems[1:]) == [("Cl", "Na"), ("Fe", "Li"), ("Fe", "O"), ("Li", "O")]
    binaries = [HullPoint("LiO", {"Li": 1, "O": 1}, -1, 0.0), HullPoint("FeO", {"Fe": 1, "O": 1}, -1, 0.0)]
    assert drawable_systems(binaries) == [("Fe", "Li", "O"), ("Fe", "O"), ("Li", "O")]
    assert drawable_systems([]) == []
    assert drawable_systems([HullPoint("LiFeNaO2", {"Li": 1, "Fe": 1, "Na": 1, "O": 2}, -1, 0.0)]) == []


def test_binary_hull_runs_through_the_stable_phases(documents: list[dict[str, Any]]) -> None:
    figure = json.loads(hull_figure(("Fe", "O"), hull_points(documents)))
    line, *groups = figure["data"]
    corners = sorted({(round(x, 3), y) for x, y in zip(line["x"], line["y"], strict=True) if x is not None})
    assert corners == [(0.0, 0.0), (0.6, -1.7), (1.0, 0.0)]
    names = {group["name"]: group for group in groups}
    assert names["above the hull"]["x"] == [0.5]
    assert names["above the hull"]["text"] == [""]  # only corners are labelled
    assert "Fe<sub>2</sub>O<sub>3</sub>" in names["stable"]["text"]
    assert names["above the hull"]["marker"]["color"][0] == pytest.approx(1e3 * (1.7 * 0.5 / 0.6 - 1.2))


def test_ternary_hull_joins_coexisting_phases(documents: list[dict[str, Any]]) -> None:
    figure = json.loads(hull_figure(("Fe", "Li", "O"), hull_points(documents)))
    line = figure["data"][0]
    ends = [tuple(round(line[k][n], 3) for k in "abc") for n in range(0, len(line["a"]), 3)]
    ends += [tuple(round(line[k][n], 3) for k in "abc") for n in range(1, len(line["a"]), 3)]
    assert (0.25, 0.25, 0.5) in ends  # LiFeO2
    assert (0.5, 0.5, 0.0) not in ends  # LiFe is unstable


def test_ranking(documents: list[dict[str, Any]]) -> None:
    order = ["Fe2O3", "Li2O", "LiFeO2", "NaCl", "FeO", "LiFe"]
    assert [d["formula_pretty"] for d in ranked(documents)] == order
    unknown = document(50, "FeO", energy_above_hull=None, hull_state="missing reference: O")
    assert [d["formula_pretty"] for d in ranked([unknown, *documents])] == [*order, "FeO"]
    assert [d["state"] for d in lost(documents)] == ["rejected", "rejected", "failed", "max_steps"]
    funnel = Funnel.of(documents, 20)
    assert (funnel.read, funnel.distinct, funnel.sound, funnel.converged, funnel.stable) == (20, 10, 8, 6, 4)
    assert funnel.summary() == "20 read, 10 identical, 6 ranked (4 on the hull), 2 rejected, 1 failed, 1 not converged"
    assert funnel.summary(hull=False).startswith("20 read, 10 identical, 6 converged, 2 rejected")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("overlapping atoms: sites 0 and 1", "overlapping atoms"),
        ("disordered site 3 (Fe:0.5)", "disordered"),
        ("unsupported element U, Pu: the checkpoint", "unsupported element"),
        ("site 2 (O) has a NaN or infinite coordinate", "NaN or infinite coordinate"),
    ],
)
def test_kinds_of_reasons(message: str, expected: str) -> None:
    assert kind(message) == expected
