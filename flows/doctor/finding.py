"""Result of one check of this machine."""

from __future__ import annotations

from typing import Literal, NamedTuple

type State = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """
    Result of one check.

    Parameters
    ----------
    check
        Name of the check.
    state
        ``"ok"``; ``"note"`` for what works, but not as well as it could; ``"wrong"`` for what must be put right first.
    message
        What was found, in one line.
    remedy
        What to do, in one line; empty if nothing is to be done.
    """

    check: str
    state: State
    message: str
    remedy: str = ""
