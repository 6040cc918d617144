"""Formation energies of point defects of many materials in one job."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from jobflow import job
from pymatgen.core import Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.makers.batch import STRUCTURES, PropertyMaker, RelaxedPropertyMaker
from matris.makers.current_job import SEES_STORE
from matris.properties.defects import KINDS, defects
from matris.stores.documents.corrections import corrected_entry
from matris.stores.documents.properties import DefectsDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.potential import Potential
    from matris.properties.defects import DefectKind, DefectsRecord, PointDefect


class DefectsDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["defects"] = "defects"
    documents: list[DefectsDocument]


@dataclass
class BatchDefectsMaker(RelaxedPropertyMaker):
    """
    Point defects of many materials: the supercells of all materials are computed together.

    See `matris.properties.defects.defects` for the method, and `RelaxedPropertyMaker` for the other parameters.
    Energies are corrected by the scheme of the checkpoint's energy scale, as on hulls.

    Parameters
    ----------
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    kinds
        Kinds of defects: ``"vacancy"``, ``"antisite"``, ``"interstitial"``.
    competing
        Competing phases in pymatgen's JSON, as text because no class that a stored Maker names is decoded: structures
        are relaxed in the job, entries have energies that are corrected for the energy scale of the checkpoint.
    references
        Name of the competing phases for the documents. It stands for `competing` in the settings, so that it has to
        tell one list of phases from another.
    min_length
        Minimum distance of a defect from its periodic images, Å.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    >>> job = BatchDefectsMaker(kinds=["vacancy"]).make([copper])
    >>> job.name
    'batch defects'
    """

    name: str = "batch defects"
    fmax: float = 0.01
    max_steps: int = 500
    kinds: Sequence[str] = KINDS
    competing: list[str] = field(default_factory=list)
    references: str = "the material itself"
    min_length: float = 10.0

    output_schema = DefectsDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES, "cells"], output_schema=DefectsDocuments)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[DefectsRecord]:
        """Compute formation energies."""
        return defects(
            structures,
            potential,
            **self.relaxation(),
            kinds=cast("Sequence[DefectKind]", self.kinds),
            competing=[_phase(phase) for phase in self.competing],
            correct=partial(corrected_entry, energy_scale=potential.card.energy_scale),
            min_length=self.min_length,
        )

    def fields(self, record: DefectsRecord | None) -> dict[str, Any]:
        """Fields of the results; none without results."""
        if record is None or not record.defects or record.supercell is None:
            return {}
        lowest = record.lowest
        return {
            "defects": [_defect(defect) for defect in record.defects],
            "lowest_formation_energy": lowest and lowest.lowest,
            "lowest_defect": lowest and lowest.name,
            "limits": [{"phases": limit.phases, "potentials": limit.potentials} for limit in record.limits],
            "references": self.references,
            "above_hull": record.above_hull,
            "corrections": dict(record.corrections or {}),
            "supercell_matrix": record.supercell.tolist(),
            "image_distance": record.image_distance,
            "nsites_supercell": record.nsites_supercell,
            "cells": [None if defect.state == "failed" else defect.cell.as_dict() for defect in record.defects],
        }


def _phase(text: str) -> Structure | ComputedEntry:
    """Read a competing phase."""
    content = json.loads(text)
    phase: Structure | ComputedEntry = (ComputedEntry if "energy" in content else Structure).from_dict(content)
    return phase


def _defect(defect: PointDefect) -> dict[str, Any]:
    """Describe one defect."""
    return {
        "name": defect.name,
        "kind": defect.kind,
        "change": dict(defect.change),
        "site": defect.site,
        "multiplicity": defect.multiplicity,
        "state": defect.state,
        "error": defect.error,
        "warnings": list(defect.warnings),
        "energy_change": defect.energy_change,
        "formation_energies": list(defect.formation_energies),
        "displacement": defect.displacement,
    }
