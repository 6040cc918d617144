"""Elastic constants of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job
from pymatgen.analysis.elasticity import ElasticTensor

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker
from matris.makers.current_job import SEES_STORE
from matris.properties.elastic import STRAINS, elastic
from matris.stores.documents.properties import Averages, ElasticDocument, PropertyOutput
from matris.vacuum import vacuum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.elastic import ElasticRecord
    from matris.relaxation.records import RelaxSettings


class ElasticDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["elastic"] = "elastic"
    documents: list[ElasticDocument]


@dataclass
class BatchElasticMaker(RelaxedPropertyMaker):
    """
    Elastic tensors of many materials: the strained cells of all materials are computed together.

    A material that fails does not affect the others. See `matris.properties.elastic.elastic` for the method, and
    `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    relax_first
        False takes the cells as they are.
    strains
        Green–Lagrange strains of each mode, in pairs of both signs.
    symprec
        Tolerance for the symmetry of the relaxed cell, Å. Strained cells are never symmetrised.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchElasticMaker(strains=(-0.005, 0.005)).make([rock_salt])
    >>> job.name
    'batch elastic'
    """

    name: str = "batch elastic"
    relax_first: bool = True
    strains: tuple[float, ...] = STRAINS
    symprec: float = 1e-2

    output_schema = ElasticDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES], output_schema=ElasticDocuments)

    def start_settings(self) -> RelaxSettings:
        """Return the settings with which the materials are relaxed or, without relaxation, evaluated."""
        return super().start_settings() if self.relax_first else PropertyMaker.start_settings(self)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[ElasticRecord]:
        """Compute elastic tensors."""
        return elastic(
            structures,
            potential,
            **self.relaxation(),
            relax_first=self.relax_first,
            strains=self.strains,
            symprec=self.symprec,
        )

    def fields(self, record: ElasticRecord | None) -> dict[str, Any]:
        """Fields of a fit; none without a fit."""
        if record is None or record.fit is None or record.structure is None:
            return {}
        fit, moduli = record.fit, record.fit.moduli()
        anisotropy = moduli["universal_anisotropy"]
        standard = ElasticTensor.from_voigt(fit.tensor).convert_to_ieee(record.structure)
        return {
            "elastic_tensor": {"raw": fit.tensor.tolist(), "ieee_format": standard.voigt.tolist()},
            "bulk_modulus": Averages(**{kind: moduli[f"k_{kind}"] for kind in ("voigt", "reuss", "vrh")}),
            "shear_modulus": Averages(**{kind: moduli[f"g_{kind}"] for kind in ("voigt", "reuss", "vrh")}),
            "young_modulus": moduli["y_mod"],
            "homogeneous_poisson": moduli["homogeneous_poisson"],
            "universal_anisotropy": anisotropy if isfinite(anisotropy) else None,
            "is_mechanically_stable": None if vacuum(record.structure) else fit.stable,
            "eigenvalues": fit.eigenvalues.tolist(),
            "fit_residual": fit.residual,
            "asymmetry": fit.asymmetry,
            "nonlinearity": fit.nonlinearity,
        }
