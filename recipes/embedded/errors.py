"""Print the errors on a shipped card as a Markdown table: ``python -m recipes.embedded.errors [KEY]``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from matris.model import checkpoints
from matris.model.card_text import measured_errors

if TYPE_CHECKING:
    from matris.model.checkpoints import Card


def error_table(card: Card) -> str:
    """Write the card's errors as a Markdown table, for docs/embedded-checkpoint.md."""
    rows = [f"| {' | '.join(row)} |" for row in measured_errors(card)]
    return "\n".join(["| set | what | value |", "|---|---|---|", *rows])


if __name__ == "__main__":
    key = sys.argv[1] if len(sys.argv) > 1 else None
    sys.stdout.write(error_table(checkpoints.read_file(checkpoints.locate(key))[1]) + "\n")
