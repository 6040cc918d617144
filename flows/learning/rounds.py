"""The steps of a round that the loop in a store and the flow share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.flows.learning.training import set_aside
from matris.stores.documents.learning import ChosenCandidate, Round
from matris.stores.report.outcomes import is_ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matris.flows.learning.selection import Chosen
    from matris.flows.learning.snapshot import Snapshot


def open_round(
    rounds: Sequence[Round],
    campaign_id: str,
    checkpoint: tuple[str, str],
    documents: Iterable[Mapping[str, Any]],
    chosen: Iterable[Chosen],
    steps: tuple[int, int],
) -> Round:
    """
    Make the next round.

    Parameters
    ----------
    rounds
        Rounds so far.
    campaign_id
        Campaign of the round.
    checkpoint
        Key and SHA-256 hash of the checkpoint that computed the campaign.
    documents
        Documents of the campaign.
    chosen
        Candidates to calculate.
    steps
        Number of steps that the relaxations of its candidates took, and that they took in the first round.
    """
    key, sha256 = checkpoint
    n_steps, first_steps = steps
    return Round(
        number=len(rounds),
        campaign_id=campaign_id,
        checkpoint=key,
        sha256=sha256,
        n_ranked=sum(map(is_ranked, documents)),
        n_steps=n_steps,
        first_steps=first_steps,
        chosen=[
            ChosenCandidate(
                document_id=each.document_id,
                candidate_id=each.candidate_id,
                root=each.root,
                reasons=list(each.reasons),
                probability=each.probability,
            )
            for each in chosen
        ],
    )


def take_labels(
    rounds: Sequence[Round],
    labels: Sequence[Mapping[str, Any]],
    roots: Mapping[str, str],
    snapshot: Snapshot,
    reason_of: Callable[[str], str],
) -> None:
    """
    Close the list of labels of the last round, compare them with the predictions, and set some candidates aside.

    Parameters
    ----------
    rounds
        All rounds; the last one is changed.
    labels
        All labels so far.
    roots
        Candidate of the first round by candidate id.
    snapshot
        The campaign of the last round, with all labels.
    reason_of
        Returns the reason why a chosen candidate, given by its id, has no label.
    """
    *earlier, current = rounds
    known = {name for each in earlier for name in each.label_ids}
    before = {roots[label["candidate_id"]] for label in labels if label["label_id"] in known}
    new = {roots[label["candidate_id"]] for label in labels} - before
    for each in current.chosen:
        if each.root not in new | before:
            current.failed.setdefault(each.candidate_id, reason_of(each.candidate_id))
    corners = {each.root for each in current.chosen if each.probability is None}
    current.aside = set_aside(sorted(new - corners), sum(len(each.aside) for each in earlier), len(before))
    current.label_ids = sorted(label["label_id"] for label in labels if label["label_id"] not in known)
    current.n_labelled = len(new | before)
    current.stable, current.confirmed, current.found = snapshot.stable(), snapshot.confirmed(), snapshot.found()
    current.agreement = snapshot.agreement(new)
