"""Surface energies of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.errors import MatrisError
from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker
from matris.makers.current_job import SEES_STORE
from matris.properties.surfaces import surfaces
from matris.stores.documents.properties import PropertyOutput, SurfacesDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.surfaces import Shape, SurfacesRecord


class SurfacesDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["surfaces"] = "surfaces"
    documents: list[SurfacesDocument]


@dataclass
class BatchSurfacesMaker(RelaxedPropertyMaker):
    """
    Surface energies and Wulff shapes of many materials: the slabs of all materials are computed together.

    See `matris.properties.surfaces.surfaces` for the method, and `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    max_index
        Largest Miller index, in the conventional cell.
    min_slab, min_vacuum
        Minimum thickness of the slabs and of the vacuum between them, Å.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    >>> job = BatchSurfacesMaker(max_index=2).make([copper])
    >>> job.name
    'batch surfaces'
    """

    name: str = "batch surfaces"
    fmax: float = 0.01
    max_steps: int = 500
    max_index: int = 1
    min_slab: float = 12.0
    min_vacuum: float = 12.0

    output_schema = SurfacesDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES, "slabs"], output_schema=SurfacesDocuments)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[SurfacesRecord]:
        """Compute surface energies."""
        if self.pressure:
            raise MatrisError(f"a pressure of {self.pressure} GPa cannot act on slabs in vacuum: set it to zero")
        relaxation = self.relaxation()
        del relaxation["pressure"]
        return surfaces(
            structures,
            potential,
            **relaxation,
            max_index=self.max_index,
            min_slab=self.min_slab,
            min_vacuum=self.min_vacuum,
        )

    def fields(self, record: SurfacesRecord | None) -> dict[str, Any]:
        """Fields of the results; none without results."""
        if record is None or not record.surfaces:
            return {}
        known = [surface for surface in record.surfaces if surface.energy is not None]
        lowest = min(known, key=lambda surface: surface.energy or 0.0)
        return {
            "surfaces": [
                {
                    "name": surface.name,
                    "miller_index": surface.miller,
                    "termination": surface.termination,
                    "state": surface.state,
                    "error": surface.error,
                    "surface_energy": surface.energy,
                    "area_fraction": surface.area_fraction,
                    "area": surface.area,
                    "thickness": surface.thickness,
                    "nsites": len(surface.slab),
                    "displacement": surface.displacement,
                }
                for surface in record.surfaces
            ],
            "skipped": [{"miller_index": miller, "reason": reason} for miller, reason in record.skipped],
            "lowest_surface_energy": lowest.energy,
            "lowest_surface": lowest.name,
            "conventional_cell": record.conventional,
            "slabs": [None if each.state == "failed" else each.slab.as_dict() for each in record.surfaces],
            **_shape(record.shape),
        }


def _shape(shape: Shape | None) -> dict[str, Any]:
    """Fields of the equilibrium shape."""
    if shape is None:
        return {}
    return {
        "weighted_surface_energy": shape.weighted_energy,
        "surface_anisotropy": shape.anisotropy,
        "shape_factor": shape.shape_factor,
        "wulff_faces": [{"miller_index": miller, "corners": corners} for miller, corners in shape.faces],
    }
