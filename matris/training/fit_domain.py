"""Fit of the domain of a potential: the atomic environments that it has learnt, from labelled frames."""

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
"""Mean absolute error of a force component (eV/Å) above which a frame should be flagged."""

_FRAMES = 2500  # largest number, drawn at random
_PROTOTYPES = 8  # per element; numbers from 4 to 32 detect errors equally well
_ATOMS = 10_000  # per element, largest number for the prototypes, drawn at random
_QUANTILE = 0.95  # fraction of learnt validation frames within the reach
_PRIOR = 50  # weight, in atoms, of the common spread in the spread of an element
_SET_ASIDE = 5  # one frame in this many is set aside, if none was


@dataclass(frozen=True)
class JudgedFrame:
    """
    A frame with its evaluation by a potential.

    Attributes
    ----------
    frame
        The labelled frame.
    features
        Features of the atoms after the last block, shape (n, d).
    extrapolation
        Largest extrapolation of the atoms; None if the potential has no domain.
    force_error
        Mean absolute error of a force component, eV/Å.
    """

    frame: Frame
    features: NDArray[np.float32]
    extrapolation: float | None
    force_error: float


def judge(potential: Potential, frames: Sequence[Frame]) -> Iterator[JudgedFrame]:
    """Evaluate frames in batches as large as the potential allows."""
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
    Fit the domain of a potential, and set it in its network.

    The prototypes of an element are the k-means centres of the last features of its atoms in learnt training frames
    (`LEARNT`), or in all training frames if none with this element was learnt. Distances from the prototypes are scaled
    by the spread of the element's atoms about their mean. The reach is such that 95 % of the learnt validation frames
    have no atom beyond it.

    Parameters
    ----------
    potential
        A trained potential.
    frames
        Labelled frames; the validation frames determine the reach. Without any, one in five frames is set aside.
    seed
        Seed of the sample of frames, if there are many, and of k-means.

    Returns
    -------
    dict
        For the card: numbers of ``frames`` and ``atoms`` for the prototypes, ``frames_set_aside`` for the reach, the
        settings, and ``flagged_of_wrong``: the fraction of validation frames with a large error (`WRONG`) that are
        beyond the reach.

    Raises
    ------
    MatrisError
        If no frame was learnt, or the learnt validation frames have only elements without training frames.
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
    if not distances:
        raise MatrisError("no domain: no learnt frame that was set aside has only elements of the training frames")
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
    """Return the largest distance in each frame, in units of the reach."""
    return [
        float(domain(torch.as_tensor(j.frame.geometry.numbers, dtype=torch.long), torch.from_numpy(j.features)).max())
        for j in judged
    ]


def _atoms_of(number: int, judged: Sequence[JudgedFrame]) -> NDArray[np.float64]:
    """Collect the features of all atoms of an element, shape (n, d)."""
    features = [j.features[j.frame.geometry.numbers == number] for j in judged]
    return np.concatenate(features).astype(float) if features else np.empty((0, 0))


def _prototypes(atoms: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the k-means centres of the features of an element's atoms, shape (prototypes, d)."""
    if len(atoms) <= _PROTOTYPES:
        return atoms[np.arange(_PROTOTYPES) % len(atoms)]
    centres, _ = kmeans2(atoms, _PROTOTYPES, minit="++", seed=seed, missing="warn")
    return centres


def label_ranges(frames: Sequence[Frame]) -> dict[str, Any]:
    """
    Return the ranges of the labels, beyond which a potential was not trained.

    Parameters
    ----------
    frames
        The training set; a random sample of many frames is used.

    Returns
    -------
    dict
        ``pressure_GPa``: range of the middle 98 % of the frames with a stress; ``force_eV_per_A``: 99 % of the frames
        have a smaller largest force; ``atoms``: number of atoms of the largest cell.
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
