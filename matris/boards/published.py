"""
Published results to compare with.

Matbench Discovery's are those of its repository, 2026-07-16 (commit 2c7f9fc4, ``models/*/*.yml``); names of models are
its own, those of MatRIS are the keys of the checkpoints.
"""

from __future__ import annotations

_DIATOMICS = (
    "pbe_wall_dist_mae",
    "pbe_energy_mae",
    "pbe_bond_length_error",
    "pbe_well_depth_error",
    "pbe_vib_freq_error",
    "tortuosity",
    "energy_diff_flips",
    "energy_jump",
    "force_flips",
    "force_total_variation",
    "force_jump",
    "pbe_force_mae",
)


def _table(names: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {model: dict(zip(names, values, strict=True)) for model, values in rows.items()}


# fmt: off
DIATOMICS = _table(_DIATOMICS, {
    "matris_10m_oam": (0.07931, 1.233, 0.2103, 0.6525, 97.85, 1.033, 2.839, 0.2951, 2.816, 288.0, 35.92, 1.548),
    "matris_10m_mp": (0.6548, 3.293, 0.7708, 1.659, 252.8, 1.082, 3.414, 0.8474, 3.402, 60.85, 19.74, 3.851),
    "chgnet-0.3.0": (0.403, 3.205, 0.2676, 16.86, 182.8, 2.21, 1.839, 2.105, 2.011, 415.0, 205.5, 4.927),
    "nequix-mp-1": (0.6649, 1.707, 0.2886, 0.5733, 90.36, 1.306, 2.172, 0.5506, 2.172, 79.92, 16.73, 2.91),
    "nequix-mp-1-pft": (0.6389, 1.682, 0.2585, 0.5714, 105.3, 1.292, 2.241, 0.5761, 2.207, 81.45, 18.66, 2.886),
})
"""Means over elements: Å, eV, Å, eV, cm⁻¹, 1, 1, eV, 1, eV/Å, eV/Å, eV/Å."""
# fmt: on
