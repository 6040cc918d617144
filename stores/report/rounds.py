"""Rounds of a campaign that learns, for the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matris.stores.documents.learning import LoopRecord, Round

COLUMNS = {
    "round": "",
    "checkpoint": "",
    "chosen": "",
    "labelled": "",
    "stable": "",
    "confirmed": "",
    "new per label": "",
    "recall": "",
    "τ": "",
    "calibration error": "",
    "distance MAE": "meV/atom",
    "energy MAE before": "meV/atom",
    "energy MAE after": "meV/atom",
    "old data before": "meV/atom",
    "old data after": "meV/atom",
    "taken": "",
    "steps": "",
    "in the first campaign": "",
}
"""Columns of the table of rounds, and their units."""

LEGEND = (
    "chosen: candidates of the round; labelled: candidates with labels so far; stable: candidates on the hull with "
    "labels; confirmed: those of them with a label; new per label: newly confirmed for each new label; recall: share "
    "of the confirmed that the checkpoint of the round finds by itself; τ, calibration error and distance MAE: "
    "predicted distances to the hull against the labels that came after them; energy MAE: on the labels set aside, "
    "before and after fine-tuning; steps: of the relaxations of the round, and of the same candidates in the first "
    "campaign"
)
"""What the columns mean."""


def round_rows(record: LoopRecord) -> list[dict[str, Any]]:
    """
    Return the rows of the table of rounds.

    Parameters
    ----------
    record
        The loop.

    Returns
    -------
    list of dict
        A value for each of `COLUMNS`; None where there is none.

    Examples
    --------
    >>> from matris.stores.documents.learning import LoopRecord, Round
    >>> common = {"campaign_id": "c", "checkpoint": "k", "sha256": "0", "n_ranked": 9, "n_steps": 40, "first_steps": 90}
    >>> closed = Round(number=0, state="learned", n_labelled=4, stable=["a", "b"], confirmed=["a"], found=[], **common)
    >>> (row,) = round_rows(LoopRecord(loop_id="c", title="Oxides", rounds=[closed]))
    >>> row["confirmed"], row["new per label"], row["recall"], row["steps"], row["in the first campaign"]
    (1, 0.25, 0.0, 40, 90)
    """
    return [_row(record, each) for each in record.rounds]


def rounds_remarks(record: LoopRecord) -> list[str]:
    """
    Say how a loop stands.

    Examples
    --------
    >>> from matris.stores.documents.learning import LoopRecord
    >>> rounds_remarks(LoopRecord(loop_id="c", title="Oxides", stopped="the budget of 30 labels is spent"))
    ['The loop has ended: the budget of 30 labels is spent']
    """
    remarks = []
    for each in record.rounds:
        if each.trained is not None and each.trained.against:
            remarks.append(f"The checkpoint of round {each.number} was not taken: {'; '.join(each.trained.against)}")
        if each.trained is None and each.state == "learned":
            remarks.append(f"Round {each.number} had too few labels to learn from")
        if each.trained is not None and not each.trained.old_before:
            remarks.append(f"Round {each.number}: forgetting was not measured, because no old data were given")
        if each.failed:
            remarks.append(f"{len(each.failed)} candidates of round {each.number} got no label")
    if record.rounds and record.rounds[-1].state == "chosen":
        last = record.rounds[-1]
        remarks.append(f"Round {last.number} waits for labels of its {len(last.chosen)} candidates")
    if record.stopped is not None:
        remarks.append(f"The loop has ended: {record.stopped}")
    return remarks


def _row(record: LoopRecord, each: Round) -> dict[str, Any]:
    agreement, trained = each.agreement, each.trained
    labelled = each.state != "chosen"
    earlier = {name for before in record.rounds[: each.number] for name in before.confirmed}
    new = record.new_labelled(each.number) if labelled else 0
    mev: dict[str, float | None] = dict.fromkeys(("mae", "before", "after", "old before", "old after"))
    if agreement is not None and agreement.mae is not None:
        mev["mae"] = 1e3 * agreement.mae
    if trained is not None:
        found = (trained.before, trained.after, trained.old_before, trained.old_after)
        for name, errors in zip(list(mev)[1:], found, strict=True):
            mev[name] = 1e3 * errors["energy"] if "energy" in errors else None
    values = (
        each.number,
        each.checkpoint,
        len(each.chosen),
        each.n_labelled if labelled else None,
        len(each.stable) if labelled else None,
        len(each.confirmed) if labelled else None,
        len(set(each.confirmed) - earlier) / new if new else None,
        each.recall,
        None if agreement is None else agreement.tau,
        None if agreement is None else agreement.calibration_error,
        *mev.values(),
        None if trained is None else trained.taken,
        each.n_steps,
        each.first_steps,
    )
    return dict(zip(COLUMNS, values, strict=True))
