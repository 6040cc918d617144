"""Section of the discovery metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.stores.report.parts import definitions, number

if TYPE_CHECKING:
    from matris.stores.report.discovery import Discovery


def discoveries(found: Discovery | None) -> str:
    """
    Show what a campaign has found that is stable, unique and new.

    Parameters
    ----------
    found
        Counts; None if nobody counted.
    """
    if found is None:
        return ""
    content = {
        "stable": _share(found.n_stable, found.n_converged, "relaxed candidates"),
        "unique": _share(found.n_unique, found.n_converged, "relaxed candidates"),
    }
    if found.n_novel is not None and found.found is not None and found.sun_rate is not None:
        content |= {
            "novel": _share(found.n_novel, found.n_unique, "unique crystals"),
            "stable, unique and novel": _share(len(found.found), found.n_candidates, "candidates"),
        }
    return f'<section id="discovery"><h2>Discovery</h2>{definitions(content)}</section>'


def _share(part: int, whole: int, of: str) -> str:
    percent = f" ({part / whole:.1%})" if whole else ""
    return f"{number(part)} of {number(whole)} {of}{percent}"
