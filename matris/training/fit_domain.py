"""The domain of a potential: what atoms it has learnt, from one pass over labelled frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from matris.errors import MatrisError
from matris.model.domain import Domain
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from matris.model.potential import Potential
    from matris.training.data.frame import Frame
    from matris.training.trainer import Joined

logger = logging.getLogger(__name__)

LEARNT = 0.2
"""Mean absolute error of a force component (eV/Å) up to which a frame counts as learnt."""

WRONG = 0.3
"""Mean absolute error of a force component (eV/Å) from which on a frame is one to be warned of."""

_FRAMES = 2500  # at most, drawn at random
_PROTOTYPES = 8  # of an element: between 4 and 32, errors are told apart equally well
_ATOMS = 10_000  # of an element, at most, drawn at random for the prototypes
_QUANTILE = 0.95  # of learnt frames set aside that are within the reach
_PRIOR = 50  # atoms that all elements together weigh in the spread of one
_SET_ASIDE = 5  # one frame in so many, where none was


@dataclass(frozen=True)
class JudgedFrame:
    """
    A frame as a potential sees it.

    Attributes
    ----------
    frame
        The labelled frame.
    features
        Of its atoms after the last block, shape (n, d).
    extrapolation
        The largest of its atoms; None if the potential has no domain.
    force_error
        Mean absolute error of a force component, eV/Å.
    """

    frame: Frame
    features: NDArray[np.float32]
    extrapolation: float | None
    force_error: float


def judge(potential: Potential, frames: Sequence[Frame]) -> Iterator[JudgedFrame]:
    """Evaluate frames, as many together as the potential takes."""
    batch: list[Frame] = []
    size = 0.0
    for frame in frames:
        added = potential.bytes_of(frame.geometry)
        if batch and size + added > potential.batch_bytes:
            yield from _judged(potential, batch)
            batch, size = [], 0.0
        batch.append(frame)
        size += added
    if batch:
        yield from _judged(potential, batch)


def _judged(potential: Potential, frames: Sequence[Frame]) -> Iterator[JudgedFrame]:
    graph = potential.graph([f.geometry for f in frames])
    evaluation = potential.evaluate(graph)
    sizes = [len(f.forces) for f in frames]
    extrapolation = potential.extrapolation(graph, evaluation.features)
    far = [None] * len(frames) if extrapolation is None else [float(x.max()) for x in extrapolation.split(sizes)]
    forces = evaluation.forces.cpu().split(sizes)
    features = evaluation.features.float().cpu().split(sizes)
    for frame, of_atoms, largest, force in zip(frames, features, far, forces, strict=True):
        yield JudgedFrame(frame, of_atoms.numpy(), largest, float(np.abs(force.numpy() - frame.forces).mean()))


def fit_domain(potential: Potential, frames: Sequence[Frame] | Joined, *, seed: int = 0) -> dict[str, Any]:
    """
    Find the domain of a potential, and give it to its network.

    The prototypes of an element are the centres (k-means) of the last features of its atoms in training frames that the
    potential has learnt (`LEARNT`); elements of which no frame was learnt take all theirs. Distances from them are
    compared with the spread of the element's atoms about their mean, and the reach is set so that 95 % of the learnt
    frames set aside have no atom beyond it.

    Parameters
    ----------
    potential
        A trained potential.
    frames
        Labelled frames; those for validation set the reach. Where none is, one in five of the others does.
    seed
        Of the frames drawn, if there are many, and of k-means.

    Returns
    -------
    dict
        For the card: ``frames`` and ``atoms`` that gave prototypes, ``frames_set_aside`` that gave the reach, the
        settings, and ``flagged_of_wrong``: the share beyond the reach of frames set aside of a large error (`WRONG`).

    Raises
    ------
    MatrisError
        If nothing was learnt.
    """
    random = np.random.default_rng(seed)
    chosen = [frames[i] for i in sorted(random.permutation(len(frames))[:_FRAMES])]
    if not any(f.validation for f in chosen):
        training, aside = [f for i, f in enumerate(chosen) if i % _SET_ASIDE], chosen[::_SET_ASIDE]
    else:
        training, aside = [f for f in chosen if not f.validation], [f for f in chosen if f.validation]
    seen = list(judge(potential, training))
    learnt = [j for j in seen if j.force_error < LEARNT]
    judged = list(judge(potential, aside))
    within = [j for j in judged if j.force_error < LEARNT]
    if not learnt or not within:
        raise MatrisError(
            f"no domain: of {len(seen)} training frames {len(learnt)} were learnt, of {len(judged)} set aside "
            f"{len(within)} (force errors below {LEARNT} eV/Å); train longer"
        )
    numbers = np.unique(np.concatenate([j.frame.geometry.numbers for j in seen]))
    domain = Domain(numbers.tolist(), _PROTOTYPES, potential.config.node_feat_dim)
    spreads, counts = np.zeros(len(numbers)), np.zeros(len(numbers))
    for row, number in enumerate(numbers):
        atoms = _atoms_of(number, learnt)
        if not len(atoms):
            atoms = _atoms_of(number, seen)
        counts[row], spreads[row] = len(atoms), float(atoms.var(axis=0).sum())
        domain.prototypes[row] = torch.from_numpy(_prototypes(random.permutation(atoms)[:_ATOMS], seed))
    common = float(np.average(spreads, weights=counts))
    domain.reach.copy_(torch.from_numpy(np.sqrt((counts * spreads + _PRIOR * common) / (counts + _PRIOR))))
    distances = [far for far in _farthest(domain, within) if np.isfinite(far)]
    domain.reach *= float(np.quantile(distances, _QUANTILE))
    wrong = [far > 1 for far in _farthest(domain, [j for j in judged if j.force_error > WRONG])]
    potential.network.domain = domain.to(device=potential.device, dtype=potential.dtype)
    logger.info("domain: %d elements, %d of %d frames were learnt", len(numbers), len(learnt), len(seen))
    return {
        "frames": len(learnt),
        "atoms": int(counts.sum()),
        "frames_set_aside": len(within),
        "learnt_force_error": LEARNT,
        "quantile": _QUANTILE,
        "wrong_force_error": WRONG,
        "flagged_of_wrong": round(float(np.mean(wrong)), 3) if wrong else None,
        "prototypes": _PROTOTYPES,
    }


def _farthest(domain: Domain, judged: Sequence[JudgedFrame]) -> list[float]:
    """Give the largest distance in each frame, in units of the reach."""
    return [
        float(domain(torch.as_tensor(j.frame.geometry.numbers, dtype=torch.long), torch.from_numpy(j.features)).max())
        for j in judged
    ]


def _atoms_of(number: int, judged: Sequence[JudgedFrame]) -> NDArray[np.float64]:
    """Features of all atoms of an element, shape (n, d)."""
    features = [j.features[j.frame.geometry.numbers == number] for j in judged]
    return np.concatenate(features).astype(float) if features else np.empty((0, 0))


def _prototypes(atoms: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Centres of the features of an element's atoms, shape (prototypes, d)."""
    if len(atoms) <= _PROTOTYPES:
        return atoms[np.arange(_PROTOTYPES) % len(atoms)]
    centres, _ = kmeans2(atoms, _PROTOTYPES, minit="++", seed=seed, missing="warn")
    return centres


def label_ranges(frames: Sequence[Frame]) -> dict[str, Any]:
    """
    Say what labels were trained on: beyond them, nothing is known.

    Parameters
    ----------
    frames
        The training set; of many, some are drawn at random.

    Returns
    -------
    dict
        ``pressure_GPa``: the middle 98 % of the frames that have a stress; ``force_eV_per_A``: the largest on an atom
        that 99 % of the frames stay below; ``atoms``: the largest cell.
    """
    random = np.random.default_rng(0)
    sample = [frames[i] for i in sorted(random.permutation(len(frames))[:_FRAMES])]
    pressures = [-GPA * float(np.trace(f.stress)) / 3 for f in sample if f.stress is not None]
    forces = [float(np.linalg.norm(f.forces, axis=1).max()) for f in sample]
    ranges: dict[str, Any] = {
        "force_eV_per_A": round(float(np.quantile(forces, 0.99)), 2),
        "atoms": max(len(f.forces) for f in sample),
    }
    if pressures:
        ranges["pressure_GPa"] = [round(float(p), 1) for p in np.quantile(pressures, [0.01, 0.99])]
    return ranges
