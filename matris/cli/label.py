"""The command label: first-principles calculations of candidates, and their results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.campaign import CampaignName  # noqa: TC001 - typer reads it
from matris.cli.console import stderr, stdout
from matris.cli.options import Project, Resource, Store, Submit, Worker, clear_errors, require_results
from matris.cli.training import FlipStress, MaxForce, OptionalSources, StressUnit  # noqa: TC001 - typer reads them

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matris.flows.cluster.label_jobs import LabelState
    from matris.flows.labels.intake import TakenIn

_MAX_LISTED = 10
_WORKER = "dft"  # if none is named


def label(
    files: OptionalSources = None,
    stored: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR|URI",
            help="Job store with VASP calculations of atomate2, to take labels from; it is only read.",
            show_default=False,
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Program that computed the labels; files of VASP tell it.", show_default=False
        ),
    ] = None,
    functional: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Functional, such as PBE, PBE+U or r2SCAN; files of VASP tell it.", show_default=False
        ),
    ] = None,
    energy_scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Energy scale of the labels: mp, omat24, matpes-pbe, …, or a name of your own.",
            show_default="for VASP: that of the campaign's checkpoint",
        ),
    ] = None,
    max_force: MaxForce = 100.0,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Calculate the N candidates nearest to the hull.", show_default=False),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Calculate the candidates in a file: ids, one a line, or JSON.",
            show_default=False,
        ),
    ] = None,
    static: Annotated[
        bool,
        typer.Option("--static", help="Calculate the relaxed structures as they are, without relaxing them by DFT."),
    ] = False,
    ionic_steps: Annotated[
        bool, typer.Option("--ionic-steps", help="Make labels of all ionic steps, not only of the last one.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Submit failed calculations again.")] = False,
    campaign: CampaignName = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
    store: Store = None,
) -> None:
    """
    Label candidates with first-principles energies, forces, stresses and magnetic moments, for training.

    Submits calculations by atomate2 (--top, --candidates), takes in your own (FILE, --from), or shows how many there
    are. The submitted ones come back by themselves. A frame of a file belongs to the candidate that it names
    (candidate_id), or to the one whose structure it has.

    `matris label --top 20 --submit --worker dft --store project://hull`

    `matris label vasp-runs/ --energy-scale mp`

    `matris label done.extxyz --code VASP --functional PBE --energy-scale mp`
    """
    with clear_errors():
        from matris.errors import MatrisError

        if submit and store is None:
            from matris.cli.submit import project_store, submission_of

            store = project_store(submission_of(project, worker or _WORKER, resource, None), None)
        require_results(store)
        if files or stored:
            if top or candidates or submit:
                raise MatrisError("take calculations in, or submit some: not both at once")
            _take_in(
                files or [],
                stored,
                store,
                campaign,
                (code, functional, energy_scale),
                (max_force, stress_unit, flip_stress),
                ionic_steps=ionic_steps,
            )
        elif top or candidates:
            if top and candidates:
                raise MatrisError("name --top or --candidates, not both")
            _calculate(
                store,
                campaign,
                top,
                candidates,
                (static, ionic_steps, retry),
                (project, worker, resource) if submit else None,
            )
        else:
            if submit:
                raise MatrisError("say which candidates to calculate: --top N or --candidates FILE")
            _show(store)


def _take_in(
    files: Sequence[Path],
    stored: str | None,
    store: str | None,
    campaign: str | None,
    method: tuple[str | None, str | None, str | None],
    limits: tuple[float, str | None, bool],
    *,
    ionic_steps: bool,
) -> None:
    """Take in calculations that the user ran."""
    from matris.errors import MatrisError
    from matris.flows.labels.intake import (
        calculation_files,
        stored_tasks,
        take_in_frames,
        take_in_tasks,
        vasp_files,
    )
    from matris.training.data.labelled import LabelOptions

    if stored is not None:
        require_results(stored)
    code, functional, scale = method
    told, others = calculation_files(files)
    results = []
    if others:
        if code is None or functional is None or scale is None:
            raise MatrisError(
                f"{others[0]} does not tell the method of its labels: name --code, --functional and --energy-scale"
            )
        options = LabelOptions(*limits)
        results.append(take_in_frames(others, store, options, code=code, functional=functional, energy_scale=scale))
    if told or stored:
        scale = scale or _scale_of(store, campaign)
        sources = [vasp_files(told)] if told else []
        sources += [stored_tasks(stored)] if stored else []
        results += [take_in_tasks(tasks, store, scale, ionic_steps=ionic_steps) for tasks in sources]
    _tell(results)


def _tell(results: Iterable[TakenIn]) -> None:
    """Print what became of calculations; an error if there is no label at all."""
    from matris.errors import MatrisError

    results = list(results)
    reasons = [(reason, n) for taken in results for reason, n in taken.left_out.most_common()]
    for reason, n in reasons[:_MAX_LISTED]:
        stderr.print(f"[yellow]Note:[/yellow] {n} left out: {escape(reason)}", soft_wrap=True)
    if len(reasons) > _MAX_LISTED:
        stderr.print(f"[yellow]Note:[/yellow] {len(reasons) - _MAX_LISTED} more reasons", soft_wrap=True)
    unmatched = [place for taken in results for place in taken.unmatched]
    if unmatched:
        named = ", ".join(unmatched[:3]) + (", …" if len(unmatched) > 3 else "")  # noqa: PLR2004
        stderr.print(
            f"[yellow]Note:[/yellow] {len(unmatched)} are of no candidate of this store: {escape(named)}; screen their "
            "structures first, or name the candidate_id that 'matris export' writes",
            soft_wrap=True,
        )
    n = sum(taken.n_labels for taken in results)
    if not n:
        raise MatrisError("no calculation became a label")
    stderr.print(f"{n} labels in the store")


def _scale_of(store: str | None, campaign: str | None) -> str:
    """Return the energy scale of a campaign's checkpoint."""
    from matris.flows.campaign.results import CampaignResults

    return str(CampaignResults.find(store, campaign).card_content["energy_scale"])


def _calculate(
    store: str | None,
    campaign: str | None,
    top: int | None,
    candidates: Path | None,
    how: tuple[bool, bool, bool],
    cluster: tuple[str | None, str | None, list[str] | None] | None,
) -> None:
    """Submit calculations, or print which ones would be submitted."""
    from matris.errors import MatrisError
    from matris.flows.campaign.results import CampaignResults
    from matris.flows.labels.choice import choose, read_candidate_ids
    from matris.makers.label import LabelMaker
    from matris.stores.documents.documents import pressure_of

    results = CampaignResults.find(store, campaign)
    chosen = choose(results, top=top, candidate_ids=read_candidate_ids(candidates) if candidates else None)
    static, ionic_steps, retry = how
    scale = str(results.card_content["energy_scale"])
    if not static and (pressure := pressure_of(results.record()["settings"])):
        raise MatrisError(
            f"the campaign is at {pressure:g} GPa, but the relaxations by DFT would be at zero pressure: use --static"
        )
    maker = LabelMaker(energy_scale=scale, static_only=static, ionic_steps=ionic_steps)
    if cluster is None:
        table = Table("candidate", "formula", "above hull (eV/atom)", box=None)
        for each in chosen:
            maker.make(each.structure)  # refuses what cannot be calculated
            height = "" if each.energy_above_hull is None else f"{each.energy_above_hull:.3f}"
            table.add_row(each.candidate_id, each.formula, height)
        stdout().print(table)
        stderr.print(f"{len(chosen)} candidates, energy scale {scale}; --submit submits them", soft_wrap=True)
        return
    from matris.cli.submit import project_store, submission_of, warn_without_runner

    project, worker, resource = cluster
    submission = submission_of(project, worker or _WORKER, resource, None)
    project_store(submission, store)
    from matris.flows.cluster.label_jobs import submit_labels

    states = []
    with stderr.status("Submitting …") as line:
        for state in submit_labels(chosen, maker, submission, retry=retry):
            states.append(state)
            line.update(f"Submitting … {len(states)} of {len(chosen)}")
    n_new = sum(state.is_new for state in states)
    target = f"{', '.join(submission.workers)} of project {submission.project}"
    stdout().print(f"{n_new} calculations submitted to {target}", soft_wrap=True)
    _print_states(states)
    if n_new:
        warn_without_runner(submission)


def _show(store: str | None) -> None:
    """Harvest, and print how many calculations are in which state."""
    from matris.flows.labels.harvest import harvest_labels
    from matris.stores.database.jobstore import PROJECT, chosen_location, open_job_store
    from matris.stores.dft_labels import DftLabels

    job_store = open_job_store(store)
    harvest = harvest_labels(job_store)
    labels = DftLabels(job_store).store
    n_candidates = len(labels.distinct("candidate_id"))
    new = f" ({harvest.n_labels} new)" if harvest.n_labels else ""
    stdout().print(f"{labels.count()} labels{new} of {n_candidates} candidates", soft_wrap=True)
    location = str(chosen_location(store))
    if location.startswith(PROJECT):
        from matris.flows.cluster.label_jobs import label_states
        from matris.flows.cluster.submission import Submission

        _print_states(label_states(Submission(location.removeprefix(PROJECT))))
    else:
        for reason in harvest.failed.values():
            stdout().print(f"failed: {escape(reason)}", soft_wrap=True)


def _print_states(states: Sequence[LabelState]) -> None:
    """Print how many calculations are in which state, and the reasons of failures."""
    counts = Counter(str(state.state) for state in states)
    if counts:
        stdout().print(", ".join(f"{n} {name}" for name, n in sorted(counts.items())), soft_wrap=True)
    for state in states:
        if state.reason:
            text = f"{state.state}: {state.formula} (candidate {state.candidate_id}): {state.reason}"
            stdout().print(escape(text), soft_wrap=True)
