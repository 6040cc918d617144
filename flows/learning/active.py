"""A campaign that learns as one jobflow flow, for any of jobflow's managers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import Flow, Maker, OnMissing, OutputReference, Response, job
from monty.json import jsanitize

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.flows.campaign.chunks import chunked
from matris.flows.learning.features import structure_features
from matris.flows.learning.plan import Plan, stop_reason
from matris.flows.learning.rounds import open_round, take_labels
from matris.flows.learning.selection import select
from matris.flows.learning.snapshot import Snapshot, errors_after, starts
from matris.flows.learning.training import learn
from matris.flows.rank_jobs import MAX_RANKED, placed_candidates
from matris.flows.screening import all_candidates, with_elements, without_duplicates
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.documents.documents import is_extrapolating, pressure_of
from matris.stores.documents.learning import Round, root_of
from matris.stores.hull.references import load_references
from matris.stores.report.outcomes import ranked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.flows.screening import Input
    from matris.stores.documents.candidate import Candidate
    from matris.stores.hull.references import References

_RANKING_FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "formula_pretty",
    "chemsys",
    "energy_per_atom",
    "energy_above_hull",
    "is_stable",
)


@dataclass
class ActiveCampaignMaker(Maker):
    """
    Make a flow that screens candidates, has some calculated from first principles, learns, and screens again.

    Each round is added to the flow by the one before: relaxations in chunks, the choice of candidates, a calculation
    for each of them, and the fine-tuning of the checkpoint, which is taken only if it is better.
    `matris.flows.learning.loop.Learning` does the same with its state in a store.

    Parameters
    ----------
    name
        Name of the flow.
    relax_maker
        Maker of the relaxations.
    label_maker
        Maker of the calculations, such as a LabelMaker. Its method ``make(structure, candidate_id=…)`` makes a job or
        flow whose output has ``state``, ``error``, and ``labels``: those of `matris.stores.dft_labels.DftLabel`.
    plan
        Settings, the fields of `matris.flows.learning.plan.Plan`.
    folder
        Folder for the sets and checkpoints, which all workers see.
    chunk_size
        Maximum number of candidates in a job.

    Raises
    ------
    MatrisError
        If a setting of the plan is out of range, or there is no Maker of calculations.
    """

    name: str = "active campaign"
    relax_maker: BatchRelaxMaker = field(default_factory=BatchRelaxMaker)
    label_maker: Maker | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    folder: str = "learning"
    chunk_size: int = 500

    def __post_init__(self) -> None:
        """Check the plan."""
        try:
            Plan.from_dict(self.plan)
        except TypeError as error:
            raise MatrisError(f"the plan of an active campaign: {error}") from None

    def make(self, candidates: Input | Iterable[Input], references: str | None = None) -> Flow:
        """
        Make the flow.

        Parameters
        ----------
        candidates
            As for `matris.flows.screening.ScreeningFlowMaker.make`.
        references
            File of computed entries on the energy scale of the checkpoint, readable where the jobs run. Default: the
            competing phases are the candidates and the elements.

        Returns
        -------
        Flow
            Its output has ``rounds`` (`matris.stores.documents.learning.Round`), ``stopped``, ``checkpoint``, and
            ``ranking`` with the places on the hull with labels.

        Raises
        ------
        MatrisError
            If there is no Maker of calculations, or a candidate cannot be used.
        """
        if self.label_maker is None:
            raise MatrisError("an active campaign needs a Maker of calculations: label_maker=…")
        made = replace(self, folder=str(Path(self.folder).absolute()))
        distinct, _ = without_duplicates(all_candidates(candidates))
        return made.round(distinct, {"rounds": [], "label_jobs": [], "loop": None}, references)

    def round(self, candidates: Sequence[Candidate], state: dict[str, Any], references: str | None) -> Flow:
        """Make the jobs of a round up to the choice of candidates, which adds the others."""
        listed = with_elements(candidates) if references is None else list(candidates)
        number = len(state["rounds"])
        jobs = []
        for n, chunk in enumerate(chunked(listed, self.chunk_size), start=1):
            relax = self.relax_maker.make([jsanitize(candidate.model_dump(), strict=True) for candidate in chunk])
            relax.append_name(f" {n} of round {number}")
            jobs.append(relax)
        state = {**state, "loop": state["loop"] or jobs[0].uuid[:8]}
        choice = self.choice([relax.uuid for relax in jobs], state, references)
        return Flow([*jobs, choice], output=choice.output, name=self.name)

    def choice(self, relax_jobs: Sequence[str], state: dict[str, Any], references: str | None) -> Any:
        """Make the job that chooses the candidates of a round, or ends the loop."""
        choice = begin_round(self, *_outputs(relax_jobs), list(relax_jobs), _labels(state), state, references)
        choice.name = f"choose, round {len(state['rounds'])}"
        choice.config.on_missing_references = OnMissing.NONE
        return choice


@job
def begin_round(
    maker: ActiveCampaignMaker,
    records: list[Any],
    checkpoints: list[Any],
    settings: list[Any],
    structures: list[Any],
    relax_jobs: list[str],
    label_documents: list[Any],
    state: dict[str, Any],
    references: str | None = None,
) -> Response | dict[str, Any]:
    """
    Choose candidates, and add their calculations and the fine-tuning to the flow.

    Parameters
    ----------
    maker
        Maker of the flow, with the current checkpoint.
    records, checkpoints, settings, structures
        Outputs of the relaxations, as for `matris.flows.rank_jobs.rank_candidates`.
    relax_jobs
        Their jobs.
    label_documents
        Outputs of all calculations so far; None for a failed one.
    state
        ``rounds``, ``label_jobs`` and ``loop``.
    references
        File of computed entries.

    Returns
    -------
    Response or dict
        The final output of the flow, if the loop stops.
    """
    plan, rounds = Plan.from_dict(maker.plan), _rounds(state)
    documents, structure_of = _documents(records, checkpoints, settings, structures, references)
    if not documents:
        raise MatrisError("no chunk of candidates has a result: see the failed jobs")
    snapshot = _snapshot(documents, label_documents, rounds, references)
    stopped = stop_reason(rounds, plan)
    chosen = []
    if stopped is None:
        potential = maker.relax_maker.potential()

        def features(names: Sequence[str]) -> NDArray[np.float64]:
            found = (structure_of(name, False) for name in names)
            return structure_features(potential, [structure for structure in found if structure is not None])

        chosen = select(
            documents,
            min(plan.per_round, plan.budget - (rounds[-1].n_labelled if rounds else 0)),
            errors=errors_after(rounds, plan.spread),
            features_of=features,
            labelled={each.root for round_ in rounds for each in round_.chosen},
            corners=references is None,
        )
        stopped = None if chosen else "no candidate is left whose label would tell anything"
    if stopped is not None:
        return _final(maker, snapshot, rounds, stopped)
    n_steps = sum(document.get("n_steps") or 0 for document in documents)
    checkpoint = documents[0]["checkpoint"]["key"], documents[0]["checkpoint"]["sha256"]
    steps = n_steps, rounds[0].n_steps if rounds else n_steps
    began = open_round(rounds, state["loop"], checkpoint, documents, chosen, steps)
    assert maker.label_maker is not None  # noqa: S101 - checked when the flow was made
    labels: list[Any] = []
    for each in began.chosen:
        structure = structure_of(each.document_id, False)
        labels.append(maker.label_maker.make(structure, candidate_id=each.candidate_id))  # type: ignore[attr-defined]
    state = {
        **state,
        "rounds": [*state["rounds"], began.model_dump()],
        "label_jobs": [*state["label_jobs"], *(each.output.uuid for each in labels)],
    }
    closing = close_round(maker, *_outputs(relax_jobs), relax_jobs, _labels(state), state, references)
    closing.name = f"learn, round {began.number}"
    closing.config.on_missing_references = OnMissing.NONE
    return Response(replace=Flow([*labels, closing], output=closing.output))


@job
def close_round(
    maker: ActiveCampaignMaker,
    records: list[Any],
    checkpoints: list[Any],
    settings: list[Any],
    structures: list[Any],
    relax_jobs: list[str],
    label_documents: list[Any],
    state: dict[str, Any],
    references: str | None = None,
) -> Response:
    """
    Learn from the labels of a round, and add the next round to the flow.

    Parameters
    ----------
    maker, records, checkpoints, settings, structures, relax_jobs, label_documents, state, references
        As for `begin_round`; the last of the rounds is the one to close.

    Returns
    -------
    Response
        With the next round: from the relaxed structures with the new checkpoint, if it is taken.

    Raises
    ------
    MatrisError
        If a label is on another energy scale than the checkpoint.
    """
    plan, rounds = Plan.from_dict(maker.plan), _rounds(state)
    current = rounds[-1]
    documents, structure_of = _documents(records, checkpoints, settings, structures, references)
    snapshot = _snapshot(documents, label_documents, rounds, references)
    labels, errors = _all_labels(label_documents), _errors(label_documents, rounds)
    roots = _roots(rounds)
    take_labels(rounds, labels, roots, snapshot, lambda name: errors.get(name, "its job failed or was stopped"))
    current.state = "learned"
    aside = {name for each in rounds for name in each.aside}
    relax = maker.relax_maker
    if aside and current.label_ids:
        current.trained = learn(
            relax.checkpoint,
            labels,
            aside,
            Path(maker.folder) / state["loop"] / f"round-{current.number}",
            plan,
            key=f"{relax.card().key}-{state['loop'][:6]}-{current.number + 1}",
            roots=roots,
            device=relax.device,
        )
    state = {**state, "rounds": [each.model_dump() for each in rounds]}
    if current.trained is None or not current.trained.taken:
        return Response(replace=maker.choice(relax_jobs, state, references))
    following = replace(maker, relax_maker=replace(relax, checkpoint=current.trained.path, first=None))
    return Response(replace=following.round(list(starts(documents, structure_of)), state, references))


def _final(maker: ActiveCampaignMaker, snapshot: Snapshot, rounds: Sequence[Round], stopped: str) -> dict[str, Any]:
    """Output of the flow."""
    ranking = []
    for document in ranked(snapshot.documents)[:MAX_RANKED]:
        place, energy = snapshot.places[document["document_id"]], snapshot.energies.get(document["document_id"])
        ranking.append(
            {name: document.get(name) for name in _RANKING_FIELDS}
            | {
                "root": root_of(document),
                "with_labels": place.to_dict(),
                "dft": None if energy is None else energy.model_dump(),
            }
        )
    return {
        "rounds": [each.model_dump() for each in rounds],
        "stopped": stopped,
        "checkpoint": maker.relax_maker.checkpoint,
        "ranking": ranking,
    }


def _outputs(relax_jobs: Sequence[str]) -> tuple[list[Any], ...]:
    """Refer to the outputs of relaxations."""
    names = ("records", "checkpoint", "settings", "structures")
    return tuple([getattr(OutputReference(uuid), name) for uuid in relax_jobs] for name in names)


def _labels(state: Mapping[str, Any]) -> list[OutputReference]:
    """Refer to the outputs of calculations."""
    return [OutputReference(uuid) for uuid in state["label_jobs"]]


def _rounds(state: Mapping[str, Any]) -> list[Round]:
    return [Round.model_validate(each) for each in state["rounds"]]


def _roots(rounds: Sequence[Round]) -> dict[str, str]:
    return {each.candidate_id: each.root for round_ in rounds for each in round_.chosen}


def _plain(model: Any) -> dict[str, Any]:
    return model if isinstance(model, dict) else dict(model.model_dump())


def _all_labels(label_documents: Sequence[Any]) -> list[dict[str, Any]]:
    """Labels of all calculations, each once."""
    found = {}
    for document in label_documents:
        for label in _plain(document)["labels"] if document is not None else ():
            plain = dict(_plain(label))
            if not isinstance(plain["structure"], dict):  # jobflow decodes what a store holds
                plain["structure"] = plain["structure"].as_dict()
            found[plain["label_id"]] = plain
    return [found[name] for name in sorted(found)]


def _errors(label_documents: Sequence[Any], rounds: Sequence[Round]) -> dict[str, str]:
    """Reasons why candidates have no label; calculations are in the order in which candidates were chosen."""
    chosen = [each.candidate_id for round_ in rounds for each in round_.chosen]
    plain = [None if document is None else _plain(document) for document in label_documents]
    return {
        name: str(document["error"])[:500]
        for name, document in zip(chosen, plain, strict=True)
        if document is not None and document.get("error")
    }


def _snapshot(
    documents: Sequence[Mapping[str, Any]],
    label_documents: Sequence[Any],
    rounds: Sequence[Round],
    references: str | None,
) -> Snapshot:
    return Snapshot.of(documents, _all_labels(label_documents), _roots(rounds), _references(references, documents))


def _references(path: str | None, documents: Sequence[Mapping[str, Any]]) -> References | None:
    if path is None:
        return None
    scale, pressure = documents[0]["checkpoint"]["energy_scale"], pressure_of(documents[0]["settings"])
    return load_references(path, scale, pressure=pressure)


def _documents(
    records: list[Any], checkpoints: list[Any], settings: list[Any], structures: list[Any], references: str | None
) -> tuple[list[dict[str, Any]], Any]:
    """Documents of the candidates of a round, and a function that returns their structures."""
    documents, _ = placed_candidates(records, checkpoints, settings, references, structures)
    arrays = {entry["candidate_id"]: entry for chunk in structures for entry in map(_plain, chunk or ())}
    candidates = {document["document_id"]: document["candidate_id"] for document in documents}
    for document in documents:
        document["is_extrapolating"] = is_extrapolating(document.get("extrapolation"))

    def structure_of(name: str, initial: bool) -> Structure | None:
        stored = arrays[candidates[name]]["initial_structure" if initial else "structure"]
        return decode_structure(stored) if isinstance(stored, dict) else stored

    return documents, structure_of
