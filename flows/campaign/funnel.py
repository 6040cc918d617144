"""Which candidates go on, from reading to properties, and why the others do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from matris.flows.campaign.chemistry import chemistry_problem
from matris.flows.campaign.sanity import SanityLimits, sanity_problem
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from matris.stores.documents.candidate import Candidate

PROPERTIES = ("elastic", "phonon")
"""What can be computed of survivors."""


@dataclass(frozen=True)
class Funnel:
    """
    Stages of a campaign. Each drop is recorded with its stage and its reason.

    Attributes
    ----------
    sanity
        Reject implausible distances, volumes and cells, see `matris.flows.campaign.sanity`. What cannot be computed at
        all is rejected in any case.
    max_sites
        Most atoms in a cell. By default any number.
    charge_balance
        Reject compositions without charge-balanced oxidation states; alloys pass.
    duplicates
        Compare structures before relaxing, and again after it. Of equal ones the first, then the lowest in energy, goes
        on. Inputs that are identical are computed once in any case.
    hull
        Take hulls, and compute the elements that are their corners where there are no references.
    window
        Candidates up to this energy above the hull (eV/atom) survive.
    properties
        What is computed of the survivors: ``"phonon"``, ``"elastic"``.

    Raises
    ------
    ValueError
        If there is no such property.
    """

    sanity: bool = True
    max_sites: int | None = None
    charge_balance: bool = False
    duplicates: bool = True
    hull: bool = True
    window: float = 0.1
    properties: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        if unknown := sorted(set(self.properties) - set(PROPERTIES)):
            raise ValueError(f"no such property: {', '.join(unknown)}; there are {', '.join(PROPERTIES)}")
        object.__setattr__(self, "properties", tuple(self.properties))

    def to_dict(self) -> dict[str, Any]:
        """Give the stages as a JSON object."""
        return asdict(self) | {"properties": list(self.properties)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(**content)

    def problem(self, candidate: Candidate, elements: Collection[str]) -> tuple[str, str] | None:
        """
        Say why a candidate does not reach the device.

        Parameters
        ----------
        candidate
            As it was read.
        elements
            What the checkpoint knows.

        Returns
        -------
        tuple of str or None
            Stage and reason; None if it goes on.
        """
        structure = candidate.structure
        if candidate.error is not None or structure is None:
            return "reading", candidate.error or "no structure"
        if reason := problem_with(structure, elements):
            return "sanity", reason
        if self.max_sites is not None and len(structure) > self.max_sites:
            return "sanity", f"{len(structure)} atoms, of which at most {self.max_sites} are asked for"
        if self.sanity and (reason := sanity_problem(structure, SanityLimits())):
            return "sanity", reason
        if self.charge_balance and (reason := chemistry_problem(structure.composition, elements, charge_balance=True)):
            return "chemistry", reason
        return None
