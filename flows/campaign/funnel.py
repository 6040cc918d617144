"""The stages of a campaign: which candidates are computed, and which results get their properties computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from matris.flows.campaign.chemistry import charge_problem
from matris.flows.campaign.sanity import sanity_problem
from matris.nearest import did_you_mean
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from matris.stores.documents.candidate import Candidate

PROPERTIES = ("elastic", "phonon", "kappa")
"""Properties that can be computed for survivors."""


@dataclass(frozen=True)
class Funnel:
    """
    Stages of a campaign. Every dropped candidate is recorded with the stage and the reason.

    Attributes
    ----------
    sanity
        Whether to reject implausible distances, volumes and cells, see `matris.flows.campaign.sanity`. Structures that
        cannot be computed are always rejected.
    max_sites
        Maximum number of atoms in the cell of a candidate. Default: no limit. Competing phases have none.
    charge_balance
        Whether to reject compositions without charge-balanced oxidation states; alloys pass.
    duplicates
        Whether to drop duplicate structures. Before relaxation only the same crystal is dropped
        (`matris.same_crystal`), and the first one is kept; after it, crystals that are alike in structure and energy
        (`matris.duplicates`), and the one with the lowest energy is kept. Identical inputs are always computed once.
    hull
        Whether to compute convex hulls. Without references, the elements are computed too, as the corners of the hulls.
    complete_hull
        Whether to compute competing compounds from prototypes in the chemical systems of the candidates, unless there
        are references. None: where the candidates have few chemical systems, see `matris.flows.campaign.competing`.
    window
        Candidates up to this energy above the hull (eV/atom) survive.
    properties
        Properties to compute for the survivors: ``"phonon"``, ``"elastic"``, ``"kappa"``.

    Raises
    ------
    ValueError
        If a property is unknown.

    Examples
    --------
    >>> from matris.flows import Funnel
    >>> Funnel(max_sites=40, window=0.05, properties=("phonon",)).properties
    ('phonon',)
    >>> Funnel(properties=("colour",))
    Traceback (most recent call last):
    ...
    ValueError: no such property: colour; choose from elastic, phonon, kappa
    """

    sanity: bool = True
    max_sites: int | None = None
    charge_balance: bool = False
    duplicates: bool = True
    hull: bool = True
    complete_hull: bool | None = False
    window: float = 0.1
    properties: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject unknown properties."""
        for unknown in sorted(set(self.properties) - set(PROPERTIES)):
            raise ValueError(f"no such property: {unknown}{did_you_mean(unknown, PROPERTIES)}")
        object.__setattr__(self, "properties", tuple(self.properties))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self) | {"properties": list(self.properties)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the settings from the output of `to_dict`."""
        return cls(**content)

    def problem(self, candidate: Candidate, elements: Collection[str]) -> tuple[str, str] | None:
        """
        Find out why a candidate is not computed.

        Parameters
        ----------
        candidate
            Candidate, as read from its source.
        elements
            Symbols of the elements that the checkpoint supports.

        Returns
        -------
        tuple of str or None
            Stage and reason; None if the candidate passes.

        Examples
        --------
        >>> from pymatgen.core import Lattice, Structure
        >>> from matris.stores.documents.candidate import Candidate
        >>> iron = Candidate.from_structure(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]), "iron.cif")
        >>> Funnel().problem(iron, ["Fe", "O"])
        >>> Funnel().problem(iron, ["O"])
        ('sanity', 'unsupported element Fe: ...')
        """
        structure = candidate.structure
        if candidate.error is not None or structure is None:
            return "reading", candidate.error or "no structure"
        if reason := problem_with(structure, elements):
            return "sanity", reason
        competes = candidate.source in REFERENCE_SOURCES
        if self.max_sites is not None and len(structure) > self.max_sites and not competes:
            return "sanity", f"{len(structure)} atoms, more than the limit of {self.max_sites}"
        if self.sanity and (reason := sanity_problem(structure)):
            return "sanity", reason
        if self.charge_balance and (reason := charge_problem(structure.composition)):
            return "chemistry", reason
        return None
