"""Small pieces of HTML that all reports are made of."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def number_cell(value: float | None, digits: int) -> str:
    """Table cell of a number, sortable by its value."""
    if value is None:
        return '<td class="number" data-value="">–</td>'
    shown = f"{value:.{digits}f}".replace("-", "−")
    return f'<td class="number" data-value="{value:.6f}">{shown}</td>'


def badge(card: Mapping[str, Any]) -> str:
    """Mark results of a checkpoint that calls itself a demonstrator."""
    return ' <span class="badge">demonstrator</span>' if "demonstrator" in str(dict(card)).lower() else ""


def definitions(content: Mapping[str, Any]) -> str:
    """Nested names and values."""
    rows = []
    for name, value in content.items():
        if value not in (None, "", [], {}, ()):
            style = ' class="mono"' if name == "sha256" else ""
            rows.append(f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd{style}>{_value(value)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _value(value: Any) -> str:
    """One value of a card."""
    if isinstance(value, dict):
        return definitions(value)
    if isinstance(value, (list, tuple)):
        return escape(", ".join(map(str, value)))
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))


def number(count: int) -> str:
    """Count with its digits in groups of three."""
    return f"{count:,}".replace(",", "\u202f")


def plural(count: int, noun: str) -> str:
    """Count with its noun; empty for none."""
    return "" if count == 0 else f"{number(count)} {noun}{'' if count == 1 else 's'}"


def formula_html(formula: str) -> str:
    """Set the numbers of a formula as subscripts."""
    parts = re.split(r"(\d+(?:\.\d+)?)", formula)
    return "".join(f"<sub>{part}</sub>" if n % 2 else escape(part) for n, part in enumerate(parts))


def symbol_html(symbol: str | None) -> str:
    """Space-group symbol with overlined inversions and screw axes as subscripts."""
    if symbol is None:
        return ""
    return re.sub(r"-(\d)", r'<span class="over">\1</span>', re.sub(r"_(\d)", r"<sub>\1</sub>", escape(symbol)))
