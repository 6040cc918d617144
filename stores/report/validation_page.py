"""The page of a validation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matris.stores.report.templating import write_page

if TYPE_CHECKING:
    from pathlib import Path

    from matris.stores.documents.validation import Validation


def write_validation(found: Validation, path: Path) -> Path:
    """
    Write a validation to an HTML page.

    Parameters
    ----------
    found
        The validation.
    path
        The file; an earlier page is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_page(path, "validation.html", plotly=False, title=f"{found.first} by {found.second}", date=date, found=found)
    return path
