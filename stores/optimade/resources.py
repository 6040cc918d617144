"""Candidates as OPTIMADE structures, the form in which materials databases answer each other's questions."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from itertools import batched
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from pymatgen.core.periodic_table import DummySpecies
from pymatgen.core.structure import Structure

from matris.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.stores.candidate_store import CandidateStore

PREFIX = "matris"
"""Of the fields that OPTIMADE does not define; not registered with its consortium."""

SERVED = {"state": {"$in": ["converged", "max_steps"]}}
"""Candidates with a relaxed structure; what was rejected or failed has none and is not served."""

_BATCH = 200  # structures read at once

logger = logging.getLogger(__name__)


class ProviderField(NamedTuple):
    """
    A field of ours in an OPTIMADE structure.

    Attributes
    ----------
    name
        As clients type it.
    source
        Dotted name in a candidate document.
    type
        OPTIMADE's word for it.
    description
        For the info endpoint.
    unit
        In the Unified Code for Units of Measure.
    """

    name: str
    source: str
    type: str
    description: str
    unit: str | None = None


def _field(source: str, type_: str, description: str, unit: str | None = None, *, name: str = "") -> ProviderField:
    return ProviderField(f"_{PREFIX}_{name or source.rpartition('.')[2]}", source, type_, description, unit)


PROVIDER_FIELDS = (
    _field("candidate_id", "string", "Hash of the input structure: the same under every checkpoint."),
    _field("state", "string", "converged: forces and stress are below the threshold; max_steps: they are not."),
    _field("energy_per_atom", "float", "Energy, corrected as the energy scale asks for.", "eV/{atom}"),
    _field("energy_above_hull", "float", "Distance to the convex hull; 0 is stable.", "eV/{atom}"),
    _field("formation_energy_per_atom", "float", "Energy of formation from the elements.", "eV/{atom}"),
    _field("is_stable", "boolean", "Whether it lies on the convex hull."),
    _field(
        "hull_type",
        "string",
        "reference: competing phases were computed by DFT; self-consistent: by the same checkpoint.",
    ),
    _field("hull_reference", "string", "Name of the set of competing phases."),
    _field("checkpoint.key", "string", "Weights of the interatomic potential, by name.", name="checkpoint_key"),
    _field(
        "checkpoint.sha256",
        "string",
        "Weights of the interatomic potential, by the hash of their file.",
        name="checkpoint_sha256",
    ),
    _field("checkpoint.energy_scale", "string", "Which reference energies are comparable: mp, matpes-pbe, …"),
    _field("elastic.bulk_modulus", "float", "Bulk modulus.", "GPa"),
    _field("elastic.shear_modulus", "float", "Shear modulus.", "GPa"),
    _field("elastic.is_mechanically_stable", "boolean", "Whether all elastic strains cost energy (Born)."),
    _field("phonon.has_imaginary_modes", "boolean", "Whether a distortion lowers the energy."),
    _field("phonon.min_frequency", "float", "Lowest phonon frequency; negative if imaginary.", "THz"),
)


def to_optimade(document: dict[str, Any], structure: Structure) -> dict[str, Any]:
    """
    Make the OPTIMADE resource of a candidate.

    Parameters
    ----------
    document
        Candidate document, see `matris.stores.documents.documents.CandidateDocument`; what it lacks becomes null.
    structure
        Its relaxed crystal.

    Returns
    -------
    dict
        ``id`` (the ``document_id``), ``type`` and ``attributes``, as JSON holds them; lengths in Å, times in whole
        seconds of UTC.

    Raises
    ------
    StructureError
        If the crystal is empty, disordered, not made of elements, or without finite positions and a volume.
    """
    symbols = _symbols(structure)
    lattice, positions = structure.lattice, structure.cart_coords
    if not (np.isfinite(lattice.matrix).all() and np.isfinite(positions).all()):
        raise StructureError("a coordinate is not a number")
    if not lattice.volume > 0:
        raise StructureError("the cell has no volume")
    periodic = [int(direction) for direction in lattice.pbc]
    symmetry = document.get("symmetry") or {}
    attributes = {
        "immutable_id": None,
        "last_modified": f"{_utc(document['last_updated']):%Y-%m-%dT%H:%M:%SZ}",
        **_formulas(symbols),
        "chemical_formula_descriptive": structure.composition.reduced_formula,
        "nperiodic_dimensions": sum(periodic),
        "dimension_types": periodic,
        "lattice_vectors": lattice.matrix.tolist(),
        "space_group_it_number": symmetry.get("number") if sum(periodic) == len(periodic) else None,
        "nsites": len(symbols),
        "cartesian_site_positions": positions.tolist(),
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in sorted(set(symbols))],
        "species_at_sites": symbols,
        "structure_features": [],
        **{field.name: _value(document, field.source) for field in PROVIDER_FIELDS},
    }
    return {"id": document["document_id"], "type": "structures", "attributes": attributes}


def resources(
    candidates: CandidateStore, criteria: dict[str, Any] = SERVED
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """
    Yield candidate documents that are served, with their OPTIMADE resources, read a few hundred at a time.

    Parameters
    ----------
    candidates
        Where they are.
    criteria
        Filter of the documents in MongoDB's language.

    Returns
    -------
    Iterator of (dict, dict)
        In the order of ``document_id``. A candidate whose structure is missing or cannot be served is left out, with a
        warning.
    """
    for batch in batched(candidates.docs.query(criteria, sort={"document_id": 1}), _BATCH):
        ids = [document["document_id"] for document in batch]
        found = candidates.data.query({"document_id": {"$in": ids}}, properties=["document_id", "structure"])
        structures = {arrays["document_id"]: arrays.get("structure") for arrays in found}
        for document in batch:
            resource = _resource(document, structures.get(document["document_id"]))
            if resource is not None:
                yield document, resource


def _resource(document: dict[str, Any], structure: dict[str, Any] | None) -> dict[str, Any] | None:
    """Resource of a candidate; None and a warning if there can be none."""
    try:
        if structure is None:
            raise StructureError("its structure is missing")
        return to_optimade(document, Structure.from_dict(structure))
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # pymatgen's, of a damaged structure
        reason = error if isinstance(error, StructureError) else f"its structure cannot be read: {error!r}"
        logger.warning("%s is not served: %s", document["document_id"], reason)
        return None


def _symbols(structure: Structure) -> list[str]:
    """Element of each site."""
    if not len(structure):
        raise StructureError("there are no atoms")
    if not structure.is_ordered:
        raise StructureError("a site is shared by several elements, or partly empty")
    if any(isinstance(species, DummySpecies) for species in structure.composition):
        raise StructureError(f"not all of {structure.composition.formula} are elements")
    return [chemical_symbols[number] for number in structure.atomic_numbers]


def _formulas(symbols: list[str]) -> dict[str, Any]:
    """Composition in OPTIMADE's terms: elements by alphabet, letters for them by amount."""
    amounts = {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}
    divisor = math.gcd(*amounts.values())
    reduced = {symbol: amount // divisor for symbol, amount in amounts.items()}
    by_amount = dict(zip(ascii_uppercase, sorted(reduced.values(), reverse=True), strict=False))
    return {
        "elements": list(amounts),
        "nelements": len(amounts),
        "elements_ratios": [amount / len(symbols) for amount in amounts.values()],
        "chemical_formula_reduced": _formula(reduced),
        # beyond Z, OPTIMADE's tools refuse what its specification asks for
        "chemical_formula_anonymous": _formula(by_amount) if len(by_amount) == len(reduced) else None,
    }


def _formula(amounts: dict[str, int]) -> str:
    return "".join(f"{symbol}{amount if amount > 1 else ''}" for symbol, amount in amounts.items())


def _value(document: dict[str, Any], source: str) -> Any:
    """Value of a dotted field; None for what is missing or no number."""
    value: Any = document
    for name in source.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _utc(time: datetime) -> datetime:
    """Time in UTC; stores give it without a zone."""
    return time.astimezone(UTC) if time.tzinfo else time
