"""The best candidates: their crystals, their properties, their phonon bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matris.stores.report.cautions import cautions
from matris.stores.report.crystals import crystal
from matris.stores.report.figure_style import UNREADABLE, Picture, problem_of
from matris.stores.report.formats import minus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.report.outcomes import Document

MAX_CRYSTALS = 40
"""Largest number of crystals on a page."""

MAX_BANDS = 15
"""Largest number of phonon band structures on a page."""

_BANDS_HEIGHT = 320  # pixels


@dataclass(frozen=True)
class TopCandidate:
    """One of the best candidates: document, properties by name, crystal, and phonon bands if they were computed."""

    document: Document
    facts: Mapping[str, Any]
    crystal: Mapping[str, Any]
    bands: Picture | None


def top(
    ranking: Sequence[Document],
    structures: Callable[[str], Structure | None],
    phonons: Callable[[Document], Document | None],
) -> list[TopCandidate]:
    """
    Select the best candidates whose crystals can be drawn.

    Parameters
    ----------
    ranking
        Documents, the best first.
    structures
        Returns the relaxed structure of a document by its ``document_id``.
    phonons
        Returns the phonon document of a candidate, with its bands loaded.
    """
    candidates: list[TopCandidate] = []
    n_bands = 0
    for document in ranking[:MAX_CRYSTALS]:
        structure = structures(document["document_id"])
        shape = None if structure is None else crystal(structure)
        if shape is not None:
            shape["name"] = f"{document['formula_pretty']}-{document['candidate_id'][:8]}"
            bands = _bands(document, phonons) if n_bands < MAX_BANDS else None
            n_bands += bands is not None
            candidates.append(TopCandidate(document, facts(document), shape, bands))
    return candidates


def facts(document: Document) -> dict[str, Any]:
    """Properties of one candidate, with units."""
    return {
        "above the hull": _with_unit(document.get("energy_above_hull"), 1e3, ".1f", "meV/atom"),
        "formation energy": _with_unit(document.get("formation_energy_per_atom"), 1.0, ".3f", "eV/atom"),
        "competing phases": _phases(document),
        "atoms": document.get("nsites"),
        "volume": _with_unit(document.get("volume"), 1.0, ".1f", "Å³"),
        "density": _with_unit(document.get("density"), 1.0, ".2f", "g/cm³"),
        "elastic": _elastic(document.get("elastic")),
        "phonons": _phonons(document.get("phonon")),
        "thermal conductivity": _kappa(document.get("kappa")),
        "caution": cautions(document),
        "source": str(document["source"]),
    }


def _with_unit(value: float | None, factor: float, digits: str, unit: str) -> str | None:
    return None if value is None else minus(f"{factor * value:{digits}} {unit}")


def _phases(document: Document) -> str | None:
    """Competing phases of an unstable candidate."""
    if document.get("is_stable"):
        return None
    return " + ".join(str(phase["formula"]) for phase in document.get("decomposes_to") or [])


def _elastic(summary: Document | None) -> str | None:
    """Moduli and mechanical stability."""
    if not summary:
        return None
    if summary.get("bulk_modulus") is None:
        return f"failed: {summary.get('error') or 'no reason recorded'}"
    moduli = (("K", "bulk_modulus"), ("G", "shear_modulus"), ("E", "young_modulus"))
    parts = [f"{name} {summary[field]:.0f} GPa" for name, field in moduli if summary.get(field) is not None]
    if summary.get("is_mechanically_stable") is not None:
        parts.append("stable" if summary["is_mechanically_stable"] else "unstable")
    return ", ".join(parts)


def _phonons(summary: Document | None) -> str | None:
    """Dynamical stability."""
    if not summary:
        return None
    if summary.get("has_imaginary_modes") is None:
        return f"failed: {summary.get('error') or 'no reason recorded'}"
    if not summary["has_imaginary_modes"]:
        return "no imaginary modes"
    lowest = summary.get("min_frequency")
    return "imaginary modes" + ("" if lowest is None else minus(f" down to {lowest:.2f} THz"))


def _kappa(summary: Document | None) -> str | None:
    """Lattice thermal conductivity."""
    if not summary:
        return None
    if summary.get("conductivity") is None:
        return f"failed: {summary.get('error') or 'no reason recorded'}"
    return f"{summary['conductivity']:.3g} W/m/K at 300 K"


def _bands(document: Document, phonons: Callable[[Document], Document | None]) -> Picture | None:
    """Draw the phonon bands of one candidate, if they were computed."""
    has_modes = (document.get("phonon") or {}).get("has_imaginary_modes") is not None
    whole = phonons(document) if has_modes else None
    if whole is None:
        return None
    from matris.stores.report.property_plots import plot_phonons

    try:
        figure: Any = plot_phonons(whole)
    except UNREADABLE as error:
        return Picture(problem=problem_of(error))
    figure.update_layout(title=None, height=_BANDS_HEIGHT, margin={"l": 56, "r": 12, "t": 30, "b": 40})
    return Picture.of(figure)
