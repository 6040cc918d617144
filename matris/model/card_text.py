"""Text from the card of a checkpoint: measured errors and limits of use."""

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
"""Errors of predicted quantities: key in the card, name, conversion factor, format, unit."""


def measured_errors(card: Card) -> list[tuple[str, str, str]]:
    """
    List the measured errors in a card.

    Returns
    -------
    list of tuple of str
        Data set, measured quantities, and values with units.

    Examples
    --------
    >>> from matris.model.checkpoints import Card
    >>> measured_errors(Card("mine", details={"errors": {"validation": {"energy": 0.05, "force_component": 0.1}}}))
    [('validation', 'energy; force', '50 meV/atom; 0.100 eV/Å')]
    """
    return [(name, *_described(errors)) for name, errors in card.details.get("errors", {}).items()]


def _described(e: Mapping[str, Any]) -> tuple[str, str]:
    """Describe the measured quantities of one data set, and their values."""
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
        measured = [
            (name, f"{scale * e[key]:{digits}} {unit}") for key, name, scale, digits, unit in _QUANTITIES if key in e
        ]
        frames = [f"{e['frames']} frames"] if "frames" in e else []
        return "; ".join([name for name, _ in measured] + frames), "; ".join(value for _, value in measured)
    value = f"{e['energy']:.0f} / {e['energy_median']:.0f} meV/atom"
    return f"energy at the DFT geometry, mean / median; {e['structures']} crystals", value


def limits(card: Card) -> list[str]:
    """
    List the limits of use of a checkpoint, as far as its card contains them.

    Returns
    -------
    list of str
        One sentence each.

    Examples
    --------
    >>> from matris.model.checkpoints import Card
    >>> limits(Card("mine", elements=("Na", "Cl")))
    ['It supports 2 elements and refuses all others: Na Cl.']
    """
    sentences = []
    if card.elements:
        symbols = " ".join(card.elements)
        sentences.append(f"It supports {len(card.elements)} elements and refuses all others: {symbols}.")
    ranges = card.details.get("trained_on", {})
    if pressure := ranges.get("pressure_GPa"):
        sentences.append(
            f"Do not use it outside {pressure[0]:g} to {pressure[1]:g} GPa, the range of 98 % of its training frames."
        )
    if force := ranges.get("force_eV_per_A"):
        sentences.append(
            f"Do not use it where forces on atoms exceed {force:g} eV/Å; 99 % of its training frames stay below."
        )
    if domain := card.details.get("domain"):
        text = (
            "Do not use it where it reports that it extrapolates (is_extrapolating, extrapolation > 1). Of held-out "
            f"frames that it predicts well, {100 * domain['quantile']:.0f} % are not flagged"
        )
        if (flagged := domain.get("flagged_of_wrong")) is not None:
            text += f"; of those with a force error above {domain['wrong_force_error']} eV/Å, {100 * flagged:.0f} % are"
        sentences.append(f"{text}.")
    return sentences
