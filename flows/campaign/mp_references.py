"""References of a campaign that are fetched from the Materials Project once its chemical systems are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.errors import MatrisError
from matris.stores.hull.references import references_from_mp

if TYPE_CHECKING:
    from collections.abc import Collection

    from matris.stores.hull.references import References

MP = "mp"
"""Stands for a file of references that is fetched from the Materials Project."""

_MAX_SYSTEMS = 200  # one request each


def largest_systems(systems: Collection[str]) -> list[str]:
    """
    List the chemical systems that are in no other one.

    Examples
    --------
    >>> largest_systems({"Fe", "Fe-O", "Fe-Li-O", "Mg"})
    ['Fe-Li-O', 'Mg']
    """
    sets = {system: set(system.split("-")) for system in systems}
    return sorted(s for s, elements in sets.items() if not any(elements < other for other in sets.values()))


def fetch(systems: Collection[str], energy_scale: str) -> References:
    """
    Fetch the phases of chemical systems and their subsystems from the Materials Project.

    Parameters
    ----------
    systems
        Chemical systems of the candidates.
    energy_scale
        Energy scale of the checkpoint.

    Raises
    ------
    MatrisError
        If there are too many systems, or as for `matris.stores.hull.references.references_from_mp`.
    """
    largest = largest_systems(systems)
    if len(largest) > _MAX_SYSTEMS:
        raise MatrisError(
            f"the candidates have {len(largest)} chemical systems, too many to fetch one by one (more than "
            f"{_MAX_SYSTEMS}); give a file of references"
        )
    return references_from_mp(largest[0], energy_scale, systems=largest[1:])
