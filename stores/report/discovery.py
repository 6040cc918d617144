"""What a finished campaign has found: how much is stable, unique and novel."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

from matris.duplicates import Duplicates, group_equal
from matris.errors import MatrisError
from matris.stores.documents.candidate import REFERENCE_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pymatgen.core import Structure

type Document = Mapping[str, Any]

COMPARED = (
    "document_id",
    "candidate_id",
    "source",
    "state",
    "duplicate_of",
    "formula_pretty",
    "energy_per_atom",
    "uncorrected_energy_per_atom",
    "energy_above_hull",
)
"""Fields of a candidate document that are read."""

BIN = 0.025
"""Width of the bins of the histogram, eV/atom."""


@dataclass(frozen=True)
class Discovery:
    """
    Counts of a campaign; elemental references and known phases do not count.

    Attributes
    ----------
    n_candidates
        All, also those that were dropped or failed.
    n_converged
        Relaxed.
    n_stable
        Of these, within some distance of the hull.
    n_unique
        Different crystals among the relaxed ones.
    n_novel
        Of the different ones, those that are none of the known crystals; None if no crystals were named.
    sun
        Candidates that are stable, unique and novel (S.U.N.), the lowest in energy first; None as `n_novel`.
    histogram
        Number of relaxed candidates by distance to the hull: the lower edge of a bin (eV/atom) to the count, for bins
        in which there are any.
    """

    n_candidates: int
    n_converged: int
    n_stable: int
    n_unique: int
    n_novel: int | None
    sun: tuple[str, ...] | None
    histogram: Mapping[float, int]

    @property
    def sun_rate(self) -> float | None:
        """Share of all candidates that is stable, unique and novel, as in C. Zeni et al., Nature 639, 624 (2025)."""
        if self.sun is None:
            return None
        return len(self.sun) / self.n_candidates if self.n_candidates else 0.0


def discovery(
    documents: Iterable[Document],
    structure_of: Callable[[str], Structure | None],
    known: Iterable[Structure] | None = None,
    *,
    stable_within: float = 0.0,
) -> Discovery:
    """
    Count what a campaign has found.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint with one set of settings.
    structure_of
        Gives the relaxed structure of a document by its ``document_id``, such as `CandidateStore.structure`.
    known
        Crystals that are no news. They are compared as the candidates are among each other, see
        `matris.duplicates`, but by structure alone.
    stable_within
        Distance to the hull (eV/atom) up to which a candidate counts as stable.

    Returns
    -------
    Discovery

    Raises
    ------
    MatrisError
        If a candidate has two documents, or a relaxed one no structure.
    """
    candidates = by_candidate(d for d in documents if d["source"] not in REFERENCE_SOURCES)
    converged = {name: d for name, d in candidates.items() if d["state"] == "converged"}
    stable = {name for name, d in converged.items() if _is_within(d, stable_within)}
    unique = _unique(converged, structure_of)
    novel = None if known is None else _novel([converged[name] for name in unique], structure_of, known)
    sun = None if novel is None else tuple(name for name in novel if name in stable)
    distances = [d["energy_above_hull"] for d in converged.values() if d.get("energy_above_hull") is not None]
    return Discovery(
        n_candidates=len(candidates),
        n_converged=len(converged),
        n_stable=len(stable),
        n_unique=len(unique),
        n_novel=None if novel is None else len(novel),
        sun=sun,
        histogram=energy_histogram(distances),
    )


def energy_histogram(energies: Iterable[float]) -> dict[float, int]:
    """
    Count energies by bins of `BIN`.

    Parameters
    ----------
    energies
        eV/atom.

    Returns
    -------
    dict
        Lower edge (eV/atom) to count, in order; a bin contains its lower edge. Empty bins are left out.
    """
    counts = Counter(floor(energy / BIN + 1e-9) for energy in energies)
    return {round(index * BIN, 6): counts[index] for index in sorted(counts)}


def by_candidate(documents: Iterable[Document]) -> dict[str, Document]:
    """
    Find documents by their candidate.

    Raises
    ------
    MatrisError
        If a candidate has two documents.
    """
    by_id: dict[str, Document] = {}
    for document in documents:
        name = document["candidate_id"]
        if name in by_id:
            raise MatrisError(f"candidate {name} has two documents; choose one checkpoint and one set of settings")
        by_id[name] = document
    return by_id


def _is_within(document: Document, distance: float) -> bool:
    return document.get("energy_above_hull") is not None and document["energy_above_hull"] <= distance


def _unique(documents: Mapping[str, Document], structure_of: Callable[[str], Structure | None]) -> list[str]:
    """Candidates that represent those equal to them, the lowest in energy first."""
    by_formula: dict[str, list[str]] = defaultdict(list)
    for name, document in documents.items():
        if document.get("duplicate_of") not in documents:
            by_formula[document["formula_pretty"]].append(name)
    unique: list[str] = []
    for names in by_formula.values():
        if len(names) > 1:
            items = [(n, _structure(documents[n], structure_of), _energy(documents[n])) for n in names]
            unique += [name for name, first in group_equal(items).items() if name == first]
        else:
            unique += names
    return sorted(unique, key=lambda name: (_height(documents[name]), name))


def _novel(
    documents: Sequence[Document], structure_of: Callable[[str], Structure | None], known: Iterable[Structure]
) -> list[str]:
    """Candidates that are none of the known crystals, in the order of the documents."""
    formulas = {document["formula_pretty"] for document in documents}
    seen = Duplicates()
    for index, structure in enumerate(known):
        if structure.is_ordered and structure.composition.element_composition.reduced_formula in formulas:
            seen.remember(str(index), structure)
    return [d["candidate_id"] for d in documents if seen.like(_structure(d, structure_of)) is None]


def _structure(document: Document, structure_of: Callable[[str], Structure | None]) -> Structure:
    structure = structure_of(document["document_id"])
    if structure is None:
        raise MatrisError(f"document {document['document_id']} is of a relaxed candidate, but has no structure")
    return structure


def _energy(document: Document) -> float:
    energy: float | None = document.get("energy_per_atom")
    return document["uncorrected_energy_per_atom"] if energy is None else energy


def _height(document: Document) -> float:
    distance: float | None = document.get("energy_above_hull")
    return float("inf") if distance is None else distance
