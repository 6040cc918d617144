"""Labels by another potential, in the place of first-principles calculations: to try a loop, and to measure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.relaxation.relax import relax
from matris.stores.dft_labels import DftLabel, DftResult

if TYPE_CHECKING:
    from matris.relaxation.records import RelaxRecord
    from matris.stores.documents.candidate import Candidate


@dataclass(frozen=True)
class Teacher:
    """
    Another potential that labels candidates: the structure as it is, and relaxed.

    Parameters
    ----------
    model
        A `matris.model.potential.Potential`, or a `matris.AseModel` of any calculator.
    name
        Its name, which labels have as code and functional.
    energy_scale
        Energy scale of its energies.
    fmax, max_steps
        As for `matris.relax`.

    Examples
    --------
    >>> import matris
    >>> from ase.calculators.emt import EMT
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.stores.documents.candidate import Candidate
    >>> copper = Structure(Lattice.cubic(3.7), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    >>> teacher = Teacher(matris.AseModel(EMT()), "EMT", "emt")
    >>> given, relaxed = teacher(Candidate.from_structure(copper, "copper"))
    >>> given.dft.energy > relaxed.dft.energy, relaxed.dft.functional
    (True, 'EMT')
    """

    model: Any
    name: str
    energy_scale: str
    fmax: float = 0.05
    max_steps: int = 200

    def __call__(self, candidate: Candidate) -> list[DftLabel]:
        """
        Label a candidate.

        Raises
        ------
        MatrisError
            If the teacher cannot compute it.
        """
        if candidate.structure is None:
            raise MatrisError(f"candidate {candidate.candidate_id} has no structure")
        given = self._record(candidate, 0)
        relaxed = self._record(candidate, self.max_steps)
        return [self._label(candidate, given), self._label(candidate, relaxed)]

    def _record(self, candidate: Candidate, max_steps: int) -> RelaxRecord:
        assert candidate.structure is not None  # noqa: S101 - checked by the caller
        relaxes = max_steps > 0
        record = next(
            iter(relax([candidate.structure], self.model, fmax=self.fmax, max_steps=max_steps, relax_cell=relaxes))
        )
        if record.state == "failed":
            raise MatrisError(f"{self.name} cannot compute {candidate.candidate_id}: {record.error}")
        return record

    def _label(self, candidate: Candidate, record: RelaxRecord) -> DftLabel:
        assert record.structure is not None  # noqa: S101 - it has not failed
        assert record.energy is not None  # noqa: S101
        assert record.forces is not None  # noqa: S101
        return DftLabel.of(
            candidate.candidate_id,
            record.structure,
            DftResult(
                energy=record.energy,
                forces=record.forces.tolist(),
                stress=None if record.stress is None else record.stress.tolist(),
                code=self.name,
                functional=self.name,
                energy_scale=self.energy_scale,
            ),
        )
