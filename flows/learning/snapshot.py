"""The steps of a round as functions of documents and labels, for the loop in a store and for flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matris.flows.learning.selection import Errors
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate
from matris.stores.documents.documents import pressure_of
from matris.stores.documents.learning import ROOT, Agreement, root_of, stability
from matris.stores.documents.validation import Compared, validation
from matris.stores.hull.with_dft import dft_energies, places_with_dft
from matris.stores.report.outcomes import is_ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.documents.learning import DftEnergy, Round
    from matris.stores.hull.hull import HullResult
    from matris.stores.hull.references import References

_SHARPEST = 0.005  # eV/atom: least spread of errors
_TELLING = 5  # candidates from which a spread is taken


@dataclass(frozen=True)
class Snapshot:
    """
    Candidates of a round's campaign, with their labels.

    Attributes
    ----------
    documents
        Documents of the campaign with `matris.flows.learning.selection.FIELDS`.
    energies
        First-principles energy by document id.
    places
        Places on the hull with them, by document id.
    """

    documents: Sequence[Mapping[str, Any]]
    energies: Mapping[str, DftEnergy]
    places: Mapping[str, HullResult]

    @classmethod
    def of(
        cls,
        documents: Sequence[Mapping[str, Any]],
        labels: Sequence[Mapping[str, Any]],
        roots: Mapping[str, str],
        references: References | None = None,
    ) -> Snapshot:
        """
        Place documents on the hull with labels.

        Raises
        ------
        MatrisError
            If a label is on another energy scale than the checkpoint, or by a functional of another one.
        """
        if not documents:
            return cls((), {}, {})
        scale, pressure = documents[0]["checkpoint"]["energy_scale"], pressure_of(documents[0]["settings"])
        by_root = dft_energies(labels, scale, pressure, roots).energies
        energies = {
            document["document_id"]: by_root[root]
            for document in documents
            if document["state"] == "converged" and (root := root_of(document)) in by_root
        }
        return cls(documents, energies, places_with_dft(documents, energies, references))

    def stable(self) -> list[str]:
        """Roots of the candidates on the hull with labels, without references and duplicates."""
        return sorted({root_of(document) for document in self._on_hull()})

    def confirmed(self) -> list[str]:
        """Candidates in `stable` that have a label."""
        return sorted({root_of(d) for d in self._on_hull() if d["document_id"] in self.energies})

    def found(self) -> list[str]:
        """Candidates in `confirmed` that are also stable by the checkpoint alone."""
        labelled = (d for d in self._on_hull() if d["document_id"] in self.energies)
        return sorted({root_of(d) for d in labelled if d.get("is_stable")})

    def agreement(self, roots: Collection[str]) -> Agreement:
        """Compare predicted distances with those by labels, for candidates by their roots."""
        pairs = [
            Compared(
                document_id=d["document_id"],
                formula_pretty=d.get("formula_pretty"),
                first=first,
                second=second,
            )
            for d in self.documents
            if is_ranked(d)
            and d["document_id"] in self.energies
            and root_of(d) in roots
            and (first := stability(d)) is not None
            and (second := stability(self.places[d["document_id"]].to_dict())) is not None
        ]
        found = validation("predictions", "labels", pairs, {})
        return Agreement(
            n=found.n,
            tau=found.tau,
            calibration_error=found.calibration_error(),
            mae=found.mae,
            bias=found.bias,
            spread=found.spread,
        )

    def _on_hull(self) -> Iterator[Mapping[str, Any]]:
        for document in self.documents:
            if is_ranked(document) and self.places[document["document_id"]].is_stable:
                yield document


def errors_after(rounds: Sequence[Round], spread: float) -> Errors:
    """
    Estimate the errors of the current checkpoint's distances to the hull.

    Parameters
    ----------
    rounds
        Closed rounds.
    spread
        Standard deviation (eV/atom) without labels.

    Returns
    -------
    Errors
        Those that the last labels showed before they were learned. If a new checkpoint was taken, its bias is taken to
        be zero, and the spread shrinks like the energy error on the labels that were set aside.

    Examples
    --------
    >>> errors_after([], 0.05)
    Errors(spread=0.05, bias=0.0)
    """
    errors = Errors(spread)
    for each in rounds:
        agreement, trained = each.agreement, each.trained
        if agreement is not None and agreement.n >= _TELLING and agreement.spread is not None:
            errors = Errors(max(agreement.spread, _SHARPEST), agreement.bias or 0.0)
        if trained is not None and trained.taken:
            shrunk = errors.spread * trained.after["energy"] / trained.before["energy"]
            errors = Errors(max(shrunk, _SHARPEST))
    return errors


def starts(
    documents: Sequence[Mapping[str, Any]], structure_of: Callable[[str, bool], Structure | None]
) -> Iterator[Candidate]:
    """
    Yield the candidates of the next round: from where the relaxations of this one stopped.

    Candidates that failed start from their input again. Competing phases, candidates that were rejected and duplicates
    are left out: the first are added to each campaign, the last are the same crystals as others.

    Parameters
    ----------
    documents
        Documents of the round's campaign.
    structure_of
        Returns the structure of a document by its id, relaxed or, with True, the input; None if there is none.

    Yields
    ------
    Candidate
        Its provenance names the candidate of the first round, ``root``, and the document it starts from, ``start``.
    """
    for document in documents:
        is_candidate = document["source"] not in REFERENCE_SOURCES
        if not is_candidate or document["state"] in {"rejected", "duplicate"} or document.get("duplicate_of"):
            continue
        name = document["document_id"]
        structure = (structure_of(name, False) if document["state"] != "failed" else None) or structure_of(name, True)
        if structure is not None:
            provenance = {**(document.get("provenance") or {}), ROOT: root_of(document), "start": name}
            yield Candidate.from_structure(structure, document["source"], **provenance)
