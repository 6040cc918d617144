"""Labelled frames of extended XYZ."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from ase.io.extxyz import XYZError, read_xyz

from matris.model.graph import Geometry
from matris.training.data.labelled import Rejected, take, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from ase import Atoms

    from matris.training.data.labelled import LabelOptions, Outcome

_UNITS = {
    "energy_unit": {"eV"},
    "forces_unit": {"eV/Å", "eV/A", "eV/Ang", "eV/angstrom"},
}
"""Keys in which frames may name their units, and what is read."""

_MATERIAL = ("material", "mp_id", "material_id", "mptrj_traj_id", "alexandria_id", "candidate_id")
"""Keys that say which frames belong together."""


def read_xyz_frames(name: str, stream: TextIO, options: LabelOptions) -> Iterator[Outcome]:
    """
    Yield the frames of extended XYZ with labels under ASE's names, or with ``REF_`` before them.

    Parameters
    ----------
    name
        Of the file.
    stream
        Its text; read once, frame by frame.
    options
        How to read stresses, and limits.
    """
    number = 0
    while line := stream.readline():
        if not line.strip():
            continue
        where = f"{name}:{number}"
        number += 1
        n_atoms = int(line) if line.strip().isdecimal() else 0
        if not n_atoms:
            detail = f"{line.strip()[:40]!r} instead of a number of atoms; the rest of the file is not read"
            yield Rejected(where, "unreadable", detail)
            return
        lines = [line, *(stream.readline() for _ in range(n_atoms + 1))]
        if not lines[-1]:
            yield Rejected(where, "truncated", f"fewer than {n_atoms} atoms")
            return
        try:
            yield from_atoms(where, next(read_xyz(StringIO("".join(lines)), index=0)), options)
        except (XYZError, ValueError, KeyError, TypeError, IndexError) as error:
            yield unreadable(where, error)


def from_atoms(where: str, atoms: Atoms, options: LabelOptions) -> Outcome:
    """
    Take ASE's atoms with labels in a calculator, in ``info`` or in ``arrays``.

    Raises
    ------
    ValueError
        If the stress has a wrong shape or an unknown unit.
    """
    labels = _labels(atoms)
    for key, known in _UNITS.items():
        if (unit := atoms.info.get(key)) is not None and unit not in known:
            return Rejected(where, f"{key} {unit!r}", f"convert it to {min(known)}")
    unit = options.stress_unit or atoms.info.get("stress_unit", "eV/Å³")
    labels["stress"] = options.stress(labels.get("stress"), unit)
    material = next((str(atoms.info[key]) for key in _MATERIAL if key in atoms.info), None)
    scale, split = atoms.info.get("energy_scale"), atoms.info.get("split")
    return take(where, Geometry.of(atoms), labels, options, material=material, scale=scale, split=split)


def _labels(atoms: Atoms) -> dict[str, Any]:
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    found = {}
    for name in ("energy", "forces", "stress", "magmoms"):
        for place in (results, atoms.info, atoms.arrays):
            if name not in found and (key := next((k for k in (name, f"REF_{name}") if k in place), None)):
                found[name] = place[key]
    return found
