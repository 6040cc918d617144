"""Sections of rows: the ranked candidates, and what was lost and why."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from matris.stores.report.outcomes import STAGES, reason
from matris.stores.report.parts import formula_html, number, number_cell, symbol_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.stores.report.outcomes import Document, Outcomes
    from matris.stores.report.tally import Tally

_YES = {True: "yes", False: "no", None: ""}
_LONGEST = 300  # characters of a reason


def ranking(documents: Sequence[Document], outcomes: Outcomes) -> str:
    """
    List candidates.

    Parameters
    ----------
    documents
        The best of those that converged, in order.
    outcomes
        How many there are in all.
    """
    if not documents:
        return '<section id="ranked"><h2>Ranked candidates</h2><p class="note">None converged.</p></section>'
    elastic = any(document.get("elastic") for document in documents)
    phonon = any(document.get("phonon") for document in documents)
    more = '<th class="number">Bulk modulus<br>GPa</th>' if elastic else ""
    more += "<th>Imaginary<br>modes</th>" if phonon else ""
    rows = "".join(_row(n, d, elastic, phonon) for n, d in enumerate(documents, start=1))
    total = outcomes.left("duplicates after relaxing")
    rest = total - len(documents)
    note = ""
    if rest > 0:
        note = f'<p class="note">{number(rest)} more are in the store: <code>matris query</code>.</p>'
    return (
        f'<section id="ranked"><h2>Ranked candidates ({number(total)})</h2><div class="bar-top"><input id="filter" '
        'type="search" placeholder="Filter, e.g. Fe2O3" aria-label="Filter the table"></div><div class="scroll tall">'
        '<table id="ranking" class="sortable"><thead><tr><th class="number">#</th><th>Formula</th><th>Space group</th>'
        '<th class="number">Above hull<br>meV/atom</th><th class="number">Formation<br>eV/atom</th>'
        f'<th>Decomposes to</th>{more}<th class="number">Atoms</th><th class="number">Steps</th><th>Source</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _row(place: int, document: Document, elastic: bool, phonon: bool) -> str:
    """One ranked candidate."""
    distance, formation = document.get("energy_above_hull"), document.get("formation_energy_per_atom")
    symmetry = document.get("symmetry") or {}
    stable = ' class="stable"' if distance is not None and distance <= 0 else ""
    more = number_cell((document.get("elastic") or {}).get("bulk_modulus"), 0) if elastic else ""
    if phonon:
        more += f"<td>{_YES[(document.get('phonon') or {}).get('has_imaginary_modes')]}</td>"
    return (
        f'<tr{stable}><td class="number">{place}</td>'
        f'<td class="formula">{formula_html(document["formula_pretty"])}{_warning(document)}</td>'
        f'<td data-value="{symmetry.get("number", "")}">{symbol_html(symmetry.get("symbol"))}</td>'
        f"{number_cell(None if distance is None else 1e3 * distance, 1)}{number_cell(formation, 3)}"
        f'<td class="formula">{_decomposition(document)}</td>{more}<td class="number">{document.get("nsites")}</td>'
        f'<td class="number">{_plain(document.get("n_steps"))}</td>'
        f'<td class="source">{escape(_source(document))} <span class="mono">{escape(document["candidate_id"][:8])}'
        "</span></td></tr>"
    )


def _warning(document: Document) -> str:
    """Mark a candidate that is unlike what the checkpoint was trained on."""
    if not document.get("is_extrapolating"):
        return ""
    told = f"unlike what the checkpoint was trained on: {document['extrapolation']:.1f} times its reach"
    return f' <span class="badge" title="{told}">extrapolates</span>'


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _source(document: Document) -> str:
    """Where a candidate comes from: its file, or the structure type it was made from."""
    prototype = (document.get("provenance") or {}).get("prototype")
    return f"{prototype} type" if prototype else str(document["source"])


def _decomposition(document: Document) -> str:
    """Competing phases of an unstable candidate, or why it has no hull distance."""
    if document.get("hull_state") not in {None, "ok"}:
        return f'<span class="source">{escape(str(document["hull_state"]))}</span>'
    if document.get("is_stable"):
        return ""
    return " + ".join(formula_html(phase["formula"]) for phase in document.get("decomposes_to") or [])


def failures(tally: Tally) -> str:
    """Tell how many candidates were lost for which reason, with some of each."""
    rows = [
        (stage, kind, count) for stage in STAGES[:-1] for kind, count in tally.outcomes.lost[stage].most_common() if count
    ]
    if not rows:
        nothing = '<p class="note">None: every candidate converged.</p>'
        return f'<section id="failures"><h2>Losses and why</h2>{nothing}</section>'
    total = sum(count for _, _, count in rows)
    body = "".join(_reason(tally, *row) for row in rows)
    return (
        f'<section id="failures"><h2>Losses and why ({number(total)})</h2><div class="scroll tall"><table '
        'class="sortable"><thead><tr><th>Stage</th><th class="number">Candidates</th><th>Reason</th><th>Such as</th>'
        f'</tr></thead><tbody>{body}</tbody></table></div><p class="note">All of them: <code>matris query \'state in '
        "(failed, rejected, max_steps, duplicate)' --columns state,stage,reason,source</code>.</p></section>"
    )


def _reason(tally: Tally, stage: str, kind: str, count: int) -> str:
    """One kind of reason, with examples."""
    examples = "".join(f"<li>{_example(d)}</li>" for d in tally.examples.get((stage, kind), ()))
    style = "warn" if stage in {"duplicates", "duplicates after relaxing", "not converged"} else "bad"
    return (
        f'<tr><td class="stage-{style}">{escape(stage)}</td><td class="number" data-value="{count}">{number(count)}'
        f"</td><td>{escape(kind)}</td><td><ul>{examples}</ul></td></tr>"
    )


def _example(document: Document) -> str:
    formula = formula_html(document.get("formula_pretty") or "")
    name = f'<span class="formula">{formula}</span> ' if formula else ""
    told = reason(document)
    told = f"equal to {document['duplicate_of'][:8]}" if document.get("duplicate_of") else told[:_LONGEST]
    return f'{name}<span class="source">{escape(_source(document))}</span>: {escape(told)}'
