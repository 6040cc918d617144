"""The report of a screening campaign as one self-contained HTML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.stores.report import origin
from matris.stores.report.cautions import cautions
from matris.stores.report.crystals import looks
from matris.stores.report.distributions import distributions
from matris.stores.report.hulls import hulls
from matris.stores.report.outcomes import WINDOW, Outcomes
from matris.stores.report.periodic_table import COUNTS, periodic_table
from matris.stores.report.rounds import COLUMNS, LEGEND, round_rows, rounds_remarks
from matris.stores.report.stage_counts import stage_counts
from matris.stores.report.tally import Tally
from matris.stores.report.templating import write_page
from matris.stores.report.top import top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.documents.learning import LoopRecord
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
    "enthalpy_per_atom",
    "pressure",
    "correction_scheme",
    "correction_state",
    "hull_type",
    "hull_reference",
    "hull_state",
    "only_elements_compete",
    "hull_lacks",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "decomposes_to",
    "elastic",
    "phonon",
    "kappa",
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
        Candidate documents, including elemental references, with at least `FIELDS`. They are read once, one by one.
    structures
        Returns the relaxed structure of a document by its ``document_id``, or None.
    card
        Card of the checkpoint.
    title
        Headline.
    intake
        Number of structures ``read`` and ``identical``, as `matris.flows.campaign.intake.Intake` counts them. By
        default each structure that was read has a document.
    window
        Distance above the hull (eV/atom) up to which candidates survive; None if there is no hull.
    reference_points
        Phases of the reference set for a hull of references. By default the documents make up the hull.
    phonons
        Returns the phonon document of a candidate with its bands, see `matris.stores.documents.properties`.
    discovery
        Counts of stable, unique and novel candidates.
    remarks
        Sentences on the hull: which phases compete, and which lack.
    loop
        Rounds of learning that the campaign belongs to.
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
    remarks: Sequence[str] = ()
    loop: LoopRecord | None = None


def write_report(report: Report, directory: str | Path) -> Path:
    """
    Write ``index.html``.

    Memory and the size of the page are bounded for any number of documents.

    Parameters
    ----------
    report
        Content of the report.
    directory
        Folder; created if missing. An earlier report in it is replaced when the new one is complete.

    Returns
    -------
    Path
        The HTML file. It contains its styles, scripts, pictures and crystals and works without a network.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> origin = {"checkpoint": {"key": "tiny"}, "settings": {"digest": "0"}}
    >>> documents = [{"source": "a.cif", "state": "failed", "error": "atoms too close: sites 0 and 1", **origin}]
    >>> with TemporaryDirectory() as folder:
    ...     path = write_report(Report(documents, structures=lambda document_id: None, title="Oxides"), folder)
    ...     path.name, "atoms too close" in path.read_text(encoding="utf-8")
    ('index.html', True)
    """
    intake, window, card = report.intake, report.window, report.card
    outcomes = Outcomes(window) if intake is None else Outcomes(window, intake["read"], intake["identical"])
    tally = Tally.of(report.documents, outcomes)
    best = tally.ranking.sorted()
    top_candidates = top(best, report.structures, report.phonons)
    drawn_hulls = hulls(tally, report.reference_points)
    path = Path(directory) / INDEX
    write_page(
        path,
        "campaign.html",
        plotly=bool(drawn_hulls.figures) or any(candidate.bands for candidate in top_candidates),
        title=report.title,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        card=card,
        is_demonstrator=origin.is_demonstrator(best, card),
        checkpoint_keys=origin.checkpoint_keys(tally, card),
        hull_types=sorted({hull_type for hull_type, _ in tally.hulls}),
        tally=tally,
        outcomes=outcomes,
        window=window,
        stage_counts=stage_counts(outcomes),
        top=top_candidates,
        looks=looks(site[0] for candidate in top_candidates for site in candidate.crystal["sites"]),
        hulls=drawn_hulls,
        elements=periodic_table(tally.with_element),
        element_counts=COUNTS,
        distributions=distributions(tally.histograms, window),
        ranking=best,
        has_elastic=any(document.get("elastic") for document in best),
        has_kappa=any(document.get("kappa") for document in best),
        has_phonon=any(document.get("phonon") for document in best),
        has_cautions=any(map(cautions, best)),
        remarks=report.remarks,
        discovery=report.discovery,
        rounds=[] if report.loop is None else round_rows(report.loop),
        rounds_remarks=[] if report.loop is None else rounds_remarks(report.loop),
        round_columns=COLUMNS,
        round_legend=LEGEND,
        competing_phases=origin.competing_phases(tally),
        settings=origin.settings(tally),
    )
    return path
