"""Competing phases of a self-consistent hull that the candidates do not bring along."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from matris.flows.sources.prototypes import generate_candidates
from matris.stores.documents.candidate import COMPETING_PROTOTYPE_SOURCE, KNOWN_PHASE_SOURCE, REFERENCE_SOURCES
from matris.stores.hull.chemical_systems import compound_systems
from matris.units import DISPERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from matris.stores.documents.candidate import Candidate
    from matris.stores.hull.references import References

FEW_SYSTEMS = 20
"""Largest number of chemical systems, with their subsystems, that are completed unless a user decides otherwise."""

REMARK_FIELDS = (
    "state",
    "source",
    "pressure",
    "formula_pretty",
    "hull_type",
    "hull_state",
    "only_elements_compete",
    "hull_lacks",
    "correction_state",
    "corrections",
    "checkpoint.energy_scale",
)
"""Fields of a candidate document that `hull_remarks` reads."""

_SHOWN = 8  # names in a sentence


def systems_to_complete(systems: Collection[str], choice: bool | None) -> list[str]:
    """
    List the chemical systems whose competing phases are computed.

    Parameters
    ----------
    systems
        Chemical systems of the candidates.
    choice
        Whether to complete them. None: if they have at most `FEW_SYSTEMS` subsystems of two or more elements.

    Returns
    -------
    list of str
        Systems of two or more elements that are in no other one; empty if nothing is to be completed.

    Examples
    --------
    >>> systems_to_complete({"Fe-O", "Fe-Li-O", "Mg", "Cl-Na"}, None)
    ['Cl-Na', 'Fe-Li-O']
    >>> systems_to_complete({"Fe-O"}, False)
    []
    """
    if choice is False:
        return []
    parts = {part for system in systems for part in compound_systems(system)}
    if choice is None and len(parts) > FEW_SYSTEMS:
        return []
    sets = {system: set(system.split("-")) for system in parts}
    return sorted(s for s, elements in sets.items() if not any(elements < other for other in sets.values()))


def competing_prototypes(systems: Collection[str], choice: bool | None) -> Iterator[Candidate]:
    """
    Generate the compounds of the candidates' chemical systems from prototypes, as `matris screen --chemsys` does.

    Parameters
    ----------
    systems, choice
        As for `systems_to_complete`.

    Yields
    ------
    Candidate
        Compounds with the source ``"competing prototype"``; one that occurs in several systems occurs several times.
    """
    for system in systems_to_complete(systems, choice):
        for candidate in generate_candidates(system):
            if candidate.structure is not None and len(candidate.structure.composition) > 1:
                yield candidate.model_copy(update={"source": COMPETING_PROTOTYPE_SOURCE})


def hull_remarks(documents: Iterable[Mapping[str, Any]], references: References | None = None) -> list[str]:
    """
    Say which hull the distances of candidates refer to, and which competing phases it lacks.

    Parameters
    ----------
    documents
        Candidate documents of one campaign, with their places on the hull.
    references
        Reference set of the campaign.

    Returns
    -------
    list of str
        Sentences for the terminal or a report; empty if no candidate has a place on a hull.

    Examples
    --------
    >>> document = {
    ...     "state": "converged",
    ...     "source": "NaCl.cif",
    ...     "formula_pretty": "NaCl",
    ...     "hull_type": "self-consistent",
    ...     "hull_state": "ok",
    ...     "only_elements_compete": True,
    ...     "hull_lacks": ["Cl-Na"],
    ... }
    >>> for remark in hull_remarks([document]):
    ...     print(remark)
    Hull: the candidates of this campaign, their elements and what else the store has, by the same checkpoint ...
    Only the elements, and crystals of the same composition, compete with 1 of 1 candidates, so that 0 meV/atom ...
    No compound of another composition competes in Cl-Na. To add some: --competitors yes, --known-phases FILE, ...
    """
    documents = list(documents)
    placed = [
        d
        for d in documents
        if d["state"] == "converged" and d.get("hull_state") == "ok" and d["source"] not in REFERENCE_SOURCES
    ]
    if not placed:
        return []
    compounds = [d for d in placed if d.get("only_elements_compete") is not None]
    remarks = [_hull(documents, references)]
    alone = list(dict.fromkeys(str(d["formula_pretty"]) for d in compounds if d["only_elements_compete"]))
    if alone:
        n = sum(bool(d["only_elements_compete"]) for d in compounds)
        remarks.append(
            f"Only the elements, and crystals of the same composition, compete with {n} of {len(placed)} candidates, "
            f"so that 0 meV/atom says little: {_some(alone)}"
        )
    lacking = Counter(system for d in compounds for system in d.get("hull_lacks") or [])
    if lacking:
        systems = sorted(lacking, key=lambda system: (-lacking[system], system))
        ways = ", ".join(_ways(documents))
        remarks.append(f"No compound of another composition competes in {_some(systems)}. To add some: {ways}")
    undecided = sum(d.get("correction_state") == "undecided" for d in placed)
    if undecided:
        remarks.append(
            f"The corrections of {undecided} candidates are undecided, because their oxidation states are not known: "
            "matris query 'correction_state = undecided'"
        )
    scale = (placed[0].get("checkpoint") or {}).get("energy_scale", "")
    if scale.endswith(DISPERSION) and any(d.get("corrections") for d in placed):
        remarks.append(
            f"The corrections of {scale.removesuffix(DISPERSION)} were fitted to energies without dispersion, so that "
            "distances between compounds of different anions are less certain"
        )
    return remarks


def _ways(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Options that add competing phases."""
    completed = any(d["source"] == COMPETING_PROTOTYPE_SOURCE for d in documents)
    own = [] if completed or any(d.get("hull_type") == "reference" for d in documents) else ["--competitors yes"]
    at_zero = [] if documents[0].get("pressure") else ["--references mp"]
    return [*own, "--known-phases FILE", "--references FILE", *at_zero]


def _hull(documents: Sequence[Mapping[str, Any]], references: References | None) -> str:
    """Name a hull in a sentence."""
    if references is None:
        on_hull = Counter(d["source"] for d in documents if d["state"] == "converged" and d.get("hull_state") == "ok")
        n, n_known = on_hull[COMPETING_PROTOTYPE_SOURCE], on_hull[KNOWN_PHASE_SOURCE]
        parts = [f"{n} compounds from prototypes"] if n else []
        parts += [f"{n_known} known phases"] if n_known else []
        names = ["the candidates of this campaign", *parts, "their elements", "what else the store has"]
        pressure = documents[0].get("pressure")
        at = f", enthalpies at {pressure:g} GPa" if pressure else ""
        return f"Hull: {_listed(names)}, by the same checkpoint and settings (self-consistent){at}"
    left_out = "; ".join(f"{count} × {reason}" for reason, count in references.reasons.most_common(_SHOWN))
    undecided = f"; corrections of {len(references.undecided)} undecided" if references.undecided else ""
    return (
        f"Hull: {references.label} (reference)"
        + (f"; {references.left_out} entries left out: {left_out}" if left_out else "")
        + undecided
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _some(names: Sequence[str]) -> str:
    """Join the first names, and count the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
