"""Discovery metrics of a campaign: number of stable, unique and novel candidates."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

from matris.duplicates import Duplicates, group_equal
from matris.errors import MatrisError
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate
from matris.stores.documents.documents import competing_energy
from matris.structures import problem_with

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
    "enthalpy_per_atom",
    "uncorrected_energy_per_atom",
    "energy_above_hull",
)
"""Fields of a candidate document that `discovery` reads."""

BIN = 0.025
"""Bin width of the histogram, eV/atom."""


@dataclass(frozen=True)
class KnownCrystals:
    """
    Crystals that do not count as novel.

    Attributes
    ----------
    structures
        Crystals that candidates are compared with.
    n_read
        Number of crystals that were read.
    n_disordered
        Number of crystals with sites that several species share, which are not compared.
    n_unreadable
        Number of inputs that are no crystals: unreadable, empty, overlapping atoms, ….
    """

    structures: tuple[Structure, ...]
    n_read: int
    n_disordered: int = 0
    n_unreadable: int = 0

    @classmethod
    def of(cls, crystals: Iterable[Structure | Candidate | None]) -> KnownCrystals:
        """
        Sort crystals into those that can be compared and the others.

        Parameters
        ----------
        crystals
            Structures, candidates of any source, or None for an unreadable input.

        Raises
        ------
        MatrisError
            If there is none that can be compared, because all candidates would then count as novel.

        Examples
        --------
        >>> from pymatgen.core import Lattice, Structure
        >>> iron = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        >>> alloy = Structure(Lattice.cubic(2.83), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])
        >>> known = KnownCrystals.of([iron, alloy, None])
        >>> known.n_read, len(known.structures), known.n_disordered, known.n_unreadable
        (3, 1, 1, 1)
        """
        structures: list[Structure] = []
        n_read = n_disordered = n_unreadable = 0
        for crystal in crystals:
            n_read += 1
            structure = crystal.structure if isinstance(crystal, Candidate) else crystal
            if structure is None:
                n_unreadable += 1
            elif not structure.is_ordered:
                n_disordered += 1
            elif problem_with(structure) is not None:
                n_unreadable += 1
            else:
                structures.append(structure)
        known = cls(tuple(structures), n_read, n_disordered, n_unreadable)
        if not structures:
            raise MatrisError(
                f"no known crystal can be compared with the candidates, so that all would count as novel: {known}; "
                "give a source of ordered crystals"
            )
        return known

    def __str__(self) -> str:
        """Return the counts in words."""
        return f"{self.n_read} read, {self.n_disordered} disordered, {self.n_unreadable} unreadable"


@dataclass(frozen=True)
class Discovery:
    """
    Counts of a campaign, without elemental references and known phases.

    Attributes
    ----------
    n_candidates
        All candidates, including rejected and failed ones.
    n_converged
        Relaxed candidates.
    n_stable
        Relaxed candidates within a given distance of the hull.
    n_unique
        Different crystals among the relaxed candidates.
    n_novel
        Different crystals that match no known crystal; None without known crystals.
    sun
        Ids of the stable, unique and novel (S.U.N.) candidates, nearest to the hull first; None without known crystals.
    histogram
        Number of relaxed candidates by distance to the hull: lower edge of a bin (eV/atom) to count, without empty
        bins.
    known
        Known crystals that the candidates were compared with, and the numbers of those that could not be compared.
    """

    n_candidates: int
    n_converged: int
    n_stable: int
    n_unique: int
    n_novel: int | None
    sun: tuple[str, ...] | None
    histogram: Mapping[float, int]
    known: KnownCrystals | None = None

    @property
    def sun_rate(self) -> float | None:
        """Share of stable, unique and novel candidates in all; C. Zeni et al., Nature 639, 624 (2025)."""
        if self.sun is None:
            return None
        return len(self.sun) / self.n_candidates if self.n_candidates else 0.0


def discovery(
    documents: Iterable[Document],
    structure_of: Callable[[str], Structure | None],
    known_crystals: KnownCrystals | Iterable[Structure | Candidate | None] | None = None,
    *,
    stable_within: float = 0.0,
) -> Discovery:
    """
    Count the stable, unique and novel candidates of a campaign.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint with one set of settings.
    structure_of
        Returns the relaxed structure of a document by its ``document_id``, such as `CandidateStore.structure`.
    known_crystals
        Crystals that do not count as novel. A candidate matches one of them by structure, with the tolerances of
        `matris.duplicates`; energies are not compared. Disordered and unreadable ones are counted in `Discovery.known`.
    stable_within
        Distance to the hull (eV/atom) up to which a candidate counts as stable.

    Returns
    -------
    Discovery

    Raises
    ------
    MatrisError
        If a candidate has two documents, a relaxed candidate has no structure, or known crystals are given and none can
        be compared.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> document = {
    ...     "document_id": "1-tiny",
    ...     "candidate_id": "1",
    ...     "source": "MgO.cif",
    ...     "state": "converged",
    ...     "formula_pretty": "MgO",
    ...     "energy_above_hull": 0.0,
    ... }
    >>> counts = discovery([document], {"1-tiny": crystal}.get, known_crystals=[iron])
    >>> counts.n_stable, counts.n_unique, counts.sun, counts.sun_rate
    (1, 1, ('1',), 1.0)
    """
    candidates = by_candidate(d for d in documents if d["source"] not in REFERENCE_SOURCES)
    converged = {name: d for name, d in candidates.items() if d["state"] == "converged"}
    stable = {name for name, d in converged.items() if _is_within(d, stable_within)}
    unique = _unique(converged, structure_of)
    different = [converged[name] for name in unique]
    known = known_crystals
    if known is not None and not isinstance(known, KnownCrystals):
        known = KnownCrystals.of(known)
    novel = None if known is None else _novel(different, structure_of, known.structures)
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
        known=known,
    )


def energy_histogram(energies: Iterable[float]) -> dict[float, int]:
    """
    Count energies in bins of width `BIN`.

    Parameters
    ----------
    energies
        Energies, eV/atom.

    Returns
    -------
    dict
        Lower edge (eV/atom) to count, in ascending order. A bin contains its lower edge. Empty bins are left out.

    Examples
    --------
    >>> energy_histogram([0.0, 0.01, 0.06])
    {0.0: 2, 0.05: 1}
    """
    counts = Counter(floor(energy / BIN + 1e-9) for energy in energies)
    return {round(index * BIN, 6): counts[index] for index in sorted(counts)}


def by_candidate(documents: Iterable[Document]) -> dict[str, Document]:
    """
    Map candidate ids to documents.

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
    """Ids of one candidate for each different crystal, nearest to the hull first."""
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
    documents: Sequence[Document], structure_of: Callable[[str], Structure | None], crystals: Iterable[Structure]
) -> list[str]:
    """Ids of candidates that match none of the crystals, in the order of the documents."""
    formulas = {document["formula_pretty"] for document in documents}
    matcher = Duplicates()
    for index, structure in enumerate(crystals):
        if structure.composition.element_composition.reduced_formula in formulas:
            matcher.remember(str(index), structure)
    return [d["candidate_id"] for d in documents if matcher.like(_structure(d, structure_of)) is None]


def _structure(document: Document, structure_of: Callable[[str], Structure | None]) -> Structure:
    structure = structure_of(document["document_id"])
    if structure is None:
        raise MatrisError(f"document {document['document_id']} belongs to a relaxed candidate but has no structure")
    return structure


def _energy(document: Document) -> float:
    energy = competing_energy(document)
    return document["uncorrected_energy_per_atom"] if energy is None else energy


def _height(document: Document) -> float:
    distance: float | None = document.get("energy_above_hull")
    return float("inf") if distance is None else distance
