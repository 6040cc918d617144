"""What a relaxation is asked for (settings) and what it answers (records)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pymatgen.core import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray

RelaxState = Literal["converged", "max_steps", "failed"]

_METHOD = "FIRE, Frechet cell filter, atoms and cell below fmax"
"""The algorithm, as part of a settings digest: another algorithm would give other numbers."""

_ARRAYS = ("forces", "stress", "magmoms")


@dataclass(frozen=True)
class RelaxSettings:
    """
    What decides the result of a relaxation, the potential aside.

    Attributes
    ----------
    fmax
        Bound on the force on every atom and on the cell, in eV/Å; see `matris.relax.relax`.
    max_steps
        Most FIRE steps of one structure. With 0 the input geometry is only evaluated.
    relax_cell
        Whether lattice vectors change too.

    Raises
    ------
    ValueError
        If `fmax` is not positive and finite or `max_steps` is negative.
    """

    fmax: float = 0.05
    max_steps: int = 500
    relax_cell: bool = True

    def __post_init__(self) -> None:
        """Check the values, and bring numbers to one type so that 1 and 1.0 are the same settings."""
        if not (math.isfinite(self.fmax) and self.fmax > 0):
            raise ValueError(f"fmax must be a positive force in eV/Å, got {self.fmax}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative, got {self.max_steps}")
        object.__setattr__(self, "fmax", float(self.fmax))
        object.__setattr__(self, "max_steps", int(self.max_steps))
        object.__setattr__(self, "relax_cell", bool(self.relax_cell))

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as a JSON object."""
        return asdict(self)

    def digest(self) -> str:
        """
        Short hash of the settings, the same on every machine.

        Returns
        -------
        str
            12 hexadecimal digits.
        """
        content = {"method": _METHOD, **self.to_dict()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class RelaxRecord:
    """
    Result of relaxing one structure. Energy, forces, stress and magnetic moments are those of `structure`.

    Attributes
    ----------
    index
        Position of the structure in the input, from 0.
    structure_id
        `matris.structures.content_id` of the input; None if the input has none (not a crystal at all).
    state
        ``"converged"``, ``"max_steps"`` (still above `fmax` after the allowed steps) or ``"failed"``.
    structure
        Final structure: species and site order of the input, new lattice and coordinates. Site properties of the
        input, which describe its own geometry, are not carried over. None if failed, like all results below.
    energy
        Total energy, eV.
    forces
        Forces on the atoms, shape (n, 3), eV/Å.
    stress
        Stress, shape (3, 3), eV/Å³, positive under tension (ASE's sign). None also if the model gives none.
    magmoms
        Magnetic moments, shape (n,), μB. None also if the model gives none.
    extrapolation, mean_extrapolation
        How far the atoms of `structure` are from those the checkpoint was trained on, the largest and the mean; above
        1 it extrapolates, see `matris.model.domain.Domain`. None also if the model does not know.
    n_steps
        FIRE steps taken, also before a failure.
    fmax
        Largest norm of a force on an atom, eV/Å.
    smax
        Largest absolute stress component, eV/Å³. None also if the cell was fixed.
    error
        Why it failed, in one line; None if it did not.
    seconds
        Wall time from entering the batch to leaving it. Structures of one batch share the time.
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
        """Whether `structure` is unlike what the checkpoint was trained on; None if that is not known."""
        return None if self.extrapolation is None else self.extrapolation > 1

    def to_dict(self) -> dict[str, Any]:
        """Give the record as a JSON object: arrays as nested lists, the structure in pymatgen's form."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _ARRAYS:
            content[name] = None if content[name] is None else content[name].tolist()
        if self.structure is not None:
            content["structure"] = structure = self.structure.as_dict()
            structure["lattice"]["pbc"] = list(self.structure.pbc)  # a tuple there
            for site in structure["sites"]:
                site.pop("xyz", None)  # follows from lattice and abc, but not to the last digit
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> RelaxRecord:
        """Read what `to_dict` wrote, number for number."""
        content = {field.name: content[field.name] for field in fields(cls)}
        for name in _ARRAYS:
            content[name] = None if content[name] is None else np.asarray(content[name], dtype=float)
        if content["structure"] is not None:
            content["structure"] = Structure.from_dict(content["structure"])
        return cls(**content)
