"""What a campaign found, as one HTML file that needs nothing else; the names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if TYPE_CHECKING:
    from matris.stores.report.hull_points import reference_points
    from matris.stores.report.page import FIELDS, Report, write_report

__all__ = ["FIELDS", "Report", "reference_points", "write_report"]

__getattr__, __dir__ = lazily(
    __name__,
    {"FIELDS": "page", "Report": "page", "reference_points": "hull_points", "write_report": "page"},
)
