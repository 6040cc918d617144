"""The tensor product of equivariant networks, summed over edges, in an order that is fast on a processor core."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class SummedProduct(torch.nn.Module):
    """
    Sum of a tensor product of e3nn over the edges that reach a node, two to three times faster on a core.

    Clebsch-Gordan coefficients and path weights are contracted with the spherical harmonics of an edge first, which
    have no channels. Channels come last, so that every product over channels runs over contiguous memory.

    Parameters
    ----------
    product
        An ``e3nn.o3.TensorProduct`` with the instructions "uvu", external weights, and harmonics of multiplicity one.
    """

    def __init__(self, product: Any) -> None:
        super().__init__()
        from e3nn.o3 import wigner_3j

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
                if i.connection_mode != "uvu" or not i.has_weight or harmonics[i.i_in2].mul != 1:
                    raise ValueError(f"a path that cannot be rearranged: {i}")
                out = outputs[i.i_out].ir
                path = torch.zeros(harmonics.dim, out.dim, part.ir.dim)
                symbol = wigner_3j(part.ir.l, harmonics[i.i_in2].ir.l, out.l) * i.path_weight
                path[slices[i.i_in2]] = symbol.to(path.dtype).permute(1, 2, 0)
                coefficients.append(path)
                paths.append((i.i_out, out.dim, end - mul, end))
            self.register_buffer(f"coefficients{index}", torch.cat(coefficients, 1).flatten(1), persistent=False)
            self._paths.append(paths)
        if sorted(path[0] for paths in self._paths for path in paths) != list(range(self._n_outputs)):
            raise ValueError("a product in which an output has several paths, or none, cannot be rearranged")

    def forward(
        self,
        x: torch.Tensor,
        harmonics: torch.Tensor,
        weights: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
    ) -> torch.Tensor:
        """
        Compute the sums.

        Parameters
        ----------
        x
            Features of the nodes, shape (nodes, channels of the first input).
        harmonics, weights
            Spherical harmonics and path weights of the edges, shapes (edges, …).
        senders, receivers
            Nodes of the edges, shape (edges,).

        Returns
        -------
        Tensor
            Shape (nodes, channels of the output).
        """
        nodes, edges, start = len(x), len(harmonics), 0
        sums: list[torch.Tensor] = [x] * self._n_outputs
        for index, ((mul, dim), paths) in enumerate(zip(self._shapes, self._paths, strict=True)):
            part = x[:, start : start + mul * dim].reshape(nodes, mul, dim).transpose(1, 2).contiguous()
            start += mul * dim
            coefficients = getattr(self, f"coefficients{index}")
            matrix = (harmonics @ coefficients).view(edges, coefficients.shape[1] // dim, dim)
            source = part.index_select(0, senders)
            products = torch.bmm(matrix, source) if dim > 1 else matrix * source
            for message, (output, size, first, last) in zip(
                products.split([path[1] for path in paths], 1), paths, strict=True
            ):
                total = x.new_zeros(nodes, size, mul).index_add(0, receivers, message * weights[:, None, first:last])
                sums[output] = total.transpose(1, 2).flatten(1)
        return torch.cat(sums, 1)
