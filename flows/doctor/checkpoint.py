"""The checkpoint: at hand, readable, and computing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from matris.errors import MatrisError
from matris.flows.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_checkpoint(key_or_path: str | None = None) -> Iterator[Finding]:
    """
    Check a checkpoint, and compute a crystal of its first element on a CPU. Nothing is downloaded.

    Parameters
    ----------
    key_or_path
        Checkpoint, as for `matris.load`.

    Examples
    --------
    >>> [(finding.check, finding.state) for finding in check_checkpoint()]
    [('checkpoint', 'ok'), ('computing', 'ok')]
    """
    from pymatgen.core import Lattice, Structure

    from matris.model import checkpoints
    from matris.model.potential import load

    entry = checkpoints.REGISTRY.get(key_or_path or "")
    if entry is not None and not entry.path.is_file():
        remedy = f"without a network, download {entry.url} elsewhere and place it at {entry.path}"
        yield Finding("checkpoint", "note", f"{entry.key} is not at hand: it is downloaded at its first use", remedy)
        return
    try:
        potential = load(key_or_path, device="cpu")
        card = potential.card
        crystal = Structure(Lattice.cubic(4.0), [card.elements[0]], [[0, 0, 0]])
        start = time.perf_counter()
        energy = potential.predict(crystal).energy
    except (MatrisError, OSError, RuntimeError, MemoryError) as error:
        yield Finding("checkpoint", "wrong", str(error).splitlines()[0], "matris models lists the checkpoints")
        return
    seconds = time.perf_counter() - start
    kind = f"{len(card.elements)} elements, {card.predicts}, energy scale {card.energy_scale}"
    yield Finding("checkpoint", "ok", f"{card.key}: {kind}; sha256 {card.sha256[:12]}…")
    yield Finding(
        "computing", "ok", f"a crystal of {card.elements[0]} has {energy:.3f} eV, after {seconds:.1f} s on the CPU"
    )
