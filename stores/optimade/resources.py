"""Candidates as OPTIMADE structure resources, the common format of materials databases."""

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

from matris.errors import StoreError, StructureError
from matris.files.stored_objects import decode_structure
from matris.stores.documents.candidate import REFERENCE_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymatgen.core.structure import Structure

    from matris.stores.candidate_store import CandidateStore

PREFIX = "matris"
"""Prefix of fields that OPTIMADE does not define. It is not registered with the OPTIMADE consortium."""

_RELAXED = {"state": {"$in": ["converged", "max_steps"]}}
_BATCH = 200  # structures per query

logger = logging.getLogger(__name__)


class ProviderField(NamedTuple):
    """
    Field of an OPTIMADE structure that OPTIMADE does not define.

    Attributes
    ----------
    name
        Name in OPTIMADE, with prefix.
    source
        Dotted name in a candidate document.
    type
        OPTIMADE data type.
    description
        Text for the info endpoint.
    unit
        Unit in the Unified Code for Units of Measure.
    """

    name: str
    source: str
    type: str
    description: str
    unit: str | None = None


def _field(source: str, type_: str, description: str, unit: str | None = None, *, name: str = "") -> ProviderField:
    return ProviderField(f"_{PREFIX}_{name or source.rpartition('.')[2]}", source, type_, description, unit)


PROVIDER_FIELDS = (
    _field("candidate_id", "string", "Hash of the input structure, the same under every checkpoint."),
    _field("state", "string", "converged: forces and stress are below their thresholds; max_steps: they are not."),
    _field("energy_per_atom", "float", "Energy, corrected for the energy scale of the checkpoint.", "eV/{atom}"),
    _field("enthalpy_per_atom", "float", "Corrected energy + pV, by which hulls at a pressure compare.", "eV/{atom}"),
    _field("pressure", "float", "External pressure under which the cell was relaxed.", "GPa"),
    _field("energy_above_hull", "float", "Distance to the convex hull; at most 0 if stable.", "eV/{atom}"),
    _field("formation_energy_per_atom", "float", "Formation energy from the elements.", "eV/{atom}"),
    _field("is_stable", "boolean", "Whether the structure is on or below the convex hull."),
    _field(
        "hull_type",
        "string",
        "reference: competing phases from a reference set; self-consistent: computed by the same checkpoint.",
    ),
    _field("hull_reference", "string", "Name and hash of the set of competing phases."),
    _field("checkpoint.key", "string", "Name of the checkpoint of the interatomic potential.", name="checkpoint_key"),
    _field(
        "checkpoint.sha256",
        "string",
        "SHA-256 hash of the weights file of the checkpoint.",
        name="checkpoint_sha256",
    ),
    _field(
        "checkpoint.energy_scale",
        "string",
        "Energy scale: mp, omat24, matpes-pbe, …; energies are comparable on one scale only.",
    ),
    _field("elastic.bulk_modulus", "float", "Bulk modulus.", "GPa"),
    _field("elastic.shear_modulus", "float", "Shear modulus.", "GPa"),
    _field("elastic.is_mechanically_stable", "boolean", "Whether the elastic tensor is positive definite (Born)."),
    _field(
        "phonon.has_imaginary_modes",
        "boolean",
        "Whether there are imaginary phonon modes: a distortion lowers the energy.",
    ),
    _field("phonon.min_frequency", "float", "Lowest phonon frequency; imaginary frequencies are negative.", "THz"),
)


def served(*, with_references: bool = False) -> dict[str, Any]:
    """
    Make the MongoDB filter of the documents that are served: those with a relaxed structure.

    Parameters
    ----------
    with_references
        Whether to include the elements, known phases and prototypes that only compete on the hulls of campaigns.
    """
    return _RELAXED if with_references else _RELAXED | {"source": {"$nin": sorted(REFERENCE_SOURCES)}}


def to_optimade(document: dict[str, Any], structure: Structure) -> dict[str, Any]:
    """
    Make the OPTIMADE resource of a candidate.

    Parameters
    ----------
    document
        Candidate document, see `matris.stores.documents.documents.CandidateDocument`. Missing fields become null.
    structure
        Relaxed structure of the candidate.

    Returns
    -------
    dict
        ``id`` (the ``document_id``), ``type`` and ``attributes`` in JSON types; lengths in Å, times in whole seconds,
        UTC.

    Raises
    ------
    StructureError
        If the structure is empty or disordered, has species that are not elements, or lacks finite positions or a
        volume.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> document = {"document_id": "a", "last_updated": datetime(2026, 11, 20), "energy_above_hull": 0.0}
    >>> salt = Structure(Lattice.cubic(3.5), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> attributes = to_optimade(document, salt)["attributes"]
    >>> attributes["chemical_formula_reduced"], attributes["_matris_energy_above_hull"], attributes["last_modified"]
    ('ClCs', 0.0, '2026-11-20T00:00:00Z')
    """
    symbols = _symbols(structure)
    lattice, positions = structure.lattice, structure.cart_coords
    if not (np.isfinite(lattice.matrix).all() and np.isfinite(positions).all()):
        raise StructureError("a coordinate is not finite")
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
    candidates: CandidateStore, criteria: dict[str, Any] | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """
    Yield candidate documents with their OPTIMADE resources, reading a few hundred at a time.

    Parameters
    ----------
    candidates
        Store to read.
    criteria
        MongoDB filter of the documents. Default: that of `served`.

    Returns
    -------
    Iterator of (dict, dict)
        Documents and resources in the order of ``document_id``. A candidate whose structure is missing or cannot be
        represented is omitted with a warning.
    """
    criteria = served() if criteria is None else criteria
    for batch in batched(candidates.docs.query(criteria, sort={"document_id": 1}), _BATCH):
        ids = [document["document_id"] for document in batch]
        all_arrays = candidates.data.query({"document_id": {"$in": ids}}, properties=["document_id", "structure"])
        structures = {arrays["document_id"]: arrays.get("structure") for arrays in all_arrays}
        for document in batch:
            resource = _resource(document, structures.get(document["document_id"]))
            if resource is not None:
                yield document, resource


def _resource(document: dict[str, Any], structure: dict[str, Any] | None) -> dict[str, Any] | None:
    """Make the resource of a candidate; log a warning and return None if that is impossible."""
    try:
        if structure is None:
            raise StructureError("its structure is missing")
        return to_optimade(document, decode_structure(structure))
    except (AttributeError, LookupError, StoreError, TypeError, ValueError) as error:  # pymatgen on damaged data
        reason = error if isinstance(error, StructureError) else f"its structure cannot be read: {error!r}"
        logger.warning("%s is not served: %s", document["document_id"], reason)
        return None


def _symbols(structure: Structure) -> list[str]:
    """Element of each site."""
    if not len(structure):
        raise StructureError("there are no atoms")
    if not structure.is_ordered:
        raise StructureError("a site is partially occupied or shared by several elements")
    if any(isinstance(species, DummySpecies) for species in structure.composition):
        raise StructureError(f"not all species of {structure.composition.formula} are elements")
    return [chemical_symbols[number] for number in structure.atomic_numbers]


def _formulas(symbols: list[str]) -> dict[str, Any]:
    """OPTIMADE's fields of the composition; the anonymous formula assigns letters by decreasing amount."""
    amounts = {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}
    divisor = math.gcd(*amounts.values())
    reduced = {symbol: amount // divisor for symbol, amount in amounts.items()}
    by_amount = dict(zip(ascii_uppercase, sorted(reduced.values(), reverse=True), strict=False))
    return {
        "elements": list(amounts),
        "nelements": len(amounts),
        "elements_ratios": [amount / len(symbols) for amount in amounts.values()],
        "chemical_formula_reduced": _formula(reduced),
        # OPTIMADE's tools refuse the specified letters beyond Z
        "chemical_formula_anonymous": _formula(by_amount) if len(by_amount) == len(reduced) else None,
    }


def _formula(amounts: dict[str, int]) -> str:
    return "".join(f"{symbol}{amount if amount > 1 else ''}" for symbol, amount in amounts.items())


def _value(document: dict[str, Any], source: str) -> Any:
    """Value of a dotted field; None if it is missing or not finite."""
    value: Any = document
    for name in source.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _utc(time: datetime) -> datetime:
    """Convert a time to UTC; stores return times in UTC without a time zone."""
    return time.astimezone(UTC) if time.tzinfo else time
