"""Head of the page, and how everything was computed."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from matris.stores.report.parts import badge, definitions, formula_html, number, number_cell, plural, symbol_html

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from matris.stores.report.tally import Tally


def head(title: str, tally: Tally, card: Mapping[str, Any]) -> str:
    """Show what was done, by what, and the few numbers that matter most."""
    keys = [card["key"]] if card.get("key") else sorted({key for key, _ in tally.origins})
    kinds = sorted({hull_type for hull_type, _ in tally.hulls})
    hull = f" · {' and '.join(kinds)} convex hull" if kinds else ""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    outcomes = tally.outcomes
    figures = [(outcomes.distinct, "candidates"), (outcomes.converged, "relaxed")]
    if outcomes.window is not None:
        figures += [(outcomes.survivors, f"within {1e3 * outcomes.window:g} meV/atom"), (outcomes.stable, "on the hull")]
    shown = "".join(f"<div><b>{number(count)}</b> {escape(what)}</div>" for count, what in figures)
    mixed = ""
    if len(tally.origins) > 1:
        mixed = (
            f'<p class="warning">These are results of {len(tally.origins)} pairs of checkpoint and settings: a '
            "candidate may be counted more than once.</p>"
        )
    return (
        f'<header><h1>{escape(title)}</h1><p class="lead">Checkpoint {escape(", ".join(keys) or "unknown")}'
        f'{badge(card)}{escape(hull)} · {date}</p>{mixed}<div class="figures">{shown}</div></header>'
    )


def references(tally: Tally) -> str:
    """List what was computed to compete: elements and known phases."""
    if not tally.references:
        return ""
    rows = "".join(
        f'<tr><td class="formula">{formula_html(d["formula_pretty"])}</td>'
        f"<td>{symbol_html((d.get('symmetry') or {}).get('symbol'))}</td>"
        f"{number_cell(d.get('energy_per_atom'), 4)}<td>{escape(d['source'])}</td></tr>"
        for d in sorted(tally.references, key=lambda d: (d["nelements"], str(d["formula_pretty"])))
    )
    return (
        f'<section id="references"><details><summary>{plural(len(tally.references), "competing phase")}, computed '
        'with the same checkpoint, not ranked</summary><div class="scroll tall"><table class="narrow"><thead><tr>'
        '<th>Phase</th><th>Space group</th><th class="number">Energy (eV/atom)</th><th>Source</th></tr></thead><tbody>'
        f"{rows}</tbody></table></div></details></section>"
    )


def checkpoint(card: Mapping[str, Any]) -> str:
    """Show the card of the checkpoint."""
    if not card:
        return ""
    return f'<section id="checkpoint"><h2>Checkpoint{badge(card)}</h2>{definitions(card)}</section>'


def settings(tally: Tally) -> str:
    """Show settings, software and machines."""
    first = tally.first
    if first is None:
        return ""
    chosen = first["settings"]
    before = chosen.get("first") or {}
    content = {
        "settings": {
            "force threshold": f"{chosen['fmax']:g} eV/Å, atoms and cell",
            "most steps": chosen["max_steps"],
            "cell": "relaxed" if chosen["relax_cell"] else "fixed",
            "relaxed before with": before.get("checkpoint"),
        },
        "corrections": _counted(tally.schemes),
        "computed on": _counted(tally.machines),
        "versions": first["versions"],
    }
    note = ""
    if len(tally.origins) > 1:
        note = '<p class="note">Settings and versions of the first of several.</p>'
    return f'<section id="settings"><h2>How it was computed</h2>{note}{definitions(content)}</section>'


def _counted(names: Counter[str]) -> str:
    """List names, with how many documents have each if there are several."""
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{name} ({number(count)})" for name, count in names.most_common())
