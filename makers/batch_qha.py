"""Quasi-harmonic thermodynamics of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker, temperatures, unusual_masses
from matris.makers.current_job import SEES_STORE
from matris.properties.phonons import JOULE_PER_MOLE, PhononSettings
from matris.properties.qha import VOLUMES, quasi_harmonic
from matris.stores.documents.properties import PropertyOutput, QhaDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.qha import QhaRecord

_ROOM_TEMPERATURE = 300.0  # K


class QhaDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["qha"] = "qha"
    documents: list[QhaDocument]


@dataclass
class BatchQhaMaker(RelaxedPropertyMaker):
    """
    Quasi-harmonic thermodynamics of many materials: the supercells of all materials are computed together.

    Results are volume, thermal expansion, free energies, bulk modulus, heat capacity and Grüneisen parameters against
    temperature. A material that fails does not affect the others. See `matris.properties.qha.quasi_harmonic` for the
    method, and `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    volumes
        Volumes relative to that of the relaxed cell, at least five, ascending.
    min_length
        Minimum distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å.
    symprec
        Tolerance for symmetry, Å.
    t_max, t_step
        Highest temperature and step of the temperatures from zero, K.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchQhaMaker(t_max=600).make([rock_salt])
    >>> job.name
    'batch QHA'
    """

    name: str = "batch QHA"
    volumes: tuple[float, ...] = VOLUMES
    min_length: float = PhononSettings.min_length
    displacement: float = PhononSettings.displacement
    symprec: float = PhononSettings.symprec
    t_max: float = 1000.0
    t_step: float = 10.0

    output_schema = QhaDocuments
    make = job(
        PropertyMaker.make,
        config=SEES_STORE,
        data=[*STRUCTURES, "helmholtz_volume", "gruneisen_modes"],
        output_schema=QhaDocuments,
    )

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[QhaRecord]:
        """Compute thermodynamics."""
        settings = PhononSettings(
            min_length=self.min_length,
            displacement=self.displacement,
            symprec=self.symprec,
            temperatures=temperatures(0.0, self.t_max, self.t_step),
        )
        return quasi_harmonic(structures, potential, **self.relaxation(), volumes=self.volumes, settings=settings)

    def fields(self, record: QhaRecord | None) -> dict[str, Any]:
        """Fields of the results; none without results."""
        if record is None or record.thermodynamics is None or record.structure is None:
            return {}
        qha, structure = record.thermodynamics, record.structure
        parameters = qha.gruneisen.parameters
        return {
            "masses": unusual_masses(structure),
            "volumes": qha.volumes.tolist(),
            "energies": qha.energies.tolist(),
            "bulk_modulus": qha.bulk_modulus,
            "temperatures": qha.temperatures.tolist(),
            "helmholtz_volume": qha.helmholtz.tolist(),
            "volume_temperature": qha.volume.tolist(),
            "thermal_expansion": qha.thermal_expansion.tolist(),
            "gibbs_temperature": qha.gibbs.tolist(),
            "bulk_modulus_temperature": qha.bulk_moduli.tolist(),
            "heat_capacity_p_numerical": (qha.heat_capacity * JOULE_PER_MOLE / len(structure)).tolist(),
            "gruneisen_temperature": qha.thermal_gruneisen.tolist(),
            "average_gruneisen": qha.gruneisen.mean(_ROOM_TEMPERATURE),
            "gruneisen_modes": {
                "frequencies": qha.gruneisen.frequencies.tolist(),
                "parameters": [[None if np.isnan(x) else float(x) for x in row] for row in parameters],
                "weights": qha.gruneisen.weights.tolist(),
            },
        }
