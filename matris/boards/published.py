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

PHONONS = _table(
    ("max_frequency_mae [K]", "entropy_mae [J/K/mol]", "free_energy_mae [kJ/mol]", "heat_capacity_mae [J/K/mol]"), {
    "matris_10m_oam": (7.08, 7.12, 2.12, 1.91),
    "esen-30m-oam": (15, 10, 4, 3),
    "sevennet-l3i5": (26, 28, 10, 5),
    "mace-mp-0": (61, 60, 24, 13),
    "nequix-mp-1": (24, 32, 12, 6),
    "nequix-mp-1-pft": (12, 14, 5, 3),
})
"""MDR, of some 10,000 crystals: papers of MatRIS (arXiv 2603, figure 4), eSEN, and phonon fine-tuning (2601.07742)."""

MATCALC = _table(("d", "e_form_mae [eV/atom]", "k_mae [GPa]", "g_mae [GPa]", "c_v_mae [J/K/mol]", "softening"), {
    "matris_10m_oam": (0.316, 0.025, 10.6, 13.3, 3.97, 0.985),
    "matris_6m_mp": (0.32, 0.041, 12.4, 16.4, 7.39, 0.983),
    "m3gnet-matpes": (0.418, 0.109, 26.1, 25.3, 27.2, 0.97),
    "chgnet-matpes": (0.430, 0.082, 23.7, 20.6, 22.8, 0.91),
    "tensornet-matpes": (0.371, 0.081, 18.0, 14.8, 13.3, 0.93),
    "chgnet-0.3.0": (0.505, 0.092, 17.4, 29.6, 23.6, 0.83),
    "tensornet-omat24": (0.315, 0.052, 15.6, 15.5, 5.97, 0.96),
})
"""MatRIS's paper, table 2; others: materialsvirtuallab/matpes, ``pages/matcalc-benchmark-pbe.csv`` (0b611c0)."""
# fmt: on
