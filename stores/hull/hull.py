"""
Distances to the convex hull.

Every result names its hull type and its reference set:

self-consistent
    The competing phases are the other converged candidates of the same checkpoint and settings, elemental references
    included. A candidate belongs to its own hull, so ``energy_above_hull`` is never negative and 0 on the hull.
reference
    The competing phases are reference entries alone. A candidate is measured against a hull that it does not belong
    to, as in Matbench Discovery: negative values are the energy by which it undercuts the known phases, and the
    candidate is stable at or below 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition

from matris.errors import MatrisError
from matris.stores.hull.phase_space import Phase, PhaseSpace, Place, System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matris.stores.hull.references import References

type Document = Mapping[str, Any]

SELF_CONSISTENT = "self-consistent"
REFERENCE = "reference"
OK = "ok"

_NOISE = 1e-8  # eV/atom: below this a distance to the hull is the rounding error of its solution


@dataclass(frozen=True)
class HullResult:
    """
    What a hull says about one document; field names as in `matris.stores.documents.documents.CandidateDocument`.

    Attributes
    ----------
    hull_type
        ``"self-consistent"`` or ``"reference"``.
    hull_reference
        The set of competing phases.
    hull_state
        ``"ok"``, or why there are no numbers; then all that follows is None.
    formation_energy_per_atom, energy_above_hull
        eV/atom.
    is_stable
        Whether `energy_above_hull` is not positive.
    decomposes_to
        Competing phases: formula, amount (fraction of the atoms) and ``document_id`` or ``entry_id``. Empty for a
        phase on its own hull.
    """

    hull_type: str
    hull_reference: str
    hull_state: str
    formation_energy_per_atom: float | None = None
    energy_above_hull: float | None = None
    is_stable: bool | None = None
    decomposes_to: list[dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fields to write into a document."""
        return asdict(self)


HULL_FIELDS = tuple(field.name for field in fields(HullResult))
"""Fields of a candidate document that describe its place on a hull."""


def hull_results(
    documents: Iterable[Document],
    references: References | None = None,
    *,
    wanted: Callable[[str], bool] | None = None,
) -> dict[str, HullResult]:
    """
    Place documents on a hull.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint and one set of settings; of each is read ``document_id``, ``state``,
        ``error``, ``chemsys``, ``composition``, ``energy_per_atom`` (corrected, eV), ``correction_scheme``,
        ``checkpoint`` and ``settings``. Only those with state ``converged`` take part.
    references
        Competing phases. By default the documents themselves.
    wanted
        Tells from a chemical system whether to place its documents. By default all are.

    Returns
    -------
    dict
        By document id.

    Raises
    ------
    MatrisError
        If the documents mix checkpoints or settings, or the references are on another energy scale.
    """
    documents = list(documents)
    if not documents:
        return {}
    hull_type, name = _describe(documents, references)
    results: dict[str, HullResult] = {}
    systems: dict[System, list[Phase]] = {}  # of those that take part
    for document in documents:
        reason = _why_not(document)
        if reason is None:
            systems.setdefault(_system(document["chemsys"]), []).append(_phase(document))
        elif wanted is None or wanted(document["chemsys"] or ""):
            results[document["document_id"]] = HullResult(hull_type, name, reason)
    space = PhaseSpace(systems) if references is None else references.space
    asked: list[tuple[System, list[Phase]]] = []
    for system, phases in systems.items():
        if wanted is not None and not wanted("-".join(system)):
            continue
        if missing := space.missing(system):
            state = f"missing reference: {', '.join(missing)}"
            results |= {phase.identity: HullResult(hull_type, name, state) for phase in phases}
        else:
            asked.append((system, phases))
    for (_, phases), places in zip(asked, space.places(asked), strict=True):
        for phase, place in zip(phases, places, strict=True):
            results[phase.identity] = _result(place, hull_type, name)
    return results


def _describe(documents: Sequence[Document], references: References | None) -> tuple[str, str]:
    """Hull type and name of the reference set."""
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in documents}
    if len(origins) > 1:
        raise MatrisError("one hull takes documents of one checkpoint and one set of settings; compare them apart")
    checkpoint = documents[0]["checkpoint"]
    if references is not None and references.energy_scale != checkpoint["energy_scale"]:
        raise MatrisError(
            f"the references {references.name} are corrected for the energy scale {references.energy_scale!r}, the "
            f"checkpoint {checkpoint['key']} is on {checkpoint['energy_scale']!r}; load them for that scale"
        )
    return SELF_CONSISTENT if references is None else REFERENCE, hull_label(documents[0], references)


def hull_label(document: Document, references: References | None) -> str:
    """
    Name the set of competing phases.

    Parameters
    ----------
    document
        Any of those that are placed.
    references
        None: the documents themselves.
    """
    if references is not None:
        return references.label
    checkpoint, settings = document["checkpoint"], document["settings"]
    return (
        f"{checkpoint['key']} ({checkpoint['energy_scale']}, sha256 {checkpoint['sha256'][:12]}, "
        f"settings {settings['digest']})"
    )


def _why_not(document: Document) -> str | None:
    """Reason why a document takes no part in a hull."""
    if document["state"] != "converged":
        return f"not converged: {document['state']}"
    if document["energy_per_atom"] is None:
        return f"no comparable energy: {document['correction_scheme'] or 'not corrected'}"
    return None


def _system(chemsys: str) -> System:
    return tuple(sorted(chemsys.split("-")))


def _phase(document: Document) -> Phase:
    return Phase(document["document_id"], document["composition"], document["energy_per_atom"])


def _result(place: Place, hull_type: str, name: str) -> HullResult:
    """Fields of a document."""
    if place.above_hull != place.above_hull:  # NaN
        return HullResult(hull_type, name, "no decomposition found: the hull is degenerate at this composition")
    distance = 0.0 if abs(place.above_hull) < _NOISE else place.above_hull
    itself = hull_type == SELF_CONSISTENT and distance == 0
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
        decomposes_to=[] if itself else sorted(parts, key=lambda part: (part["formula"], part[kind])),
    )


@lru_cache(maxsize=100_000)
def _formula(amounts: tuple[tuple[str, float], ...]) -> str:
    """Reduced formula; pymatgen takes a while, and the phases of decompositions come again and again."""
    return Composition(dict(amounts)).reduced_formula
