"""All boards, by name."""

from __future__ import annotations

from matris.boards.diatomics import DIATOMICS_BOARD

BOARDS = {board.name: board for board in (DIATOMICS_BOARD,)}
