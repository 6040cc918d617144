"""The pages of a validation, and of the bias of a checkpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matris.stores.report.templating import write_page

if TYPE_CHECKING:
    from pathlib import Path

    from matris.stores.documents.bias import Bias
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
    return _write(found, "validation.html", f"{found.first} by {found.second}", path)


def write_bias(found: Bias, path: Path) -> Path:
    """
    Write the errors of a checkpoint on a reference set to an HTML page.

    Parameters
    ----------
    found
        The errors.
    path
        The file; an earlier page is replaced.
    """
    return _write(found, "bias.html", f"Bias of {found.checkpoint} against {found.references}", path)


def _write(found: Bias | Validation, template: str, title: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_page(path, template, plotly=False, title=title, date=date, found=found)
    return path
