"""How the results of a campaign were computed: checkpoint, settings, competing phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.stores.report.formats import grouped

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping

    from matris.stores.report.outcomes import Document
    from matris.stores.report.tally import Tally

_OPTIMIZERS = {"lbfgs": "L-BFGS", "fire": "FIRE"}


def is_demonstrator(documents: Iterable[Document], card: Mapping[str, Any] | None = None) -> bool:
    """Say whether a checkpoint calls itself a demonstrator, in the documents of its results or anywhere on its card."""
    named = any((document.get("checkpoint") or {}).get("is_demonstrator") for document in documents)
    return named or "demonstrator" in str(dict(card or {})).lower()


def checkpoint_keys(tally: Tally, card: Mapping[str, Any]) -> list[str]:
    """Key on the card, or else the keys that documents name."""
    return [card["key"]] if card.get("key") else sorted({key for key, _ in tally.origins})


def competing_phases(tally: Tally) -> list[Document]:
    """Elements and known phases that were computed to compete on the hull, those of fewer elements first."""
    return sorted(tally.references, key=lambda d: (d["nelements"], str(d["formula_pretty"])))


def settings(tally: Tally) -> dict[str, Any]:
    """Collect settings, software and machines by name; empty if nothing was computed."""
    first = tally.first
    if first is None:
        return {}
    chosen = first["settings"]
    before = chosen.get("first") or {}
    return {
        "settings": {
            "force threshold": f"{chosen['fmax']:g} eV/Å, atoms and cell",
            "maximum steps": chosen["max_steps"],
            "optimizer": _OPTIMIZERS.get(chosen.get("optimizer", "fire"), chosen.get("optimizer")),
            "cell": _cell(chosen),
            "first relaxed with": before.get("checkpoint"),
        },
        "corrections": _counted(tally.schemes),
        "computed on": _counted(tally.machines),
        "versions": first["versions"],
    }


def _cell(chosen: Mapping[str, Any]) -> str:
    """Describe how cells could deform."""
    if not chosen["relax_cell"]:
        return "fixed"
    limits = [
        f"at {chosen['pressure']:g} GPa" if chosen.get("pressure") else "",
        f"mask {chosen['cell_mask']}" if chosen.get("cell_mask") else "",
        "symmetry fixed" if chosen.get("fix_symmetry") else "",
    ]
    return ", ".join(["relaxed", *filter(None, limits)])


def _counted(names: Counter[str]) -> str:
    """List names, with the number of documents for each if there are several."""
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{name} ({grouped(count)})" for name, count in names.most_common())
