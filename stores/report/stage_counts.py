"""Number of candidates left after each stage of a campaign, and reasons of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matris.stores.report.formats import grouped, plural
from matris.stores.report.outcomes import FAILED, SOUND, UNSOUND

if TYPE_CHECKING:
    from collections import Counter

    from matris.stores.report.outcomes import Outcomes

_LEFT = {
    "reading": "readable",
    "sanity": "sound cells",
    "chemistry": "plausible compositions",
    "duplicates": "different structures",
    "failed": "computed",
    "not converged": "relaxed",
    "duplicates after relaxing": "different crystals",
}
_VERDICTS = {
    "phonon": ("dynamically stable", "imaginary modes"),
    "elastic": ("mechanically stable", "mechanically unstable"),
}
_REASONS = 6  # reasons that are listed by name


@dataclass
class StageCount:
    """
    One bar of the funnel.

    Attributes
    ----------
    name
        Common property of the remaining candidates.
    count
        Number of remaining candidates.
    percent
        Share of all structures that were read, %.
    good
        Whether the candidates are hits.
    losses
        Number of candidates lost at this stage with the reasons, or empty.
    remark
        Sentence below the bar, or empty.
    """

    name: str
    count: int
    percent: float
    good: bool = False
    losses: str = ""
    remark: str = ""


def stage_counts(outcomes: Outcomes) -> list[StageCount]:
    """
    Count the candidates left after each stage, in the order of a campaign.

    Parameters
    ----------
    outcomes
        Counts of all documents.
    """
    read = outcomes.distinct + outcomes.identical

    def stage(name: str, count: int, *, good: bool = False, losses: str = "", remark: str = "") -> StageCount:
        return StageCount(name, count, 100 * count / read if read else 0.0, good, losses, remark)

    stages = [stage("read", read)]
    if outcomes.identical:
        stages.append(stage("distinct", outcomes.distinct, losses=f"{grouped(outcomes.identical)} identical"))
    if outcomes.unfinished:
        losses = f"{grouped(outcomes.unfinished)} not finished yet"
        stages.append(stage("finished", outcomes.documents, losses=losses))
    window = outcomes.window
    names = _LEFT | ({} if window is None else {"hull window": f"within {1e3 * window:g} meV/atom"})
    for key, name in names.items():
        kinds = outcomes.lost[key]
        if kinds or key in {"not converged", "hull window"}:
            losses = _reasons(key, kinds) if kinds else ""
            stages.append(stage(name, outcomes.left(key), good=key == "hull window", losses=losses))
    if window is not None:
        stages.append(stage("on the hull", outcomes.stable, good=True))
    if outcomes.extrapolating is not None:
        stages[-1].remark = (
            f"{grouped(outcomes.extrapolating)} of {grouped(outcomes.survivors)} survivors are unlike the training "
            f"data of the checkpoint{': their results are unreliable' if outcomes.extrapolating else ''}"
        )
    for verdict, (good, bad) in _VERDICTS.items():
        counts = outcomes.verdicts[verdict]
        if counts:
            parts = [f"of {grouped(counts.total())} survivors with {verdict} results"]
            parts += [f"{grouped(counts[UNSOUND])} {bad}"] if counts[UNSOUND] else []
            parts += [f"{grouped(counts[FAILED])} failed"] if counts[FAILED] else []
            stages.append(stage(good, counts[SOUND], good=True, remark=", ".join(parts)))
    return stages


def _reasons(stage: str, kinds: Counter[str]) -> str:
    """Write the number of losses with the most frequent reasons."""
    frequent = kinds.most_common(_REASONS)
    parts = [f"{grouped(count)} {name}" for name, count in frequent]
    rest = kinds.total() - sum(count for _, count in frequent)
    if rest:
        parts.append(f"{grouped(rest)} for other reasons")
    reasons = ", ".join(parts)
    return reasons if len(kinds) == 1 else f"{plural(kinds.total(), 'candidate')} ({stage}): {reasons}"
