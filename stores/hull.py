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

from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core.composition import Composition

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matris.stores.references import References

SELF_CONSISTENT = "self-consistent"
REFERENCE = "reference"
OK = "ok"

_NOISE = 1e-8  # eV/atom: below this a distance to the hull is the rounding error of its solution


@dataclass(frozen=True)
class HullResult:
    """
    What a hull says about one document; field names as in `matris.stores.documents.CandidateDocument`.

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


def hull_results(
    documents: Iterable[Mapping[str, Any]],
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
    systems: dict[str, list[Mapping[str, Any]]] = {}  # of those that take part
    for document in documents:
        reason = _why_not(document)
        if reason is None:
            systems.setdefault(document["chemsys"], []).append(document)
        elif wanted is None or wanted(document["chemsys"] or ""):
            results[document["document_id"]] = HullResult(hull_type, name, reason)

    @cache
    def phases(chemsys: str) -> list[Any]:
        return [_phase(document) for document in systems.get(chemsys, ())]

    competing = phases if references is None else _by_system(references)
    for chemsys in systems:
        if wanted is None or wanted(chemsys):
            for phase, result in _of_system(chemsys, phases(chemsys), competing, hull_type, name):
                results[phase.attribute[1]] = result
    return results


def missing_elements(chemsys: str, documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Elements of a chemical system that no converged document stands for as a pure phase."""
    pure = {document["chemsys"] for document in documents if _why_not(document) is None}
    return sorted(set(chemsys.split("-")) - pure)


def _describe(documents: Sequence[Mapping[str, Any]], references: References | None) -> tuple[str, str]:
    """Hull type and name of the reference set."""
    origins = {(d["checkpoint"]["sha256"], d["settings"]["digest"]) for d in documents}
    if len(origins) > 1:
        raise MatrisError("one hull takes documents of one checkpoint and one set of settings; compare them apart")
    checkpoint, settings = documents[0]["checkpoint"], documents[0]["settings"]
    if references is None:
        label = f"{checkpoint['key']} (sha256 {checkpoint['sha256'][:12]}, settings {settings['digest']})"
        return SELF_CONSISTENT, label
    if references.energy_scale != checkpoint["energy_scale"]:
        raise MatrisError(
            f"the references {references.name} are corrected for the energy scale {references.energy_scale!r}, the "
            f"checkpoint {checkpoint['key']} is on {checkpoint['energy_scale']!r}; load them for that scale"
        )
    return REFERENCE, references.name


def _why_not(document: Mapping[str, Any]) -> str | None:
    """Reason why a document takes no part in a hull."""
    if document["state"] != "converged":
        return f"not converged: {document['state']}"
    if document["energy_per_atom"] is None:
        return f"no comparable energy: {document['correction_scheme'] or 'not corrected'}"
    return None


def _by_system(references: References) -> Callable[[str], list[Any]]:
    """Look up reference phases by chemical system."""
    systems: dict[str, list[Any]] = {}
    for entry in references.entries:
        phase = PDEntry(entry.composition, entry.energy, attribute=("entry_id", entry.entry_id))
        systems.setdefault(entry.composition.chemical_system, []).append(phase)
    return lambda chemsys: systems.get(chemsys, [])


def _phase(document: Mapping[str, Any]) -> Any:
    """Entry of a phase diagram; its attribute tells what it stands for."""
    composition = Composition(document["composition"])
    energy = document["energy_per_atom"] * composition.num_atoms
    return PDEntry(composition, energy, attribute=("document_id", document["document_id"]))


def _of_system(
    chemsys: str, phases: list[Any], competing: Callable[[str], list[Any]], hull_type: str, name: str
) -> list[tuple[Any, HullResult]]:
    """Results for the phases of one chemical system."""
    symbols = sorted(chemsys.split("-"))
    pure = {symbol for symbol in symbols if competing(symbol)}
    if missing := sorted(set(symbols) - pure):
        state = f"missing reference: {', '.join(missing)}"
        return [(phase, HullResult(hull_type, name, state)) for phase in phases]
    subsystems = ("-".join(part) for size in range(1, len(symbols) + 1) for part in combinations(symbols, size))
    diagram = PhaseDiagram([phase for subsystem in subsystems for phase in competing(subsystem)])
    return [(phase, _place(phase, diagram, hull_type, name)) for phase in phases]


def _place(phase: Any, diagram: PhaseDiagram, hull_type: str, name: str) -> HullResult:
    """Distance and decomposition of one phase."""
    decomposition: Any
    decomposition, distance = diagram.get_decomp_and_e_above_hull(phase, allow_negative=True, on_error="ignore")
    if decomposition is None or distance is None:
        return HullResult(hull_type, name, "no decomposition found: the hull is degenerate at this composition")
    if abs(distance) < _NOISE:
        distance = 0.0
    itself = hull_type == SELF_CONSISTENT and distance == 0
    return HullResult(
        hull_type,
        name,
        OK,
        formation_energy_per_atom=float(diagram.get_form_energy_per_atom(phase)),
        energy_above_hull=float(distance),
        is_stable=bool(distance <= 0),
        decomposes_to=[]
        if itself
        else [_part(part, amount) for part, amount in sorted(decomposition.items(), key=_name)],
    )


def _name(item: tuple[Any, float]) -> tuple[str, str]:
    return item[0].composition.reduced_formula, str(item[0].attribute[1])


def _part(phase: Any, amount: float) -> dict[str, Any]:
    kind, identity = phase.attribute
    return {"formula": phase.composition.reduced_formula, "amount": float(amount), kind: identity}
