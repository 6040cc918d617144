"""Relaxation of one material, for atomate2's flows."""

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

CALCULATOR = {"@module": "matris.calculator", "@callable": "MatRISCalculator"}
"""How atomate2 is told of a calculator that it does not list."""

_SYMPREC_OF_FIXED_CELL = 1e-5  # Å
_SAME = 1e-4  # the lattice vectors of a fixed cell may change by so much, Å


class MatrisTaskDocument(ForceFieldTaskDocument):
    """
    atomate2's document of a force-field task, with what computed it.

    ``state`` and ``is_force_converged`` count the forces on the cell where it may relax.
    """

    checkpoint: CheckpointTag | None = Field(default=None, description="Weights, and their energy scale.")
    versions: dict[str, str] = Field(default_factory=dict, description="Of the packages that decide the numbers.")
    device: str | None = Field(default=None, description="Where it was computed.")
    dtype: str | None = Field(default=None, description="In which precision.")
    extrapolation: float | None = Field(
        default=None, description="How far the final atoms are from those the checkpoint knows, see CandidateDocument."
    )
    is_extrapolating: bool | None = Field(default=None, description="None if the checkpoint does not know.")


@dataclass
class RelaxMaker(ForceFieldRelaxMaker):
    """
    Relax a material by ASE; for many materials take `BatchRelaxMaker`, which computes them together.

    A drop-in for atomate2's ``ForceFieldRelaxMaker``, whose other fields it has. What differs: the bound on forces is
    0.05 eV/Å by default; with ``fix_symmetry``, a cell that may not relax is not refined either, so that small strains
    survive; no ionic steps are stored and no file of final atoms is written unless ``ionic_step_data`` or
    ``relax_kwargs`` ask for them.

    Parameters
    ----------
    name
        Name of the job.
    relax_kwargs
        For atomate2's ``AseRelaxer.relax``: ``fmax`` in eV/Å, counting the forces on the cell where it may relax.
    ionic_step_data
        What to store of each step.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Where and in which precision the potential computes; by default what the machine and the checkpoint suggest.
    """

    name: str = "MatRIS relax"
    force_field_name: str | dict[str, Any] = field(default_factory=CALCULATOR.copy)
    relax_kwargs: dict[str, Any] = field(default_factory=lambda: {"fmax": 0.05})
    ionic_step_data: tuple[str, ...] | None = None
    checkpoint: str | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Tell atomate2 of the calculator, also after serialisation, which loses it."""
        self.force_field_name, self.calculator_meta = CALCULATOR.copy(), None
        super().__post_init__()
        self.task_document_kwargs = {}  # atomate2 fills them, and warns that they are deprecated

    def _get_calculator(self) -> MatRISCalculator:
        """Make a calculator of the resident potential: a second job of a process loads nothing."""
        chosen = {"potential": self.checkpoint, "device": self.device, "dtype": self.dtype}
        return MatRISCalculator(**(chosen | self.calculator_kwargs))

    def run_ase(self, mol_or_struct: Structure | Molecule, prev_dir: str | Path | None = None) -> AseResult:
        """
        Relax, or compute a single point; not as a job.

        Raises
        ------
        RuntimeError
            If a cell that was to stay as it is did not.
        """
        fixed = not (self.relax_cell or self.relax_shape)
        kept = self.symprec, self.relax_kwargs
        self.relax_kwargs = {"final_atoms_object_file": None, **self.relax_kwargs}
        if fixed:  # ASE's constraint refines the cell first: a looser tolerance would erase small strains
            self.symprec = _SYMPREC_OF_FIXED_CELL
        try:
            result = super().run_ase(mol_or_struct, prev_dir=prev_dir)
        finally:
            self.symprec, self.relax_kwargs = kept
        final = result.final_mol_or_struct
        if fixed and isinstance(mol_or_struct, Structure) and isinstance(final, Structure):
            change = np.abs(final.lattice.matrix - mol_or_struct.lattice.matrix).max()
            if change > _SAME:
                raise RuntimeError(f"the cell was to stay as it is, and changed by {change:.1e} Å")
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
            What to relax.
        prev_dir
            Not used.

        Returns
        -------
        MatrisTaskDocument or list of MatrisTaskDocument
            In atomate2's fields and units (stress in kbar with VASP's sign), and what computed it.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`task_document_kwargs` is now deprecated")
            found = ForceFieldRelaxMaker.make.original(self, structure, prev_dir)
        return [self._document(d) for d in found] if isinstance(found, list) else self._document(found)

    def _document(
        self, document: ForceFieldTaskDocument | ForceFieldMoleculeTaskDocument
    ) -> MatrisTaskDocument | ForceFieldMoleculeTaskDocument:
        """Add what computed it to the document of a crystal."""
        if not isinstance(document, ForceFieldTaskDocument):
            return document
        known = {name: getattr(document, name) for name in ForceFieldTaskDocument.model_fields}
        known["forcefield_version"] = version("matris-flows")
        potential = self.calculator.potential
        judged: dict[str, Any] = {}
        if potential.network.domain is not None and isinstance(document.structure, Structure):
            (final,) = potential.predict(document.structure)
            judged = {"extrapolation": final.extrapolation, "is_extrapolating": final.is_extrapolating}
        return MatrisTaskDocument.model_construct(**known, **judged, **provenance(potential))
