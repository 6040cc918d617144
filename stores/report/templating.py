"""Pages from Jinja2 templates: each page is one file that holds its styles, scripts and data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from matris.files.whole_file import whole_file
from matris.stores.report import formats
from matris.stores.report.cautions import cautions, extrapolation
from matris.stores.report.figure_style import PALETTE
from matris.stores.report.followed_mode import followed
from matris.stores.report.hull_points import SCALE, SCALE_END
from matris.stores.report.outcomes import origin, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_page(path: Path, template: str, *, plotly: bool, **content: Any) -> None:
    """
    Fill a template and write it piece by piece.

    Parameters
    ----------
    path
        The HTML file. It is replaced when the new page is complete.
    template
        Name of the template.
    plotly
        Whether the page has figures; then it holds plotly's library.
    **content
        Variables of the template. Text in them is escaped.
    """
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.writelines(pieces(template, plotly=plotly, **content))


def pieces(template: str, *, plotly: bool, **content: Any) -> Iterator[str]:
    """Fill a template and yield the page in pieces; see `write_page`."""
    script = Markup()
    if plotly:
        from plotly.offline import get_plotlyjs

        script = Markup(f"<script>{get_plotlyjs()}</script>")  # noqa: S704 - plotly's own code
    return environment().get_template(template).generate(plotly_script=script, **content)


@cache
def environment() -> Environment:
    """Make the environment of the templates: text is escaped, and an undefined variable is an error."""
    environment = Environment(
        loader=PackageLoader("matris.stores.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset": asset, "palette": PALETTE, "hull_scale": SCALE, "hull_scale_end": SCALE_END}
    environment.filters |= {
        "cautions": cautions,
        "decimals": formats.decimals,
        "extrapolation": extrapolation,
        "followed": followed,
        "formula": formats.formula_html,
        "grouped": formats.grouped,
        "origin": origin,
        "pixels": formats.pixels,
        "plural": formats.plural,
        "reason": reason,
        "script_json": script_json,
        "short": formats.short,
        "symbol": formats.symbol_html,
    }
    return environment


def asset(name: str) -> Markup:
    """Read a style sheet or script that lies beside this module."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 - files of this package


def script_json(content: Any) -> Markup:
    """
    Write JSON for a script element.

    Parameters
    ----------
    content
        An object, or JSON text. The result holds no ``<``, so nothing in it can end the element.
    """
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no markup is left in it
