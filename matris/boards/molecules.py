"""
Energies and forces of molecules, and torsion profiles such as those of TorsionNet-500.

For checkpoints that were trained on molecules (SPICE). Torsion metrics are those that the papers of DPA3 and MatRIS
name: MAE and RMSE of the profiles, MAE of the barriers, and how many barriers are off by more than 1 kcal/mol.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import batched
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase.units import kcal, mol

from matris.boards.board import Board
from matris.boards.published import MOLECULES
from matris.boards.single_points import single_points
from matris.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray

    from matris.boards.board import Job, Metrics, Values

_KCAL = kcal / mol  # eV
_HIGH = 1.0  # kcal/mol
TORSION = "torsion"
"""Key of a frame's information that names its torsion profile."""


def _read(data: Path) -> dict[str, Any]:
    """Read the frames of each set: a file, or the files of a folder, with energies, and forces if there are any."""
    paths = sorted(data.glob("*.xyz")) + sorted(data.glob("*.extxyz")) if data.is_dir() else [data]
    if not paths:
        raise BoardError(f"{data} holds no .xyz or .extxyz file")
    items = {}
    for path in paths:
        for number, atoms in enumerate(ase.io.iread(path, ":", format="extxyz")):
            if atoms.calc is None or "energy" not in atoms.calc.results:
                raise BoardError(f"{path}: frame {number + 1} ({atoms.symbols}) has no energy")
            items[f"{path.stem}/{number}"] = atoms
    return items


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    for keys in batched(items, 100):
        for key, point in zip(keys, single_points(job.contestant.engine, map(items.get, keys)), strict=True):
            if point.error is not None or not np.isfinite(point.energy):
                yield key, {"error": point.error or "the energy is not finite"}
                continue
            values: Values = {"energy": point.energy}
            if (reference := items[key].calc.results.get("forces")) is not None:
                values["force_mae"] = float(np.abs(point.forces - reference).mean())
            yield key, values


def _score(items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    """Metrics of each set; a set whose frames name torsions has those of the profiles."""
    sets: dict[str, list[tuple[Any, Values]]] = defaultdict(list)
    for key, atoms in items.items():
        if not results[key].get("error"):
            sets[key.rpartition("/")[0]].append((atoms, results[key]))
    metrics: Metrics = {}
    for name, rows in sets.items():
        frames, energies = [atoms for atoms, _ in rows], np.array([values["energy"] for _, values in rows])
        reference = np.array([atoms.calc.results["energy"] for atoms in frames])
        forces = np.array([(values["force_mae"], len(atoms)) for atoms, values in rows if "force_mae" in values])
        if all(TORSION in atoms.info for atoms in frames):
            found = torsion_metrics([str(atoms.info[TORSION]) for atoms in frames], energies, reference)
        else:
            found = energy_metrics(frames, energies, reference)
        if len(forces):
            found["forces MAE [meV/Å]"] = 1e3 * float(np.average(forces[:, 0], weights=forces[:, 1]))
        metrics |= {f"{name} {metric}": value for metric, value in found.items()}
    return metrics


def energy_metrics(frames: Sequence[Atoms], energies: NDArray[np.float64], reference: NDArray[np.float64]) -> Metrics:
    """
    Mean absolute errors of energies, meV/atom.

    ``energy MAE, elements fitted`` is that after the difference of both methods' energies of the elements, fitted to
    the set, is subtracted: for sets of another functional than that of the training.
    """
    sizes = np.array([len(atoms) for atoms in frames])
    elements = sorted({number for atoms in frames for number in atoms.numbers.tolist()})
    counts = np.array([[np.sum(atoms.numbers == number) for number in elements] for atoms in frames], dtype=float)
    errors = energies - reference
    shifts = np.linalg.lstsq(counts / sizes[:, None], errors / sizes, rcond=None)[0]
    return {
        "energy MAE [meV/atom]": 1e3 * float(np.mean(np.abs(errors) / sizes)),
        "energy MAE, elements fitted [meV/atom]": 1e3 * float(np.mean(np.abs(errors - counts @ shifts) / sizes)),
    }


def torsion_metrics(names: Sequence[str], energies: NDArray[np.float64], reference: NDArray[np.float64]) -> Metrics:
    """
    Compare torsion profiles, kcal/mol.

    Parameters
    ----------
    names
        Profile of each frame.
    energies, reference
        Energies of the frames, eV. Those of a profile refer to the frame of the lowest reference energy.

    Examples
    --------
    >>> import numpy as np
    >>> found = torsion_metrics(["a"] * 3, np.array([1.0, 1.2, 1.1]), np.array([5.0, 5.1, 5.1]))
    >>> round(found["barrier MAE [kcal/mol]"], 3), found["barriers off by > 1 kcal/mol"]  # 0.2 against 0.1 eV
    (2.306, 1)
    """
    errors: list[NDArray[np.float64]] = []
    barriers: list[float] = []
    for name in dict.fromkeys(names):
        rows = np.array([other == name for other in names])
        found, true = energies[rows] / _KCAL, reference[rows] / _KCAL
        lowest = int(np.argmin(true))
        errors.append((found - found[lowest]) - (true - true[lowest]))
        barriers.append(abs(float(np.ptp(found) - np.ptp(true))))
    every = np.concatenate(errors)
    return {
        "MAE [kcal/mol]": float(np.abs(every).mean()),
        "RMSE [kcal/mol]": float(np.sqrt((every**2).mean())),
        "barrier MAE [kcal/mol]": float(np.mean(barriers)),
        "barriers off by > 1 kcal/mol": int(np.sum(np.array(barriers) > _HIGH)),
    }


MOLECULES_BOARD = Board(
    name="molecules",
    about="energies, forces and torsion barriers of molecules, for checkpoints trained on SPICE",
    data=f"an extended XYZ file, or a folder of them, each a set; info {TORSION}=NAME groups frames of a torsion",
    files=("*.xyz", "*.extxyz"),
    read=_read,
    compute=_compute,
    score=_score,
    published=MOLECULES,
    chunk=2000,
)
