"""Style sheet and scripts of the pages, as files beside this one."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any


def asset(name: str) -> str:
    """Text of a file."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def page_of(title: str, body: str, *scripts: str, plotly: bool) -> str:
    """
    Make a page that needs nothing else.

    Parameters
    ----------
    title
        Of the window, as text.
    body
        HTML.
    *scripts
        Names of the scripts' files.
    plotly
        Whether there are figures to draw.
    """
    library = ""
    if plotly:
        from plotly.offline import get_plotlyjs

        library = f"<script>{get_plotlyjs()}</script>"
    code = "".join(f"<script>{asset(name)}</script>" for name in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{asset('page.css')}</style>{library}</head>\n<body><main>\n{body}\n</main>{code}</body></html>\n"
    )


def data_script(name: str, content: Any) -> str:
    """
    Give scripts some data.

    Parameters
    ----------
    name
        Id of the element.
    content
        A JSON object, or the text of one; nothing in it can end the script.
    """
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{name}">{text.replace("<", "\\u003c")}</script>'
