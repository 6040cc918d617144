"""Candidates of a campaign to calculate from first principles, with their relaxed structures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.stores.report.outcomes import is_ranked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.flows.campaign.results import CampaignResults

_FIELDS = ["document_id", "candidate_id", "source", "state", "duplicate_of", "formula_pretty", "energy_above_hull"]


@dataclass(frozen=True)
class Chosen:
    """A candidate, and the geometry in which it is calculated: the relaxed one, or the input if there is none."""

    candidate_id: str
    formula: str
    structure: Structure
    energy_above_hull: float | None = None


def choose(
    campaign: CampaignResults, *, top: int | None = None, candidate_ids: Sequence[str] | None = None
) -> list[Chosen]:
    """
    Choose candidates of a campaign.

    Parameters
    ----------
    campaign
        Results of the campaign.
    top
        Number of candidates nearest to the hull: converged ones without duplicates, references and competing phases.
    candidate_ids
        Or the candidates' ids, in the order in which they are submitted.

    Raises
    ------
    MatrisError
        If the campaign has no such candidate, or a candidate has no structure.
    """
    documents = {document["candidate_id"]: document for document in campaign.documents(_FIELDS)}
    if candidate_ids is not None:
        if unknown := [identity for identity in candidate_ids if identity not in documents]:
            raise MatrisError(f"campaign {campaign.name} has no candidate {unknown[0]} ({len(unknown)} are unknown)")
        chosen = [documents[identity] for identity in dict.fromkeys(candidate_ids)]
    else:
        ranked = [d for d in documents.values() if is_ranked(d) and d.get("energy_above_hull") is not None]
        chosen = sorted(ranked, key=lambda each: (each["energy_above_hull"], each["candidate_id"]))[:top]
    if not chosen:
        raise MatrisError(f"campaign {campaign.name} has no converged candidate with a place on the hull yet")
    return [_with_structure(campaign, document) for document in chosen]


def read_candidate_ids(path: Path) -> list[str]:
    r"""
    Read the ids of candidates: one a line, the first word of each; or JSON, a list of ids or of documents.

    Raises
    ------
    MatrisError
        If the file holds none.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "chosen.txt").write_text("3f2a near the hull\n77c0\n")
    ...     _ = Path(folder, "chosen.json").write_text('[{"candidate_id": "3f2a", "reasons": ["diverse"]}]')
    ...     read_candidate_ids(Path(folder, "chosen.txt")), read_candidate_ids(Path(folder, "chosen.json"))
    (['3f2a', '77c0'], ['3f2a'])
    """
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith(("[", "{")):
        try:
            content = json.loads(text)
            given = content if isinstance(content, list) else [content]
            ids = [each if isinstance(each, str) else str(each["candidate_id"]) for each in given]
        except (ValueError, KeyError, TypeError) as error:
            raise MatrisError(f"{path} is no list of candidates with candidate_id: {error!r}") from error
    else:
        ids = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not ids:
        raise MatrisError(f"{path} names no candidate")
    return ids


def _with_structure(campaign: CampaignResults, document: dict[str, Any]) -> Chosen:
    identity = document["document_id"]
    structure = campaign.store.structure(identity) or campaign.store.structure(identity, initial=True)
    if structure is None:
        raise MatrisError(f"candidate {document['candidate_id']} has no structure in the store: it was never computed")
    return Chosen(document["candidate_id"], document["formula_pretty"], structure, document.get("energy_above_hull"))
