"""The potential as an ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from matris.errors import StructureError
from matris.model.graph import Geometry
from matris.model.potential import Potential, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from ase import Atoms
    from numpy.typing import NDArray


class MatRISCalculator(Calculator):
    """
    MatRIS for ASE: energy, forces, stress, and magnetic moments where the checkpoint predicts them.

    Results are kept until the geometry changes. Molecules and slabs (no or partial periodicity) are fine; they
    have no stress.

    Parameters
    ----------
    potential
        A loaded potential, or what `matris.load` takes: a key, a path, or nothing for the embedded checkpoint.
    device, dtype
        As for `matris.load`, where a key or path is given.

    Attributes
    ----------
    extrapolation
        How far each atom of the last geometry is from those the checkpoint was trained on, shape (n,), see
        `matris.model.domain.Domain`; None where the checkpoint does not know. No result, since ASE knows no such
        property.
    """

    implemented_properties = [  # noqa: RUF012 - so declared by ASE
        "energy",
        "free_energy",
        "forces",
        "stress",
        "magmoms",
    ]

    def __init__(
        self,
        potential: Potential | str | Path | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.potential = potential if isinstance(potential, Potential) else load(potential, device=device, dtype=dtype)
        names = ["energy", "free_energy", "forces", "stress"]
        self.implemented_properties = [*names, "magmoms"] if self.potential.has_magmoms else names
        self.extrapolation: NDArray[np.float64] | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """
        Compute everything at once.

        Raises
        ------
        StructureError
            For no atoms, a NaN, or an element the checkpoint does not know.
        PropertyNotImplementedError
            If stress is asked of a structure that is not periodic in three directions.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        atoms = self.atoms
        _check(atoms, self.potential)
        if "stress" in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError("stress needs periodicity in three directions")
        graph = self.potential.graph([Geometry.of(atoms)])
        if graph.n_bonds and float(graph.vectors.norm(dim=1).min()) < 1e-6:  # noqa: PLR2004
            raise StructureError(f"{atoms.symbols}: two atoms stand at the same place")
        energies, forces, stresses, magmoms, features = self.potential.evaluate(graph)
        energy = float(energies[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": forces.double().cpu().numpy()}
        if atoms.pbc.all():
            xx, yy, zz, yz, xz, xy = (0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)
            stress = stresses[0].double().cpu().numpy()
            self.results["stress"] = np.array([stress[i] for i in (xx, yy, zz, yz, xz, xy)])
        if magmoms is not None:
            self.results["magmoms"] = magmoms.double().cpu().numpy()
        extrapolation = self.potential.extrapolation(graph, features)
        self.extrapolation = None if extrapolation is None else extrapolation.double().cpu().numpy()


def _check(atoms: Atoms, potential: Potential) -> None:
    """Refuse what would give nonsense."""
    if len(atoms) == 0:
        raise StructureError("no atoms to compute")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{atoms.symbols}: a coordinate or lattice vector is NaN or infinite")
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(potential.elements)):
        raise StructureError(f"{atoms.symbols}: {potential.card.key} does not know {', '.join(unknown)}")
    if atoms.pbc.any() and abs(np.linalg.det(atoms.cell.complete())) < 1e-6:  # noqa: PLR2004
        raise StructureError(f"{atoms.symbols}: the cell has no volume")
