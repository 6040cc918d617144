"""Settings of a relaxation, and its results (records)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pymatgen.core import Structure

from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RelaxState = Literal["converged", "max_steps", "failed"]
OptimizerName = Literal["lbfgs", "fire"]
type CellMask = str | Sequence[bool]

_MASKS = ("volume", "shape", "lengths", "a", "b", "c", "ab", "ac", "bc")
_N_COMPONENTS = 6  # of a symmetric matrix

_METHODS: dict[str, str] = {
    "lbfgs": "L-BFGS, Frechet cell filter scaled by sqrt(n), atoms and cell below fmax",
    "fire": "FIRE, Frechet cell filter, atoms and cell below fmax",
}
"""Names of the algorithms, a part of the settings digest: another algorithm gives other results."""

_ARRAYS = ("forces", "stress", "magmoms")


@dataclass(frozen=True)
class RelaxSettings:
    """
    All settings that determine the result of a relaxation, except the potential.

    Attributes
    ----------
    fmax
        Force criterion for atoms and cell, eV/Å; see `matris.relax`.
    max_steps
        Largest number of steps of one structure. With 0 the input geometry is only evaluated.
    relax_cell
        Whether lattice vectors change too.
    optimizer
        ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    pressure
        External pressure on the cell, GPa.
    fix_symmetry
        Whether the symmetry of the input is kept.
    symprec
        Tolerance for that symmetry, Å.
    cell_mask
        How the cell may deform, see `matris.relax`; None for freely.

    Raises
    ------
    ValueError
        If `fmax` or `symprec` is not positive and finite, `max_steps` is negative, `pressure` is not finite, no
        optimizer or cell mask has the name, or a setting of the cell is without effect, because the cell is fixed.

    Examples
    --------
    >>> settings = RelaxSettings(fmax=0.02)
    >>> settings.to_dict()
    {'fmax': 0.02, 'max_steps': 500, 'relax_cell': True, 'optimizer': 'lbfgs', 'pressure': 0.0, ...}
    >>> len(settings.digest())
    12
    """

    fmax: float = 0.05
    max_steps: int = 500
    relax_cell: bool = True
    optimizer: OptimizerName = "lbfgs"
    pressure: float = 0.0
    fix_symmetry: bool = False
    symprec: float = 0.01
    cell_mask: CellMask | None = None

    def __post_init__(self) -> None:
        """Check the values, and convert them to one type, so that 1 and 1.0 give equal settings."""
        if not (math.isfinite(self.fmax) and self.fmax > 0):
            raise ValueError(f"fmax must be a positive, finite force in eV/Å, got {self.fmax}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative, got {self.max_steps}")
        if self.optimizer not in _METHODS:
            raise ValueError(f"optimizer must be one of {', '.join(_METHODS)}, got {self.optimizer!r}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"pressure must be a number (GPa), got {self.pressure}")
        if self.pressure and not self.relax_cell:
            raise ValueError(f"a pressure of {self.pressure} GPa has no effect on a fixed cell: relax the cell too")
        if not (math.isfinite(self.symprec) and self.symprec > 0):
            raise ValueError(f"symprec must be a positive length (Å), got {self.symprec}")
        object.__setattr__(self, "cell_mask", _checked(self.cell_mask))
        if self.cell_mask is not None and not self.relax_cell:
            raise ValueError(f"cell_mask {self.cell_mask} has no effect on a fixed cell: relax the cell too")
        object.__setattr__(self, "fix_symmetry", bool(self.fix_symmetry))
        object.__setattr__(self, "symprec", float(self.symprec))
        object.__setattr__(self, "fmax", float(self.fmax))
        object.__setattr__(self, "pressure", float(self.pressure) + 0.0)  # no -0.0
        object.__setattr__(self, "max_steps", int(self.max_steps))
        object.__setattr__(self, "relax_cell", bool(self.relax_cell))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        content = asdict(self)
        return content | {"cell_mask": list(self.cell_mask) if isinstance(self.cell_mask, tuple) else self.cell_mask}

    def digest(self) -> str:
        """
        Compute a short hash of the settings, equal on all machines.

        Returns
        -------
        str
            12 hexadecimal digits.
        """
        content = {"method": _METHODS[self.optimizer], **self.to_dict()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _checked(mask: CellMask | None) -> str | tuple[bool, ...] | None:
    """Check a mask of the cell, and convert it to one type."""
    if mask is None or (isinstance(mask, str) and mask in _MASKS):
        return mask
    if not isinstance(mask, str) and len(mask) == _N_COMPONENTS and all(flag in {0, 1} for flag in mask) and any(mask):
        return tuple(bool(flag) for flag in mask)
    raise ValueError(
        f"cell_mask must be {', '.join(_MASKS)}, or six flags (xx, yy, zz, yz, xz, xy) not all false; got {mask!r}"
    )


@dataclass(frozen=True, eq=False, repr=False)
class RelaxRecord:
    """
    Result of the relaxation of one structure. All energies, forces, stresses and moments belong to `structure`.

    Attributes
    ----------
    index
        Position of the structure in the input, from 0.
    structure_id
        `matris.structures.content_id` of the input; None if the input is not a crystal.
    state
        ``"converged"``, ``"max_steps"`` (still above `fmax` after the allowed steps) or ``"failed"``.
    structure
        Final structure, with the species and site order of the input. Site properties are dropped, because they
        describe the geometry of the input. None if the relaxation failed; so are all results below.
    energy
        Total energy, eV; without the term pV of an external pressure.
    forces
        Forces on the atoms, shape (n, 3), eV/Å.
    stress
        Stress, shape (3, 3), eV/Å³, positive under tension (ASE's sign). None also if the model computes none.
    magmoms
        Magnetic moments, shape (n,), μB. None also if the model computes none.
    extrapolation, mean_extrapolation
        Largest and mean extrapolation of the atoms of `structure`: above 1 the model extrapolates, see
        `matris.model.domain.Domain`. None also if the model has no domain.
    n_steps
        Steps taken, including those before a failure: calls of the model after the first.
    fmax
        Largest norm of a force on an atom, eV/Å; the forces along fixed directions do not count.
    smax
        Largest absolute component of the stress and the external pressure, σ + p, eV/Å³, of the part that a cell mask
        or the symmetry allows: what convergence leaves. None also if the cell was fixed.
    error
        Reason of a failure, in one line; None if there was none.
    seconds
        Wall time (s) from entering the batch to leaving it. The times of structures in one batch overlap.

    Examples
    --------
    >>> record = RelaxRecord(0, None, "failed", error="empty structure: it has no atoms")
    >>> RelaxRecord.from_dict(record.to_dict()).error
    'empty structure: it has no atoms'
    """

    index: int
    structure_id: str | None
    state: RelaxState
    structure: Structure | None = None
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    magmoms: NDArray[np.float64] | None = None
    extrapolation: float | None = None
    mean_extrapolation: float | None = None
    n_steps: int = 0
    fmax: float | None = None
    smax: float | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def is_extrapolating(self) -> bool | None:
        """Whether the model extrapolates for `structure`; None if that is not known."""
        return None if self.extrapolation is None else self.extrapolation > 1

    def enthalpy(self, pressure: float) -> float | None:
        """
        Enthalpy E + pV, eV; None without an energy.

        Parameters
        ----------
        pressure
            External pressure, GPa.
        """
        if self.structure is None or self.energy is None:
            return None
        return self.energy + pressure / GPA * float(self.structure.volume)

    def __repr__(self) -> str:
        if self.structure is None or self.energy is None:
            return f"RelaxRecord({self.index}, {self.state}: {self.error})"
        forces = "" if self.fmax is None else f", forces up to {self.fmax:.3g} eV/Å"
        remark = ", extrapolates" if self.is_extrapolating else ""
        result = f"{self.state}, {self.energy:.4f} eV, {self.n_steps} steps{forces}{remark}"
        return f"RelaxRecord({self.index}, {self.structure.composition.reduced_formula}: {result})"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON object: arrays as nested lists, the structure in pymatgen's format."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _ARRAYS:
            content[name] = None if content[name] is None else content[name].tolist()
        if self.structure is not None:
            content["structure"] = structure = self.structure.as_dict()
            structure["lattice"]["pbc"] = list(self.structure.pbc)  # JSON has no tuples
            for site in structure["sites"]:
                site.pop("xyz", None)  # redundant with lattice and abc, and differs from them in the last digit
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> RelaxRecord:
        """Read the result of `to_dict`; all numbers are exact."""
        content = {field.name: content[field.name] for field in fields(cls)}
        for name in _ARRAYS:
            content[name] = None if content[name] is None else np.asarray(content[name], dtype=float)
        if content["structure"] is not None:
            content["structure"] = Structure.from_dict(content["structure"])
        return cls(**content)
