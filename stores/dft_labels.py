"""Labels from the user's own first-principles calculations of candidates, stored beside the candidates for training."""

from __future__ import annotations

import hashlib
from itertools import batched
from typing import TYPE_CHECKING, Any, Literal

from jobflow import JobStore
from pydantic import BaseModel, Field

from matris.errors import StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.documents.documents import StructureDict, utc_now
from matris.structures import content_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from maggma.core import Store
    from pymatgen.core.structure import Structure

COLLECTION = "dft_labels"
"""Collection of the labels in the database of the candidates."""

_BATCH = 100  # labels per write


class DftResult(BaseModel):
    """Results and method of a calculation."""

    energy: float = Field(description="Total energy (eV) as calculated, without corrections.")
    forces: list[list[float]] = Field(description="Forces, shape (n, 3), eV/Å.")
    stress: list[list[float]] | None = Field(
        default=None, description="Stress, shape (3, 3), eV/Å³, positive under tension."
    )
    magmoms: list[float] | None = Field(default=None, description="Magnetic moments, shape (n,), Bohr magnetons.")
    code: str = Field(description="Program, such as VASP.")
    functional: str = Field(description="Functional, such as PBE, PBE+U or r2SCAN.")
    energy_scale: str = Field(description="Energy scale: mp, matpes-pbe, … or a custom name.")


class DftLabel(BaseModel):
    """One calculation of a candidate in any geometry. A repeated calculation replaces the earlier one."""

    label_id: str = Field(description="Hash of geometry, code, functional and energy scale.")
    candidate_id: str = Field(description="Candidate that was calculated.")
    formula_pretty: str = Field(description="Reduced formula.")
    structure: StructureDict = Field(description="Geometry of the calculation.")
    dft: DftResult = Field(description="Results and method.")
    source: str | None = Field(
        default=None, description="Where the results come from: the id of the job that made the label, or a file."
    )
    last_updated: Any = Field(default_factory=utc_now, description="When the label was stored, UTC.")

    @classmethod
    def of(cls, candidate_id: str, structure: Structure, dft: DftResult, source: str | None = None) -> DftLabel:
        """Make a label whose id is a hash of the geometry and the method."""
        content = f"{content_id(structure)} {dft.code} {dft.functional} {dft.energy_scale}"
        return cls(
            label_id=hashlib.sha256(content.encode()).hexdigest()[:20],
            candidate_id=candidate_id,
            formula_pretty=structure.composition.reduced_formula,
            structure=structure,  # type: ignore[arg-type]
            dft=dft,
            source=source,
        )


class LabelDocument(BaseModel):
    """Output of the job that makes the labels of a calculation."""

    label_format: int = Field(default=1, description="Version of this document; the harvest finds it by this field.")
    candidate_id: str = Field(description="Candidate that was calculated.")
    formula_pretty: str = Field(description="Reduced formula.")
    energy_scale: str = Field(description="Energy scale that was asked for.")
    state: Literal["labelled", "failed"] = Field(description="Whether there are labels.")
    error: str | None = Field(default=None, description="Why there are none.")
    labels: list[DftLabel] = Field(default_factory=list, description="Labels; the last one is of the last geometry.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Ionic steps without a label, by reason.")


class DftLabels:
    """
    Labels in the database of candidates.

    Parameters
    ----------
    location
        Folder or MongoDB URI, as in `matris.stores.database.jobstore.open_job_store`; or a connected job store in the
        database of the candidates.

    Examples
    --------
    Labels belong to candidates of the store:

    >>> from tempfile import TemporaryDirectory
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = DftResult(
    ...     energy=-16.6, forces=[[0, 0, 0], [0, 0, 0]], code="VASP", functional="PBE", energy_scale="matpes-pbe"
    ... )
    >>> label = DftLabel.of("iron", iron, result)
    >>> label.formula_pretty, label.dft.energy
    ('Fe', -16.6)
    >>> with TemporaryDirectory() as folder:
    ...     labels = DftLabels(folder)
    ...     labels.add([label])
    Traceback (most recent call last):
    matris.errors.StoreError: there is no candidate iron: frames need the candidate_id that 'matris export' writes
    """

    def __init__(self, location: str | Path | JobStore | None = None) -> None:
        jobs = location if isinstance(location, JobStore) else open_job_store(location)
        self._candidates = CandidateStore.beside(jobs)
        self.store: Store = sibling_store(jobs, COLLECTION, "label_id")
        for name, unique in (("label_id", True), ("candidate_id", False)):
            if not self.store.ensure_index(name, unique=unique):
                raise StoreError(f"cannot index {name!r} of {COLLECTION}: check the permissions of this store")

    def add(self, labels: Iterable[DftLabel]) -> int:
        """
        Store labels.

        Returns
        -------
        int
            Number of labels stored.

        Raises
        ------
        StoreError
            If the store does not have a candidate. Labels of earlier batches remain stored.
        """
        n = 0
        for batch in batched(labels, _BATCH):
            candidate_ids = {label.candidate_id for label in batch}
            criteria = {"candidate_id": {"$in": sorted(candidate_ids)}}
            stored = {d["candidate_id"] for d in self._candidates.docs.query(criteria, properties=["candidate_id"])}
            if missing := sorted(candidate_ids - stored):
                raise StoreError(
                    f"there is no candidate {missing[0]}: frames need the candidate_id that 'matris export' writes"
                )
            self.store.update([label.model_dump() for label in batch], key="label_id")
            n += len(batch)
        return n

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Yield the ids of all labels with documents in the form that training reads.

        Yields
        ------
        tuple
            ``label_id``; ``structure``, ``energy`` (eV), ``forces`` (eV/Å), ``stress`` with its unit, ``magmoms`` (μB),
            ``energy_scale``, and the candidate as ``material``.
        """
        for label in self.store.query(sort={"label_id": 1}):
            dft = label["dft"]
            yield (
                label["label_id"],
                {
                    "structure": label["structure"],
                    **{name: dft.get(name) for name in ("energy", "forces", "stress", "magmoms", "energy_scale")},
                    "stress_unit": "eV/Å³",
                    "material": label["candidate_id"],
                },
            )
