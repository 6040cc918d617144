"""Key numbers and pictures of each kind of property."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.stores.report import property_plots as plots

if TYPE_CHECKING:
    import plotly.graph_objects as go

type Document = Mapping[str, Any]
type Read = Callable[[Document], Any]

ROOM_TEMPERATURE = 300.0
"""Temperature of temperature-dependent values in tables, K."""


@dataclass(frozen=True)
class PropertyKind:
    """
    Presentation of one kind of property.

    Parameters
    ----------
    title
        Name of the property.
    mark
        Field that only documents of this kind have.
    columns
        Column heading, with the unit after a line break, to the function that reads the value from a document with
        results.
    plots
        Functions that draw a document.
    """

    title: str
    mark: str
    columns: Mapping[str, Read]
    plots: Sequence[Callable[[Document], go.Figure]]

    def row(self, document: Document) -> list[Any]:
        """Values of the columns; None for a failed document."""
        failed = document["state"] == "failed"
        return [None if failed else read(document) for read in self.columns.values()]


def _at_room(field: str, factor: float = 1.0) -> Read:
    """Read a quantity at 300 K, multiplied by a factor; None if 300 K is outside the temperatures."""

    def read(document: Document) -> float | None:
        temperatures = document["temperatures"]
        if not temperatures or not min(temperatures) <= ROOM_TEMPERATURE <= max(temperatures):
            return None
        return factor * float(np.interp(ROOM_TEMPERATURE, temperatures, document[field]))

    return read


def _highest(document: Document) -> float:
    """Highest frequency on the path, THz."""
    return max(max(map(max, segment)) for segment in document["phonon_bandstructure"]["frequencies"])


KINDS: dict[str, PropertyKind] = {
    "elastic": PropertyKind(
        title="Elastic constants",
        mark="elastic_tensor",
        columns={
            "K\nGPa": lambda d: d["bulk_modulus"]["vrh"],
            "G\nGPa": lambda d: d["shear_modulus"]["vrh"],
            "E\nGPa": lambda d: d["young_modulus"],
            "Poisson": lambda d: d["homogeneous_poisson"],
            "anisotropy": lambda d: d["universal_anisotropy"],
            "residual\nGPa": lambda d: d["fit_residual"],
            "stable": lambda d: d["is_mechanically_stable"],
        },
        plots=(plots.plot_elastic,),
    ),
    "eos": PropertyKind(
        title="Equations of state",
        mark="fits",
        columns={
            "V0\nÅ³/cell": lambda d: d["fits"][0]["v0"],
            "B0\nGPa": lambda d: d["fits"][0]["b0"],
            "B0'": lambda d: d["fits"][0]["b1"],
            "residual\nmeV/atom": lambda d: 1e3 * d["fits"][0]["residual"],
        },
        plots=(plots.plot_eos,),
    ),
    "phonon": PropertyKind(
        title="Phonons",
        mark="phonon_bandstructure",
        columns={
            "lowest\nTHz": lambda d: round(d["min_frequency"], 4) or 0.0,  # rounding noise of acoustic modes
            "highest\nTHz": _highest,
            "F(300 K)\nkJ/mol atoms": _at_room("free_energies", 1e-3),
            "Cv(300 K)\nJ/K/mol atoms": _at_room("heat_capacities"),
            "imaginary": lambda d: d["has_imaginary_modes"],
        },
        plots=(plots.plot_phonons, plots.plot_thermal),
    ),
    "qha": PropertyKind(
        title="Quasi-harmonic thermodynamics",
        mark="thermal_expansion",
        columns={
            "V(300 K)\nÅ³/cell": _at_room("volume_temperature"),
            "expansion(300 K)\n10⁻⁶/K": _at_room("thermal_expansion", 1e6),
            "B(300 K)\nGPa": _at_room("bulk_modulus_temperature"),
            "Cp(300 K)\nJ/K/mol atoms": _at_room("heat_capacity_p_numerical"),
            "Grüneisen": lambda d: d["average_gruneisen"],
        },
        plots=(plots.plot_qha,),
    ),
    "md": PropertyKind(
        title="Molecular dynamics",
        mark="series",
        columns={
            "T\nK": lambda d: d["mean_temperature"],
            "P\nGPa": lambda d: d["mean_pressure"],
            "V\nÅ³/cell": lambda d: d["mean_volume"],
            "Epot\neV/atom": lambda d: d["mean_potential_energy"],
            "drift\neV/atom/ps": lambda d: d["energy_drift"],
            "trajectory": lambda d: d["trajectory"] and Path(d["trajectory"]).name,
        },
        plots=(plots.plot_dynamics, plots.plot_correlations),
    ),
}
"""Kinds by the name of the command that computes them. Molecular dynamics shows means over the second half of a run."""


def kind_of(documents: Sequence[Document]) -> str:
    """
    Determine the kind of property of documents.

    Parameters
    ----------
    documents
        At least one document.

    Returns
    -------
    str
        Key of `KINDS`.

    Raises
    ------
    ValueError
        If the kind is unknown, or the documents are of several kinds.

    Examples
    --------
    >>> kind_of([{"elastic_tensor": {}}, {"elastic_tensor": None, "state": "failed"}])
    'elastic'
    """
    kinds = {next((name for name, kind in KINDS.items() if kind.mark in d), "unknown") for d in documents}
    if len(kinds) != 1 or "unknown" in kinds:
        names = ", ".join(sorted(kinds)) or "none"
        raise ValueError(f"documents must be of one kind out of {', '.join(KINDS)}; these are: {names}")
    return kinds.pop()
