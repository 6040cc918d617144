"""Sections of the HTML report, each a function from documents to HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from matris.stores.ranking import PROMISING, Document, Funnel, reason
from matris.stores.reference_phases import REFERENCE_SOURCES
from matris.stores.report_parts import badge, definitions, formula_html, number_cell, plural, symbol_html
from matris.stores.report_plot import drawable_systems, hull_figure, hull_points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.stores.report_plot import HullPoint

MAX_ROWS = 1000
MAX_PLOTS = 60
_DRAWABLE = 3
_STATES = {"rejected": "rejected", "failed": "failed", "max_steps": "not converged"}


def head(title: str, documents: Sequence[Document], card: Mapping[str, Any]) -> str:
    """Show what was done, by what."""
    key = card.get("key") or next((d["checkpoint"]["key"] for d in documents), "unknown")
    kinds = sorted({d["hull_type"] for d in documents if d.get("hull_type")})
    hull = f" · {' and '.join(kinds)} convex hull" if kinds else ""
    count = sum(document["source"] not in REFERENCE_SOURCES for document in documents)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<h1>{escape(title)}</h1><p class="lead">{plural(count, "candidate")} · checkpoint '
        f"{escape(str(key))}{badge(card)}{escape(hull)} · {date}</p>"
    )


def funnel(counts: Funnel) -> str:
    """Show how many candidates were left after each step, and what the others were lost to."""
    steps = [
        ("read", counts.read, ""),
        ("distinct", counts.distinct, plural(counts.read - counts.distinct, "duplicate")),
        ("sound", counts.sound, counts.loss("rejected")),
        ("relaxed", counts.converged, counts.loss("failed", "max_steps")),
        (f"within {1e3 * PROMISING:.0f} meV/atom of the hull", counts.promising, ""),
        ("on the hull", counts.stable, ""),
    ]
    rows = []
    for name, count, loss in steps:
        width = 100 * count / counts.read if counts.read else 0
        good = " good" if "hull" in name else ""
        rows.append(
            f'<div>{escape(name)}</div><div class="track"><div class="bar{good}" style="width:{width:.1f}%"></div>'
            f'</div><div class="count">{count}</div>'
        )
        if loss:
            rows.append(f'<div class="lost">− {escape(loss)}</div>')
    return f'<section id="funnel"><h2>Funnel</h2><div class="funnel">{"".join(rows)}</div></section>'


def hulls(documents: Sequence[Document], reference_points: Sequence[HullPoint] | None) -> tuple[str, str]:
    """
    Draw the hulls of all chemical systems of two and three elements.

    Returns
    -------
    section, script
        The section, and plotly's own script, which is empty if there is nothing to draw.
    """
    points = hull_points(documents)
    systems = drawable_systems(points)
    told = f'<p class="note">{escape(_hull_sentence(documents))}</p>'
    larger = {d["chemsys"] for d in documents if d.get("hull_state") == "ok" and d["nelements"] > _DRAWABLE}
    if larger:
        told += f'<p class="note">{plural(len(larger), "system")} of four or more elements only in the ranking.</p>'
    if not systems:
        nothing = '<p class="note">No chemical system of two or three elements has a hull to draw.</p>'
        return f'<section id="hulls"><h2>Convex hull</h2>{nothing}{told}</section>', ""
    from plotly.offline import get_plotlyjs

    options, plots = [], []
    for number, system in enumerate(systems[:MAX_PLOTS]):
        name = f"hull-{number}"
        options.append(f'<option value="{name}">{escape("–".join(system))}</option>')
        figure = hull_figure(system, points, reference_points)
        data = f'<script type="application/json" id="{name}-data">{figure}</script>'
        plots.append(f'<div class="plot" id="{name}" hidden></div>{data}')
    if len(systems) > MAX_PLOTS:
        told += f'<p class="note">{len(systems) - MAX_PLOTS} further chemical systems are not drawn.</p>'
    choice = f'<label>Chemical system <select id="systems">{"".join(options)}</select></label>'
    content = f'<div class="bar-top">{choice}</div>{"".join(plots)}{told}'
    return f'<section id="hulls"><h2>Convex hull</h2>{content}</section>', f"<script>{get_plotlyjs()}</script>"


def _hull_sentence(documents: Sequence[Document]) -> str:
    """Say which hull the numbers refer to."""
    sets = sorted({(d["hull_type"], d.get("hull_reference") or "") for d in documents if d.get("hull_type")})
    told = "; ".join(f"{hull_type} ({name})" if name else hull_type for hull_type, name in sets)
    return f"Hull: {told}. Solid lines join phases that coexist on it." if told else "No candidate has a hull distance."


def ranking(documents: Sequence[Document], files: Mapping[str, str | None]) -> str:
    """List ranked candidates with links to their structures."""
    if not documents:
        return '<section id="ranked"><h2>Ranked candidates</h2><p class="note">None converged.</p></section>'
    rows = "".join(_row(n, d, files.get(d["document_id"])) for n, d in enumerate(documents[:MAX_ROWS], start=1))
    more = len(documents) - MAX_ROWS
    note = f'<p class="note">{more} more are in the store: <code>matris query</code>.</p>' if more > 0 else ""
    return (
        f'<section id="ranked"><h2>Ranked candidates ({len(documents)})</h2><div class="bar-top"><input id="filter" '
        'type="search" placeholder="Filter, e.g. Fe2O3" aria-label="Filter the table"></div><div class="scroll">'
        '<table id="ranking" class="sortable"><thead><tr><th class="number">#</th><th>Formula</th><th>Space group</th>'
        '<th class="number">Above hull<br>meV/atom</th><th class="number">Formation<br>eV/atom</th>'
        '<th>Decomposes to</th><th class="number">Atoms</th><th class="number">Steps</th><th>Source</th>'
        f"<th>Structure</th></tr></thead><tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _row(place: int, document: Document, link: str | None) -> str:
    """One ranked candidate."""
    distance, formation = document.get("energy_above_hull"), document.get("formation_energy_per_atom")
    symmetry = document.get("symmetry") or {}
    stable = ' class="stable"' if distance is not None and distance <= 0 else ""
    file = "" if link is None else f'<a href="{escape(link)}">CIF</a>'
    return (
        f'<tr{stable}><td class="number">{place}</td>'
        f'<td class="formula">{formula_html(document["formula_pretty"])}</td>'
        f'<td data-value="{symmetry.get("number", "")}">{symbol_html(symmetry.get("symbol"))}</td>'
        f"{number_cell(None if distance is None else 1e3 * distance, 1)}{number_cell(formation, 3)}"
        f'<td class="formula">{_decomposition(document)}</td><td class="number">{document.get("nsites")}</td>'
        f'<td class="number">{document.get("n_steps")}</td><td class="source">{escape(_source(document))}</td>'
        f"<td>{file}</td></tr>"
    )


def _source(document: Document) -> str:
    """Where a candidate comes from: its file, or the structure type it was made from."""
    prototype = document.get("provenance", {}).get("prototype")
    return f"{prototype} type" if prototype else str(document["source"])


def _decomposition(document: Document) -> str:
    """Competing phases of an unstable candidate, or why it has no hull distance."""
    if document.get("hull_state") not in {None, "ok"}:
        return f'<span class="source">{escape(str(document["hull_state"]))}</span>'
    if document.get("is_stable"):
        return ""
    return " + ".join(formula_html(phase["formula"]) for phase in document.get("decomposes_to") or [])


def failures(documents: Sequence[Document]) -> str:
    """List what did not converge, and why."""
    if not documents:
        return '<section id="failures"><h2>Failures</h2><p class="note">None: every candidate converged.</p></section>'
    rows = "".join(
        f'<tr><td class="source">{escape(_source(d))}</td>'
        f'<td class="formula">{formula_html(d.get("formula_pretty") or "")}</td>'
        f'<td class="state-{d["state"]}">{_STATES[d["state"]]}</td><td>{escape(reason(d))}</td></tr>'
        for d in documents[:MAX_ROWS]
    )
    return (
        f'<section id="failures"><h2>Failures and why ({len(documents)})</h2><div class="scroll"><table '
        'class="sortable"><thead><tr><th>Source</th><th>Formula</th><th>State</th><th>Reason</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def references(documents: Sequence[Document]) -> str:
    """List the elements that were computed as end members."""
    elements = [d for d in documents if d["source"] in REFERENCE_SOURCES and d["state"] == "converged"]
    if not elements:
        return ""
    rows = "".join(
        f'<tr><td class="formula">{formula_html(d["formula_pretty"])}</td>'
        f"<td>{symbol_html((d.get('symmetry') or {}).get('symbol'))}</td>"
        f"{number_cell(d.get('energy_per_atom'), 4)}</tr>"
        for d in sorted(elements, key=lambda d: str(d["formula_pretty"]))
    )
    return (
        f'<section id="references"><details><summary>{plural(len(elements), "elemental reference")}, computed with '
        'the same checkpoint, not ranked</summary><div class="scroll"><table class="narrow"><thead><tr><th>Element</th>'
        f'<th>Space group</th><th class="number">Energy (eV/atom)</th></tr></thead><tbody>{rows}</tbody></table></div>'
        "</details></section>"
    )


def checkpoint(card: Mapping[str, Any]) -> str:
    """Show the card of the checkpoint."""
    if not card:
        return ""
    return f'<section id="checkpoint"><h2>Checkpoint{badge(card)}</h2>{definitions(card)}</section>'


def settings(documents: Sequence[Document]) -> str:
    """Show settings, software and machine of the first document; all documents of a campaign share them."""
    if not documents:
        return ""
    first = documents[0]
    content = {
        "settings": {
            "force threshold": f"{first['settings']['fmax']:g} eV/Å, atoms and cell",
            "most steps": first["settings"]["max_steps"],
            "cell": "relaxed" if first["settings"]["relax_cell"] else "fixed",
        },
        "corrections": next((d["correction_scheme"] for d in documents if d.get("correction_scheme")), None),
        "device": f"{first['device']}, {first['dtype']}",
        "versions": first["versions"],
    }
    return f'<section id="settings"><h2>How it was computed</h2>{definitions(content)}</section>'
