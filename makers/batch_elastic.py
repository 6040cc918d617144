"""Elastic constants of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job
from pymatgen.analysis.elasticity import ElasticTensor

from matris.makers.batch import PropertyMaker
from matris.properties.elastic import STRAINS, elastic
from matris.stores.documents.properties import Averages, ElasticDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.properties.elastic import ElasticRecord
    from matris.stores.documents.candidate import Candidate


class ElasticDocuments(PropertyOutput):
    """Output of one job: a document per material, in the order given."""

    kind: Literal["elastic"] = "elastic"
    documents: list[ElasticDocument]


@dataclass
class BatchElasticMaker(PropertyMaker):
    """
    Elastic tensors of many materials: all strained cells of all of them go through the device together.

    A material that fails does not touch the others. See `matris.properties.elastic.elastic` for the method, and
    `PropertyMaker` for the other parameters.

    Parameters
    ----------
    relax_first
        False takes the cells as they are.
    strains
        Green–Lagrange strains of each mode, in pairs of both signs.
    symprec
        Tolerance for symmetry, Å; of the relaxed cell only: strained cells are left alone.
    """

    name: str = "batch elastic"
    relax_first: bool = True
    strains: tuple[float, ...] = STRAINS
    symprec: float = 1e-2

    @job(data=["structure"], output_schema=ElasticDocuments)
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> ElasticDocuments:
        """
        Compute elastic tensors.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Accepted as by every Maker, without effect.
        """
        found = self.documents(
            candidates,
            lambda structures, potential: elastic(
                structures,
                potential,
                fmax=self.fmax,
                max_steps=self.steps,
                relax_first=self.relax_first,
                strains=self.strains,
                symprec=self.symprec,
                journal_dir=Path(self.journal_dir or "."),
            ),
        )
        return ElasticDocuments(documents=[ElasticDocument(**common, **_fields(record)) for common, record in found])


def _fields(record: ElasticRecord | None) -> dict[str, Any]:
    """Fields of a fit; none where there is no fit."""
    if record is None or record.fit is None or record.structure is None:
        return {}
    fit, moduli = record.fit, record.fit.moduli()
    standard = ElasticTensor.from_voigt(fit.tensor).convert_to_ieee(record.structure)
    return {
        "elastic_tensor": {"raw": fit.tensor.tolist(), "ieee_format": standard.voigt.tolist()},
        "bulk_modulus": Averages(**{kind: moduli[f"k_{kind}"] for kind in ("voigt", "reuss", "vrh")}),
        "shear_modulus": Averages(**{kind: moduli[f"g_{kind}"] for kind in ("voigt", "reuss", "vrh")}),
        "young_modulus": moduli["y_mod"],
        "homogeneous_poisson": moduli["homogeneous_poisson"],
        "universal_anisotropy": moduli["universal_anisotropy"],
        "is_mechanically_stable": fit.stable,
        "eigenvalues": fit.eigenvalues.tolist(),
        "fit_residual": fit.residual,
        "nonlinearity": fit.nonlinearity,
    }
