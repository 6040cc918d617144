"""Which candidate a calculated structure is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.duplicates import Duplicates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.core import Structure

    from matris.stores.candidate_store import CandidateStore


class CandidateMatcher:
    """
    Match structures to the candidates of a store, by relaxed and by input structure.

    Two structures match if `matris.duplicates.Duplicates` finds them equal. Where several candidates do, the most
    similar one is taken.

    Parameters
    ----------
    store
        Candidates.

    Examples
    --------
    >>> from matris.stores import CandidateStore
    >>> from pymatgen.core import Lattice, Structure
    >>> matcher = CandidateMatcher(CandidateStore.open("results"))
    >>> print(matcher.match(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])))
    None
    """

    def __init__(self, store: CandidateStore) -> None:
        self._store = store
        self._known: dict[str, Duplicates] = {}

    def match(self, *structures: Structure) -> str | None:
        """
        Find the candidate of a calculation.

        Parameters
        ----------
        structures
            Geometries of the calculation, such as the last and the first one. The first that matches decides.

        Returns
        -------
        str or None
            Id of the candidate; None if no candidate is like it.
        """
        for structure in structures:
            known = self._of_formula(structure.composition.reduced_formula)
            if (found := known.like(structure)) is not None:
                return found
        return None

    def _of_formula(self, formula: str) -> Duplicates:
        """Structures of the candidates with a reduced formula, read once."""
        if formula not in self._known:
            known = self._known[formula] = Duplicates()
            fields = ["document_id", "candidate_id"]
            documents = list(self._store.docs.query({"formula_pretty": formula}, fields, sort={"document_id": 1}))
            for initial in (False, True):
                for document in documents:
                    structure = self._store.structure(document["document_id"], initial=initial)
                    if structure is not None and structure.is_ordered:
                        known.remember(document["candidate_id"], structure)
        return self._known[formula]


def known_ids(store: CandidateStore, candidate_ids: Iterable[str]) -> set[str]:
    """Select the ids of candidates that a store has."""
    criteria = {"candidate_id": {"$in": sorted(set(candidate_ids))}}
    return {document["candidate_id"] for document in store.docs.query(criteria, ["candidate_id"])}
