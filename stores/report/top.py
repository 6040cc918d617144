"""Section of the top candidates: their crystals in space, their numbers, their phonons."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from matris.stores.report.assets import data_script
from matris.stores.report.crystals import crystal, looks
from matris.stores.report.parts import definitions, formula_html, symbol_html

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymatgen.core import Structure

    from matris.stores.report.outcomes import Document

MAX_CRYSTALS = 40
"""Candidates whose crystals a page holds."""

MAX_BANDS = 15
"""Candidates whose phonon bands a page holds."""


def top(
    ranking: Sequence[Document],
    structures: Callable[[str], Structure | None],
    phonons: Callable[[Document], Document | None],
) -> tuple[str, bool]:
    """
    Show the best candidates.

    Parameters
    ----------
    ranking
        Documents, the best first.
    structures
        Finds the relaxed structure of a document by its ``document_id``.
    phonons
        Finds the document of a candidate's phonons, bands loaded.

    Returns
    -------
    section, drawn
        The section, and whether it holds figures.
    """
    crystals: list[dict[str, Any]] = []
    buttons, facts = [], []
    n_bands = 0
    for document in ranking[:MAX_CRYSTALS]:
        structure = structures(document["document_id"])
        shape = None if structure is None else crystal(structure)
        if shape is None:
            continue
        place = len(crystals)
        crystals.append(shape | {"name": f"{document['formula_pretty']}-{document['candidate_id'][:8]}"})
        buttons.append(_button(place, document))
        bands = _bands(place, document, phonons) if n_bands < MAX_BANDS else ""
        n_bands += bool(bands)
        facts.append(_facts(place, document, bands))
    if not crystals:
        return "", False
    elements = looks(site[0] for shape in crystals for site in shape["sites"])
    data = data_script("crystals", {"crystals": crystals, "elements": elements})
    views = "".join(f'<button type="button" data-view="{axis}">{axis}</button>' for axis in "abc")
    section = (
        '<section id="top"><h2>Top candidates</h2><div class="top"><div class="names" role="listbox" '
        f'aria-label="Candidates" tabindex="0">{"".join(buttons)}</div><div class="stage"><canvas id="crystal" '
        'tabindex="0" role="img" aria-label="Crystal structure; arrow keys turn it, plus and minus scale it"></canvas>'
        f'<div class="under"><div class="legend" id="legend"></div><div class="views" aria-label="View along">{views}'
        '<button type="button" id="cif">CIF</button></div></div></div>'
        f'<div class="facts">{"".join(facts)}</div></div>{data}</section>'
    )
    return section, n_bands > 0


def _button(place: int, document: Document) -> str:
    distance = document.get("energy_above_hull")
    shown = "–" if distance is None else f"{1e3 * distance:.0f}".replace("-", "−")
    stable = " stable" if distance is not None and distance <= 0 else ""
    return (
        f'<button type="button" role="option" class="name{stable}" data-crystal="{place}" '
        f'aria-selected="{"true" if place == 0 else "false"}"><span class="formula">'
        f'{formula_html(document["formula_pretty"])}</span><span class="distance">{shown}</span></button>'
    )


def _facts(place: int, document: Document, bands: str) -> str:
    """Numbers of one candidate."""
    symmetry = document.get("symmetry") or {}
    heading = formula_html(document["formula_pretty"])
    content = {
        "above the hull": _with_unit(document.get("energy_above_hull"), 1e3, ".1f", "meV/atom"),
        "formation energy": _with_unit(document.get("formation_energy_per_atom"), 1.0, ".3f", "eV/atom"),
        "competing phases": _phases(document),
        "atoms": document.get("nsites"),
        "volume": _with_unit(document.get("volume"), 1.0, ".1f", "Å³"),
        "density": _with_unit(document.get("density"), 1.0, ".2f", "g/cm³"),
        "elastic": _elastic(document.get("elastic")),
        "phonons": _phonons(document.get("phonon")),
        "source": str(document["source"]),
    }
    return (
        f'<div class="fact" id="fact-{place}"{"" if place == 0 else " hidden"}><h3>{heading} '
        f'<span class="source">{symbol_html(symmetry.get("symbol"))}</span></h3>{definitions(content)}{bands}</div>'
    )


def _with_unit(value: float | None, factor: float, digits: str, unit: str) -> str | None:
    return None if value is None else f"{factor * value:{digits}} {unit}".replace("-", "−")


def _phases(document: Document) -> str | None:
    if document.get("is_stable"):
        return None
    return " + ".join(str(phase["formula"]) for phase in document.get("decomposes_to") or [])


def _elastic(summary: Document | None) -> str | None:
    """Tell moduli and stability."""
    if not summary:
        return None
    if summary.get("bulk_modulus") is None:
        return f"failed: {summary.get('error') or 'no reason is known'}"
    moduli = (("K", "bulk_modulus"), ("G", "shear_modulus"), ("E", "young_modulus"))
    told = [f"{name} {summary[field]:.0f} GPa" for name, field in moduli if summary.get(field) is not None]
    if summary.get("is_mechanically_stable") is not None:
        told.append("stable" if summary["is_mechanically_stable"] else "unstable")
    return ", ".join(told)


def _phonons(summary: Document | None) -> str | None:
    """Tell dynamical stability."""
    if not summary:
        return None
    if summary.get("has_imaginary_modes") is None:
        return f"failed: {summary.get('error') or 'no reason is known'}"
    if not summary["has_imaginary_modes"]:
        return "no imaginary modes"
    lowest = summary.get("min_frequency")
    return "imaginary modes" + ("" if lowest is None else f" down to {lowest:.2f} THz".replace("-", "−"))


def _bands(place: int, document: Document, phonons: Callable[[Document], Document | None]) -> str:
    """Phonon bands of one candidate, if they were computed."""
    whole = phonons(document) if (document.get("phonon") or {}).get("has_imaginary_modes") is not None else None
    if whole is None:
        return ""
    from matris.stores.report.property_plots import plot_phonons

    try:
        figure: Any = plot_phonons(whole)
    except ValueError as error:
        return f'<p class="note">No phonon bands: {escape(str(error))}.</p>'
    figure.update_layout(title=None, height=320, margin={"l": 56, "r": 12, "t": 30, "b": 40})
    figure.update_xaxes(title="states", showticklabels=False, col=2)  # its zero would lie on the last point's name
    name = f"phonons-{place}"
    return f'<div class="figure" id="{name}" style="height:320px"></div>{data_script(f"{name}-data", figure.to_json())}'
