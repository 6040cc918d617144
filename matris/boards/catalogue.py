"""All boards, by name."""

from __future__ import annotations

from matris.boards.diatomics import DIATOMICS_BOARD
from matris.boards.discovery import DISCOVERY_BOARD
from matris.boards.efficiency import EFFICIENCY_BOARD
from matris.boards.kappa import KAPPA_BOARD
from matris.boards.matcalc import MATCALC_BOARD
from matris.boards.md import MD_BOARD
from matris.boards.molecules import MOLECULES_BOARD
from matris.boards.phonons import PHONONS_BOARD

_ALL = (
    DIATOMICS_BOARD,
    DISCOVERY_BOARD,
    KAPPA_BOARD,
    PHONONS_BOARD,
    MATCALC_BOARD,
    MD_BOARD,
    MOLECULES_BOARD,
    EFFICIENCY_BOARD,
)

BOARDS = {board.name: board for board in _ALL}
"""All boards by name."""
