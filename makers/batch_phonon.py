"""Phonons of many materials in one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jobflow import job

from matris.makers.batch import STRUCTURES, RelaxedPropertyMaker, temperatures, unusual_masses
from matris.makers.current_job import SEES_STORE
from matris.properties.phonon_objects import band_structure, complete_dos
from matris.properties.phonons import JOULE_PER_MOLE, BornCharges, PhononSettings, phonons
from matris.stores.documents.documents import describe
from matris.stores.documents.properties import PhononDocument, PropertyOutput, UnstableModeDocument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.instability import UnstableMode
    from matris.properties.phonons import PhononRecord
    from matris.relaxation.records import RelaxRecord
    from matris.stores.documents.candidate import Candidate


class PhononDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["phonon"] = "phonon"
    documents: list[PhononDocument]


@dataclass
class BatchPhononMaker(RelaxedPropertyMaker):
    """
    Harmonic phonons of many materials: the displaced supercells of all materials are computed together.

    A material that fails does not affect the others. See `matris.properties.phonons.phonons` for the method, and
    `RelaxedPropertyMaker` for the other parameters.

    Parameters
    ----------
    min_length
        Minimum distance between opposite faces of the supercell, Å.
    displacement
        Length of the displacements, Å. One displacement of each material is computed at a third of it too; a warning
        has both values where they disagree.
    symprec
        Tolerance for symmetry, Å.
    t_min, t_max, t_step
        Temperatures of the thermal properties, K.
    follow
        Whether unstable materials are distorted along their most imaginary mode and relaxed.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchPhononMaker(min_length=10, t_max=600).make([rock_salt])
    >>> job.name
    'batch phonon'
    """

    name: str = "batch phonon"
    min_length: float = PhononSettings.min_length
    displacement: float = PhononSettings.displacement
    symprec: float = PhononSettings.symprec
    t_min: float = 0.0
    t_max: float = 1000.0
    t_step: float = 10.0
    follow: bool = False

    output_schema = PhononDocuments

    @job(
        data=[*STRUCTURES, "force_constants", "phonon_bandstructure", "phonon_dos"],
        output_schema=PhononDocuments,
        config=SEES_STORE,
    )
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
        born: Sequence[dict[str, Any] | None] | None = None,
    ) -> PropertyOutput:
        """
        Compute the phonons of each candidate.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Part of every Maker's signature; without effect.
        born
            For each candidate, in order, ``{"born": …, "epsilon_static": …}`` for the non-analytic correction (see
            `matris.properties.phonons.BornCharges`), or None.

        Returns
        -------
        PhononDocuments
            One document for each candidate, in order; its large fields go to the additional store ``data``.

        Raises
        ------
        ValueError
            If `born` and `candidates` differ in length.
        """
        return self.output(candidates, list(born) if born is not None else [None] * len(candidates))

    def compute(
        self, structures: Sequence[Structure], potential: Potential, born: Sequence[dict[str, Any] | None]
    ) -> list[PhononRecord]:
        """Compute phonons."""
        settings = PhononSettings(
            min_length=self.min_length,
            displacement=self.displacement,
            symprec=self.symprec,
            temperatures=temperatures(self.t_min, self.t_max, self.t_step),
        )
        return phonons(
            structures,
            potential,
            **self.relaxation(),
            settings=settings,
            born=[None if charges is None else BornCharges(**charges) for charges in born],
            follow=self.follow,
        )

    def fields(self, record: PhononRecord | None, born: dict[str, Any] | None) -> dict[str, Any]:
        """Fields of the results, none without results, and the Born charges given."""
        charges = born or {}
        if record is None or record.phonons is None or record.structure is None:
            return charges
        results, phonopy = record.phonons, record.phonons.phonopy
        per_mole = JOULE_PER_MOLE / results.n_atoms  # of atoms
        return charges | {
            "masses": unusual_masses(record.structure),
            "linearity": record.linearity
            and {**asdict(record.linearity), "disagreement": record.linearity.disagreement},
            "unstable_mode": _mode(results.unstable_mode, record.start, self.pressure),
            "supercell_matrix": phonopy.supercell_matrix.tolist(),
            "primitive_matrix": phonopy.primitive_matrix.tolist(),
            "n_displacements": len(phonopy.displacements),
            "min_frequency": results.min_frequency,
            "has_imaginary_modes": results.has_imaginary_modes,
            "temperatures": results.temperatures.tolist(),
            "free_energies": (results.free_energy * per_mole).tolist(),
            "entropies": (results.entropy * per_mole).tolist(),
            "heat_capacities": (results.heat_capacity * per_mole).tolist(),
            "nsites_primitive": results.n_atoms,
            "phonon_bandstructure": band_structure(results),
            "phonon_dos": complete_dos(results),
            "force_constants": np.asarray(phonopy.force_constants)[phonopy.primitive.p2s_map].tolist(),
        }


def _mode(mode: UnstableMode | None, start: RelaxRecord | None, pressure: float) -> UnstableModeDocument | None:
    """Describe an unstable mode."""
    if mode is None:
        return None
    relaxed = mode.relaxed
    return UnstableModeDocument(
        qpoint=mode.qpoint.tolist(),
        frequency=mode.frequency,
        eigenvector=np.stack([mode.eigenvector.real, mode.eigenvector.imag], axis=-1).tolist(),
        structure=relaxed.structure if relaxed else None,
        symmetry=describe(relaxed.structure, relaxed=True)["symmetry"] if relaxed and relaxed.structure else None,
        energy_gain=None if start is None else mode.energy_gain(start, pressure),
        state=relaxed.state if relaxed else None,
    )
