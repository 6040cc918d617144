"""Key numbers and pictures of each kind of property."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from matris.stores.documents.properties import band_structure_of
from matris.stores.documents.summaries import summarise
from matris.stores.report import property_plots as plots
from matris.stores.report.property_plots import limit_name

if TYPE_CHECKING:
    import plotly.graph_objects as go

type Document = Mapping[str, Any]
type Read = Callable[[Document], Any]

ROOM_TEMPERATURE = 300.0
"""Temperature of temperature-dependent values in tables, K."""


class Quantity(NamedTuple):
    """
    A quantity in a table.

    Parameters
    ----------
    read
        Function that reads the value from a document with results: a number, a truth value, a text or None.
    digits
        Decimals of a number.
    """

    read: Read
    digits: int = 0


@dataclass(frozen=True)
class Parts:
    """
    Presentation of the parts of a material: its defects, or its surfaces.

    Parameters
    ----------
    title
        Headline of the table.
    read
        Function that reads the parts from a document.
    columns
        As in `PropertyKind`; the quantities are read from a part.
    """

    title: str
    read: Callable[[Document], Sequence[Document]]
    columns: Mapping[str, Quantity]

    def rows(self, document: Document) -> list[list[Any]]:
        """Values of the columns, one row for each part; none for a failed document."""
        parts = [] if document["state"] == "failed" else self.read(document)
        return [[quantity.read(part) for quantity in self.columns.values()] for part in parts]

    @property
    def digits(self) -> list[int]:
        """Decimals of the columns."""
        return [quantity.digits for quantity in self.columns.values()]


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
        Column heading, with the unit after a line break, to the quantity in it.
    plots
        Functions that draw a document.
    parts
        A second table.
    """

    title: str
    mark: str
    columns: Mapping[str, Quantity]
    plots: Sequence[Callable[[Document], go.Figure]]
    parts: Parts | None = None

    def row(self, document: Document) -> list[Any]:
        """Values of the columns; None for a failed document."""
        failed = document["state"] == "failed"
        return [None if failed else quantity.read(document) for quantity in self.columns.values()]

    @property
    def digits(self) -> list[int]:
        """Decimals of the columns."""
        return [quantity.digits for quantity in self.columns.values()]


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
    return float(np.max(band_structure_of(document["phonon_bandstructure"]).bands))


def _followed(document: Document) -> str | None:
    """Name the space group to which the most unstable mode led; None if no mode was followed."""
    mode = document.get("unstable_mode") or {}
    if mode.get("state") is None:
        return None
    symbol = (mode.get("symmetry") or {}).get("symbol") or "–"
    return symbol if mode["state"] == "converged" else f"{symbol} ({mode['state']})"


def _change(document: Document) -> float | None:
    """Energy change by following the most unstable mode, meV/atom."""
    gain = (document.get("unstable_mode") or {}).get("energy_gain")
    return None if gain is None else 1e3 * gain


def _defects(document: Document) -> Sequence[Document]:
    """Defects with their lowest and highest formation energy (eV), and the limits at which they have it."""
    names = [limit_name(limit) for limit in document["limits"]]
    parts = []
    for defect in document["defects"]:
        energies = defect["formation_energies"]
        ends = {"lowest": min(energies), "highest": max(energies)} if energies else {}
        at = {f"{end}_at": names[energies.index(energy)] for end, energy in ends.items()}
        parts.append({**defect, **ends, **at})
    return parts


KINDS: dict[str, PropertyKind] = {
    "elastic": PropertyKind(
        title="Elastic constants",
        mark="elastic_tensor",
        columns={
            "K\nGPa": Quantity(lambda d: d["bulk_modulus"]["vrh"], 1),
            "G\nGPa": Quantity(lambda d: d["shear_modulus"]["vrh"], 1),
            "E\nGPa": Quantity(lambda d: d["young_modulus"], 1),
            "Poisson": Quantity(lambda d: d["homogeneous_poisson"], 3),
            "anisotropy": Quantity(lambda d: d["universal_anisotropy"], 3),
            "residual\nGPa": Quantity(lambda d: d["fit_residual"], 4),
            "stable": Quantity(lambda d: d["is_mechanically_stable"]),
        },
        plots=(plots.plot_elastic,),
    ),
    "eos": PropertyKind(
        title="Equations of state",
        mark="fits",
        columns={
            "V0\nÅ³/cell": Quantity(lambda d: d["fits"][0]["v0"], 3),
            "B0\nGPa": Quantity(lambda d: d["fits"][0]["b0"], 1),
            "B0'": Quantity(lambda d: d["fits"][0]["b1"], 2),
            "residual\nmeV/atom": Quantity(lambda d: 1e3 * d["fits"][0]["residual"], 3),
        },
        plots=(plots.plot_eos,),
    ),
    "phonon": PropertyKind(
        title="Phonons",
        mark="phonon_bandstructure",
        columns={
            "lowest\nTHz": Quantity(lambda d: round(d["min_frequency"], 3) or 0.0, 3),  # noise of acoustic modes
            "highest\nTHz": Quantity(_highest, 3),
            "F(300 K)\nkJ/mol atoms": Quantity(_at_room("free_energies", 1e-3), 3),
            "Cv(300 K)\nJ/K/mol atoms": Quantity(_at_room("heat_capacities"), 2),
            "imaginary": Quantity(lambda d: d["has_imaginary_modes"]),
            "followed to": Quantity(_followed),
            "energy change\nmeV/atom": Quantity(_change, 2),
        },
        plots=(plots.plot_phonons, plots.plot_thermal),
    ),
    "qha": PropertyKind(
        title="Quasi-harmonic thermodynamics",
        mark="thermal_expansion",
        columns={
            "V(300 K)\nÅ³/cell": Quantity(_at_room("volume_temperature"), 3),
            "expansion(300 K)\n10⁻⁶/K": Quantity(_at_room("thermal_expansion", 1e6), 2),
            "B(300 K)\nGPa": Quantity(_at_room("bulk_modulus_temperature"), 1),
            "Cp(300 K)\nJ/K/mol atoms": Quantity(_at_room("heat_capacity_p_numerical"), 2),
            "Grüneisen": Quantity(lambda d: d["average_gruneisen"], 3),
        },
        plots=(plots.plot_qha,),
    ),
    "kappa": PropertyKind(
        title="Lattice thermal conductivity",
        mark="kappa_mean",
        columns={
            "κ(300 K)\nW/m/K": Quantity(_at_room("kappa_mean"), 3),
            "coherence(300 K)\nW/m/K": Quantity(_at_room("kappa_coherence_mean"), 3),
            "change with mesh\n%": Quantity(lambda d: 1e2 * d["mesh_change"], 1),
            "mesh": Quantity(lambda d: "×".join(map(str, d["mesh"]))),
            "supercells": Quantity(lambda d: d["n_displacements"] + d["n_displacements_third"]),
        },
        plots=(plots.plot_kappa,),
    ),
    "neb": PropertyKind(
        title="Migration barriers",
        mark="lowest_barrier",
        columns={
            "lowest barrier\neV": Quantity(lambda d: d["lowest_barrier"], 3),
            "highest barrier\neV": Quantity(lambda d: max(p["forward"] for p in d["paths"] if p["energies"]), 3),
            "paths": Quantity(lambda d: len(d["paths"])),
        },
        plots=(plots.plot_barriers,),
    ),
    "defects": PropertyKind(
        title="Point defects",
        mark="lowest_formation_energy",
        columns={
            "lowest formation energy\neV": Quantity(lambda d: d["lowest_formation_energy"], 3),
            "of": Quantity(lambda d: d["lowest_defect"]),
            "defects": Quantity(lambda d: len(d["defects"])),
            "image distance\nÅ": Quantity(lambda d: d["image_distance"], 1),
            "references": Quantity(lambda d: d["references"]),
        },
        plots=(plots.plot_defects,),
        parts=Parts(
            "Formation energies of neutral defects",
            _defects,
            {
                "defect": Quantity(lambda d: d["name"]),
                "sites": Quantity(lambda d: d["multiplicity"]),
                "lowest\neV": Quantity(lambda d: d.get("lowest"), 3),
                "next to": Quantity(lambda d: d.get("lowest_at")),
                "highest\neV": Quantity(lambda d: d.get("highest"), 3),
                "next to ": Quantity(lambda d: d.get("highest_at")),
                "moves\nÅ": Quantity(lambda d: d["displacement"], 2),
                "state": Quantity(lambda d: d["state"]),
            },
        ),
    ),
    "surfaces": PropertyKind(
        title="Surfaces",
        mark="lowest_surface_energy",
        columns={
            "lowest\nJ/m²": Quantity(lambda d: d["lowest_surface_energy"], 3),
            "surface": Quantity(lambda d: d["lowest_surface"]),
            "weighted\nJ/m²": Quantity(lambda d: d["weighted_surface_energy"], 3),
            "anisotropy": Quantity(lambda d: d["surface_anisotropy"], 3),
            "surfaces": Quantity(lambda d: len(d["surfaces"])),
            "skipped": Quantity(lambda d: len(d["skipped"])),
        },
        plots=(plots.plot_surfaces, plots.plot_wulff),
        parts=Parts(
            "Surface energies",
            lambda d: d["surfaces"],
            {
                "surface": Quantity(lambda d: d["name"]),
                "energy\nJ/m²": Quantity(lambda d: d["surface_energy"], 3),
                "of the shape\n%": Quantity(
                    lambda d: None if d["area_fraction"] is None else 1e2 * d["area_fraction"], 1
                ),
                "thickness\nÅ": Quantity(lambda d: d["thickness"], 1),
                "atoms": Quantity(lambda d: d["nsites"]),
                "moves\nÅ": Quantity(lambda d: d["displacement"], 2),
                "state": Quantity(lambda d: d["state"]),
            },
        ),
    ),
    "md": PropertyKind(
        title="Molecular dynamics",
        mark="series",
        columns={
            "T\nK": Quantity(lambda d: d["mean_temperature"], 1),
            "P\nGPa": Quantity(lambda d: d["mean_pressure"], 3),
            "V\nÅ³/cell": Quantity(lambda d: d["mean_volume"], 2),
            "Epot\neV/atom": Quantity(lambda d: d["mean_potential_energy"], 4),
            "drift\nmeV/atom/ps": Quantity(lambda d: None if d["energy_drift"] is None else 1e3 * d["energy_drift"], 4),
            "D\ncm²/s": Quantity(lambda d: diffusivity_text(d.get("diffusion") or {})),
            "trajectory": Quantity(lambda d: d["trajectory"] and Path(d["trajectory"]).name),
        },
        plots=(plots.plot_dynamics, plots.plot_correlations, plots.plot_vibrations),
    ),
    "diffusion": PropertyKind(
        title="Diffusion and ionic conductivity",
        mark="arrhenius",
        columns={
            "element": Quantity(lambda d: _fastest(d)["element"]),
            "E\neV": Quantity(lambda d: _fastest(d)["activation_energy"], 3),
            "error\neV": Quantity(lambda d: _fastest(d)["activation_energy_error"], 3),
            "D 300 K\ncm²/s": Quantity(lambda d: _scientific(_fastest(d)["coefficient"])),
            "σ 300 K\nS/cm": Quantity(lambda d: _range(d["conductivity"])),
            "charges": Quantity(lambda d: ", ".join(f"{name} {z:+g}" for name, z in d["charges"].items()) or None),
        },
        plots=(plots.plot_arrhenius, plots.plot_displacements),
    ),
}
"""Kinds by the name of the command that computes them. Molecular dynamics shows means over the second half of a run."""


def _fastest(document: Document) -> dict[str, Any]:
    """Summarise the element that diffuses fastest at 300 K."""
    return summarise("diffusion", document)


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"


def _range(found: Mapping[str, float] | None) -> str | None:
    """Write an extrapolated value and the bounds of its standard error."""
    return f"{found['value']:.1e} ({found['low']:.1e} to {found['high']:.1e})" if found else None


def diffusivity_text(found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """
    Write the diffusion coefficients of the elements that have one; None if no element has one.

    Examples
    --------
    >>> diffusivity_text({"Li": {"coefficient": 1.23e-5, "error": 2e-6}, "O": {"coefficient": None}})
    'Li 1.2e-05 ± 2.0e-06'
    """
    known = {element: value for element, value in found.items() if value["coefficient"] is not None}
    return ", ".join(f"{name} {d['coefficient']:.1e} ± {d['error']:.1e}" for name, d in known.items()) or None


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
