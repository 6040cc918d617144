"""The potential whose answers become training labels: nequix (Koker et al., arXiv 2508.16067), in batches."""

from __future__ import annotations

import hashlib
import types
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import chemical_symbols

from matris.errors import MatrisError
from matris.files.cache import cache_directory
from matris.files.whole_file import whole_file
from recipes.embedded.pieces import claim
from recipes.embedded.product import SummedProduct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms
    from numpy.typing import NDArray

_REPOSITORY = "https://github.com/atomicarchitects/nequix/raw/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models"
_TIMEOUT = 60.0  # s

SHA256 = {
    "nequix-oam-1": "6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c",
    "nequix-oam-1-pft": "4ce693d68886512aab50c84ea2400efd68163e11155f7c7babe98e695177e809",
}
"""Teachers that can be downloaded by name, and the digests of their files. The second is tuned to phonons."""

MAX_EDGES = 12_000
"""A frame with more edges is not labelled: it would need gigabytes."""

_MIN_VOLUME = 2.0  # Å³ per atom: a smaller cell has collapsed


@dataclass(frozen=True)
class Label:
    """
    Answer of a teacher for one frame; all NaN where it has none.

    Attributes
    ----------
    energy
        Total energy, eV.
    forces
        Shape (n, 3), eV/Å.
    stress
        Shape (3, 3), eV/Å³, positive in tension.
    atom_energies
        Contributions of the atoms to the energy, shape (n,), eV.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    atom_energies: NDArray[np.float64]

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(np.isfinite(v).all() for v in (self.energy, self.forces, self.stress, self.atom_energies))


if TYPE_CHECKING:
    type Labeller = Callable[[Sequence[Atoms]], Sequence[Label]]


def locate(name_or_path: str | Path) -> tuple[Path, str]:
    """
    Find the weights of a teacher, and download them if they are named and not in the cache directory.

    Parameters
    ----------
    name_or_path
        One of the names in `SHA256`, or a ``.nqx`` file.

    Returns
    -------
    tuple
        Path of the file, and its SHA-256.

    Raises
    ------
    MatrisError
        If there is no such name or file, the download fails, or the file is another one than its name says.
    """
    name = str(name_or_path)
    path = cache_directory() / "teachers" / f"{name}.nqx" if name in SHA256 else Path(name_or_path)
    if name in SHA256:
        with claim(path, wait=True) as mine:
            if mine:
                _download(f"{_REPOSITORY}/{name}.nqx", path, SHA256[name])
    elif path.suffix != ".nqx" or not path.is_file():
        raise MatrisError(f"{name} is no teacher: name one of {', '.join(SHA256)}, or a file of weights (.nqx)")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = SHA256.get(path.stem)
    if expected not in (None, digest):
        raise MatrisError(
            f"{path} is not {path.stem}: its SHA-256 is {digest}, expected {expected}; replace it, or give a file with "
            "weights of your own another name"
        )
    return path, digest


def _download(url: str, path: Path, expected: str) -> None:
    remedy = f"download {url} by other means and give its path"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310 - https
            content = response.read()
    except OSError as error:  # URLError and TimeoutError are
        raise MatrisError(f"cannot download {path.stem}: {error}; {remedy}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != expected:
        raise MatrisError(f"the file at {url} is not {path.stem}: its SHA-256 is {digest}, expected {expected}")
    with whole_file(path) as draft:
        draft.write_bytes(content)


def _model(path: Path, digest: str) -> tuple[Any, dict[str, Any]]:
    """Return network and settings; the weights are converted from jax to torch once, into the cache directory."""
    try:
        from nequix.torch_impl.model import load_model, save_model
    except ImportError as error:
        raise MatrisError(
            f"labelling needs nequix, and {error.name} is not installed: pip install 'matris-flows[teacher]'"
        ) from error
    converted = cache_directory() / "teachers" / f"{path.stem}-{digest[:12]}.pt"
    with claim(converted, wait=True) as mine:
        if mine:
            from nequix.model import load_model as load_jax_model
            from nequix.torch_impl.utils import convert_model_jax_to_torch

            model, config = convert_model_jax_to_torch(*load_jax_model(path, False), False)
            with whole_file(converted) as draft:
                save_model(draft, model, config)
    return load_model(converted, use_kernel=False)


@dataclass(frozen=True)
class _Graph:
    species: NDArray[np.int64]
    positions: NDArray[np.float32]
    cell: NDArray[np.float32]
    senders: NDArray[np.int64]
    receivers: NDArray[np.int64]
    shifts: NDArray[np.float32]


class Teacher:
    """
    A nequix potential in batches; needs the ``teacher`` extra.

    Parameters
    ----------
    name_or_path
        As for `locate`.
    max_edges
        Graph edges in a batch. A processor core likes 1,500 to 4,000.

    Attributes
    ----------
    identity
        Name and digest of the weights.
    parameters
        Number of the weights.
    """

    def __init__(self, name_or_path: str | Path, max_edges: int = 2500) -> None:
        path, digest = locate(name_or_path)
        self.identity = f"{path.stem} {digest[:12]}"
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network, config = _model(path, digest)
        for layer in self._network.layers:
            layer.summed_product = SummedProduct(layer.tp)
            layer.forward = types.MethodType(_convolve, layer)
        self._network.to(self._device).eval().requires_grad_(False)
        self.parameters = sum(p.numel() for p in self._network.parameters())
        self._cutoff = float(config["cutoff"])
        self._species = np.full(len(chemical_symbols), -1)
        self._species[config["atomic_numbers"]] = np.arange(len(config["atomic_numbers"]))
        self._max_edges = max_edges

    def __call__(self, frames: Sequence[Atoms]) -> list[Label]:
        """
        Label frames.

        Parameters
        ----------
        frames
            Periodic frames.

        Returns
        -------
        list of Label
            In the order of the frames. Labels are NaN for a collapsed cell, coordinates that are no numbers, and more
            than `MAX_EDGES` edges.

        Raises
        ------
        MatrisError
            If the teacher does not know an element.
        """
        graphs = [self._graph(atoms) for atoms in frames]
        labels = [_no_label(len(atoms)) for atoms in frames]
        batch: list[int] = []
        edges = 0
        usable = [(len(graph.senders), i) for i, graph in enumerate(graphs) if graph is not None]
        for size, index in [*sorted(usable), (self._max_edges + 1, -1)]:  # the last one ends the last batch
            if batch and edges + size > self._max_edges:
                answers = self._evaluate([g for i in batch if (g := graphs[i]) is not None])
                for i, answer in zip(batch, answers, strict=True):
                    labels[i] = answer
                batch, edges = [], 0
            batch.append(index)
            edges += size
        return labels

    def _graph(self, atoms: Atoms) -> _Graph | None:
        from matscipy.neighbours import neighbour_list

        species, cell = self._species[atoms.numbers], atoms.cell.array
        if (species < 0).any():
            unknown = sorted(set(atoms.symbols[species < 0]))
            raise MatrisError(f"{atoms.symbols}: {self.identity} does not know {', '.join(unknown)}")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(cell).all()):
            return None
        if abs(np.linalg.det(cell)) < _MIN_VOLUME * len(atoms):
            return None
        i, j, shifts = neighbour_list("ijS", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cutoff=self._cutoff)
        if len(i) > MAX_EDGES:
            return None
        single = np.float32
        return _Graph(species, atoms.positions.astype(single), cell.astype(single), j, i, shifts.astype(single))

    def _evaluate(self, graphs: Sequence[_Graph]) -> list[Label]:
        sizes = [len(graph.species) for graph in graphs]
        starts = np.concatenate([[0], np.cumsum(sizes)])

        def joined(arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(self._device)

        ends = [
            joined([getattr(graph, name) + start for graph, start in zip(graphs, starts[:-1], strict=True)])
            for name in ("senders", "receivers")
        ]
        outputs = self._network(
            joined([graph.species for graph in graphs]),
            joined([graph.positions for graph in graphs]),
            joined([graph.shifts for graph in graphs]),
            torch.stack(ends).long(),
            joined([graph.cell[None] for graph in graphs]),
            torch.tensor(sizes, device=self._device),
            torch.tensor([len(graph.senders) for graph in graphs], device=self._device),
            joined([np.full(size, number) for number, size in enumerate(sizes)]),
        )
        atom_energies, forces, stresses = (output.detach().cpu().double().numpy() for output in outputs)
        labels = []
        for number, start in enumerate(starts[:-1]):
            atoms = slice(start, start + sizes[number])
            energies = atom_energies[atoms]
            labels.append(Label(float(energies.sum()), forces[atoms], stresses[number], energies))
        return labels


def _no_label(n: int) -> Label:
    return Label(np.nan, np.full((n, 3), np.nan), np.full((3, 3), np.nan), np.full(n, np.nan))


def _convolve(
    layer: Any,
    features: torch.Tensor,
    _species: torch.Tensor,
    harmonics: torch.Tensor,
    radial_basis: torch.Tensor,
    senders: torch.Tensor,
    receivers: torch.Tensor,
) -> torch.Tensor:
    """Do what ``NequixTorchConvolution.forward`` does, with the rearranged product."""
    weights = layer.radial_mlp(radial_basis)
    summed = layer.summed_product(layer.linear_1(features), harmonics, weights, senders, receivers)
    features = layer.linear_2(layer.sort(summed / np.sqrt(layer.avg_n_neighbors))) + layer.skip(features)
    if layer.layer_norm is not None:
        features = layer.layer_norm(features)
    return layer.gate(features)
