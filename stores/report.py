"""What a screening campaign found, as one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.stores import report_sections as sections
from matris.stores.ranking import Funnel, lost, ranked
from matris.stores.report_style import SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.report_plot import HullPoint

INDEX = "index.html"


@dataclass(frozen=True)
class Report:
    """
    Content of a report.

    Parameters
    ----------
    documents
        Candidate documents of the campaign, the elemental references among them.
    structures
        Finds the relaxed structure of a document by its ``document_id``; None if there is none.
    card
        Card of the checkpoint.
    title
        Headline.
    n_read
        Structures read, before identical ones were dropped; by default the number of documents.
    reference_points
        Phases of the reference set, if the hull is one of references; by default it is one of the documents.
    """

    documents: Sequence[Mapping[str, Any]]
    structures: Callable[[str], Structure | None]
    card: Mapping[str, Any] = field(default_factory=dict)
    title: str = "Screening"
    n_read: int | None = None
    reference_points: Sequence[HullPoint] | None = None


def write_report(report: Report, directory: str | Path) -> Path:
    """
    Write ``index.html`` and the CIF files it links to.

    Parameters
    ----------
    report
        What to tell.
    directory
        Folder, made if need be. Files of an earlier report of the same names are replaced.

    Returns
    -------
    Path
        The HTML file. It holds its styles, scripts and pictures and can be sent by itself; only the links to
        structures need the folder ``structures`` beside it.
    """
    directory = Path(directory)
    (directory / "structures").mkdir(parents=True, exist_ok=True)
    ranking = ranked(report.documents)
    files = {d["document_id"]: _write_cif(report, d, directory) for d in ranking[: sections.MAX_ROWS]}
    plots, plotly = sections.hulls(report.documents, report.reference_points)
    body = "\n".join(
        (
            sections.head(report.title, report.documents, report.card),
            sections.funnel(Funnel.of(report.documents, report.n_read)),
            plots,
            sections.ranking(ranking, files),
            sections.failures(lost(report.documents)),
            sections.references(report.documents),
            sections.checkpoint(report.card),
            sections.settings(report.documents),
        )
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style>{plotly}</head>\n<body><main>\n{body}\n</main><script>{SCRIPT}</script></body></html>\n"
    )
    path = directory / INDEX
    path.write_text(page, encoding="utf-8")
    return path


def _write_cif(report: Report, document: Mapping[str, Any], directory: Path) -> str | None:
    """Write one relaxed structure; the link to it relative to the report."""
    structure = report.structures(document["document_id"])
    if structure is None:
        return None
    name = f"structures/{document['formula_pretty']}-{document['candidate_id'][:8]}.cif"
    structure.to(filename=str(directory / name), fmt="cif")
    return name
