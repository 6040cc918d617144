"""Phonons as pymatgen's objects, which its plotters take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine
from pymatgen.phonon.dos import CompletePhononDos, PhononDos

from matris.properties.phonons import to_structure

if TYPE_CHECKING:
    from matris.properties.phonons import Phonons


def band_structure(phonons: Phonons) -> PhononBandStructureSymmLine:
    r"""
    Make pymatgen's band structure.

    Parameters
    ----------
    phonons
        Phonons of one material.

    Returns
    -------
    PhononBandStructureSymmLine
        Frequencies (THz, imaginary ones negative) along the path, one branch for each segment. Points have the names
        that pymatgen's plotters set, such as ``\Gamma`` and ``X_1``. The primitive cell is its structure, and the
        reciprocal vectors have the factor 2π.
    """
    structure = to_structure(phonons.phonopy.primitive)
    ends: dict[str, list[float]] = {}
    names = iter([re.sub(r"\\mathrm|[${}]", "", label) for label in phonons.labels])
    name = next(names)
    for number, qpoints in enumerate(phonons.qpoints):
        if number and not phonons.connections[number - 1]:
            name = next(names)
        ends[name] = qpoints[0].tolist()
        name = next(names)
        ends[name] = qpoints[-1].tolist()
    return PhononBandStructureSymmLine(
        np.concatenate(phonons.qpoints),
        np.concatenate(phonons.frequencies).T,
        structure.lattice.reciprocal_lattice,
        has_nac=phonons.phonopy.nac_params is not None,
        labels_dict=ends,
        structure=structure,
    )


def complete_dos(phonons: Phonons) -> CompletePhononDos:
    """
    Make pymatgen's density of states, with that of each atom of the primitive cell.

    Parameters
    ----------
    phonons
        Phonons of one material.

    Returns
    -------
    CompletePhononDos
        States per THz and primitive cell; those of the atoms add up to the total.
    """
    structure = to_structure(phonons.phonopy.primitive)
    total = PhononDos(phonons.dos_frequencies, phonons.dos)
    return CompletePhononDos(structure, total, dict(zip(structure, phonons.projected_dos, strict=True)))
