"""What a candidate's document says of its properties: the few numbers that people query."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOM_TEMPERATURE = 300.0
"""Temperature of what is summarised, K."""

_SUMMARY_ERROR = 300  # characters kept of an error message; the property document keeps more


class PropertySummary(BaseModel):
    """What all summaries say."""

    state: str = Field(description="converged, max_steps, completed or failed.")
    error: str | None = Field(default=None, description="Why it failed.")
    job_uuid: str | None = Field(default=None, description="Job in whose output the whole property is.")
    settings_digest: str | None = Field(default=None, description="Hash of the Maker's settings.")
    computed_at: str | None = Field(default=None, description="ISO 8601, UTC.")


class ElasticSummary(PropertySummary):
    """Moduli of the polycrystal, Voigt–Reuss–Hill."""

    bulk_modulus: float | None = Field(default=None, description="GPa.")
    shear_modulus: float | None = Field(default=None, description="GPa.")
    young_modulus: float | None = Field(default=None, description="GPa.")
    homogeneous_poisson: float | None = None
    is_mechanically_stable: bool | None = None


class EosSummary(PropertySummary):
    """Third-order Birch–Murnaghan equation of state."""

    v0: float | None = Field(default=None, description="Å³ per cell.")
    b0: float | None = Field(default=None, description="GPa.")
    b1: float | None = None


class PhononSummary(PropertySummary):
    """Harmonic phonons; thermal properties at 300 K and per mole of atoms."""

    has_imaginary_modes: bool | None = None
    min_frequency: float | None = Field(default=None, description="THz; imaginary ones are negative.")
    heat_capacity: float | None = Field(default=None, description="J/K per mole of atoms.")
    entropy: float | None = Field(default=None, description="J/K per mole of atoms.")
    free_energy: float | None = Field(default=None, description="J per mole of atoms.")


class QhaSummary(PropertySummary):
    """Quasi-harmonic thermodynamics at 300 K."""

    thermal_expansion: float | None = Field(default=None, description="Volumetric, 1/K.")
    bulk_modulus: float | None = Field(default=None, description="GPa.")
    average_gruneisen: float | None = None


class DynamicsSummary(PropertySummary):
    """Means of molecular dynamics."""

    n_steps: int | None = None
    mean_temperature: float | None = Field(default=None, description="K.")
    mean_pressure: float | None = Field(default=None, description="GPa.")
    energy_drift: float | None = Field(default=None, description="Under NVE, eV/atom/ps.")


SUMMARIES: dict[str, type[PropertySummary]] = {
    "elastic": ElasticSummary,
    "eos": EosSummary,
    "phonon": PhononSummary,
    "qha": QhaSummary,
    "md": DynamicsSummary,
}
"""Kind of property to its summary; each is a field of `matris.stores.documents.documents.CandidateDocument`."""


def summarise(kind: str, document: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """
    Take what people query from the document of a property.

    Parameters
    ----------
    kind
        Key of `SUMMARIES`.
    document
        As a property's job gave it, its large fields loaded or not.
    **about
        Further fields of `PropertySummary`.

    Returns
    -------
    dict
        A document of the kind's summary. What is not finite is None.
    """
    known = {"elastic": _elastic, "eos": _eos, "phonon": _phonon, "qha": _qha}.get(kind, dict)(document)
    error = document.get("error")
    common = {"state": document["state"], "error": error[:_SUMMARY_ERROR] if error else None, **about}
    summary = SUMMARIES[kind].model_validate({**known, **common}).model_dump()
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value for name, value in summary.items()
    }


def _elastic(document: Mapping[str, Any]) -> dict[str, Any]:
    moduli = {name: (document.get(name) or {}).get("vrh") for name in ("bulk_modulus", "shear_modulus")}
    return {**document, **moduli}


def _eos(document: Mapping[str, Any]) -> dict[str, Any]:
    fits = {fit["equation"]: fit for fit in document.get("fits", ())}
    return dict(fits.get("birch_murnaghan", {}))


def _phonon(document: Mapping[str, Any]) -> dict[str, Any]:
    names = {"heat_capacity": "heat_capacities", "entropy": "entropies", "free_energy": "free_energies"}
    n_atoms = document.get("nsites_primitive")
    thermal = {one: _at_room_temperature(document, many) for one, many in names.items()}
    per_atom = {name: value / n_atoms for name, value in thermal.items() if value is not None and n_atoms}
    return {**document, **per_atom}


def _qha(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "thermal_expansion": _at_room_temperature(document, "thermal_expansion"),
        "bulk_modulus": _at_room_temperature(document, "bulk_modulus_temperature"),
        "average_gruneisen": document.get("average_gruneisen"),
    }


def _at_room_temperature(document: Mapping[str, Any], name: str) -> float | None:
    """Interpolate a series over the document's temperatures; None where it does not reach so far."""
    temperatures, values = document.get("temperatures") or [], document.get(name) or []
    n = min(len(temperatures), len(values))
    if not n or not temperatures[0] <= ROOM_TEMPERATURE <= temperatures[n - 1]:
        return None
    return float(np.interp(ROOM_TEMPERATURE, temperatures[:n], values[:n]))
