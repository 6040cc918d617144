"""Summaries of properties in candidate documents: the few numbers that users query."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOM_TEMPERATURE = 300.0
"""Temperature of the summarised thermal properties (K)."""

_SUMMARY_ERROR = 300  # characters kept of an error message; the property document keeps more
_SAME_MODULUS = 0.15  # relative difference of two bulk moduli that are taken for equal
_SUMMARY_WARNINGS = 4  # warnings kept, and
_SUMMARY_WARNING = 120  # characters of each


class PropertySummary(BaseModel):
    """Fields that all summaries have."""

    state: str = Field(description="converged, max_steps, completed (molecular dynamics) or failed.")
    error: str | None = Field(default=None, description="Why the calculation failed.")
    is_reliable: bool | None = Field(
        default=None,
        description="Whether everything converged and the results passed all checks; None if there were no checks.",
    )
    cutoff_crossings: int | None = Field(
        default=None,
        description="Number of the potential's cutoffs that neighbor shells cross within the strains or displacements.",
    )
    warnings: list[str] = Field(
        default_factory=list, description="The first warnings, shortened; the property document has all."
    )
    job_uuid: str | None = Field(default=None, description="Job whose output has the complete property document.")
    settings_digest: str | None = Field(default=None, description="Hash of the settings of the Maker.")
    computed_at: str | None = Field(default=None, description="When the property was computed, ISO 8601, UTC.")


class ElasticSummary(PropertySummary):
    """Voigt–Reuss–Hill moduli of the polycrystal."""

    bulk_modulus: float | None = Field(default=None, description="Bulk modulus (GPa).")
    bulk_modulus_voigt: float | None = Field(
        default=None,
        description="Voigt average of the bulk modulus (GPa): that of an equation of state of scaled cells.",
    )
    shear_modulus: float | None = Field(default=None, description="Shear modulus (GPa).")
    young_modulus: float | None = Field(default=None, description="Young's modulus (GPa).")
    homogeneous_poisson: float | None = Field(default=None, description="Poisson's ratio.")
    is_mechanically_stable: bool | None = Field(
        default=None, description="Whether the elastic tensor is positive definite (Born stability)."
    )


class EosSummary(PropertySummary):
    """Parameters of the third-order Birch–Murnaghan equation of state."""

    v0: float | None = Field(default=None, description="Equilibrium volume (Å³ per cell).")
    b0: float | None = Field(default=None, description="Bulk modulus (GPa).")
    b1: float | None = Field(default=None, description="Pressure derivative of the bulk modulus.")


class PhononSummary(PropertySummary):
    """Harmonic phonons, with thermal properties at 300 K per mole of atoms."""

    has_imaginary_modes: bool | None = Field(default=None, description="Whether the structure is dynamically unstable.")
    min_frequency: float | None = Field(
        default=None, description="Lowest frequency (THz); imaginary frequencies are negative."
    )
    heat_capacity: float | None = Field(
        default=None, description="Heat capacity at constant volume (J/K per mole of atoms)."
    )
    entropy: float | None = Field(default=None, description="Entropy (J/K per mole of atoms).")
    free_energy: float | None = Field(default=None, description="Helmholtz free energy (J per mole of atoms).")


class QhaSummary(PropertySummary):
    """Quasi-harmonic thermodynamics at 300 K."""

    thermal_expansion: float | None = Field(default=None, description="Volumetric thermal expansion (1/K).")
    bulk_modulus: float | None = Field(default=None, description="Isothermal bulk modulus (GPa).")
    average_gruneisen: float | None = Field(
        default=None, description="Mean Grüneisen parameter, weighted by the heat capacities of the modes."
    )


class KappaSummary(PropertySummary):
    """Lattice thermal conductivity at 300 K, mean of the three directions."""

    conductivity: float | None = Field(
        default=None, description="Conductivity by the Wigner transport equation (W/m/K)."
    )
    coherence: float | None = Field(default=None, description="Part of it by tunnelling between bands (W/m/K).")
    mesh_change: float | None = Field(
        default=None, description="Relative difference of the conductivities on two meshes of wave vectors."
    )


class NebSummary(PropertySummary):
    """Migration barriers."""

    lowest_barrier: float | None = Field(default=None, description="Lowest barrier of all paths (eV).")
    n_paths: int | None = Field(default=None, description="Number of paths.")


class DefectsSummary(PropertySummary):
    """Neutral point defects."""

    lowest_formation_energy: float | None = Field(
        default=None, description="Lowest formation energy of all defects and chemical potentials (eV)."
    )
    lowest_defect: str | None = Field(default=None, description="Name of its defect, such as v_O or Na_Cl.")
    n_defects: int | None = Field(default=None, description="Number of distinct defects.")


class SurfacesSummary(PropertySummary):
    """Symmetric and stoichiometric surfaces."""

    lowest_surface_energy: float | None = Field(default=None, description="Lowest surface energy (J/m²).")
    lowest_surface: str | None = Field(default=None, description="Miller indices of its surface.")
    weighted_surface_energy: float | None = Field(
        default=None, description="Mean surface energy over the equilibrium shape (J/m²)."
    )
    n_surfaces: int | None = Field(default=None, description="Number of surfaces.")
    n_skipped: int | None = Field(
        default=None, description="Number of orientations without a slab, which the equilibrium shape lacks."
    )


class DynamicsSummary(PropertySummary):
    """Molecular dynamics; means are over the second half of the trajectory."""

    n_steps: int | None = Field(default=None, description="Number of time steps.")
    mean_temperature: float | None = Field(default=None, description="Mean temperature (K).")
    mean_pressure: float | None = Field(default=None, description="Mean pressure (GPa).")
    energy_drift: float | None = Field(default=None, description="Drift of the total energy in NVE (eV/atom/ps).")


class DiffusionSummary(PropertySummary):
    """Diffusion of the element that diffuses fastest at 300 K, and conductivity of independent ions."""

    element: str | None = Field(default=None, description="The element; None if no element has an activation energy.")
    activation_energy: float | None = Field(default=None, description="Activation energy (eV).")
    activation_energy_error: float | None = Field(default=None, description="Its standard error (eV).")
    coefficient: float | None = Field(default=None, description="Diffusion coefficient extrapolated to 300 K (cm²/s).")
    conductivity: float | None = Field(
        default=None, description="Ionic conductivity extrapolated to 300 K (S/cm), with a Haven ratio of 1."
    )


SUMMARIES: dict[str, type[PropertySummary]] = {
    "elastic": ElasticSummary,
    "eos": EosSummary,
    "phonon": PhononSummary,
    "qha": QhaSummary,
    "kappa": KappaSummary,
    "neb": NebSummary,
    "defects": DefectsSummary,
    "surfaces": SurfacesSummary,
    "md": DynamicsSummary,
    "diffusion": DiffusionSummary,
}
"""Summary of each kind of property. The kinds are fields of `matris.stores.documents.documents.CandidateDocument`."""


def summarise(kind: str, document: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """
    Summarise the document of a property.

    Parameters
    ----------
    kind
        Key of `SUMMARIES`.
    document
        Output of the property's job; its large fields are not needed.
    **about
        Further fields of `PropertySummary`.

    Returns
    -------
    dict
        Fields of the summary model of this kind. Values that are not finite become None.

    Examples
    --------
    >>> document = {
    ...     "state": "converged",
    ...     "temperatures": [200.0, 400.0],
    ...     "heat_capacities": [20.0, 30.0],
    ... }
    >>> summarise("phonon", document)["heat_capacity"]  # J/K per mole of atoms, at 300 K
    25.0
    """
    readers = {
        "elastic": _elastic,
        "eos": _eos,
        "phonon": _phonon,
        "qha": _qha,
        "kappa": _kappa,
        "neb": _neb,
        "diffusion": _diffusion,
        "defects": _defects,
        "surfaces": _surfaces,
    }
    values = readers.get(kind, dict)(document)
    error = document.get("error")
    common = {
        "state": document["state"],
        "error": error[:_SUMMARY_ERROR] if error else None,
        "is_reliable": document.get("is_reliable"),
        "cutoff_crossings": None if document.get("crossings") is None else len(document["crossings"]),
        "warnings": [text[:_SUMMARY_WARNING] for text in (document.get("warnings") or [])[:_SUMMARY_WARNINGS]],
        **about,
    }
    summary = SUMMARIES[kind].model_validate({**values, **common}).model_dump()
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value for name, value in summary.items()
    }


def compared(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """
    Compare the bulk modulus of the equation of state with that of the elastic tensor, where both are known.

    The cells of the equation of state keep their shape, and their atoms relax: its bulk modulus is the Voigt average.

    Parameters
    ----------
    summaries
        Summaries of one candidate by their kind.

    Returns
    -------
    dict
        The same summaries; if the two moduli disagree, neither is reliable, and a warning has both values.

    Examples
    --------
    >>> found = {"eos": {"b0": 248.0, "warnings": []}, "elastic": {"bulk_modulus_voigt": 173.0, "warnings": []}}
    >>> compared(found)["eos"]["is_reliable"], compared(found)["eos"]["warnings"]
    (False, ['bulk moduli disagree: 248 GPa by the equation of state, 173 GPa by the elastic tensor'])
    """
    result = {kind: dict(summary) for kind, summary in summaries.items()}
    energies, stresses = (result.get("eos") or {}).get("b0"), (result.get("elastic") or {}).get("bulk_modulus_voigt")
    if energies is None or stresses is None or abs(energies - stresses) <= _SAME_MODULUS * max(energies, stresses):
        return result
    warning = (
        f"bulk moduli disagree: {energies:.0f} GPa by the equation of state, {stresses:.0f} GPa by the elastic tensor"
    )
    for kind in ("eos", "elastic"):
        kept = [warning, *(result[kind].get("warnings") or [])][:_SUMMARY_WARNINGS]
        result[kind] |= {"is_reliable": False, "warnings": kept}
    return result


def _elastic(document: Mapping[str, Any]) -> dict[str, Any]:
    moduli = {name: (document.get(name) or {}).get("vrh") for name in ("bulk_modulus", "shear_modulus")}
    return {**document, **moduli, "bulk_modulus_voigt": (document.get("bulk_modulus") or {}).get("voigt")}


def _eos(document: Mapping[str, Any]) -> dict[str, Any]:
    fits = {fit["equation"]: fit for fit in document.get("fits", ())}
    return dict(fits.get("birch_murnaghan", {}))


def _phonon(document: Mapping[str, Any]) -> dict[str, Any]:
    names = {"heat_capacity": "heat_capacities", "entropy": "entropies", "free_energy": "free_energies"}
    return {**document, **{one: _at_room_temperature(document, many) for one, many in names.items()}}


def _qha(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "thermal_expansion": _at_room_temperature(document, "thermal_expansion"),
        "bulk_modulus": _at_room_temperature(document, "bulk_modulus_temperature"),
        "average_gruneisen": document.get("average_gruneisen"),
    }


def _kappa(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "conductivity": _at_room_temperature(document, "kappa_mean"),
        "coherence": _at_room_temperature(document, "kappa_coherence_mean"),
        "mesh_change": document.get("mesh_change"),
    }


def _diffusion(document: Mapping[str, Any]) -> dict[str, Any]:
    lines = document.get("arrhenius") or {}
    found = {element: line for element, line in lines.items() if line.get("room")}
    if not found:
        return {}
    element = max(found, key=lambda name: found[name]["room"]["value"])
    return {
        "element": element,
        "activation_energy": found[element]["activation_energy"],
        "activation_energy_error": found[element]["error"],
        "coefficient": found[element]["room"]["value"],
        "conductivity": (document.get("conductivity") or {}).get("value"),
    }


def _neb(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"lowest_barrier": document.get("lowest_barrier"), "n_paths": len(document.get("paths") or []) or None}


def _defects(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "n_defects": len(document.get("defects") or []) or None}


def _surfaces(document: Mapping[str, Any]) -> dict[str, Any]:
    n_surfaces = len(document.get("surfaces") or []) or None
    return {
        **document,
        "n_surfaces": n_surfaces,
        "n_skipped": None if n_surfaces is None else len(document.get("skipped") or []),
    }


def _at_room_temperature(document: Mapping[str, Any], name: str) -> float | None:
    """Interpolate a series to 300 K; None if its temperatures do not include 300 K."""
    temperatures, values = document.get("temperatures") or [], document.get(name) or []
    n = min(len(temperatures), len(values))
    if not n or not temperatures[0] <= ROOM_TEMPERATURE <= temperatures[n - 1]:
        return None
    return float(np.interp(ROOM_TEMPERATURE, temperatures[:n], values[:n]))
