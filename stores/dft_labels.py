"""What a user's own first-principles calculations say of candidates: labels to train on, beside the candidates."""

from __future__ import annotations

import hashlib
from itertools import batched
from typing import TYPE_CHECKING, Any

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
_BATCH = 100  # labels in one write


class DftResult(BaseModel):
    """What was calculated, and how."""

    energy: float = Field(description="Total energy (eV), as the code gave it: without corrections.")
    forces: list[list[float]] = Field(description="Shape (n, 3), eV/Å.")
    stress: list[list[float]] | None = Field(default=None, description="Shape (3, 3), eV/Å³, positive under tension.")
    magmoms: list[float] | None = Field(default=None, description="Shape (n,), Bohr magnetons.")
    code: str = Field(description="Program, such as VASP.")
    functional: str = Field(description="Such as PBE, PBE+U or r2SCAN.")
    energy_scale: str = Field(description="Which potentials learn from it: mp, matpes-pbe, …, or a name of one's own.")


class DftLabel(BaseModel):
    """One calculation, of a candidate in any geometry; the same one again replaces it."""

    label_id: str = Field(description="Hash of geometry, code and functional.")
    candidate_id: str
    formula_pretty: str
    structure: StructureDict
    dft: DftResult
    last_updated: Any = Field(default_factory=utc_now, description="UTC.")

    @classmethod
    def of(cls, candidate_id: str, structure: Structure, dft: DftResult) -> DftLabel:
        """Name a calculation by its content."""
        said = f"{content_id(structure)} {dft.code} {dft.functional} {dft.energy_scale}"
        return cls(
            label_id=hashlib.sha256(said.encode()).hexdigest()[:20],
            candidate_id=candidate_id,
            formula_pretty=structure.composition.reduced_formula,
            structure=structure,  # type: ignore[arg-type]
            dft=dft,
        )


class DftLabels:
    """
    Labels beside the results of a store.

    Parameters
    ----------
    location
        Folder or MongoDB URI, as `matris.stores.database.jobstore.open_job_store` takes it.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        jobs = open_job_store(location)
        self._candidates = CandidateStore.beside(jobs)
        self.store: Store = sibling_store(jobs, COLLECTION, "label_id")
        for name, unique in (("label_id", True), ("candidate_id", False)):
            if not self.store.ensure_index(name, unique=unique):
                raise StoreError(f"cannot index {name!r} of {COLLECTION}: check the rights on this store")

    def add(self, labels: Iterable[DftLabel]) -> int:
        """
        Store labels.

        Returns
        -------
        int
            How many.

        Raises
        ------
        StoreError
            For a candidate that the store does not know; the labels before it are stored.
        """
        n = 0
        for batch in batched(labels, _BATCH):
            wanted = {label.candidate_id for label in batch}
            criteria = {"candidate_id": {"$in": sorted(wanted)}}
            known = {d["candidate_id"] for d in self._candidates.docs.query(criteria, properties=["candidate_id"])}
            if strange := sorted(wanted - known):
                raise StoreError(
                    f"there is no candidate {strange[0]}: frames need the candidate_id that 'matris export' writes"
                )
            self.store.update([label.model_dump() for label in batch], key="label_id")
            n += len(batch)
        return n

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Yield all labels, each by its id, as documents that training reads.

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
