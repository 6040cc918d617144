"""Energies per element, fitted to total energies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers
from scipy.sparse import csr_array

from matris.model.config import MAX_ATOMIC_NUMBER
from matris.model.network import reference_energy
from matris.training.data.frame import collate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from matris.model.network import MatRIS
    from matris.training.data.frame import Frame

_CHUNK = 2**16  # structures processed at once
_ROUNDS = 20
_LEAST = 1e-4  # eV/atom; smaller errors get the same weight


def fractions(numbers: NDArray[np.integer], offsets: NDArray[np.int64]) -> csr_array:
    """
    Compositions of structures whose atoms are stored in one array.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (n_atoms,).
    offsets
        Start of each structure, and the end of the last one, shape (n + 1,).

    Returns
    -------
    csr_array
        Fraction of each element in each structure, shape (n, 94).

    Examples
    --------
    >>> water_and_hydrogen = np.array([1, 1, 8, 1, 1])
    >>> fractions(water_and_hydrogen, np.array([0, 3, 5])).toarray()[:, [0, 7]].round(3)
    array([[0.667, 0.333],
           [1.   , 0.   ]])
    """
    n = len(offsets) - 1
    keys, values = [], []
    for start in range(0, n, _CHUNK):
        bounds = np.asarray(offsets[start : start + _CHUNK + 1])
        sizes = np.diff(bounds)
        owners = np.repeat(np.arange(start, start + len(sizes)), sizes)
        elements = np.asarray(numbers[bounds[0] : bounds[-1]]).astype(np.int64) - 1
        cells, counts = np.unique(owners * MAX_ATOMIC_NUMBER + elements, return_counts=True)
        keys.append(cells)
        values.append(counts / sizes[cells // MAX_ATOMIC_NUMBER - start])
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
        Weights of the structures, shape (n,); equal by default.
    ridge
        Regularization, added to the sum of squared fractions of each element.
    free
        Atomic numbers of the elements whose energies are fitted; the others are zero. By default all.

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
    element_energies = np.zeros(MAX_ATOMIC_NUMBER)
    squares = squares[np.ix_(seen, seen)] + ridge * np.eye(int(seen.sum()))
    element_energies[seen] = np.linalg.solve(squares, (weighted.T @ energies)[seen])
    return element_energies


def least_absolute(compositions: csr_array, energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Fit energies per atom with the least mean absolute error, by iteratively reweighted least squares.

    An outlier has no more influence than any other value.

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
        element_energies = least_squares(compositions, energies, weights, ridge=1e-9)
        weights = _LEAST / np.maximum(np.abs(energies - compositions @ element_energies), _LEAST)
    return element_energies


def regress_reference_energies(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """
    Fit energies per element to total energies by ridge regression on composition.

    Parameters
    ----------
    frames
        The training set.

    Returns
    -------
    ndarray
        eV/atom, shape (94,); zero for elements that do not occur.
    """
    numbers = [frame.geometry.numbers.astype(np.uint8) for frame in frames]
    energies = np.array([frame.energy / len(frame.geometry.numbers) for frame in frames])
    offsets = np.concatenate([[0], np.cumsum([len(z) for z in numbers])])
    return least_squares(fractions(np.concatenate(numbers), offsets), energies)


@torch.no_grad()
def refit_reference_energies(
    network: MatRIS, frames: Sequence[Frame], elements: Collection[str] | None = None, batch_size: int = 16
) -> None:
    """
    Fit the element energies to the residual energies of labelled frames by ridge regression on composition.

    Parameters
    ----------
    network
        The network, changed in place. Elements that do not occur keep their energies.
    frames
        Labelled frames.
    elements
        Symbols of the elements whose energies may change; by default all.
    batch_size
        Frames per evaluation.
    """
    numbers, left = [frame.geometry.numbers for frame in frames], list[float]()
    energies = network.reference_energies
    for start in range(0, len(frames), batch_size):
        chosen = frames[start : start + batch_size]
        graph = collate(chosen, network.config, energies.device).graph
        atomic = network(graph, graph.vectors)[0].double()
        predicted = atomic.new_zeros(graph.n_systems).index_add(0, graph.system, atomic)
        predicted += reference_energy(energies, graph)
        left += [
            (frame.energy - energy) / len(frame.forces)
            for frame, energy in zip(chosen, predicted.tolist(), strict=True)
        ]
    free = None if elements is None else [atomic_numbers[symbol] for symbol in elements]
    offsets = np.cumsum([0, *map(len, numbers)])
    shifts = least_squares(fractions(np.concatenate(numbers), offsets), np.array(left), free=free)
    energies += torch.from_numpy(shifts).to(energies)
