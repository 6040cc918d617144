"""Energies per element that explain total energies best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from matris.model.config import MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_CHUNK = 2**16  # structures looked at together
_ROUNDS = 20
_LEAST = 1e-4  # eV/atom, below which an error is as good as none


def fractions(numbers: NDArray[np.integer], offsets: NDArray[np.int64]) -> csr_array:
    """
    Compositions of structures that stand one after the other.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (n_atoms,).
    offsets
        Where each structure begins and the last one ends, shape (n + 1,).

    Returns
    -------
    csr_array
        Share of each element in the atoms of a structure, shape (n, 94).
    """
    n = len(offsets) - 1
    keys, values = [], []
    for start in range(0, n, _CHUNK):
        bounds = np.asarray(offsets[start : start + _CHUNK + 1])
        sizes = np.diff(bounds)
        owners = np.repeat(np.arange(start, start + len(sizes)), sizes)
        elements = np.asarray(numbers[bounds[0] : bounds[-1]]).astype(np.int64) - 1
        found, counts = np.unique(owners * MAX_ATOMIC_NUMBER + elements, return_counts=True)
        keys.append(found)
        values.append(counts / sizes[found // MAX_ATOMIC_NUMBER - start])
    rows, columns = np.divmod(np.concatenate([np.zeros(0, dtype=np.int64), *keys]), MAX_ATOMIC_NUMBER)
    return csr_array((np.concatenate([np.zeros(0), *values]), (rows, columns)), shape=(n, MAX_ATOMIC_NUMBER))


def least_squares(
    compositions: csr_array,
    energies: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    ridge: float = 1e-3,
    free: Collection[int] | None = None,
) -> NDArray[np.float64]:
    """
    Fit energies per atom by ridge regression on composition.

    Parameters
    ----------
    compositions
        As `fractions` gives them, shape (n, 94).
    energies
        Energies per atom (eV), shape (n,).
    weights
        Of the structures; by default all the same.
    ridge
        What is added to the squared fractions of each element.
    free
        Atomic numbers of the elements whose energy may be other than zero; by default all.

    Returns
    -------
    ndarray
        eV/atom, shape (94,); zero for elements that do not occur.
    """
    weighted = compositions if weights is None else compositions.multiply(weights[:, None]).tocsr()
    squares = (weighted.T @ compositions).toarray()
    seen = squares.diagonal() > 0
    if free is not None:
        seen &= np.isin(np.arange(1, MAX_ATOMIC_NUMBER + 1), list(free))
    found = np.zeros(MAX_ATOMIC_NUMBER)
    squares = squares[np.ix_(seen, seen)] + ridge * np.eye(int(seen.sum()))
    found[seen] = np.linalg.solve(squares, (weighted.T @ energies)[seen])
    return found


def least_absolute(compositions: csr_array, energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Fit energies per atom so that the mean absolute error is least: by least squares, reweighted by the errors.

    A wild value moves the fit no more than any other.

    Parameters
    ----------
    compositions, energies
        As for `least_squares`.

    Returns
    -------
    ndarray
        eV/atom, shape (94,); zero for elements that do not occur.
    """
    weights = np.ones(len(energies))
    for _ in range(_ROUNDS):
        found = least_squares(compositions, energies, weights, ridge=1e-9)
        weights = _LEAST / np.maximum(np.abs(energies - compositions @ found), _LEAST)
    return found
