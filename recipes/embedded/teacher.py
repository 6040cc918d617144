"""The teacher potentials whose answers become training labels: SevenNet-0 and CHGNet, in batches on one core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from numpy.typing import NDArray


@dataclass
class Label:
    """What teachers answer for one frame.

    Attributes
    ----------
    energy
        Total energy, eV.
    forces
        Shape (n, 3), eV/Å.
    stress
        Shape (3, 3), eV/Å^3, positive in tension.
    magmoms
        Shape (n,), μB, or None.
    members
        The answers of each teacher, where several were asked.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    magmoms: NDArray[np.float64] | None = None
    members: tuple[Label, ...] = ()

    @property
    def disagreement(self) -> float:
        """How far two teachers are apart: 1 at what may be learnt from, in forces or stress; 0 for one teacher."""
        if len(self.members) < 2:  # noqa: PLR2004
            return 0.0
        first, second = self.members[:2]
        forces = float(np.abs(first.forces - second.forces).mean())
        stress = float(np.abs(first.stress - second.stress).max())
        allowed = _FORCE_APART + _SHARE_APART * float(np.abs(self.forces).mean())
        return max(forces / allowed, stress / (_STRESS_APART + _SHARE_APART * float(np.abs(self.stress).max())))


_FORCE_APART, _STRESS_APART, _SHARE_APART = 0.06, 0.02, 0.3  # eV/Å, eV/Å^3, and of the value itself


class Committee:
    """
    SevenNet-0 and CHGNet together: the mean of their forces and stresses, CHGNet's magnetic moments.

    Energies are means too, and therefore on no scale of their own: CHGNet's hold the corrections of the Materials
    Project. Energies of one composition differ by what the mean forces do; `members` has each teacher's own.
    Needs the ``teacher`` extra.
    """

    def __init__(self) -> None:
        self._teachers = (Teacher(), ChgnetTeacher())

    def __call__(self, frames: Sequence[Atoms]) -> list[Label]:
        """Labels of all frames, in their order."""
        return [
            Label(
                energy=(first.energy + second.energy) / 2,
                forces=(first.forces + second.forces) / 2,
                stress=(first.stress + second.stress) / 2,
                magmoms=second.magmoms,
                members=(first, second),
            )
            for first, second in zip(*(teacher(frames) for teacher in self._teachers), strict=True)
        ]


class ChgnetTeacher:
    """CHGNet 0.3.0 in batches; its energies hold MP2020 corrections. Needs the ``teacher`` extra."""

    def __init__(self, batch_size: int = 8) -> None:
        try:
            from chgnet.model import CHGNet
        except ImportError as error:
            raise MatrisError(_missing(error)) from error
        self._model = CHGNet.load(use_device="cuda" if torch.cuda.is_available() else "cpu", verbose=False)
        self._model.requires_grad_(False)
        # an atom without neighbours has a wrong energy; where the other teacher knows better, they disagree
        self._model.graph_converter.set_isolated_atom_response("ignore")
        self._batch_size = batch_size

    def __call__(self, frames: Sequence[Atoms]) -> list[Label]:
        """Energies, forces, stresses and magnetic moments of all frames, in their order."""
        from matris.units import GPA

        structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in frames]
        if not structures:
            return []
        answers = self._model.predict_structure(structures, task="efsm", batch_size=self._batch_size)
        return [
            Label(
                energy=float(answer["e"]) * len(atoms),
                forces=np.asarray(answer["f"], dtype=float),
                stress=np.asarray(answer["s"], dtype=float) / GPA,
                magmoms=np.asarray(answer["m"], dtype=float),
            )
            for atoms, answer in zip(frames, [answers] if isinstance(answers, dict) else answers, strict=True)
        ]


def _missing(error: ImportError) -> str:
    return (
        f"labelling needs the teacher potentials, and {error.name} is not installed: "
        "pip install 'matris-flows[teacher]'"
    )


class Teacher:
    """SevenNet-0 in batches; needs the ``teacher`` extra.

    Parameters
    ----------
    key
        Name of a pretrained SevenNet model without fidelities, for example ``7net-0`` (raw energies of the Materials
        Project's scale).
    max_edges
        Graph edges in a batch. Small batches stay in a core's cache.
    """

    def __init__(self, key: str = "7net-0", max_edges: int = 800) -> None:
        try:
            from sevenn.calculator import SevenNetCalculator
        except ImportError as error:
            raise MatrisError(_missing(error)) from error
        calculator = SevenNetCalculator(key, device="cuda" if torch.cuda.is_available() else "cpu")
        self._device = calculator.device
        self._cutoff = float(calculator.cutoff)
        self._model = calculator.model
        self._model.set_is_batch_data(True)
        self._model.requires_grad_(False)
        self._max_edges = max_edges
        for name, module in list(self._model.named_children()):
            if type(module).__name__ == "IrrepsConvolution":
                setattr(self._model, name, _Convolution(module).to(self._device))

    def __call__(self, frames: Sequence[Atoms]) -> list[Label]:
        """Energies, forces and stresses of all frames, in their order."""
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(a, self._cutoff)) for a in frames]
        edges = [int(graph["edge_index"].shape[1]) for graph in graphs]
        labels: dict[int, Label] = {}
        batch: list[int] = []
        for index in sorted(range(len(frames)), key=edges.__getitem__):
            if batch and sum(edges[i] for i in batch) + edges[index] > self._max_edges:
                labels.update(zip(batch, self._evaluate([graphs[i] for i in batch]), strict=True))
                batch = []
            batch.append(index)
        if batch:
            labels.update(zip(batch, self._evaluate([graphs[i] for i in batch]), strict=True))
        return [labels[i] for i in range(len(frames))]

    def _evaluate(self, graphs: Sequence[Any]) -> Iterator[Label]:
        import sevenn._keys as keys
        from torch_geometric.loader.dataloader import Collater

        batch = Collater([], follow_batch=None, exclude_keys=None)(list(graphs))
        batch.to(self._device)
        output = self._model(batch)
        energies = output[keys.PRED_TOTAL_ENERGY].detach().cpu().double().numpy().reshape(-1)
        forces = output[keys.PRED_FORCE].detach().cpu().double().numpy()
        # the model answers minus the stress, in the order xx, yy, zz, xy, yz, zx
        stresses = -output[keys.PRED_STRESS].detach().cpu().double().numpy().reshape(-1, 6)
        start = 0
        for graph, energy, (xx, yy, zz, xy, yz, zx) in zip(graphs, energies, stresses, strict=True):
            n = int(graph[keys.NUM_ATOMS])
            stress = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
            yield Label(float(energy), forces[start : start + n], stress)
            start += n


class _Convolution(torch.nn.Module):
    """The same numbers as the teacher's convolution, two to three times faster on a core.

    The Clebsch-Gordan coefficients are contracted with the spherical harmonics of an edge first (no channels there),
    and channels come last, so that every product over channels runs over contiguous memory.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        from e3nn.o3 import wigner_3j

        product = convolution.convolution
        self.weight_nn = convolution.weight_nn
        self.denominator = convolution.denominator
        self._keys = (
            convolution.key_x, convolution.key_filter, convolution.key_weight_input, convolution.key_edge_idx
        )  # fmt: skip
        irreps, harmonics, outputs = product.irreps_in1, product.irreps_in2, product.irreps_out
        slices, channels = harmonics.slices(), [irreps[i.i_in1].mul for i in product.instructions]
        ends = np.cumsum(channels).tolist()
        self._shapes = [(part.mul, part.ir.dim) for part in irreps]
        self._n_outputs = len(outputs)
        # per input: (output, its dimension, first and last weight) of each path
        self._paths: list[list[tuple[int, int, int, int]]] = []
        for index, part in enumerate(irreps):
            coefficients, paths = [], []
            for i, mul, end in zip(product.instructions, channels, ends, strict=True):
                if i.i_in1 != index:
                    continue
                out = outputs[i.i_out].ir
                path = torch.zeros(harmonics.dim, out.dim, part.ir.dim)
                symbol = wigner_3j(part.ir.l, harmonics[i.i_in2].ir.l, out.l) * i.path_weight
                path[slices[i.i_in2]] = symbol.to(path.dtype).permute(1, 2, 0)
                coefficients.append(path)
                paths.append((i.i_out, out.dim, end - mul, end))
            self.register_buffer(f"coefficients{index}", torch.cat(coefficients, 1).flatten(1))
            self._paths.append(paths)

    def forward(self, data: Any) -> Any:
        """Replace the node features by the sums of the messages that reach each node."""
        key_x, key_filter, key_weight, key_edges = self._keys
        weights, x, harmonics = self.weight_nn(data[key_weight]), data[key_x], data[key_filter]
        target, source = data[key_edges]
        nodes, edges, start = len(x), len(harmonics), 0
        sums: list[torch.Tensor] = [x] * self._n_outputs
        for index, ((mul, dim), paths) in enumerate(zip(self._shapes, self._paths, strict=True)):
            part = x[:, start : start + mul * dim].reshape(nodes, mul, dim).transpose(1, 2).contiguous()
            start += mul * dim
            matrix = (harmonics @ getattr(self, f"coefficients{index}")).view(edges, -1, dim)
            messages = torch.bmm(matrix, part.index_select(0, source)).split([path[1] for path in paths], 1)
            for message, (output, size, first, last) in zip(messages, paths, strict=True):
                total = x.new_zeros(nodes, size, mul).index_add(0, target, message * weights[:, None, first:last])
                sums[output] = total.transpose(1, 2).flatten(1)
        data[key_x] = torch.cat(sums, 1).div(self.denominator)
        return data
