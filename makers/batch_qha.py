"""Quasi-harmonic thermodynamics of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jobflow import job

from matris.makers.batch import JOULE_PER_MOLE, PropertyMaker, temperatures
from matris.properties.phonons import PhononSettings
from matris.properties.qha import VOLUMES, quasi_harmonic
from matris.stores.documents.properties import PropertyOutput, QhaDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.properties.qha import QhaRecord
    from matris.stores.documents.candidate import Candidate

_ROOM = 300.0  # K


class QhaDocuments(PropertyOutput):
    """Output of one job: a document per material, in the order given."""

    kind: Literal["qha"] = "qha"
    documents: list[QhaDocument]


@dataclass
class BatchQhaMaker(PropertyMaker):
    """
    Quasi-harmonic thermodynamics of many materials: all supercells of all of them go through the device together.

    A material that fails does not touch the others. See `matris.properties.qha.quasi_harmonic` for the method, and
    `PropertyMaker` for the other parameters.

    Parameters
    ----------
    volumes
        Volumes relative to that of the relaxed cell, at least five, ascending.
    min_length
        Least distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å.
    symprec
        Tolerance for symmetry, Å.
    t_max, t_step
        Temperatures from zero, K.
    """

    name: str = "batch QHA"
    volumes: tuple[float, ...] = VOLUMES
    min_length: float = PhononSettings.min_length
    displacement: float = PhononSettings.displacement
    symprec: float = PhononSettings.symprec
    t_max: float = 1000.0
    t_step: float = 10.0

    @job(data=["structure", "helmholtz_volume", "gruneisen_modes"], output_schema=QhaDocuments)
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> QhaDocuments:
        """
        Compute volumes, thermal expansion, free energies and Grüneisen parameters against temperature.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Accepted as by every Maker, without effect.
        """
        settings = PhononSettings(
            min_length=self.min_length,
            displacement=self.displacement,
            symprec=self.symprec,
            temperatures=temperatures(0.0, self.t_max, self.t_step),
        )
        found = self.documents(
            candidates,
            lambda structures, potential: quasi_harmonic(
                structures,
                potential,
                fmax=self.fmax,
                max_steps=self.steps,
                volumes=self.volumes,
                settings=settings,
                journal_dir=Path(self.journal_dir or "."),
            ),
        )
        return QhaDocuments(documents=[QhaDocument(**common, **_fields(record)) for common, record in found])


def _fields(record: QhaRecord | None) -> dict[str, Any]:
    """Fields of the results; none where there are none."""
    if record is None or record.found is None:
        return {}
    found = record.found
    parameters = found.gruneisen.parameters
    return {
        "volumes": found.volumes.tolist(),
        "energies": found.energies.tolist(),
        "bulk_modulus": found.bulk_modulus,
        "temperatures": found.temperatures.tolist(),
        "helmholtz_volume": found.helmholtz.tolist(),
        "volume_temperature": found.volume.tolist(),
        "thermal_expansion": found.thermal_expansion.tolist(),
        "gibbs_temperature": found.gibbs.tolist(),
        "bulk_modulus_temperature": found.bulk_moduli.tolist(),
        "heat_capacity_p_numerical": (found.heat_capacity * JOULE_PER_MOLE).tolist(),
        "gruneisen_temperature": found.thermal_gruneisen.tolist(),
        "average_gruneisen": found.gruneisen.mean(_ROOM),
        "gruneisen_modes": {
            "frequencies": found.gruneisen.frequencies.tolist(),
            "parameters": [[None if np.isnan(x) else float(x) for x in row] for row in parameters],
            "weights": found.gruneisen.weights.tolist(),
        },
    }
