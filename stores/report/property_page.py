"""Property documents as one HTML file that needs nothing else: a table, pictures, and what failed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from matris.files.whole_file import whole_file
from matris.stores.report.assets import data_script, page_of
from matris.stores.report.parts import definitions, formula_html, plural, symbol_html
from matris.stores.report.property_kinds import KINDS, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matris.stores.report.property_kinds import Document, PropertyKind

MAX_PICTURES = 60
"""Materials whose pictures a page holds."""

_YES = {True: "yes", False: "no"}
_STATES = {"max_steps": "not converged"}


def write_property_report(
    documents: Iterable[Mapping[str, Any] | BaseModel], directory_or_path: str | Path, title: str
) -> Path:
    """
    Write an HTML page of the results of one kind of property.

    Parameters
    ----------
    documents
        At least one, all of the same kind (see `matris.stores.report.property_kinds.KINDS`), their arrays loaded; as
        mappings they may have a ``source``.
    directory_or_path
        The file, if its name ends in ``.html``; else a folder, in which the page is named after the kind. What does
        not exist is made; an earlier page is replaced.
    title
        Headline.

    Returns
    -------
    Path
        The page. It holds its styles, scripts and pictures and can be sent by itself.

    Raises
    ------
    ValueError
        If the documents are of no kind known, or not all of the same.
    """
    plain = [d.model_dump() if isinstance(d, BaseModel) else d for d in documents]
    name = kind_of(plain)
    kind = KINDS[name]
    drawn, left_out = _pictures(plain, kind)
    body = "\n".join(
        (
            _head(title, plain),
            _table(plain, kind, drawn),
            *drawn.values(),
            _left_out(left_out, kind),
            _failures(plain),
            _origin(plain),
        )
    )
    path = Path(directory_or_path)
    path = path if path.suffix.lower() == ".html" else path / f"{name}.html"
    with whole_file(path) as draft:
        draft.write_text(page_of(title, body, "page.js", "figures.js", plotly=bool(drawn)), encoding="utf-8")
    return path


def _head(title: str, documents: Sequence[Document]) -> str:
    """Show what was computed, by what, with which settings."""
    counts = Counter(_state(d) for d in documents)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    keys = ", ".join(sorted({d["checkpoint"]["key"] for d in documents}))
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    settings = " · ".join(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in _shared(documents).items())
    return (
        f'<h1>{escape(title)}</h1><p class="lead">{plural(len(documents), "material")}: {escape(states)} · checkpoint '
        f"{escape(keys)} · {date}" + (f"<br>{escape(settings)}" if settings else "") + "</p>"
    )


def _shared(documents: Sequence[Document]) -> dict[str, Any]:
    """Find the settings on which all documents agree."""
    first = documents[0].get("settings") or {}
    return {
        name: value
        for name, value in first.items()
        if value is not None and all((d.get("settings") or {}).get(name) == value for d in documents)
    }


def _setting(value: Any) -> str:
    """Show one setting."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return _YES[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(documents: Sequence[Document], kind: PropertyKind, drawn: Mapping[int, str]) -> str:
    """List all materials with their key numbers; a formula leads to its pictures."""
    heads = "".join(f'<th class="number">{escape(name).replace(chr(10), "<br>")}</th>' for name in kind.columns)
    rows = "".join(_row(number, d, kind, number in drawn) for number, d in enumerate(documents))
    return (
        f'<section id="results"><h2>{escape(kind.title)}</h2><div class="bar-top"><input id="filter" type="search" '
        'placeholder="Filter, e.g. Fe2O3" aria-label="Filter the table"></div><div class="scroll"><table '
        f'id="materials" class="sortable"><thead><tr><th>Formula</th><th>Space group</th>{heads}<th>State</th>'
        f"<th>Source, reason, warnings</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(number: int, document: Document, kind: PropertyKind, linked: bool) -> str:
    """One material of the table."""
    formula = formula_html(document.get("formula_pretty") or "–")
    symmetry = document.get("symmetry") or {}
    name = f'<a href="#material-{number}">{formula}</a>' if linked else formula
    return (
        f'<tr><td class="formula">{name}</td>'
        f'<td data-value="{symmetry.get("number", "")}">{symbol_html(symmetry.get("symbol"))}</td>'
        f"{''.join(map(_cell, kind.row(document)))}"
        f'<td class="state-{escape(document["state"])}">{escape(_state(document))}</td>'
        f"<td>{_remarks(document)}</td></tr>"
    )


def _cell(value: Any) -> str:
    """Table cell of a number, a yes or a name, sortable by its value."""
    if value is None:
        return '<td class="number" data-value="">–</td>'
    if isinstance(value, bool):
        return f'<td class="number">{_YES[value]}</td>'
    if isinstance(value, str):
        return f'<td class="source">{escape(value)}</td>'
    shown = f"{value:.4g}".replace("-", "−")
    return f'<td class="number" data-value="{value:.8g}">{shown}</td>'


def _remarks(document: Document) -> str:
    """Source, reason of failure and warnings."""
    source = f'<span class="source">{escape(str(document["source"]))}</span>' if document.get("source") else ""
    error = f'<span class="state-failed">{escape(document["error"])}</span>' if document.get("error") else ""
    return "<br>".join(part for part in (source, error, *_warnings(document)) if part)


def _warnings(document: Document) -> list[str]:
    """Warnings of a document."""
    return [f'<span class="warning">{escape(warning)}</span>' for warning in document.get("warnings") or []]


def _state(document: Document) -> str:
    """Say what became of a material."""
    state = str(document["state"])
    return _STATES.get(state, state)


def _pictures(documents: Sequence[Document], kind: PropertyKind) -> tuple[dict[int, str], int]:
    """
    Draw the materials that have something to draw.

    Returns
    -------
    sections
        By place in the list.
    left_out
        How many more have results.
    """
    sections: dict[int, str] = {}
    left_out = 0
    for number, document in enumerate(documents):
        if document["state"] != "failed" and len(sections) == MAX_PICTURES:
            left_out += 1
        elif len(sections) < MAX_PICTURES and (section := _section(number, document, kind)):
            sections[number] = section
    return sections, left_out


def _section(number: int, document: Document, kind: PropertyKind) -> str:
    """Pictures of one material, or why there are none; nothing for what failed without results."""
    parts = []
    for plot in kind.plots:
        try:
            figure = plot(document)
        except ValueError as error:
            if document["state"] != "failed":
                parts.append(f'<p class="note">No picture: {escape(str(error))}.</p>')
            continue
        name = f"figure-{number}-{len(parts)}"
        parts.append(
            f'<div class="figure" id="{name}" style="height: {figure.layout.height}px"></div>'
            f"{data_script(f'{name}-data', figure.to_json())}"
        )
    if not parts:
        return ""
    source = f'<span class="source">{escape(str(document["source"]))}</span>' if document.get("source") else ""
    warnings = "".join(f'<p class="note">{warning}</p>' for warning in _warnings(document))
    heading = formula_html(document.get("formula_pretty") or "–")
    return f'<section id="material-{number}"><h2>{heading} {source}</h2>{warnings}{"".join(parts)}</section>'


def _left_out(count: int, kind: PropertyKind) -> str:
    """Say how to draw what the page does not hold."""
    if not count:
        return ""
    names = ", ".join(plot.__name__ for plot in kind.plots)
    call = f"{kind.plots[0].__name__}(document).show()"
    return (
        f'<section id="left-out"><p class="note">Pictures of {plural(count, "further material")} are left out, to keep '
        "the page small. In Python, a document read from the store with its arrays is drawn by <code>from "
        f"matris.stores.report.property_plots import {escape(names)}; {escape(call)}</code>.</p></section>"
    )


def _failures(documents: Sequence[Document]) -> str:
    """List what failed, and why."""
    failed = [d for d in documents if d["state"] == "failed"]
    if not failed:
        return ""
    rows = "".join(
        f'<tr><td class="formula">{formula_html(d.get("formula_pretty") or "–")}</td>'
        f'<td class="source">{escape(str(d.get("source") or d.get("candidate_id") or ""))}</td>'
        f"<td>{escape(d.get('error') or 'no reason is known')}</td></tr>"
        for d in failed
    )
    return (
        f'<section id="failures"><h2>Failures and why ({len(failed)})</h2><div class="scroll"><table class="sortable">'
        f"<thead><tr><th>Formula</th><th>Source</th><th>Reason</th></tr></thead><tbody>{rows}</tbody></table></div>"
        "</section>"
    )


def _origin(documents: Sequence[Document]) -> str:
    """Show checkpoint, software and machine, as far as all documents agree on them."""
    first = documents[0]
    fields = ("checkpoint", "device", "dtype", "versions")
    same = {name: first.get(name) for name in fields if all(d.get(name) == first.get(name) for d in documents)}
    return f'<section id="origin"><h2>How it was computed</h2>{definitions(same)}</section>'
