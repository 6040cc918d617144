"""Energy, forces and stress of one material, for atomate2's flows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matris.makers.relax import RelaxMaker


@dataclass
class StaticMaker(RelaxMaker):
    """
    Compute a material as it is; for many materials take `BatchRelaxMaker` with ``steps=0``.

    A drop-in for atomate2's ``ForceFieldStaticMaker``. See `RelaxMaker` for the fields.
    """

    name: str = "MatRIS static"
    relax_cell: bool = False
    steps: int = 1
    relax_kwargs: dict[str, Any] = field(default_factory=dict)
