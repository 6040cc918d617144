"""
Distances to the convex hull.

Every result names its hull type and its set of competing phases:

self-consistent
    The competing phases are the converged candidates of the same checkpoint and settings, including elemental
    references. A candidate is part of its own hull. ``energy_above_hull`` is never negative; it is 0 on the hull.
reference
    The competing phases are reference entries only. The candidate is not part of the hull, as in Matbench Discovery.
    A negative ``energy_above_hull`` is the energy by which the candidate lies below the hull of the known phases; the
    candidate is stable if the value is at most 0.

Under a pressure the energies are enthalpies, and all competing phases are relaxed at the same pressure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from math import isnan
from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition

from matris.errors import MatrisError
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.documents import competing_energy, pressure_of
from matris.stores.hull.chemical_systems import compound_systems
from matris.stores.hull.phase_space import Phase, PhaseSpace, Place, System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from matris.stores.hull.references import References

type Document = Mapping[str, Any]

SELF_CONSISTENT = "self-consistent"
REFERENCE = "reference"
OK = "ok"

_SAME = 6  # digits of the atomic fractions of equal compositions
_LISTED = 20  # chemical systems in a document

_NOISE = 1e-8  # eV/atom: smaller distances to the hull are rounding errors and count as 0


@dataclass(frozen=True)
class HullResult:
    """
    Place of one document on a hull; field names as in `matris.stores.documents.documents.CandidateDocument`.

    Attributes
    ----------
    hull_type
        ``"self-consistent"`` or ``"reference"``.
    hull_reference
        Name and hash of the set of competing phases.
    hull_state
        ``"ok"``, or the reason why there is no place; then the fields below are None.
    formation_energy_per_atom, energy_above_hull
        Formation energy from the elements and distance to the hull (eV/atom).
    is_stable
        Whether `energy_above_hull` is at most 0.
    decomposes_to
        Competing phases of the lowest-energy mixture: formula, amount (fraction of the atoms) and ``document_id`` or
        ``entry_id``. Empty for a phase on its own hull.
    equilibrium_reaction_energy_per_atom
        For a stable phase, its energy minus that of the hull of the other stable phases (eV/atom), at most 0; by how
        much it is stable. 0 for elements; None for unstable phases.
    only_elements_compete
        Whether no compound of another composition was computed, or is known, in its chemical system and the subsystems;
        then `energy_above_hull` is 0 for any compound with a negative formation energy. False for elements.
    hull_lacks
        The two-element subsystems, and the system itself, in which no compound of another composition competes; at most
        20.
    """

    hull_type: str
    hull_reference: str
    hull_state: str
    formation_energy_per_atom: float | None = None
    energy_above_hull: float | None = None
    is_stable: bool | None = None
    decomposes_to: list[dict[str, Any]] | None = None
    equilibrium_reaction_energy_per_atom: float | None = None
    only_elements_compete: bool | None = None
    hull_lacks: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fields of the document."""
        return asdict(self)


HULL_FIELDS = tuple(field.name for field in fields(HullResult))
"""Fields of a candidate document that describe its place on a hull."""


def hull_results(
    documents: Iterable[Document],
    references: References | None = None,
    *,
    wanted: Callable[[str], bool] | None = None,
    populated: Collection[str] = (),
) -> dict[str, HullResult]:
    """
    Place documents on a hull.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint and one set of settings. The fields ``document_id``, ``state``,
        ``error``, ``chemsys``, ``composition``, ``energy_per_atom`` and ``enthalpy_per_atom`` (corrected, eV),
        ``correction_scheme``, ``vacuum``, ``checkpoint`` and ``settings`` are read. Only converged documents take part,
        without vacuum in their cells.
    references
        Competing phases. By default the documents themselves.
    wanted
        Function that tells whether to place the documents of a chemical system. By default all are placed.
    populated
        Further chemical systems with competing phases that are above the hull, and not among the documents.

    Returns
    -------
    dict
        Results by document id.

    Raises
    ------
    MatrisError
        If the documents mix checkpoints or settings, or the references are on another energy scale or at another
        pressure.

    Examples
    --------
    Three phases of Li–Cl computed by one checkpoint (energies in eV/atom):

    >>> def document(name, chemsys, composition, energy_per_atom):
    ...     return {
    ...         "document_id": name,
    ...         "state": "converged",
    ...         "chemsys": chemsys,
    ...         "composition": composition,
    ...         "energy_per_atom": energy_per_atom,
    ...         "checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "matpes-pbe"},
    ...         "settings": {"digest": "0" * 12},
    ...     }
    >>> documents = [
    ...     document("li", "Li", {"Li": 1}, -1.0),
    ...     document("cl", "Cl", {"Cl": 2}, -2.0),
    ...     document("ground state", "Cl-Li", {"Li": 1, "Cl": 1}, -2.5),
    ...     document("polymorph", "Cl-Li", {"Li": 1, "Cl": 1}, -2.4),
    ... ]
    >>> results = hull_results(documents)
    >>> results["ground state"].is_stable, round(results["ground state"].formation_energy_per_atom, 6)
    (True, -1.0)
    >>> round(results["polymorph"].energy_above_hull, 6), results["polymorph"].decomposes_to
    (0.1, [{'formula': 'LiCl', 'amount': 1.0, 'document_id': 'ground state'}])
    """
    documents = list(documents)
    if not documents:
        return {}
    hull_type, name = _describe(documents, references)
    results: dict[str, HullResult] = {}
    systems: dict[System, list[Phase]] = {}  # documents that take part
    for document in documents:
        reason = _reason_to_exclude(document)
        if reason is None:
            systems.setdefault(_system(document["chemsys"]), []).append(_phase(document))
        elif wanted is None or wanted(document["chemsys"] or ""):
            results[document["document_id"]] = HullResult(hull_type, name, reason)
    space = PhaseSpace(systems) if references is None else references.space
    to_place: list[tuple[System, list[Phase]]] = []
    for system, phases in systems.items():
        if wanted is not None and not wanted("-".join(system)):
            continue
        if missing := space.missing(system):
            state = f"missing reference: {', '.join(missing)}"
            results |= {phase.identity: HullResult(hull_type, name, state) for phase in phases}
        else:
            to_place.append((system, phases))
    competition = _Competition(space, populated, own=references is None)
    places = zip(to_place, space.places(to_place), strict=True)
    placed = [
        (system, phase, _result(place, hull_type, name, competition.about(system, phase)))
        for (system, phases), of_system in places
        for phase, place in zip(phases, of_system, strict=True)
    ]
    stable = [(system, phase) for system, phase, result in placed if result.is_stable]
    energies = dict(zip((phase.identity for _, phase in stable), space.reaction_energies(stable), strict=True))
    return results | {
        phase.identity: replace(result, equilibrium_reaction_energy_per_atom=_stability(energies.get(phase.identity)))
        for _, phase, result in placed
    }


def _stability(energy: float | None) -> float | None:
    """Reaction energy of a stable phase without noise; None if the solver did not finish."""
    return None if energy is None or isnan(energy) else min(energy, 0.0)


class _Competition:
    """Which chemical systems hold compounds that compete."""

    def __init__(self, space: PhaseSpace, populated: Collection[str], *, own: bool) -> None:
        """`own`: whether the phases to place are among the competitors."""
        self._phases = space.phases
        self._populated = {*populated, *("-".join(system) for system, phases in space.phases.items() if phases)}
        self._own = own
        self._compositions: dict[System, set[tuple[float, ...]]] = {}
        self._parts: dict[System, tuple[list[str], set[str]]] = {}

    def about(self, system: System, phase: Phase) -> dict[str, Any]:
        """Fields of a result."""
        chemsys = "-".join(system)
        if system not in self._parts:
            parts = compound_systems(chemsys)
            self._parts[system] = parts, {part for part in parts if part in self._populated and part != chemsys}
        parts, there = self._parts[system]
        if len(system) > 1 and self._has_other(system, phase):
            there = there | {chemsys}
        lacking = [part for part in parts if part not in there and (part.count("-") == 1 or part == chemsys)]
        return {"only_elements_compete": bool(parts) and not there, "hull_lacks": lacking[:_LISTED]}

    def _has_other(self, system: System, phase: Phase) -> bool:
        """Whether a compound of the same system competes: on a self-consistent hull, one of another composition."""
        if not self._own:
            return bool(self._phases.get(system))
        if system not in self._compositions:
            self._compositions[system] = {_rounded(each, system) for each in self._phases.get(system, ())}
        others = self._compositions[system]
        return len(others) > 1 or _rounded(phase, system) not in others


def _rounded(phase: Phase, system: System) -> tuple[float, ...]:
    return tuple(round(fraction, _SAME) for fraction in phase.fractions(system))


def _describe(documents: Sequence[Document], references: References | None) -> tuple[str, str]:
    """Hull type and name of the set of competing phases."""
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in documents}
    if len(origins) > 1:
        raise MatrisError(
            "documents on one hull must have one checkpoint and one set of settings; place the others separately"
        )
    checkpoint = documents[0]["checkpoint"]
    if references is not None and references.energy_scale != checkpoint["energy_scale"]:
        raise MatrisError(
            f"the references {references.name} are corrected for the energy scale {references.energy_scale!r}, but the "
            f"checkpoint {checkpoint['key']} is on {checkpoint['energy_scale']!r}; load them for that scale"
        )
    pressure = pressure_of(documents[0]["settings"])
    if references is not None and references.pressure != pressure:
        raise MatrisError(
            f"the references {references.name} are at {references.pressure:g} GPa, but the candidates were relaxed at "
            f"{pressure:g} GPa; compute the competing phases at that pressure: known phases of the campaign "
            "(--known-phases FILE) are relaxed with the candidates"
        )
    return SELF_CONSISTENT if references is None else REFERENCE, hull_label(documents[0], references)


def hull_label(document: Document, references: References | None) -> str:
    """
    Name the set of competing phases.

    Parameters
    ----------
    document
        Any of the documents on the hull.
    references
        Competing phases. None stands for the documents themselves.
    """
    if references is not None:
        return references.label
    checkpoint, settings = document["checkpoint"], document["settings"]
    pressure = pressure_of(settings)
    at = f"{pressure:g} GPa, " if pressure else ""
    return (
        f"{checkpoint['key']} ({checkpoint['energy_scale']}, {at}sha256 {checkpoint['sha256'][:12]}, "
        f"settings {settings['digest']})"
    )


def _reason_to_exclude(document: Document) -> str | None:
    """Reason why a document takes no part in a hull; None if it takes part."""
    if document["state"] != "converged":
        return f"not converged: {document['state']}"
    if document.get("duplicate_of") and document.get("source") in REFERENCE_SOURCES:
        return f"the same crystal as candidate {document['duplicate_of']}"
    if gap := document.get("vacuum"):
        return f"no crystal: a gap of {gap:.1f} Å without atoms (slab, wire or molecule in vacuum)"
    if competing_energy(document) is None:
        return f"no comparable energy: {document['correction_scheme'] or 'not corrected'}"
    return None


def _system(chemsys: str) -> System:
    return tuple(sorted(chemsys.split("-")))


def _phase(document: Document) -> Phase:
    energy = competing_energy(document)
    assert energy is not None  # noqa: S101 - the document is not excluded
    return Phase(document["document_id"], document["composition"], energy)


def _result(place: Place, hull_type: str, name: str, competition: Mapping[str, Any]) -> HullResult:
    """Convert a place to the fields of a document."""
    if place.above_hull != place.above_hull:  # NaN
        return HullResult(hull_type, name, "no decomposition found: the hull is degenerate at this composition")
    distance = 0.0 if abs(place.above_hull) < _NOISE else place.above_hull
    on_own_hull = hull_type == SELF_CONSISTENT and distance == 0
    kind = "document_id" if hull_type == SELF_CONSISTENT else "entry_id"
    parts = [
        {"formula": _formula(tuple(phase.amounts.items())), "amount": amount, kind: phase.identity}
        for phase, amount in place.parts
    ]
    return HullResult(
        hull_type,
        name,
        OK,
        formation_energy_per_atom=place.formation_energy,
        energy_above_hull=distance,
        is_stable=distance <= 0,
        decomposes_to=[] if on_own_hull else sorted(parts, key=lambda part: (part["formula"], part[kind])),
        **competition,
    )


@lru_cache(maxsize=100_000)
def _formula(amounts: tuple[tuple[str, float], ...]) -> str:
    """Reduced formula, cached because pymatgen is slow and the same phases occur in many decompositions."""
    return Composition(dict(amounts)).reduced_formula
