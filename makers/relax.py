"""Relaxation and single-point calculation of one material, for atomate2's flows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 - jobflow reads the annotations of jobs
from typing import TYPE_CHECKING, Any

import numpy as np
from atomate2.forcefields.jobs import ForceFieldRelaxMaker, forcefield_job
from atomate2.forcefields.schemas import ForceFieldTaskDocument
from pydantic import Field
from pymatgen.core import Molecule, Structure

from matris.calculator import MatRISCalculator
from matris.makers.batch import provenance
from matris.stores.documents.documents import CheckpointTag  # noqa: TC001 - pydantic needs it

if TYPE_CHECKING:
    from atomate2.ase.schemas import AseResult
    from atomate2.forcefields.schemas import ForceFieldMoleculeTaskDocument

    from matris.model.potential import DispersionName

CALCULATOR = {"@module": "matris.calculator", "@callable": "MatRISCalculator"}
"""The calculator, in the form that atomate2 takes for calculators that it does not list."""

_SYMPREC_OF_FIXED_CELL = 1e-5  # Å
_SAME = 1e-4  # Å: allowed change of the lattice vectors of a fixed cell


class MatrisTaskDocument(ForceFieldTaskDocument):
    """
    atomate2's document of a force-field task, with checkpoint, versions, device and precision.

    ``state`` and ``is_force_converged`` include the forces on a cell that may relax.
    """

    checkpoint: CheckpointTag | None = Field(default=None, description="Weights, and their energy scale.")
    versions: dict[str, str] = Field(default_factory=dict, description="Of the packages on which the numbers depend.")
    device: str | None = Field(default=None, description="Where it was computed.")
    dtype: str | None = Field(default=None, description="In which precision.")
    extrapolation: float | None = Field(
        default=None, description="Distance of the final atoms from the training data, see CandidateDocument."
    )
    is_extrapolating: bool | None = Field(default=None, description="None if the checkpoint does not know.")


@dataclass
class RelaxMaker(ForceFieldRelaxMaker):
    """
    Relax one material with ASE; for many materials, `BatchRelaxMaker` computes all together.

    A drop-in for atomate2's ``ForceFieldRelaxMaker``, with its other fields and these differences. The bound on forces
    is 0.05 eV/Å by default. With ``fix_symmetry``, the symmetry of a fixed cell is not refined, so that small strains
    survive. Ionic steps are stored only if ``ionic_step_data`` asks for them, and a file of the final atoms is written
    only if ``relax_kwargs`` asks for it.

    Parameters
    ----------
    name
        Name of the job.
    relax_kwargs
        Keywords of atomate2's ``AseRelaxer.relax``; ``fmax`` (eV/Å) bounds also the forces on a cell that may relax.
    ionic_step_data
        Quantities to store of each step.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = RelaxMaker(relax_kwargs={"fmax": 0.01}).make(rock_salt)
    >>> job.name
    'MatRIS relax'
    """

    name: str = "MatRIS relax"
    force_field_name: str | dict[str, Any] = field(default_factory=CALCULATOR.copy)
    relax_kwargs: dict[str, Any] = field(default_factory=lambda: {"fmax": 0.05})
    ionic_step_data: tuple[str, ...] | None = None
    checkpoint: str | None = None
    device: str | None = None
    dtype: str | None = None
    dispersion: DispersionName | None = None

    def __post_init__(self) -> None:
        """Set the calculator, also after deserialisation, which loses it."""
        self.force_field_name, self.calculator_meta = CALCULATOR.copy(), None
        super().__post_init__()
        self.task_document_kwargs = {}  # atomate2 sets them, and warns that they are deprecated

    def _get_calculator(self) -> MatRISCalculator:
        """Make a calculator of the loaded potential: a second job of the same process loads nothing."""
        chosen = {"potential": self.checkpoint, "device": self.device, "dtype": self.dtype}
        chosen |= {"dispersion": self.dispersion} if self.dispersion else {}
        return MatRISCalculator(**(chosen | self.calculator_kwargs))

    def run_ase(self, mol_or_struct: Structure | Molecule, prev_dir: str | Path | None = None) -> AseResult:
        """
        Relax, or compute a single point; a plain call, not a job.

        Raises
        ------
        RuntimeError
            If a fixed cell changed.
        """
        fixed = not (self.relax_cell or self.relax_shape)
        original = self.symprec, self.relax_kwargs
        self.relax_kwargs = {"final_atoms_object_file": None, **self.relax_kwargs}
        if fixed:  # ASE's constraint refines the cell first: a looser tolerance would erase small strains
            self.symprec = _SYMPREC_OF_FIXED_CELL
        try:
            result = super().run_ase(mol_or_struct, prev_dir=prev_dir)
        finally:
            self.symprec, self.relax_kwargs = original
        final = result.final_mol_or_struct
        if fixed and isinstance(mol_or_struct, Structure) and isinstance(final, Structure):
            change = np.abs(final.lattice.matrix - mol_or_struct.lattice.matrix).max()
            if change > _SAME:
                raise RuntimeError(f"the fixed cell changed by {change:.1e} Å")
        result.is_force_converged = bool(result.is_force_converged and result.converged)
        return result

    @forcefield_job
    def make(
        self, structure: Molecule | Structure | list[Molecule | Structure], prev_dir: str | Path | None = None
    ) -> (
        MatrisTaskDocument | ForceFieldMoleculeTaskDocument | list[MatrisTaskDocument | ForceFieldMoleculeTaskDocument]
    ):
        """
        Relax one structure, or several one after the other.

        Parameters
        ----------
        structure
            One structure or several.
        prev_dir
            Part of every Maker's signature; without effect.

        Returns
        -------
        MatrisTaskDocument or list of MatrisTaskDocument
            atomate2's fields and units (stress in kbar with VASP's sign), and checkpoint, versions, device, precision.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`task_document_kwargs` is now deprecated")
            result = ForceFieldRelaxMaker.make.original(self, structure, prev_dir)
        return [self._document(d) for d in result] if isinstance(result, list) else self._document(result)

    def _document(
        self, document: ForceFieldTaskDocument | ForceFieldMoleculeTaskDocument
    ) -> MatrisTaskDocument | ForceFieldMoleculeTaskDocument:
        """Add checkpoint, versions, device, precision and extrapolation to the document of a crystal."""
        if not isinstance(document, ForceFieldTaskDocument):
            return document
        fields = {name: getattr(document, name) for name in ForceFieldTaskDocument.model_fields}
        fields["forcefield_version"] = version("matris-flows")
        potential = self.calculator.potential
        if potential.network.domain is not None and isinstance(document.structure, Structure):
            final = potential.predict(document.structure)
            fields |= {"extrapolation": final.extrapolation, "is_extrapolating": final.is_extrapolating}
        return MatrisTaskDocument.model_construct(**fields, **provenance(potential))


@dataclass
class StaticMaker(RelaxMaker):
    """
    Compute energy, forces and stress of one material as it is; for many materials, see `BatchStaticMaker`.

    A drop-in for atomate2's ``ForceFieldStaticMaker``. See `RelaxMaker` for the fields.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = StaticMaker(dtype="float64").make(rock_salt)
    >>> job.name
    'MatRIS static'
    """

    name: str = "MatRIS static"
    relax_cell: bool = False
    steps: int = 1
    relax_kwargs: dict[str, Any] = field(default_factory=dict)
