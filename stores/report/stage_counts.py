"""Section of the funnel: how many candidates were left after each stage, and why the others were not."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from matris.stores.report.outcomes import FAILED, SOUND, UNSOUND
from matris.stores.report.parts import number, plural

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
_REASONS = 6


def stage_counts(counts: Outcomes) -> str:
    """
    Show the funnel.

    Parameters
    ----------
    counts
        All documents counted.
    """
    read = counts.distinct + counts.identical
    rows = [_row("read", read, read)]
    if counts.identical:
        rows += [_lost(f"{number(counts.identical)} identical"), _row("distinct", counts.distinct, read)]
    if counts.unfinished:
        rows += [_lost(f"{number(counts.unfinished)} not finished yet"), _row("finished", counts.documents, read)]
    names = _LEFT | ({} if counts.window is None else {"hull window": f"within {1e3 * counts.window:g} meV/atom"})
    for stage, name in names.items():
        kinds = counts.lost[stage]
        always = stage in {"not converged", "hull window"}
        if kinds:
            rows.append(_lost(_reasons(stage, kinds)))
        if kinds or always:
            rows.append(_row(name, counts.left(stage), read, good=stage == "hull window"))
    if counts.window is not None:
        rows.append(_row("on the hull", counts.stable, read, good=True))
    if counts.extrapolating is not None:
        told = f"{number(counts.extrapolating)} of {number(counts.survivors)} survivors are unlike what the checkpoint "
        told += "was trained on" + (": their numbers are guesses" if counts.extrapolating else "")
        rows.append(_lost(told, minus=False))
    for verdict, (good, bad) in _VERDICTS.items():
        found = counts.verdicts[verdict]
        if found:
            parts = [f"of {number(found.total())} survivors with {verdict} results"]
            parts += [f"{number(found[UNSOUND])} {bad}"] if found[UNSOUND] else []
            parts += [f"{number(found[FAILED])} failed"] if found[FAILED] else []
            rows += [_row(good, found[SOUND], read, good=True), _lost(", ".join(parts), minus=False)]
    return f'<section id="funnel"><h2>Funnel</h2><div class="funnel">{"".join(rows)}</div></section>'


def _row(name: str, count: int, read: int, *, good: bool = False) -> str:
    width = 100 * count / read if read else 0
    style = "bar good" if good else "bar"
    return (
        f'<div>{escape(name)}</div><div class="track"><div class="{style}" style="width:{width:.2f}%"></div></div>'
        f'<div class="count">{number(count)}</div>'
    )


def _lost(text: str, *, minus: bool = True) -> str:
    return f'<div class="{"lost" if minus else "note told"}">{"− " if minus else ""}{escape(text)}</div>'


def _reasons(stage: str, kinds: Counter[str]) -> str:
    """Say how many were lost, and the most frequent reasons."""
    shown = [f"{number(count)} {name}" for name, count in kinds.most_common(_REASONS)]
    rest = kinds.total() - sum(count for _, count in kinds.most_common(_REASONS))
    if rest:
        shown.append(f"{number(rest)} for other reasons")
    told = ", ".join(shown)
    return told if len(kinds) == 1 else f"{plural(kinds.total(), 'candidate')} ({stage}): {told}"
