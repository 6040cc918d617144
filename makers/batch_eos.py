"""Equations of state of many materials in one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import PropertyMaker
from matris.properties.eos import EQUATIONS, VOLUMES, eos
from matris.stores.documents.properties import EosDocument, EosFitDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.properties.eos import EosRecord
    from matris.stores.documents.candidate import Candidate


class EosDocuments(PropertyOutput):
    """Output of one job: a document per material, in the order given."""

    kind: Literal["eos"] = "eos"
    documents: list[EosDocument]


@dataclass
class BatchEosMaker(PropertyMaker):
    """
    Equations of state of many materials: all scaled cells of all of them go through the device together.

    A material that fails does not touch the others. See `matris.properties.eos.eos` for the method, and `PropertyMaker`
    for the other parameters.

    Parameters
    ----------
    volumes
        Volumes relative to that of the relaxed cell.
    equations
        Which equations of state to fit.
    """

    name: str = "batch EOS"
    fmax: float = 1e-3
    volumes: tuple[float, ...] = VOLUMES
    equations: tuple[str, ...] = EQUATIONS

    @job(data=["structure"], output_schema=EosDocuments)
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> EosDocuments:
        """
        Compute equations of state.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Accepted as by every Maker, without effect.
        """
        found = self.documents(
            candidates,
            lambda structures, potential: eos(
                structures,
                potential,
                fmax=self.fmax,
                max_steps=self.steps,
                volumes=self.volumes,
                equations=self.equations,
                journal_dir=Path(self.journal_dir or "."),
            ),
        )
        return EosDocuments(documents=[EosDocument(**common, **_fields(record)) for common, record in found])


def _fields(record: EosRecord | None) -> dict[str, Any]:
    """Energies and fits."""
    if record is None:
        return {}
    fits = [EosFitDocument(**asdict(fit)) for fit in record.fits]
    return {"volumes": list(record.volumes), "energies": list(record.energies), "fits": fits}
