"""What a screening campaign found, as one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.stores.query.tables import whole_file
from matris.stores.report import head
from matris.stores.report.assets import page_of
from matris.stores.report.discoveries import discoveries
from matris.stores.report.distributions import distributions
from matris.stores.report.stage_counts import stage_counts
from matris.stores.report.hulls import hulls
from matris.stores.report.outcomes import WINDOW, Outcomes
from matris.stores.report.periodic_table import periodic_table
from matris.stores.report.table import failures, ranking
from matris.stores.report.tally import Tally
from matris.stores.report.top import top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.report.discovery import Discovery
    from matris.stores.report.hull_points import HullPoint
    from matris.stores.report.outcomes import Document

INDEX = "index.html"

FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "provenance.prototype",
    "state",
    "stage",
    "error",
    "duplicate_of",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "nsites",
    "composition_reduced",
    "volume",
    "volume_change",
    "density",
    "symmetry.symbol",
    "symmetry.number",
    "energy_per_atom",
    "correction_scheme",
    "hull_type",
    "hull_reference",
    "hull_state",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "decomposes_to",
    "elastic",
    "phonon",
    "n_steps",
    "fmax",
    "extrapolation",
    "is_extrapolating",
    "seconds",
    "checkpoint",
    "settings",
    "versions",
    "device",
    "dtype",
)
"""Fields of a candidate document that a report reads."""


@dataclass(frozen=True)
class Report:
    """
    Content of a report.

    Parameters
    ----------
    documents
        Candidate documents, the elemental references among them, with at least `FIELDS`; read once, one by one.
    structures
        Finds the relaxed structure of a document by its ``document_id``; None if there is none.
    card
        Card of the checkpoint.
    title
        Headline.
    intake
        What was read: ``read`` and ``identical``, as `matris.flows.campaign.intake.Intake` counts them. By default all
        that was read has a document.
    window
        Distance above the hull (eV/atom) up to which candidates survive; None if there is no hull.
    reference_points
        Phases of the reference set, if the hull is one of references; by default it is one of the documents.
    phonons
        Finds the document of a candidate's phonons with its bands, see `matris.stores.documents.property_outputs`.
    discovery
        Counts of what is stable, unique and novel.
    """

    documents: Iterable[Document]
    structures: Callable[[str], Structure | None]
    card: Mapping[str, Any] = field(default_factory=dict)
    title: str = "Screening"
    intake: Mapping[str, Any] | None = None
    window: float | None = WINDOW
    reference_points: Sequence[HullPoint] | None = None
    phonons: Callable[[Document], Document | None] = lambda _: None
    discovery: Discovery | None = None


def write_report(report: Report, directory: str | Path) -> Path:
    """
    Write ``index.html``.

    Memory and the size of the page do not grow with the number of documents.

    Parameters
    ----------
    report
        What to tell.
    directory
        Folder, made if need be. An earlier report there is replaced when the new one is complete.

    Returns
    -------
    Path
        The HTML file. It holds its styles, scripts, pictures and crystals, and can be sent by itself.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    intake = report.intake
    counts = Outcomes(report.window) if intake is None else Outcomes(report.window, intake["read"], intake["identical"])
    tally = Tally.of(report.documents, counts)
    best = tally.ranking.sorted()
    crystals, bands = top(best, report.structures, report.phonons)
    pictures, drawn = hulls(tally, report.reference_points)
    body = "\n".join(
        (
            head.head(report.title, tally, report.card),
            stage_counts(counts),
            crystals,
            pictures,
            periodic_table(tally.with_element, report.window),
            distributions(tally.histograms, report.window),
            ranking(best, counts),
            failures(tally),
            discoveries(report.discovery),
            head.references(tally),
            head.checkpoint(report.card),
            head.settings(tally),
        )
    )
    path = Path(directory) / INDEX
    with whole_file(path) as stream:
        stream.write(page_of(report.title, body, "page.js", "figures.js", "crystal.js", plotly=drawn or bands))
    return path
