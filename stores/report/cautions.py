"""Reasons to be careful with a ranked candidate, in a few words each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matris.stores.report.outcomes import Document

_SHOWN = 3  # chemical systems, and warnings of a property


def cautions(document: Document) -> list[str]:
    """
    List the reasons to be careful with the results of a candidate.

    Parameters
    ----------
    document
        Candidate document.

    Examples
    --------
    >>> cautions({"only_elements_compete": True, "hull_lacks": ["Cl-Na"], "correction_state": "undecided"})
    ['only the elements compete (Cl–Na)', 'corrections undecided']
    >>> cautions({"hull_lacks": ["Cl-Na"]})
    ['no competing compounds in Cl–Na']
    >>> cautions({"elastic": {"is_reliable": False, "warnings": ["the residual is 12 GPa"]}})
    ['elastic: not reliable: the residual is 12 GPa']
    """
    found, lacking = [], document.get("hull_lacks") or []
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    systems = ", ".join(lacking[:_SHOWN]).replace("-", "–") + more
    if document.get("only_elements_compete"):
        found.append(f"only the elements compete ({systems})" if systems else "only the elements compete")
    elif systems:
        found.append(f"no competing compounds in {systems}")
    if document.get("correction_state") == "undecided":
        found.append("corrections undecided")
    for kind in ("elastic", "phonon", "kappa"):
        summary = document.get(kind) or {}
        if summary.get("is_reliable") is False:
            warnings = "; ".join((summary.get("warnings") or [])[:_SHOWN])
            found.append(f"{kind}: not reliable" + (f": {warnings}" if warnings else ""))
    return found


def extrapolation(document: Document) -> float | None:
    """
    Tell how far a material is from the training data: above 1 the checkpoint extrapolates; None if it cannot tell.

    Parameters
    ----------
    document
        Candidate document, or the document of a property, which has that of its relaxation.

    Examples
    --------
    >>> extrapolation({"extrapolation": 1.7}), extrapolation({"start": {"record": {"extrapolation": 0.4}}})
    (1.7, 0.4)
    """
    record = (document.get("start") or {}).get("record") or {}
    found: float | None = document.get("extrapolation", record.get("extrapolation"))
    return found
