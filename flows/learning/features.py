"""A vector of features for each structure; the distance of two vectors measures how different the structures are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from matris.model.graph import Geometry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.model.potential import Potential


def structure_features(potential: Potential, structures: Iterable[Structure]) -> NDArray[np.float64]:
    """
    Average the features of the atoms after the last block.

    Parameters
    ----------
    potential
        The potential.
    structures
        Structures that it can compute.

    Returns
    -------
    ndarray
        Mean and standard deviation over the atoms of each structure, shape (n, 2 d).

    Examples
    --------
    >>> import matris
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> structure_features(matris.load(device="cpu"), [salt, salt]).shape
    (2, 256)
    """
    batch: list[Geometry] = []
    rows: list[NDArray[np.float64]] = []
    size = 0.0
    for geometry in map(Geometry.of, structures):
        added = potential.bytes_of(geometry)
        if batch and size + added > potential.batch_bytes:
            rows += _of_batch(potential, batch)
            batch, size = [], 0.0
        batch.append(geometry)
        size += added
    if batch:
        rows += _of_batch(potential, batch)
    return np.array(rows).reshape(len(rows), -1)


def _of_batch(potential: Potential, batch: list[Geometry]) -> list[NDArray[np.float64]]:
    features = potential.evaluate(potential.graph(batch)).features.double().cpu()
    parts = features.split([len(geometry.numbers) for geometry in batch])
    return [np.concatenate([part.mean(0).numpy(), part.std(0, correction=0).numpy()]) for part in parts]
