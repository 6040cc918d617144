"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW = 12  # names that fit into a message


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Make the second half of an error message: the known names that are most alike, else all of them if they are few.

    Parameters
    ----------
    name
        Name that does not exist.
    known
        Names that exist.

    Returns
    -------
    str
        It begins with a semicolon; empty if no name is alike and there are too many to list.

    Examples
    --------
    >>> did_you_mean("matris_10m_oma", ["matris_embedded", "matris_10m_oam"])
    '; did you mean matris_10m_oam?'
    >>> did_you_mean("blue", ["phonon", "elastic"])
    '; choose from phonon, elastic'
    """
    by_lower = {each.lower(): each for each in known}
    if alike := get_close_matches(name.lower(), by_lower, n=2):
        return f"; did you mean {' or '.join(by_lower[each] for each in alike)}?"
    return f"; choose from {', '.join(by_lower.values())}" if len(by_lower) <= _FEW else ""
