"""
A campaign that learns, round by round, with its state in the store.

Every step leaves a record before the next one begins, and each step that is repeated gives the same. A process that is
killed at any moment loses nothing that was finished: the next call goes on.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import batched
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.turns import turn
from matris.flows.campaign.validation import validate_by_maker
from matris.flows.learning.features import structure_features
from matris.flows.learning.plan import Plan, stop_reason
from matris.flows.learning.rounds import open_round, take_labels
from matris.flows.learning.selection import FIELDS, select
from matris.flows.learning.snapshot import Snapshot, errors_after, starts
from matris.flows.learning.training import learn
from matris.flows.local.runner import run
from matris.makers.batch_relax import BatchStaticMaker
from matris.stores.database.jobstore import local_folder
from matris.stores.dft_labels import DftLabels
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.learning import Choice, ChosenCandidate, LoopRecord, Round, root_of
from matris.stores.hull.with_dft import check_labels, fields_with_dft
from matris.stores.learning_records import LearningRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.flows.campaign.events import Watch
    from matris.flows.learning.selection import Chosen
    from matris.stores.dft_labels import DftLabel

    type Labeller = Callable[[Candidate], Sequence[DftLabel]]

logger = logging.getLogger(__name__)

_NAMES = ("document_id", "candidate_id", "source", "provenance")
_STEPS = ("candidate_id", "n_steps")
_WRITE_SIZE = 500  # documents in one write
_FEWEST = 2  # candidates with labels from which a checkpoint is fine-tuned: one to learn from, one set aside


class Learning:
    """
    Rounds of screening, choice, labels and fine-tuning that begin with a campaign.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    name
        Name of the first campaign, or of that of any round. Default: the campaign that ran last.
    plan
        Settings. Default: those of the last run.
    labeller
        Returns the labels of a candidate; a MatrisError is the reason why there are none. Default: labels are added to
        the store by `matris label`, and the loop waits for them.
    devices, watch
        As for `matris.flows.local.runner.run`, for the campaigns of later rounds. The device of the campaign's Maker
        fine-tunes.
    choose
        Function that chooses, with the arguments of `matris.flows.learning.selection.select`.

    Attributes
    ----------
    first
        First campaign.
    record
        Rounds so far.

    Raises
    ------
    MatrisError
        If there is no such campaign, or it has no hulls.
    """

    def __init__(
        self,
        location: str | Path | None = None,
        name: str | None = None,
        plan: Plan | None = None,
        labeller: Labeller | None = None,
        *,
        devices: Sequence[str | None] | None = None,
        watch: Watch = lambda _: None,
        choose: Callable[..., list[Chosen]] = select,
    ) -> None:
        campaign = Campaign.open(location, name)
        self._records = LearningRecords(campaign.job_store)
        record = self._records.of_campaign(campaign.name)
        self.location = location
        self.first = (
            campaign if record is None or record.loop_id == campaign.name else Campaign.open(location, record.loop_id)
        )
        if not self.first.funnel.hull:
            raise MatrisError(f"campaign {self.first.name} has no hulls, so that nothing can be learned of stability")
        self.record = record or LoopRecord(loop_id=self.first.name, title=self.first.title)
        self.plan = plan or (Plan.from_dict(self.record.plan) if self.record.plan else Plan())
        self.labels = DftLabels(location)
        self._campaigns = {self.first.name: self.first}
        self._labeller, self._devices, self._watch, self._choose = labeller, devices, watch, choose

    @property
    def folder(self) -> Path:
        """Folder of the sets and checkpoints of the loop."""
        return (local_folder(self.location) / "learning" / self.first.name).absolute()

    def missing(self) -> list[ChosenCandidate]:
        """Return the chosen candidates that wait for a label."""
        if not self.record.rounds or self.record.rounds[-1].state != "chosen":
            return []
        last, (labels, roots) = self.record.rounds[-1], self._labels()
        labelled = {roots[label["candidate_id"]] for label in labels}
        return [each for each in last.chosen if each.root not in labelled and each.candidate_id not in last.failed]

    def go_on(self, *, rounds: int | None = None, incomplete: bool = False) -> LoopRecord:
        """
        Go on until the loop stops, or waits for labels.

        Parameters
        ----------
        rounds
            Largest number of rounds to close. Default: no limit.
        incomplete
            Whether to close the current round although some of its candidates have no label.

        Returns
        -------
        LoopRecord
            Rounds so far. `missing` tells what the loop waits for.

        Raises
        ------
        MatrisError
            If a label is on another energy scale than the checkpoint, or as for `matris.flows.local.runner.run` and
            `matris.flows.learning.training.learn`.
        """
        with turn(self.first, "learning"):
            self.record = self._records.of_campaign(self.first.name) or self.record
            stop = None if rounds is None else len([r for r in self.record.rounds if r.state == "learned"]) + rounds
            while True:
                closed = [each for each in self.record.rounds if each.state == "learned"]
                if stop is not None and len(closed) >= stop:
                    break
                self.record.plan = self.plan.to_dict()
                if len(closed) == len(self.record.rounds):
                    self.record.stopped = stop_reason(closed, self.plan)
                    if self.record.stopped is None:
                        self._begin()
                    if self.record.stopped is not None:
                        self._finish()
                        break
                current = self.record.rounds[-1]
                if current.state == "chosen":
                    self._mark(current)
                    if not self._label(current) and not incomplete:
                        break
                    incomplete = False
                    self._take_labels(current)
                self._learn(current)
        return self.record

    def campaign(self, name: str) -> Campaign:
        """Open the campaign of a round by its name."""
        if name not in self._campaigns:
            self._campaigns[name] = Campaign.open(self.location, name)
        return self._campaigns[name]

    def _keep(self) -> None:
        self._records.keep(self.record)

    def _begin(self) -> None:
        """Screen with the current checkpoint, and choose candidates."""
        rounds = self.record.rounds
        campaign = self._screened()
        documents = list(campaign.documents(FIELDS))
        labels, roots = self._labels()
        self._place(campaign, Snapshot.of(documents, labels, roots, campaign.references))
        labelled = {roots[label["candidate_id"]] for label in labels}
        labelled |= {each.root for r in rounds for each in r.chosen if each.candidate_id in r.failed}
        budget = min(self.plan.per_round, self.plan.budget - (rounds[-1].n_labelled if rounds else 0))
        chosen = self._choose(
            documents,
            budget,
            errors=errors_after(rounds, self.plan.spread),
            features_of=lambda names: self._features(campaign, names),
            labelled=labelled,
            second=self._second(campaign),
            corners=campaign.references is None,
        )
        if not chosen:
            self.record.stopped = "no candidate is left whose label would tell anything"
            return
        first_steps = {d["candidate_id"]: d.get("n_steps") or 0 for d in self.first.documents(_STEPS)}
        ours = [d for d in documents if root_of(d) in first_steps]
        steps = sum(d.get("n_steps") or 0 for d in ours), sum(first_steps[root_of(d)] for d in ours)
        checkpoint = campaign.card.key, campaign.card.sha256
        rounds.append(open_round(rounds, campaign.name, checkpoint, documents, chosen, steps))
        self._keep()
        logger.info("round %d: %d candidates chosen", len(rounds) - 1, len(chosen))

    def _screened(self) -> Campaign:
        """Return the campaign of the current checkpoint, run to its end."""
        rounds = self.record.rounds
        taken = [each for each in rounds if each.trained is not None and each.trained.taken]
        if not taken:
            if self._is_unfinished(self.first):
                raise MatrisError(
                    f"campaign {self.first.name} has not come to its end: run its 'matris screen' again, then learn"
                )
            return self.first
        trained = taken[-1].trained
        assert trained is not None  # noqa: S101 - taken
        before = self.campaign(taken[-1].campaign_id)
        campaign = Campaign(
            self.location,
            replace(before.maker, checkpoint=trained.path, first=None),
            replace(self.first.funnel, properties=()),
            title=f"{self.first.title}, round {taken[-1].number + 1}",
            chunk_size=self.first.chunk_size,
            references=self.first.record()["references"],
            known_phases=self.first.known_phases,
        )
        if campaign.card.sha256 != trained.sha256:
            raise MatrisError(f"{trained.path} is not the checkpoint of round {taken[-1].number} any more")
        self._campaigns[campaign.name] = campaign
        if campaign.name not in self.record.campaigns:
            self.record.campaigns.append(campaign.name)
            self._keep()
        if self._is_unfinished(campaign):
            run(campaign, self._starts(before), self._devices, self._watch)
        return campaign

    def _is_unfinished(self, campaign: Campaign) -> bool:
        """Whether a campaign has not come to its end: its last step is to rank."""
        record = campaign.record()
        return (
            not record
            or bool(record.get("reading"))
            or not record.get("ranked")
            or campaign.queue.is_open(campaign.name)
        )

    def _starts(self, campaign: Campaign) -> Iterator[Candidate]:
        def structure_of(name: str, initial: bool) -> Structure | None:
            return campaign.store.structure(name, initial=initial)

        yield from starts(list(campaign.documents(FIELDS)), structure_of)

    def _features(self, campaign: Campaign, names: Sequence[str]) -> NDArray[np.float64]:
        structures = (structure for name in names if (structure := campaign.store.structure(name)) is not None)
        return structure_features(campaign.maker.potential(), structures)

    def _second(self, campaign: Campaign) -> dict[str, float]:
        """Return distances to the hull by the second checkpoint, by root; empty without one."""
        if self.plan.second is None:
            return {}
        maker = BatchStaticMaker(checkpoint=self.plan.second, device=campaign.maker.device)
        found = validate_by_maker(campaign, maker)
        roots = {d["document_id"]: root_of(d) for d in campaign.documents(_NAMES)}
        return {roots[each.document_id]: each.second for each in found.candidates}

    def _mark(self, current: Round) -> None:
        """Write the reasons into the documents of the chosen candidates."""
        changes = {
            each.document_id: {
                "chosen": Choice(
                    loop=self.first.name,
                    round=current.number,
                    reasons=each.reasons,
                    probability=each.probability,
                ).model_dump()
            }
            for each in current.chosen
        }
        self.first.store.set_fields(changes)

    def _label(self, current: Round) -> bool:
        """Label the chosen candidates; return whether all labels are there."""
        waiting = self.missing()
        if self._labeller is None:
            return not waiting
        for each in waiting:
            structure = self.first.store.structure(each.document_id)
            if structure is None:
                current.failed[each.candidate_id] = "the store has no structure of it"
                self._keep()
                continue
            try:
                made = self._labeller(Candidate(candidate_id=each.candidate_id, structure=structure, source="chosen"))
            except MatrisError as error:
                current.failed[each.candidate_id] = str(error)[:500]
                self._keep()
                logger.warning("no label of %s: %s", each.candidate_id, error)
            else:
                self.labels.add(made)
        for each in self.missing():
            current.failed[each.candidate_id] = "its label has the geometry of another candidate's, which has it now"
        return True

    def _take_labels(self, current: Round) -> None:
        """Close the list of labels of a round, and compare them with the predictions."""
        campaign = self.campaign(current.campaign_id)
        labels, roots = self._labels()
        check_labels(labels, campaign.card.energy_scale)
        snapshot = Snapshot.of(list(campaign.documents(FIELDS)), labels, roots, campaign.references)
        self._place(campaign, snapshot)
        take_labels(self.record.rounds, labels, roots, snapshot, lambda _: "no label has come")
        current.state = "labelled"
        self._keep()

    def _learn(self, current: Round) -> None:
        """Fine-tune on all labels so far, and close the round."""
        ids = {name for each in self.record.rounds for name in each.label_ids}
        aside = {name for each in self.record.rounds for name in each.aside}
        labels, roots = self._labels()
        labels = [label for label in labels if label["label_id"] in ids]
        if current.n_labelled >= _FEWEST and aside and current.label_ids:
            current.trained = learn(
                self._checkpoint(current),
                labels,
                aside,
                self.folder / f"round-{current.number}",
                self.plan,
                key=f"{self.first.card.key}-{self.first.name[:6]}-{current.number + 1}",
                roots=roots,
                device=self.first.maker.device,
            )
        current.state = "learned"
        self._keep()

    def _checkpoint(self, current: Round) -> str | None:
        """Return the checkpoint of a round, by which its campaign was computed."""
        return self.campaign(current.campaign_id).maker.checkpoint

    def _finish(self) -> None:
        """Compute the last campaign with what was learned last, and place it on the hull with all labels."""
        campaign = self._screened()
        self._place(campaign, Snapshot.of(list(campaign.documents(FIELDS)), *self._labels(), campaign.references))
        self._keep()

    def _place(self, campaign: Campaign, snapshot: Snapshot) -> None:
        """Write the places on the hull with first-principles energies into the documents."""
        changes: dict[str, dict[str, Any]] = {}
        for name, place in snapshot.places.items():
            changes[name] = fields_with_dft(place, snapshot.energies.get(name))
            if len(changes) >= _WRITE_SIZE:
                campaign.store.set_fields(changes)
                changes = {}
        campaign.store.set_fields(changes)

    def _roots(self) -> dict[str, str]:
        """Candidates of the first round by the candidates of all rounds."""
        roots: dict[str, str] = {}
        for name in (self.first.name, *self.record.campaigns):
            for document in self.campaign(name).documents(_NAMES):
                roots[document["candidate_id"]] = root_of(document)
        return roots

    def _labels(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """
        Read the labels of the candidates of this loop on its energy scale, sorted by id, and `_roots`.

        Raises
        ------
        MatrisError
            If a candidate of the current round only has labels on another energy scale.
        """
        scale, roots = self.first.card.energy_scale, self._roots()
        wanted = sorted(roots.keys() & set(self.labels.store.distinct("candidate_id")))
        found: list[dict[str, Any]] = []
        for names in batched(wanted, _WRITE_SIZE):
            found += self.labels.store.query({"candidate_id": {"$in": list(names)}})
        ours = [label for label in found if label["dft"]["energy_scale"] == scale]
        if len(ours) < len(found):
            chosen = {each.candidate_id for each in self.record.rounds[-1].chosen} if self.record.rounds else set()
            alone = chosen - {label["candidate_id"] for label in ours}
            check_labels([label for label in found if label["candidate_id"] in alone], scale)
            logger.warning("%d labels on other energy scales than %s are left out", len(found) - len(ours), scale)
        return sorted(ours, key=lambda label: str(label["label_id"])), roots


def missing_remark(missing: Iterable[ChosenCandidate]) -> str:
    """
    Say what a loop waits for.

    Examples
    --------
    >>> missing_remark([ChosenCandidate(document_id="d", candidate_id="a", root="a", reasons=[])])
    '1 candidates wait for a label: add them with matris label, then go on (--incomplete: without them)'
    """
    n = len(list(missing))
    return f"{n} candidates wait for a label: add them with matris label, then go on (--incomplete: without them)"
