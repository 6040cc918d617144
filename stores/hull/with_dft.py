"""A hull of predictions in which the first-principles energies that exist replace the predicted ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.stores.documents.documents import competing_energy, hull_fields, utc_now
from matris.stores.documents.learning import DftEnergy
from matris.stores.hull.hull import hull_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matris.stores.hull.hull import Document, HullResult
    from matris.stores.hull.references import References

FUNCTIONALS = {
    "mp": ("PBE", "PBE+U", "GGA", "GGA+U"),
    "omat24": ("PBE", "PBE+U", "GGA", "GGA+U"),
    "matpes-pbe": ("PBE",),
    "matpes-r2scan": ("R2SCAN",),
}
"""Functionals of the calculations on known energy scales, in capitals."""


@dataclass(frozen=True)
class Labelled:
    """
    First-principles energies of candidates.

    Attributes
    ----------
    energies
        Energy by the candidate of the first round (`matris.stores.documents.learning.root_of`).
    left_out
        Number of labels without a comparable energy, by reason.
    """

    energies: Mapping[str, DftEnergy]
    left_out: Mapping[str, int]


def check_labels(labels: Iterable[Mapping[str, Any]], energy_scale: str) -> None:
    """
    Check that labels are on an energy scale, by the functional of that scale.

    Parameters
    ----------
    labels
        Labels as `matris.stores.dft_labels.DftLabel` stores them.
    energy_scale
        Energy scale of the checkpoint.

    Raises
    ------
    MatrisError
        If a label is on another scale, or its functional is not one of this scale.

    Examples
    --------
    >>> label = {"candidate_id": "a", "formula_pretty": "Fe2O3"}
    >>> check_labels([label | {"dft": {"energy_scale": "mp", "functional": "PBE+U"}}], "mp")
    >>> check_labels([label | {"dft": {"energy_scale": "mp", "functional": "r2SCAN"}}], "mp")
    Traceback (most recent call last):
    matris.errors.MatrisError: the label of Fe2O3 (candidate a) is by r2SCAN, but energies on the ...
    """
    known = FUNCTIONALS.get(energy_scale)
    for label in labels:
        dft = label["dft"]
        name = f"the label of {label['formula_pretty']} (candidate {label['candidate_id']})"
        if dft["energy_scale"] != energy_scale:
            raise MatrisError(
                f"{name} is on the energy scale {dft['energy_scale']}, but the checkpoint is on {energy_scale}: their "
                "energies cannot be compared; calculate with the settings of that scale, or remove the label"
            )
        if known is not None and dft["functional"].upper() not in known:
            raise MatrisError(
                f"{name} is by {dft['functional']}, but energies on the scale {energy_scale} are by "
                f"{', '.join(known)}: calculate with the settings of that scale, or remove the label"
            )


def dft_energies(
    labels: Iterable[Mapping[str, Any]],
    energy_scale: str,
    pressure: float = 0.0,
    roots: Mapping[str, str] | None = None,
) -> Labelled:
    """
    Correct the energies of labels, and take the lowest of each candidate.

    Parameters
    ----------
    labels
        Labels as `matris.stores.dft_labels.DftLabel` stores them.
    energy_scale
        Energy scale of the checkpoint, on which the labels must be.
    pressure
        External pressure of the campaign, GPa; the enthalpy is compared then.
    roots
        Candidate of the first round by candidate id. Default: each candidate is its own.

    Raises
    ------
    MatrisError
        As for `check_labels`.
    """
    labels, roots = list(labels), roots or {}
    check_labels(labels, energy_scale)
    energies: dict[str, DftEnergy] = {}
    left_out: Counter[str] = Counter()
    for label in sorted(labels, key=lambda each: str(each["label_id"])):
        dft = label["dft"]
        structure = decode_structure(label["structure"])
        fields = hull_fields(structure, dft["energy"], energy_scale, pressure)
        if fields["energy_per_atom"] is None:
            left_out[str(fields["correction_scheme"])] += 1
            continue
        found = DftEnergy(
            label_id=label["label_id"],
            code=dft["code"],
            functional=dft["functional"],
            energy_scale=energy_scale,
            uncorrected_energy_per_atom=dft["energy"] / len(structure),
            fmax=float(np.linalg.norm(np.asarray(dft["forces"], dtype=float), axis=1).max()),
            **{name: value for name, value in fields.items() if name in DftEnergy.model_fields},
        )
        root = roots.get(label["candidate_id"], label["candidate_id"])
        if root not in energies or _competing(found) < _competing(energies[root]):
            energies[root] = found
    return Labelled(energies, dict(left_out))


def places_with_dft(
    documents: Iterable[Document], energies: Mapping[str, DftEnergy], references: References | None = None
) -> dict[str, HullResult]:
    """
    Place documents on the hull on which first-principles energies replace predictions.

    A labelled phase competes with its first-principles energy, also for the phases without a label. On a hull of
    references the labelled phases compete beside the references.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint and one set of settings, as for `matris.stores.hull.hull.hull_results`.
    energies
        First-principles energy by document id.
    references
        Competing phases. By default the documents themselves.

    Returns
    -------
    dict
        Places by document id; the name of the hull says how many energies are from first principles.

    Examples
    --------
    >>> from matris.stores.hull.hull import hull_results
    >>> common = {
    ...     "state": "converged",
    ...     "checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
    ...     "settings": {"digest": "0" * 12},
    ... }
    >>> rows = [("li", "Li", {"Li": 1}, -1.0), ("al", "Al", {"Al": 1}, -3.0), ("x", "Al-Li", {"Li": 1, "Al": 1}, -2.1)]
    >>> names = ("document_id", "chemsys", "composition", "energy_per_atom")
    >>> documents = [dict(zip(names, row)) | common for row in rows]
    >>> hull_results(documents)["x"].is_stable
    True
    >>> dft = DftEnergy(
    ...     label_id="l",
    ...     code="VASP",
    ...     functional="PBE",
    ...     energy_scale="mp",
    ...     uncorrected_energy_per_atom=-1.9,
    ...     energy_per_atom=-1.9,
    ...     fmax=0.0,
    ... )
    >>> place = places_with_dft(documents, {"x": dft})["x"]
    >>> place.is_stable, round(place.energy_above_hull, 3), place.hull_reference
    (False, 0.1, '1 energies from first principles (sha256 ...), others by demo (mp, ...)')
    """
    mixed = [_with_energy(document, energies.get(document["document_id"])) for document in documents]
    used = {d["document_id"]: energies[d["document_id"]] for d in mixed if d["document_id"] in energies}
    rows = sorted(f"{name} {energy.label_id} {_competing(energy):.6f}" for name, energy in used.items())
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]
    if references is not None:
        references = _with_labelled(
            references, [d for d in mixed if d["document_id"] in used and _converged(d)], digest
        )
    said = f"{len(used)} energies from first principles (sha256 {digest}), others by"
    return {
        name: replace(place, hull_reference=f"{said} {place.hull_reference}")
        for name, place in hull_results(mixed, references).items()
    }


def fields_with_dft(place: HullResult, energy: DftEnergy | None) -> dict[str, Any]:
    """Fields of a candidate document for its place on the hull with first-principles energies."""
    kept = {name: value for name, value in place.to_dict().items() if name != "hull_type"}
    about = {"references_sha256": None, "taken_at": utc_now()}
    return {"hulls.dft": kept | about, "dft": None if energy is None else energy.model_dump()}


def _competing(energy: DftEnergy) -> float:
    return energy.energy_per_atom if energy.enthalpy_per_atom is None else energy.enthalpy_per_atom


def _converged(document: Document) -> bool:
    return bool(document["state"] == "converged")


def _with_energy(document: Document, energy: DftEnergy | None) -> dict[str, Any]:
    """Give a document its first-principles energy."""
    if energy is None:
        return dict(document)
    names = ("energy_per_atom", "enthalpy_per_atom", "correction_scheme")
    return {**document, **{name: getattr(energy, name) for name in names}}


def _with_labelled(references: References, labelled: Sequence[Document], digest: str) -> References:
    """Add labelled phases to a reference set."""
    from pymatgen.core.composition import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    entries = []
    for document in labelled:
        composition, energy = Composition(document["composition"]), competing_energy(document)
        if energy is not None:
            entries.append(ComputedEntry(composition, energy * composition.num_atoms, entry_id=document["document_id"]))
    return replace(references, name=f"{references.name} and labels {digest}", entries=(*references.entries, *entries))
