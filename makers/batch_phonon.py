"""Phonons of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jobflow import job

from matris.makers.batch import JOULE_PER_MOLE, PropertyMaker, temperatures
from matris.properties.phonons import BornCharges, PhononSettings, phonons
from matris.stores.documents.properties import PhononDocument, PropertyOutput, UnstableModeDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.properties.instability import UnstableMode
    from matris.properties.phonons import PhononRecord
    from matris.stores.documents.candidate import Candidate


class PhononDocuments(PropertyOutput):
    """Output of one job: a document per material, in the order given."""

    kind: Literal["phonon"] = "phonon"
    documents: list[PhononDocument]


@dataclass
class BatchPhononMaker(PropertyMaker):
    """
    Harmonic phonons of many materials: all displaced supercells of all of them go through the device together.

    A material that fails does not touch the others. See `matris.properties.phonons.phonons` for the method, and
    `PropertyMaker` for the other parameters.

    Parameters
    ----------
    min_length
        Least distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å.
    symprec
        Tolerance for symmetry, Å.
    t_min, t_max, t_step
        Temperatures of the thermal properties, K.
    follow_instabilities
        Whether unstable materials are distorted along their worst mode and relaxed.
    """

    name: str = "batch phonon"
    min_length: float = PhononSettings.min_length
    displacement: float = PhononSettings.displacement
    symprec: float = PhononSettings.symprec
    t_min: float = 0.0
    t_max: float = 1000.0
    t_step: float = 10.0
    follow_instabilities: bool = False

    @job(
        data=["structure", "force_constants", "phonon_bandstructure", "phonon_dos"],
        output_schema=PhononDocuments,
    )
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
        born: Sequence[dict[str, Any] | None] | None = None,
    ) -> PhononDocuments:
        """
        Compute phonons.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Accepted as by every Maker, without effect.
        born
            For each candidate, in order, ``{"born": …, "epsilon_static": …}`` for the non-analytic correction (see
            `matris.properties.phonons.BornCharges`), or None.

        Raises
        ------
        ValueError
            If there are not as many `born` as candidates.
        """
        settings = PhononSettings(
            min_length=self.min_length,
            displacement=self.displacement,
            symprec=self.symprec,
            temperatures=temperatures(self.t_min, self.t_max, self.t_step),
        )
        given = list(born) if born is not None else [None] * len(candidates)
        found = self.documents(
            candidates,
            lambda structures, potential, charges: phonons(
                structures,
                potential,
                fmax=self.fmax,
                max_steps=self.steps,
                settings=settings,
                born=[charge and BornCharges(**charge) for charge in charges],
                follow_instabilities=self.follow_instabilities,
                journal_dir=Path(self.journal_dir or "."),
            ),
            given,
        )
        return PhononDocuments(
            documents=[
                PhononDocument(**common, **_fields(record), **(charge or {}))
                for (common, record), charge in zip(found, given, strict=True)
            ]
        )


def _mode(mode: UnstableMode | None, energy_per_atom: float | None) -> UnstableModeDocument | None:
    """Describe an instability."""
    if mode is None:
        return None
    relaxed = mode.relaxed
    return UnstableModeDocument(
        qpoint=mode.qpoint.tolist(),
        frequency=mode.frequency,
        eigenvector=np.stack([mode.eigenvector.real, mode.eigenvector.imag], axis=-1).tolist(),
        structure=relaxed.structure if relaxed else None,
        energy_gain=None if energy_per_atom is None else mode.energy_gain(energy_per_atom),
        state=relaxed.state if relaxed else None,
    )


def _fields(record: PhononRecord | None) -> dict[str, Any]:
    """Fields of the results; none where there are none."""
    if record is None or record.phonons is None or record.structure is None:
        return {}
    found, phonopy = record.phonons, record.phonons.phonopy
    energy = None if record.energy is None else record.energy / len(record.structure)
    return {
        "unstable_mode": _mode(found.unstable_mode, energy),
        "supercell_matrix": phonopy.supercell_matrix.tolist(),
        "primitive_matrix": phonopy.primitive_matrix.tolist(),
        "n_displacements": len(phonopy.displacements),
        "min_frequency": found.min_frequency,
        "has_imaginary_modes": found.has_imaginary_modes,
        "temperatures": found.temperatures.tolist(),
        "free_energies": (found.free_energy * JOULE_PER_MOLE).tolist(),
        "entropies": (found.entropy * JOULE_PER_MOLE).tolist(),
        "heat_capacities": (found.heat_capacity * JOULE_PER_MOLE).tolist(),
        "nsites_primitive": found.n_atoms,
        "phonon_bandstructure": {
            "qpoints": [q.tolist() for q in found.qpoints],
            "distances": [d.tolist() for d in found.distances],
            "frequencies": [f.tolist() for f in found.frequencies],
            "labels": found.labels,
            "connections": found.connections,
        },
        "phonon_dos": {"frequencies": found.dos_frequencies.tolist(), "densities": found.dos.tolist()},
        "force_constants": np.asarray(phonopy.force_constants)[phonopy.primitive.p2s_map].tolist(),
    }
