"""SevenNet-0 in batches, with an equivalent convolution that is faster on one core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recipes.embedded.product import SummedProduct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

MAX_EDGES = 800  # graph edges in a batch: small batches stay in a core's cache


class SevenNet:
    """
    SevenNet-0 of sevenn 0.13, on the CPU.

    Parameters
    ----------
    calculator
        A ``SevenNetCalculator``, whose convolutions are replaced.
    """

    def __init__(self, calculator: Any) -> None:
        self._cutoff = float(calculator.cutoff)
        self._model = calculator.model
        self._model.set_is_batch_data(True)
        self._model.requires_grad_(False)
        for name, module in list(self._model.named_children()):
            if type(module).__name__ == "IrrepsConvolution":
                setattr(self._model, name, _Convolution(module))

    def __call__(self, frames: Sequence[Atoms]) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """Return energy (eV), forces (n, 3) (eV/Å) and stress (3, 3) (eV/Å³) of each frame."""
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(a, self._cutoff)) for a in frames]
        edges = [int(graph["edge_index"].shape[1]) for graph in graphs]
        answers: dict[int, tuple[float, np.ndarray, np.ndarray]] = {}
        batch: list[int] = []
        for index in sorted(range(len(frames)), key=edges.__getitem__):
            if batch and sum(edges[i] for i in batch) + edges[index] > MAX_EDGES:
                answers.update(zip(batch, self._evaluate([graphs[i] for i in batch]), strict=True))
                batch = []
            batch.append(index)
        if batch:
            answers.update(zip(batch, self._evaluate([graphs[i] for i in batch]), strict=True))
        return [answers[i] for i in range(len(frames))]

    def _evaluate(self, graphs: Sequence[Any]) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        import sevenn._keys as keys
        from torch_geometric.loader.dataloader import Collater

        output = self._model(Collater([], follow_batch=None, exclude_keys=None)(list(graphs)))
        energies = output[keys.PRED_TOTAL_ENERGY].detach().double().numpy().reshape(-1)
        forces = output[keys.PRED_FORCE].detach().double().numpy()
        # the model answers minus the stress, in the order xx, yy, zz, xy, yz, zx
        stresses = -output[keys.PRED_STRESS].detach().double().numpy().reshape(-1, 6)
        start = 0
        for graph, energy, (xx, yy, zz, xy, yz, zx) in zip(graphs, energies, stresses, strict=True):
            n = int(graph[keys.NUM_ATOMS])
            yield float(energy), forces[start : start + n], np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
            start += n


class _Convolution(torch.nn.Module):
    """SevenNet's convolution with the rearranged product."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.weight_nn = convolution.weight_nn
        self.denominator = convolution.denominator
        self.product = SummedProduct(convolution.convolution)
        self._keys = (
            convolution.key_x, convolution.key_filter, convolution.key_weight_input, convolution.key_edge_idx
        )  # fmt: skip

    def forward(self, data: Any) -> Any:
        """Replace the node features by the sums of the messages that reach each node."""
        key_x, key_filter, key_weight, key_edges = self._keys
        receivers, senders = data[key_edges]
        weights = self.weight_nn(data[key_weight])
        data[key_x] = self.product(data[key_x], data[key_filter], weights, senders, receivers).div(self.denominator)
        return data
