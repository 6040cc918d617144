"""Labelled frames of extended XYZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.files.xyz_frames import atoms_of, split_frames
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
"""Keys in which frames may name their units, and the accepted values."""

_MATERIAL = ("material", "mp_id", "material_id", "mptrj_traj_id", "alexandria_id", "candidate_id")
"""Keys that say which frames belong together."""


def read_xyz_frames(name: str, stream: TextIO, options: LabelOptions) -> Iterator[Outcome]:
    """
    Yield the frames of extended XYZ with labels under ASE's names, or with ``REF_`` before them.

    Parameters
    ----------
    name
        Name of the file.
    stream
        Its text, read once, frame by frame.
    options
        Units and limits.
    """
    for number, (frame, problem) in enumerate(split_frames(stream)):
        location = f"{name}:{number}"
        if problem:
            yield Rejected(location, "unreadable", problem)
            continue
        try:
            yield from_atoms(location, atoms_of(frame), options)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            yield unreadable(location, error)


def from_atoms(location: str, atoms: Atoms, options: LabelOptions) -> Outcome:
    """
    Convert ASE atoms with labels in a calculator, in ``info`` or in ``arrays``.

    Raises
    ------
    ValueError
        If the stress has a wrong shape or an unknown unit.
    """
    labels = _labels(atoms)
    for key, accepted in _UNITS.items():
        if (unit := atoms.info.get(key)) is not None and unit not in accepted:
            return Rejected(location, f"{key} {unit!r}", f"convert it to {min(accepted)}")
    unit = options.stress_unit or atoms.info.get("stress_unit", "eV/Å³")
    labels["stress"] = options.stress(labels.get("stress"), unit)
    material = next((str(atoms.info[key]) for key in _MATERIAL if key in atoms.info), None)
    scale, split = atoms.info.get("energy_scale"), atoms.info.get("split")
    return take(location, Geometry.of(atoms), labels, options, material=material, scale=scale, split=split)


def _labels(atoms: Atoms) -> dict[str, Any]:
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    labels = {}
    for name in ("energy", "forces", "stress", "magmoms"):
        for holder in (results, atoms.info, atoms.arrays):
            if name not in labels and (key := next((k for k in (name, f"REF_{name}") if k in holder), None)):
                labels[name] = holder[key]
    return labels
