"""Equations of state of many materials in one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker
from matris.makers.current_job import SEES_STORE
from matris.properties.eos import EQUATIONS, VOLUMES, eos
from matris.stores.documents.properties import EosDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.eos import EosRecord


class EosDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["eos"] = "eos"
    documents: list[EosDocument]


@dataclass
class BatchEosMaker(RelaxedPropertyMaker):
    """
    Equations of state of many materials: the scaled cells of all materials are computed together.

    A material that fails does not affect the others. See `matris.properties.eos.eos` for the method, and
    `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    volumes
        Volumes relative to that of the relaxed cell.
    equations
        Equations of state to fit, of `matris.properties.eos.EQUATIONS`.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchEosMaker(equations=("birch_murnaghan",)).make([rock_salt])
    >>> job.name
    'batch EOS'
    """

    name: str = "batch EOS"
    fmax: float = 1e-3
    volumes: tuple[float, ...] = VOLUMES
    equations: tuple[str, ...] = EQUATIONS

    output_schema = EosDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES], output_schema=EosDocuments)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[EosRecord]:
        """Compute equations of state."""
        return eos(structures, potential, **self.relaxation(), volumes=self.volumes, equations=self.equations)

    def fields(self, record: EosRecord | None) -> dict[str, Any]:
        """Energies and fits."""
        if record is None:
            return {}
        fits = [asdict(fit) for fit in record.fits]
        return {
            "volumes": list(record.volumes),
            "energies": list(record.energies),
            "pressures": None if record.pressures is None else list(record.pressures),
            "fits": fits,
        }
