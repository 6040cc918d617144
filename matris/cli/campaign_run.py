"""How `matris screen` and `matris relax` run a campaign and summarise it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from matris.cli.console import CampaignProgress, stderr, write_columns, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matris.cli.console import Document
    from matris.flows.campaign.campaign import Campaign
    from matris.stores.documents.candidate import Candidate

DOCUMENT_FIELDS = (
    "candidate_id",
    "source",
    "provenance",
    "state",
    "stage",
    "duplicate_of",
    "error",
    "formula_pretty",
    "symmetry",
    "nsites",
    "volume",
    "energy_per_atom",
    "enthalpy_per_atom",
    "pressure",
    "uncorrected_energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "hull_state",
    "hull_type",
    "hull_reference",
    "only_elements_compete",
    "hull_lacks",
    "equilibrium_reaction_energy_per_atom",
    "correction_state",
    "n_steps",
    "fmax",
)
"""Fields of a candidate document that the two commands print."""

_PLAIN_FIELDS = tuple(name for name in DOCUMENT_FIELDS if name not in {"provenance", "symmetry"})


def candidates_of(sources: Sequence[str]) -> Iterator[Candidate]:
    """
    Open all sources, and read their candidates one by one.

    Raises
    ------
    MatrisError
        If a source cannot be opened, before any candidate of another one is read.
    """
    from matris.flows.sources.opening import open_source

    opened = [begun(open_source(source)) for source in sources]
    return chain.from_iterable(opened)


def begun(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Read the first candidate, since many sources raise their errors there."""
    rest = iter(candidates)
    return chain(list(islice(rest, 1)), rest)


def run_campaign(
    campaign: Campaign, candidates: Iterable[Candidate], device: str | None, *, keep_going: bool = True
) -> None:
    """
    Compute what the store lacks, with a progress bar.

    Parameters
    ----------
    campaign
        Open campaign.
    candidates
        Candidates, read one by one.
    device
        Devices, separated by commas; one process each. Default: the whole machine.
    keep_going
        Whether to go on if the first candidates all fail for one reason.

    Raises
    ------
    CheckpointError
        If a device is not available.
    """
    from matris.flows.local.runner import run

    devices = named_devices(device)
    with _sigterm_as_ctrl_c(), CampaignProgress() as progress:
        run(campaign, candidates, devices, progress.watch, keep_going=keep_going)
    if progress.known:
        stderr.print(f"{progress.known} were in the store already")


def write_documents(documents: Sequence[Document], form: str) -> None:
    """Write the candidates among some documents to standard output: whole as JSON, or their plain fields as CSV."""
    from matris.stores.documents.candidate import REFERENCE_SOURCES

    chosen = [document for document in documents if document["source"] not in REFERENCE_SOURCES]
    if form == "json":
        write_json(chosen)
    else:
        write_columns(_PLAIN_FIELDS, [[document.get(name) for name in _PLAIN_FIELDS] for document in chosen])


def named_devices(device: str | None) -> list[str] | None:
    """
    Split the option ``--device``, and check each device: one error here, rather than one from each process.

    Parameters
    ----------
    device
        Devices, separated by commas; None is passed on.

    Raises
    ------
    CheckpointError
        If a device is not available.
    """
    if not device:
        return None
    from matris.model.potential import chosen_device

    names = [name.strip() for name in device.split(",")]
    for name in names:
        chosen_device(name)
    return names


def summary(campaign: Campaign, documents: Sequence[Document], *, hull: bool = True) -> str:
    """Count the candidates by outcome, in one line."""
    from matris.stores.report.outcomes import Outcomes

    intake: dict[str, Any] = campaign.record()["intake"]
    return Outcomes.of(documents, intake, campaign.funnel.window if hull else None).summary()


def warn_of_demonstrator(documents: Sequence[Document]) -> None:
    """Print a remark if the checkpoint is only meant for first screenings."""
    from matris.stores.report.origin import is_demonstrator

    if is_demonstrator(documents):
        stderr.print(
            "[yellow]The checkpoint is a demonstrator, for first screenings:[/yellow] matris models tells its errors, "
            "and which checkpoint to use for results",
            soft_wrap=True,
        )


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, end a campaign like Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
