"""A labelled frame of a source, or the reason why a frame was rejected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import GPa

from matris.model.config import MAX_ATOMIC_NUMBER
from matris.training.data.frame import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from matris.model.graph import Geometry

type Split = Literal["training", "validation"]

STRESS_UNITS = {
    "eV/Å³": 1.0, "eV/A^3": 1.0, "eV/A**3": 1.0, "eV/Ang^3": 1.0, "eV/angstrom^3": 1.0,
    "GPa": GPa, "kbar": 0.1 * GPa, "kB": 0.1 * GPa,
}  # fmt: skip
"""Names of stress units, and their values in eV/Å³."""

SPLITS: dict[str, Split] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Names that sources use for the two parts."""

MAX_STRESS = 20.0
"""Largest accepted stress component (eV/Å³; 3,200 GPa): a larger value must have another unit."""


@dataclass(frozen=True)
class Labelled:
    """
    A frame that can be used for training.

    Parameters
    ----------
    frame
        The frame.
    where
        Source, and location in the source.
    scale
        Energy scale, if the source names it.
    split
        Part of the set, if the source names it.
    """

    frame: Frame
    location: str
    scale: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Rejected:
    """
    A frame that cannot be used for training.

    Parameters
    ----------
    where
        Source, and location in the source.
    reason
        Reason, in words shared by all frames with the same fault.
    detail
        Details of this frame.
    """

    location: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


type Outcome = Labelled | Rejected


@dataclass(frozen=True)
class LabelOptions:
    """
    Units and limits of labels.

    Parameters
    ----------
    max_force
        Largest force on an atom (eV/Å).
    stress_unit
        Unit in sources that name none, one of `STRESS_UNITS`. By default, extended XYZ and ASE databases are in eV/Å³.
        MPtrj and MatPES are always in kbar.
    flip_stress
        Whether to reverse the sign of stresses, which are positive under tension by default, or have the known sign of
        the source, such as MPtrj.
    """

    max_force: float = 100.0
    stress_unit: str | None = None
    flip_stress: bool = False

    def stress(self, value: Any, unit: str | None, *, flipped: bool = False) -> NDArray[np.float64] | None:
        """
        Convert a stress to eV/Å³, positive under tension.

        Parameters
        ----------
        value
            Shape (3, 3) or (9,), or (6,) in the order xx, yy, zz, yz, xz, xy; or None.
        unit
            One of `STRESS_UNITS`.
        flipped
            Whether stresses of the source are positive under compression.

        Raises
        ------
        ValueError
            For another shape, or a missing or unknown unit.

        Examples
        --------
        >>> LabelOptions().stress([1, 1, 1, 0, 0, 0], "GPa").diagonal().round(5)
        array([0.00624, 0.00624, 0.00624])
        """
        if value is None:
            return None
        if unit is None:
            raise ValueError("stress without unit")
        if unit not in STRESS_UNITS:
            raise ValueError(f"stress of unknown unit {unit}")
        array = np.asarray(value, dtype=float)
        if array.size == 6:  # noqa: PLR2004 - Voigt
            array = voigt_6_to_full_3x3_stress(array.ravel())
        if array.size != 9 or array.ndim > 2:  # noqa: PLR2004
            raise ValueError(f"stress of wrong shape {array.shape}")
        sign = -1.0 if flipped != self.flip_stress else 1.0
        stress: NDArray[np.float64] = sign * STRESS_UNITS[unit] * array.reshape(3, 3)
        return stress


def take(
    location: str,
    geometry: Geometry,
    labels: dict[str, Any],
    options: LabelOptions,
    *,
    material: str | None = None,
    scale: str | None = None,
    split: str | None = None,
) -> Outcome:
    """
    Make a frame of the data of a source, or give the reason for its rejection.

    Parameters
    ----------
    where
        Source, and location in the source.
    geometry
        The atoms.
    labels
        ``energy`` (eV), ``forces`` (eV/Å), ``stress`` (eV/Å³, shape (3, 3)) and ``magmoms`` (μB); the last two may be
        absent or None.
    options
        Limits of labels.
    material, scale, split
        Names in the source; by default the material is the reduced formula.
    """
    if (rejected := _fault_of_geometry(location, geometry)) is not None:
        return rejected
    energy, forces, stress, magmoms = (labels.get(name) for name in ("energy", "forces", "stress", "magmoms"))
    n_atoms = len(geometry.numbers)
    for name, value, shape in (
        ("energy", energy, ()),
        ("forces", forces, (n_atoms, 3)),
        ("stress", stress, (3, 3)),
        ("magmoms", magmoms, (n_atoms,)),
    ):
        if value is None:
            if name in ("energy", "forces"):
                return Rejected(location, f"no {name}")
        elif np.shape(value) != shape:
            return Rejected(location, f"{name} of wrong shape", f"{np.shape(value)} instead of {shape}")
    frame = Frame(
        geometry=geometry,
        energy=float(energy),  # type: ignore[arg-type]
        forces=np.asarray(forces, dtype=float),
        stress=None if stress is None else np.asarray(stress, dtype=float),
        material=material or reduced_formula(geometry.numbers),
        magmoms=None if magmoms is None else np.asarray(magmoms, dtype=float),
    )
    if (rejected := _fault_of_labels(location, frame, options)) is not None:
        return rejected
    part = SPLITS.get(split or "")
    return Labelled(replace(frame, validation=part == "validation"), location, scale, part)


def _fault_of_geometry(location: str, geometry: Geometry) -> Rejected | None:
    if not len(geometry.numbers):
        return Rejected(location, "no atoms")
    if not (np.isfinite(geometry.positions).all() and np.isfinite(geometry.cell).all()):
        return Rejected(location, "geometry with NaN")
    unknown = (geometry.numbers < 1) | (geometry.numbers > MAX_ATOMIC_NUMBER)
    if unknown.any():
        z = int(geometry.numbers[unknown][0])
        symbol = chemical_symbols[z] if 0 <= z < len(chemical_symbols) else "?"
        return Rejected(location, "unknown element", f"{symbol}, atomic number {z}")
    if geometry.volume < 1e-3 * len(geometry.numbers):
        return Rejected(location, "cell without volume", f"{geometry.volume:.3g} Å³")
    return None


def _fault_of_labels(location: str, frame: Frame, options: LabelOptions) -> Rejected | None:
    for name, value in (
        ("energy", frame.energy),
        ("forces", frame.forces),
        ("stress", frame.stress),
        ("magmoms", frame.magmoms),
    ):
        if value is not None and not np.isfinite(value).all():
            return Rejected(location, f"{name} with NaN")
    largest = float(np.linalg.norm(frame.forces, axis=1).max())
    if largest > options.max_force:
        return Rejected(location, f"force above {options.max_force:g} eV/Å", f"{largest:.3g} eV/Å")
    if frame.stress is not None:
        strongest = float(np.abs(frame.stress).max())
        if strongest > MAX_STRESS:
            return Rejected(location, "stress of no crystal; is its unit right?", f"{strongest:.3g} eV/Å³")
        skew = float(np.abs(frame.stress - frame.stress.T).max())
        if skew > 1e-3 + 0.01 * strongest:
            return Rejected(location, "stress is not symmetric", f"by {skew:.3g} eV/Å³")
    return None


def reduced_formula(numbers: NDArray[np.int64]) -> str:
    """Return the reduced formula in Hill order."""
    elements, counts = np.unique(numbers, return_counts=True)
    return _formula(tuple(elements.tolist()), tuple((counts // np.gcd.reduce(counts)).tolist()))


@lru_cache(maxsize=2**16)
def _formula(elements: tuple[int, ...], counts: tuple[int, ...]) -> str:
    content = {chemical_symbols[z]: n for z, n in zip(elements, counts, strict=True)}
    return str(Formula.from_dict(content).format("hill"))


def unreadable(location: str, error: Exception) -> Rejected:
    """Reject a frame because of the error of a parser."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return Rejected(
        location, text if isinstance(error, ValueError) and text.startswith("stress ") else "unreadable", text
    )
