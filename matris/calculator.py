"""The potential as an ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from matris.errors import StructureError
from matris.model.graph import Geometry
from matris.model.potential import Potential, load
from matris.structures import check_periodicity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from ase import Atoms
    from numpy.typing import NDArray

    from matris.model.potential import DispersionName


class MatRISCalculator(Calculator):
    """
    MatRIS for ASE: energy, forces, stress, and magnetic moments if the checkpoint predicts them.

    Results are cached until the geometry changes. Molecules and slabs (no or partial periodicity) are supported, but
    have no stress.

    Parameters
    ----------
    potential
        A loaded potential, a key or path for `matris.load`, or None for the embedded checkpoint.
    device, dtype, dispersion
        As for `matris.load`; ignored if a loaded potential is given.

    Attributes
    ----------
    extrapolation
        Extrapolation of each atom of the last geometry, shape (n,), see `matris.model.domain.Domain`; None if the
        checkpoint has no domain. It is not in ``results``, because ASE defines no such property.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from matris import MatRISCalculator
    >>> atoms = bulk("MgO", "rocksalt", a=4.2)
    >>> atoms.calc = MatRISCalculator()
    >>> atoms.get_forces().shape, atoms.get_stress().shape
    ((2, 3), (6,))
    >>> bool(atoms.calc.extrapolation.max() < 1)
    True
    """

    implemented_properties = [  # noqa: RUF012 - declared like this in ASE
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
        dispersion: DispersionName | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.potential = (
            potential
            if isinstance(potential, Potential)
            else load(potential, device=device, dtype=dtype, dispersion=dispersion)
        )
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
        Compute all properties in one call.

        Raises
        ------
        StructureError
            If there are no atoms, a coordinate is NaN, two atoms coincide, the cell has no volume, or the checkpoint
            does not support an element.
        PropertyNotImplementedError
            If stress is requested and the structure is not periodic in three directions.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        atoms = self.atoms
        _check(atoms, self.potential)
        if "stress" in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                f"{atoms.symbols}: stress needs periodicity in three directions; ask for energy and forces only, or "
                "make it periodic, with enough vacuum that its images are beyond the cutoff"
            )
        graph = self.potential.graph([Geometry.of(atoms)])
        if graph.n_bonds and float(graph.vectors.norm(dim=1).min()) < 1e-6:  # noqa: PLR2004
            raise StructureError(f"{atoms.symbols}: two atoms are at the same place")
        energies, forces, stresses, magmoms, features, _ = self.potential.evaluate(graph)
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
    """Raise StructureError for atoms that cannot be computed."""
    if len(atoms) == 0:
        raise StructureError("no atoms to compute")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{atoms.symbols}: a coordinate or lattice vector is NaN or infinite")
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(potential.elements)):
        raise StructureError(f"{atoms.symbols}: {potential.card.key} does not support {', '.join(unknown)}")
    check_periodicity(atoms.cell.array, atoms.pbc, str(atoms.symbols))
