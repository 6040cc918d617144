"""
DFT-D3 dispersion with Becke–Johnson damping, for many periodic structures at once.

S. Grimme, J. Antony, S. Ehrlich and H. Krieg, J. Chem. Phys. 132, 154104 (2010); S. Grimme, S. Ehrlich and L. Goerigk,
J. Comput. Chem. 32, 1456 (2011). Two-body terms, with the cutoffs of simple-dftd3. The package tad-dftd3 has the
reference coefficients, radii and parameters.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from matris.errors import CheckpointError
from matris.extras import require
from matris.model.graph import Batch, bonds_one_by_one, bonds_together
from matris.model.neighbors import volumes
from matris.units import DISPERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.model.checkpoints import Card

HARTREE, BOHR = 27.211386245988, 0.529177210903
"""In eV and Å, CODATA 2018."""

CUTOFF, COORDINATION_CUTOFF = 60.0 * BOHR, 40.0 * BOHR
"""Largest distances (Å) of dispersion and of coordination numbers: the counting function has a tail of 1e-7."""

_STEEPNESS, _WIDTH = 16.0, 4.0  # k1 and k3 of D3: of the counting function and of the interpolation
_FUNCTIONALS = {"mp": "pbe", "omat24": "pbe", "matpes-pbe": "pbe", "matpes-r2scan": "r2scan"}
_MOST_PAIRS = 4e6  # pairs of atoms computed together
_DENSITY = 0.2  # atoms per Å³, a high one


class Damping(NamedTuple):
    """Parameters of the damping for a functional: dimensionless, `a2` in Bohr."""

    a1: float
    a2: float
    s6: float
    s8: float


@dataclass(frozen=True)
class Tables:
    """
    Reference data by atomic number, in atomic units.

    Attributes
    ----------
    coordination
        Coordination numbers of the reference molecules, shape (Z, R); negative where there is none.
    c6
        Coefficients of pairs of reference molecules, shape (Z, Z, R, R).
    radii
        Covalent radii, scaled by 4/3, shape (Z,).
    ratios
        Square roots of the ratios of ⟨r⁴⟩ and ⟨r²⟩, from which C8 follows, shape (Z,).
    """

    coordination: torch.Tensor
    c6: torch.Tensor
    radii: torch.Tensor
    ratios: torch.Tensor

    @property
    def sha256(self) -> str:
        """Digest of the numbers."""
        digest = hashlib.sha256()
        for tensor in (self.coordination, self.c6, self.radii, self.ratios):
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Dispersion(NamedTuple):
    """Energies (eV) of structures (S,) and of atoms (N,), forces (eV/Å), (N, 3), and stresses (eV/Å³), (S, 3, 3)."""

    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor
    atom_energies: torch.Tensor


def functional_of(card: Card) -> str:
    """
    Name the functional that a checkpoint was trained on.

    Parameters
    ----------
    card
        Card of the checkpoint: ``functional`` in its details, or a known energy scale.

    Raises
    ------
    CheckpointError
        If neither tells.

    Examples
    --------
    >>> from matris.model.checkpoints import Card
    >>> functional_of(Card("mine", energy_scale="matpes-r2scan"))
    'r2scan'
    """
    functional = card.details.get("functional") or _FUNCTIONALS.get(card.energy_scale)
    if not functional:
        raise CheckpointError(
            f"the functional of {card.key} is not known, and D3 depends on it: its energy scale is "
            f"{card.energy_scale!r}, and its card has no 'functional'"
        )
    return str(functional).lower()


def dispersed_card(card: Card) -> Card:
    """
    Describe a checkpoint with dispersion: another key, energy scale and digest.

    Raises
    ------
    CheckpointError
        If the functional is not known, or tad-dftd3 is not installed.
    """
    functional = functional_of(card)
    content = [card.sha256, "d3(bj)", *map(str, damping(functional)), str(CUTOFF), str(COORDINATION_CUTOFF)]
    digest = hashlib.sha256("\n".join([*content, _digest_of_tables()]).encode()).hexdigest()
    return replace(
        card,
        key=f"{card.key}+d3bj",
        energy_scale=f"{card.energy_scale}{DISPERSION}",
        sha256=digest,
        description=f"{card.description} With D3(BJ) dispersion for {functional}.".strip(),
        details=card.details | {"dispersion": f"D3(BJ), {functional}", "without_dispersion": card.sha256},
    )


@cache
def damping(functional: str) -> Damping:
    """
    Look up the parameters of D3(BJ) for a functional.

    Raises
    ------
    CheckpointError
        If there are none, or tad-dftd3 is not installed.
    """
    text = resources.files(_package()).joinpath("param/parameters.toml").read_text()
    found = tomllib.loads(text)["parameter"].get(functional, {}).get("d3", {}).get("bj")
    if found is None:
        raise CheckpointError(f"there are no parameters of D3(BJ) for the functional {functional!r}")
    return Damping(found["a1"], found["a2"], found.get("s6", 1.0), found["s8"])


@cache
def tables() -> Tables:
    """
    Read the reference data of tad-dftd3.

    Raises
    ------
    CheckpointError
        If tad-dftd3 is not installed.
    """
    _package()
    from tad_dftd3.data import R4R2
    from tad_dftd3.reference import Reference
    from tad_mctc.data.radii import COV_D3

    with torch.inference_mode(False), torch.device("cpu"):
        reference = Reference(dtype=torch.float64)
        radii, ratios = COV_D3(dtype=torch.float64), R4R2(dtype=torch.float64)
    size = len(reference.cn)
    return Tables(reference.cn, reference.c6, radii[:size].clone(), ratios[:size].clone())


@cache
def _digest_of_tables() -> str:
    return tables().sha256


def _package() -> str:
    require("tad_dftd3", "D3 dispersion needs the package tad-dftd3", "dispersion", CheckpointError)
    return "tad_dftd3"


def dispersion(batch: Batch, functional: str) -> Dispersion:
    """
    Compute the D3(BJ) dispersion of a batch, in float64 on its device.

    Parameters
    ----------
    batch
        The structures.
    functional
        Functional whose parameters to use, such as ``"pbe"``.

    Returns
    -------
    Dispersion

    Raises
    ------
    CheckpointError
        If there are no parameters for the functional, or tad-dftd3 is not installed.
    """
    parts = [_together(part, damping(functional)) for part in _parts(batch)]
    return Dispersion(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _parts(batch: Batch) -> Iterator[Batch]:
    """Divide a batch into parts of a bounded number of pairs."""
    counts = batch.n_atoms.tolist()
    densities = (batch.n_atoms / volumes(batch.cells).abs()).clamp(max=_DENSITY).tolist()
    sphere = 4 / 3 * torch.pi * CUTOFF**3
    first = [0]
    pairs = 0.0
    for number, (count, density) in enumerate(zip(counts, densities, strict=True)):
        added = count * density * sphere / 2
        if pairs and pairs + added > _MOST_PAIRS:
            first.append(number)
            pairs = 0.0
        pairs += added
    ends = torch.cumsum(batch.n_atoms, 0).tolist()
    for begin, end in pairwise([*first, len(counts)]):
        atoms, systems = slice(ends[begin - 1] if begin else 0, ends[end - 1]), slice(begin, end)
        yield Batch(
            batch.numbers[atoms],
            batch.positions[atoms],
            batch.cells[systems],
            batch.pbc[systems],
            batch.n_atoms[systems],
        )


def _together(batch: Batch, parameters: Damping) -> Dispersion:
    """Compute structures all together."""
    on_host = batch.positions.device.type == "cpu"
    found = (bonds_one_by_one if on_host else bonds_together)(batch, CUTOFF)
    i, j = found.centers[found.are_near], found.neighbors[found.are_near]
    system, n_atoms = batch.system, len(batch.numbers)
    with torch.enable_grad():
        vectors = (found.vectors[found.are_near] / BOHR).requires_grad_()
        energies = _pair_energies(batch, parameters, i, j, vectors)
        (slopes,) = torch.autograd.grad(energies.sum(), vectors)
    energies = HARTREE * energies.detach()
    slopes = HARTREE / BOHR * slopes
    atom_energies = energies.new_zeros(n_atoms).index_add(0, i, energies / 2).index_add(0, j, energies / 2)
    forces = slopes.new_zeros(n_atoms, 3).index_add(0, i, -slopes).index_add(0, j, slopes)
    virials = BOHR * vectors.detach()[:, :, None] * slopes[:, None, :]
    stresses = virials.new_zeros(len(batch.n_atoms), 3, 3).index_add(0, system[i], virials)
    stresses = (stresses + stresses.mT) / 2 / volumes(batch.cells).abs()[:, None, None]
    total = energies.new_zeros(len(batch.n_atoms)).index_add(0, system, atom_energies)
    return Dispersion(total, forces, stresses, atom_energies)


def _pair_energies(
    batch: Batch, parameters: Damping, i: torch.Tensor, j: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """Energies of pairs (Hartree), from their vectors (Bohr)."""
    data = _on(batch.positions.device)
    numbers, distances = batch.numbers, torch.linalg.vector_norm(vectors, dim=1)
    near = distances <= COORDINATION_CUTOFF / BOHR
    a, b, r = i[near], j[near], distances[near]
    counted = torch.sigmoid(_STEEPNESS * ((data.radii[numbers[a]] + data.radii[numbers[b]]) / r - 1))
    coordination = counted.new_zeros(len(numbers)).index_add(0, a, counted).index_add(0, b, counted)

    # weights of the reference molecules of each atom, then C6 of each pair of atoms, whatever their images
    known = data.coordination[numbers]
    closeness = -_WIDTH * (coordination[:, None] - known) ** 2
    weights = torch.softmax(torch.where(known < 0, -torch.inf, closeness), dim=1)
    sizes = batch.n_atoms
    begin = torch.cumsum(sizes, 0) - sizes
    system = batch.system
    pairs_before = (torch.cumsum(sizes**2, 0) - sizes**2)[system]
    local = torch.arange(len(numbers), device=numbers.device) - begin[system]
    size = sizes[system]
    first = torch.repeat_interleave(torch.arange(len(numbers), device=numbers.device), size)
    second = (
        begin[system[first]] + torch.arange(len(first), device=numbers.device) - (pairs_before + local * size)[first]
    )
    c6 = torch.einsum("px,pxy,py->p", weights[first], data.c6[numbers[first], numbers[second]], weights[second])
    c6 = c6[pairs_before[i] + local[i] * size[i] + local[j]]

    ratio = 3 * data.ratios[numbers[i]] * data.ratios[numbers[j]]  # C8 / C6
    radius = parameters.a1 * ratio.sqrt() + parameters.a2
    return -c6 * (parameters.s6 / (distances**6 + radius**6) + parameters.s8 * ratio / (distances**8 + radius**8))


@cache
def _on(device: torch.device) -> Tables:
    """Copy the reference data to a device."""
    data = tables()
    with torch.inference_mode(False):
        return Tables(*(t.to(device) for t in (data.coordination, data.c6, data.radii, data.ratios)))
