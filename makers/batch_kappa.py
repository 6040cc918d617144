"""Lattice thermal conductivities of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker, temperatures, unusual_masses
from matris.makers.current_job import SEES_STORE
from matris.properties.conductivity import ConductivitySettings, conductivity, nearest_to_room
from matris.stores.documents.properties import KappaDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.conductivity import Conductivity, ConductivityRecord, Mesh
    from matris.relaxation.records import RelaxSettings


class KappaDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["kappa"] = "kappa"
    documents: list[KappaDocument]


@dataclass
class BatchKappaMaker(RelaxedPropertyMaker):
    """
    Lattice thermal conductivities of many materials: the displaced supercells of all are computed together.

    Materials keep their space group while they relax. A material that fails does not affect the others; a dynamically
    unstable one fails. See `matris.properties.conductivity.conductivity` for the method, and `RelaxedPropertyMaker` for
    the other parameters.

    Parameters
    ----------
    min_length, min_length_fc3
        Minimum distance between opposite faces of the supercells of the second- and the third-order force constants, Å.
    supercell, supercell_fc3
        Instead of the distances: repeats of the input cell along its vectors.
    displacement
        Length of the displacements, Å.
    pair_cutoff
        Longest distance of two atoms that are displaced together, Å. Default: no limit.
    mesh
        Mesh of wave vectors: a length that is divided by lattice vectors, Å, or three numbers.
    isotopes
        Whether isotopes in their natural abundance scatter phonons.
    boundary_mfp
        Distance between boundaries that scatter phonons, µm.
    symprec
        Tolerance for symmetry, Å.
    t_min, t_max, t_step
        Temperatures, K.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchKappaMaker(mesh=(19, 19, 19)).make([rock_salt])
    >>> job.name
    'batch kappa'
    """

    name: str = "batch kappa"
    min_length: float = ConductivitySettings.min_length
    min_length_fc3: float = ConductivitySettings.min_length_fc3
    supercell: tuple[int, int, int] | None = None
    supercell_fc3: tuple[int, int, int] | None = None
    displacement: float = ConductivitySettings.displacement
    pair_cutoff: float | None = None
    mesh: Mesh = ConductivitySettings.mesh
    isotopes: bool = True
    boundary_mfp: float = ConductivitySettings.boundary_mfp
    symprec: float = ConductivitySettings.symprec
    t_min: float = 100.0
    t_max: float = 1000.0
    t_step: float = 50.0

    output_schema = KappaDocuments
    make = job(
        PropertyMaker.make,
        config=SEES_STORE,
        data=[*STRUCTURES, "kappa", "kappa_particle", "modes"],
        output_schema=KappaDocuments,
    )

    def start_settings(self) -> RelaxSettings:
        """Return the settings with which the materials are relaxed."""
        return replace(super().start_settings(), fix_symmetry=True)

    def settings(self) -> ConductivitySettings:
        """
        Return the settings of the calculation.

        Raises
        ------
        ValueError
            If one of them is out of range.
        """
        return ConductivitySettings(
            min_length=self.min_length,
            min_length_fc3=self.min_length_fc3,
            supercell=self.supercell,
            supercell_fc3=self.supercell_fc3,
            displacement=self.displacement,
            pair_cutoff=self.pair_cutoff,
            mesh=self.mesh,
            isotopes=self.isotopes,
            boundary_mfp=self.boundary_mfp,
            symprec=self.symprec,
            temperatures=temperatures(self.t_min, self.t_max, self.t_step),
        )

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[ConductivityRecord]:
        """Compute conductivities."""
        return conductivity(structures, potential, **self.relaxation(), settings=self.settings())

    def fields(self, record: ConductivityRecord | None) -> dict[str, Any]:
        """Fields of the results; none without results."""
        if record is None or record.conductivity is None or record.structure is None:
            return {}
        result = record.conductivity
        phono3py = result.phono3py
        return {
            "masses": unusual_masses(record.structure),
            "temperatures": result.temperatures.tolist(),
            "kappa": result.total.tolist(),
            "kappa_particle": result.particle.tolist(),
            "kappa_mean": result.mean.tolist(),
            "kappa_coherence_mean": result.coherence[:, :3].mean(axis=1).tolist(),
            "mesh": list(result.mesh),
            "coarse_mesh": list(result.coarse_mesh),
            "kappa_mean_coarse": result.coarse.tolist(),
            "mesh_change": result.mesh_change,
            "supercell_matrix": phono3py.phonon_supercell_matrix.tolist(),
            "supercell_matrix_third": phono3py.supercell_matrix.tolist(),
            "primitive_matrix": phono3py.primitive_matrix.tolist(),
            "n_displacements": result.n_displacements[0],
            "n_displacements_third": result.n_displacements[1],
            "min_frequency": result.min_frequency,
            "modes": _modes(result),
        }


def _modes(result: Conductivity) -> dict[str, Any]:
    """Describe the modes at the temperature next to 300 K; lifetimes that are infinite are None."""
    at, modes = nearest_to_room(result.temperatures), result.modes
    lifetimes = [[float(time) if time < float("inf") else None for time in row] for row in modes.lifetimes[at]]
    return {
        "temperature": float(result.temperatures[at]),
        "qpoints": modes.qpoints.tolist(),
        "weights": modes.weights.tolist(),
        "frequencies": modes.frequencies.tolist(),
        "lifetimes": lifetimes,
        "conductivities": modes.conductivities[at][..., :3].mean(axis=-1).tolist(),
    }
