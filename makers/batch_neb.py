"""Migration barriers of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker
from matris.makers.current_job import SEES_STORE
from matris.properties.barriers import migrations
from matris.stores.documents.properties import NebDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.barriers import BarrierRecord, MigrationRecord
    from matris.relaxation.records import RelaxSettings


class NebDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["neb"] = "neb"
    documents: list[NebDocument]


@dataclass
class BatchNebMaker(RelaxedPropertyMaker):
    """
    Migration barriers of many materials: the images of all paths of all materials are computed together.

    See `matris.properties.barriers.migrations` for the method, and `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a crystal, an end and a band.
    vacancy
        Symbol of the element that hops to neighboring vacancies; the candidates are crystals without vacancies.
    end
        Instead: fractional coordinates of the atoms at the end of the path, of which the candidates are the start.
    min_length
        Minimum length of the shortest vector of the supercells of hops, Å.
    n_images
        Number of images between the ends.
    spring
        Spring constant between images, eV/Å².

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    >>> job = BatchNebMaker(vacancy="Cu").make([copper])
    >>> job.name
    'batch NEB'
    """

    name: str = "batch NEB"
    fmax: float = 0.05
    max_steps: int = 500
    vacancy: str | None = None
    end: list[list[float]] | None = None
    min_length: float = 10.0
    n_images: int = 5
    spring: float = 0.1

    output_schema = NebDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES, "images"], output_schema=NebDocuments)

    def start_settings(self) -> RelaxSettings:
        """Return the settings with which the materials are relaxed."""
        return replace(super().start_settings(), relax_cell=self.end is None)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[MigrationRecord]:
        """Compute barriers."""
        return migrations(
            structures,
            potential,
            **self.relaxation(),
            vacancy=self.vacancy,
            end=self.end,
            min_length=self.min_length,
            n_images=self.n_images,
            spring=self.spring,
        )

    def fields(self, record: MigrationRecord | None) -> dict[str, Any]:
        """Fields of the results; none without results."""
        if record is None or not record.paths:
            return {}
        return {
            "paths": [_path(name, path) for name, path in zip(record.names, record.paths, strict=True)],
            "lowest_barrier": record.lowest,
            "images": [
                None if path.barrier is None else [image.as_dict() for image in path.barrier.images]
                for path in record.paths
            ],
        }


def _path(name: str, record: BarrierRecord) -> dict[str, Any]:
    """Describe one path."""
    common = {"name": name, "state": record.state, "error": record.error, "warnings": list(record.warnings)}
    if record.barrier is None:
        return common
    barrier = record.barrier
    return common | {
        "forward": barrier.forward,
        "backward": barrier.backward,
        "energies": barrier.energies.tolist(),
        "distances": barrier.distances.tolist(),
        "fmax": barrier.fmax,
        "n_steps": barrier.n_steps,
    }
