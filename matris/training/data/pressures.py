"""Check of the sign and unit of stresses with a potential, for sources without comparable pairs of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.units import GPa

from matris.training.data.work import STRESS_RATIOS, near

if TYPE_CHECKING:
    from collections.abc import Collection

    from matris.model.potential import Potential
    from matris.training.data.frame import Frame

_KEPT = 64  # frames that are compared
_FEWEST = 8
_LARGEST = 40  # atoms
_PRESSED = 1.0 * GPa  # least pressure of the potential; at smaller ones, its sign is uncertain
_AGREEING = 0.85  # share of the frames


class Pressures:
    """
    The frames of largest pressure, for comparison with a potential.

    Even a potential with errors of 50 % predicts whether a crystal is under compression.

    Parameters
    ----------
    elements
        Elements of the potential.
    """

    def __init__(self, elements: Collection[str]) -> None:
        self._elements = set(elements)
        self._kept: list[Frame] = []
        self._least = 0.0

    def add(self, frame: Frame) -> None:
        """Keep a frame if its pressure is large enough."""
        if frame.stress is None or len(frame.forces) > _LARGEST or not frame.geometry.pbc.all():
            return
        if _pressed(frame) > self._least and frame.symbols <= self._elements:
            self._kept.append(frame)
            if len(self._kept) >= 2 * _KEPT:
                self._kept = sorted(self._kept, key=_pressed, reverse=True)[:_KEPT]
                self._least = _pressed(self._kept[-1])

    def compare(self, potential: Potential) -> Agreement | None:
        """Compare with a potential; None if too few frames are under pressure."""
        frames = sorted(self._kept, key=_pressed, reverse=True)[:_KEPT]
        pressures = [np.trace(p.stress) / 3 for p in potential.predict_geometries([f.geometry for f in frames])]
        ratios = np.array(
            [
                float(np.trace(frame.stress)) / 3 / pressure
                for frame, pressure in zip(frames, pressures, strict=True)
                if frame.stress is not None and abs(pressure) > _PRESSED
            ]
        )
        if len(ratios) < _FEWEST:
            return None
        return Agreement(potential.card.key, len(ratios), float((ratios > 0).mean()), float(np.median(np.abs(ratios))))


@dataclass(frozen=True)
class Agreement:
    """
    Comparison of stresses with those of a potential.

    Attributes
    ----------
    key
        Key of the potential.
    n_frames
        Number of frames under pressure.
    agreeing
        Fraction of these frames whose stress has the sign of the potential's.
    size
        Median absolute ratio of the stresses.
    """

    key: str
    n_frames: int
    agreeing: float
    size: float

    def problem(self) -> str | None:
        """Describe what is wrong with the stresses; None if nothing is."""
        said = f"of {self.n_frames} frames under pressure, {self.agreeing:.0%} have the sign that {self.key} gives"
        said += f", and their stress is {self.size:.3g} times as large"
        if near(self.size, 1, within=3):
            if self.agreeing < 1 - _AGREEING:
                return f"the stress has the wrong sign: {said}; give --flip-stress, or leave it out"
            return None
        for words, factor in STRESS_RATIOS.items():
            if near(self.size, 1 / factor, within=2.5) and not 1 - _AGREEING <= self.agreeing <= _AGREEING:
                also = ", and the sign is wrong" if self.agreeing < 1 / 2 else ""
                return f"a unit is wrong, perhaps {words}{also}: {said}; give --stress-unit, or convert them"
        return None


def _pressed(frame: Frame) -> float:
    return abs(float(np.trace(frame.stress))) if frame.stress is not None else 0.0
