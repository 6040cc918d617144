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

DISCOVERY = _table((
    *(f"{subset} {name}" for subset in ("full", "unique", "10k")
      for name in ("F1", "DAF", "Precision", "Recall", "Accuracy", "MAE", "RMSE", "R2", "missing")),
    "RMSD", "symmetry match 1e-5", "symmetry match 1e-2",
), {
    "matris_10m_oam": (
        0.903, 5.275, 0.905, 0.901, 0.967, 0.019, 0.066, 0.864, 2,
        0.921, 6.039, 0.923, 0.918, 0.976, 0.019, 0.066, 0.871, 0,
        0.986, 6.366, 0.973, 1.0, 0.973, 0.015, 0.066, 0.904, 0,
        0.0601, 0.5955, 0.8153,
    ),
    "matris_10m_mp": (
        0.832, 4.744, 0.814, 0.852, 0.941, 0.030, 0.076, 0.821, 33,
        0.847, 5.422, 0.829, 0.865, 0.951, 0.031, 0.077, 0.824, 25,
        0.990, 6.414, 0.980, 1.0, 0.980, 0.020, 0.050, 0.942, 0,
        0.0717, 0.5766, 0.7992,
    ),
    "nequix-mp-1": (
        0.744, 3.95, 0.678, 0.825, 0.903, 0.042, 0.084, 0.780, 2,
        0.751, 4.455, 0.681, 0.836, 0.914, 0.044, 0.086, 0.782, 0,
        0.953, 5.949, 0.910, 1.0, 0.910, 0.051, 0.117, 0.734, 0,
        0.0853, 0.6999, 0.8111,
    ),
    "chgnet-0.3.0": (
        0.612, 3.038, 0.521, 0.740, 0.839, 0.061, 0.100, 0.690, 2,
        0.613, 3.361, 0.514, 0.758, 0.851, 0.063, 0.103, 0.689, 0,
        0.920, 5.567, 0.851, 1.0, 0.851, 0.063, 0.095, 0.816, 0,
        0.0949, 0.6062, 0.7921,
    ),
})
"""Energies in eV/atom."""

KAPPA = _table(("SRME", "SRE", "SRD", "failure rate", "imaginary mode rate"), {
    "matris_10m_oam": (0.2183, 0.1181, -0.0479, 0.0, 0.0),
    "matris_10m_mp": (0.4892, 0.388, -0.3456, 0.0291, 0.0291),
    "nequix-mp-1": (0.4461, 0.2901, -0.2477, 0.0, 0.0),
    "nequix-mp-1-pft": (0.3066, 0.1689, -0.0962, 0.0097, 0.0097),
    "chgnet-0.3.0": (1.7167, 1.6959, -1.6822, 0.1553, 0.1553),
})

MOLECULES = _table(("torsionnet500 MAE [kcal/mol]", "torsionnet500 RMSE [kcal/mol]",
                    "torsionnet500 barrier MAE [kcal/mol]", "torsionnet500 barriers off by > 1 kcal/mol"), {
    "MatRIS-M": (0.04, 0.07, 0.07, 0),
    "DPA3": (0.06, 0.09, 0.09, 0),
})
"""MatRIS's paper, table 3, which states no unit."""

MD = _table(("energy_rmse", "force_rmse", "rdf_error", "adf_error", "vdos_error",
             "pressure_mae", "pressure_wasserstein", "pressure_error"), {
    "matris_10m_oam": (0.6826, 71.8543, 3.5865, 1.4905, 22.0326, 0.8304, 0.8346, 49.9882),
    "matris_10m_mp": (0.9355, 100.3604, 4.2261, 1.6255, 22.1941, 0.8096, 0.8179, 45.8784),
    "nequix-mp-1": (1.3652, 136.1155, 6.085, 2.7458, 27.6748, 0.9578, 0.9596, 73.8322),
    "nequix-mp-1-pft": (1.4143, 131.0959, 5.9298, 2.825, 27.4531, 0.7939, 0.8044, 69.5436),
    "chgnet-0.3.0": (2.3775, 202.2351, 9.6568, 6.2711, 35.6003, 1.1106, 1.1162, 65.8987),
})
"""meV/atom, meV/Å, %, %, %, GPa, GPa, %; means over 17 systems."""

EFFICIENCY = _table(("relaxations/s",), {"MatRIS-S": (0.68,), "MatRIS-M": (0.52,), "MACE": (1.3,), "eSEN": (0.30,)})
"""MatRIS's paper, figure 5: 500 structures of WBM on one GPU of a kind that it does not name."""
# fmt: on
