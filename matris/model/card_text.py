"""What a checkpoint is worth and where it must not be used, in words, from its card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matris.model.checkpoints import Card

_QUANTITIES = (
    ("energy", "energy", 1e3, ".0f", "meV/atom"),
    ("force_component", "force", 1.0, ".3f", "eV/Å"),
    ("stress", "stress", 1.0, ".2f", "GPa"),
    ("magmom", "magnetic moment", 1.0, ".3f", "μB"),
)
"""Errors of labels: key, name, factor to the unit, format, unit."""


def measured_errors(card: Card) -> list[tuple[str, str, str]]:
    """
    List the errors that a card holds.

    Returns
    -------
    list of tuple
        Set, what was measured, and the values.
    """
    return [(name, *_told(errors)) for name, errors in card.details.get("errors", {}).items()]


def _told(e: Mapping[str, Any]) -> tuple[str, str]:
    """Tell what was measured on a set, and the values."""
    if "converged" in e:
        what = "median / mean absolute error; mean error"
        value = f"{e['median']:.2f} / {e['mean']:.2f} %; {e['mean_signed']:+.2f} %"
        return f"{what}; {e['converged']} of {e['structures']} converged", value
    if "drift" in e:
        value = f"{e['drift']:.4f} meV/atom/ps; {e['fluctuation']:.4f} meV/atom"
        return "drift; fluctuation of the total energy", value
    if "force_component_zero" in e:
        value = f"{e['energy']:.0f} / {e['energy_median']:.0f} meV/atom; {e['force_component']:.3f} "
        value += f"({e['force_component_zero']:.3f}) eV/Å; {e['stress']:.2f} GPa"
        return f"energy, mean / median; force (of zero); stress; {e['frames']} frames", value
    if "force_component" in e:
        known = [
            (name, f"{scale * e[key]:{digits}} {unit}") for key, name, scale, digits, unit in _QUANTITIES if key in e
        ]
        frames = [f"{e['frames']} frames"] if "frames" in e else []
        return "; ".join([name for name, _ in known] + frames), "; ".join(value for _, value in known)
    value = f"{e['energy']:.0f} / {e['energy_median']:.0f} meV/atom"
    return f"energy at the DFT geometry, mean / median; {e['structures']} crystals", value


def limits(card: Card) -> list[str]:
    """
    Say where a checkpoint must not be used, as far as its card knows.

    Returns
    -------
    list of str
        One sentence each.
    """
    told = []
    if card.elements:
        told.append(f"It knows {len(card.elements)} elements and refuses others: {' '.join(card.elements)}.")
    ranges = card.details.get("trained_on", {})
    if pressure := ranges.get("pressure_GPa"):
        told.append(f"Not outside {pressure[0]:g} to {pressure[1]:g} GPa: 98 % of its training frames are within.")
    if force := ranges.get("force_eV_per_A"):
        told.append(f"Not where atoms feel more than {force:g} eV/Å: 99 % of its training frames have no such force.")
    if domain := card.details.get("domain"):
        text = (
            "Not where it says itself that it extrapolates (is_extrapolating, extrapolation > 1): its warning passes "
        )
        text += f"{100 * domain['quantile']:.0f} % of frames set aside that it gets right"
        if (caught := domain.get("flagged_of_wrong")) is not None:
            text += (
                f" and names {100 * caught:.0f} % of those with a force error above {domain['wrong_force_error']} eV/Å"
            )
        told.append(f"{text}.")
    return told
