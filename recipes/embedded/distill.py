"""Training frames from a teacher potential: ``python -m recipes.embedded.distill structures|label``.

``structures`` makes the starting structures, ``label`` walks each towards zero pressure and force, shakes it, and keeps
*every* evaluation of the teacher as a training frame. Both are reproducible from their seed; ``label`` writes one shard
per piece of materials and skips the shards that are there, so it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from recipes.embedded.materials import Material, distance_ratio, generate
from recipes.embedded.teacher import Committee, Label, Teacher
from recipes.embedded.variants import KEPT, SIZES, variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)

WALK_STEPS = 4
SHAKEN_FRAMES = 5
SHAKEN_LARGE = 3  # of cells above 16 atoms, where a frame holds more
MAX_FORCE = 30.0  # eV/Å
MAX_STRESS = 3.0  # eV/Å^3, 480 GPa
MAX_ENERGY_RISE = 10.0  # eV/atom above the calmest frame of the material
MIN_DISTANCE = 0.5  # in sums of covalent radii
_SMALL = 16
_MODULI = (0.03, 2.0)  # eV/Å^3: 5 to 320 GPa, limits of the bulk modulus in the walk
_CALM_PRESSURE = 0.006  # eV/Å^3, 1 GPa
_CALM_FORCE = 0.1  # eV/Å


@dataclass
class _Walk:
    """Where one material stands on its way to zero pressure."""

    material: Material
    atoms: Atoms
    frames: list[tuple[str, Atoms, Label]] = field(default_factory=list)
    modulus: float = 0.6  # eV/Å^3
    done: bool = False

    def take(self, label: Label) -> None:
        """Keep the label of the present geometry and step on."""
        self.frames.append((f"walk{len(self.frames)}", self.atoms.copy(), label))
        pressure = -float(np.trace(label.stress)) / 3
        if not np.isfinite(label.stress).all() or not np.isfinite(label.forces).all():
            self.done = True
            return
        if len(self.frames) > 1:
            _, before, old = self.frames[-2]
            change = np.log(self.atoms.get_volume() / before.get_volume())
            if abs(change) > 0.01:  # noqa: PLR2004
                self.modulus = float(np.clip((-np.trace(old.stress) / 3 - pressure) / change, *_MODULI))
        calm = abs(pressure) < _CALM_PRESSURE and np.abs(label.forces).max() < _CALM_FORCE
        if calm or len(self.frames) == WALK_STEPS:
            self.done = True
            return
        volumetric = float(np.clip(pressure / self.modulus, -0.12, 0.12))
        deviator = label.stress - np.trace(label.stress) / 3 * np.eye(3)
        shear = np.clip(-deviator / self.modulus, -0.03, 0.03)  # 2G taken as the bulk modulus
        moved = np.clip(0.04 * label.forces, -0.15, 0.15)  # Å; a force constant of 25 eV/Å^2
        self.atoms.positions += moved
        strain = np.eye(3) * np.exp(volumetric / 3) + shear
        self.atoms.set_cell(self.atoms.cell[:] @ strain, scale_atoms=True)

    def best(self) -> tuple[Atoms, Label]:
        """Return the geometry next to zero pressure and force, with its label."""

        def badness(item: tuple[str, Atoms, Label]) -> float:
            return abs(float(np.trace(item[2].stress))) / 0.03 + float(np.abs(item[2].forces).mean())

        _, atoms, label = min(self.frames, key=badness)
        return atoms, label


@dataclass(frozen=True)
class Shaking:
    """
    How far to go from the calmest geometry.

    Attributes
    ----------
    strain
        Largest change of the logarithm of the volume.
    shear
        Largest shear.
    rattle
        Least and largest standard deviation of the displacements (Å).
    compression
        Mean of an exponential distribution that is taken from the logarithm of the volume; 0 for none.
    """

    strain: float = 0.06
    shear: float = 0.04
    rattle: tuple[float, float] = (0.02, 0.20)
    compression: float = 0.0


SHAKINGS = {
    "strong": (Shaking(),),
    "gentle": (Shaking(strain=0.02, shear=0.01, rattle=(0.01, 0.10)),),
    "hot": (
        Shaking(strain=0.04, shear=0.03, rattle=(0.02, 0.15)),
        Shaking(strain=0.08, shear=0.05, rattle=(0.05, 0.35), compression=0.3),
        Shaking(strain=0.08, shear=0.05, rattle=(0.05, 0.35), compression=0.3),
    ),
}
"""Shaken frames follow one of these, each shaking in its turn. The hot one reaches hundreds of GPa."""

_MOST_COMPRESSED = -0.9  # logarithm of the volume


def shake(
    atoms: Atoms, rng: np.random.Generator, count: int = SHAKEN_FRAMES, shakings: Sequence[Shaking] = SHAKINGS["strong"]
) -> list[Atoms]:
    """Strained and rattled copies of one structure.

    Parameters
    ----------
    atoms
        The structure; cells of up to 4 atoms are made into supercells of up to 8 atoms, where forces can arise.
    rng
        Random numbers.
    count
        How many.
    shakings
        How far, in turns.

    Returns
    -------
    list of Atoms
        Volumetric strain uniform within its limits, shear likewise, Gaussian rattles with a standard deviation drawn
        log-uniformly between its limits.
    """
    shaken = []
    for number in range(count):
        shaking = shakings[number % len(shakings)]
        frame = atoms.copy()
        while 2 * len(frame) <= 8:  # noqa: PLR2004
            repeats = [1, 1, 1]
            repeats[int(np.argmin(frame.cell.lengths()))] = 2
            frame = frame.repeat(repeats)
        shear = rng.uniform(-1, 1, (3, 3)) * rng.uniform(0, shaking.shear)
        strain = (shear + shear.T) / 2
        strain -= np.eye(3) * np.trace(strain) / 3
        growth = rng.uniform(-shaking.strain, shaking.strain)
        if shaking.compression:
            growth = max(growth - rng.exponential(shaking.compression), _MOST_COMPRESSED)
        frame.set_cell(frame.cell[:] @ (np.eye(3) + strain) * np.exp(growth / 3), scale_atoms=True)
        sigma = np.exp(rng.uniform(*np.log(shaking.rattle)))
        frame.positions += rng.normal(0, sigma, frame.positions.shape)
        shaken.append(frame)
    return shaken


def fault(atoms: Atoms, label: Label, lowest: float) -> str | None:
    """Why a frame should not be learnt from; None if it may.

    Parameters
    ----------
    atoms, label
        The frame.
    lowest
        Energy per atom of the best geometry on the walk, eV.
    """
    if not (np.isfinite(label.energy) and np.isfinite(label.forces).all() and np.isfinite(label.stress).all()):
        return "not finite"
    if float(np.linalg.norm(label.forces, axis=1).max()) > MAX_FORCE:
        return "force"
    if float(np.abs(label.stress).max()) > MAX_STRESS:
        return "stress"
    if not -1.0 < label.energy / len(atoms) - lowest < MAX_ENERGY_RISE:
        return "energy"
    if distance_ratio(AseAtomsAdaptor.get_structure(atoms)) < MIN_DISTANCE:
        return "distance"
    if label.disagreement > 1:
        return "disagreement"
    return None


def label_piece(
    teacher: Teacher | Committee,
    materials: Sequence[Material],
    seed: int,
    shakings: Sequence[Shaking] = SHAKINGS["strong"],
) -> tuple[list[Atoms], Counter[str]]:
    """Walk and shake some materials together.

    Parameters
    ----------
    teacher
        What answers.
    materials
        The materials of one piece.
    seed
        Of the random strains and rattles, with the material's identifier.
    shakings
        How far to go from the calmest geometry, in turns.

    Returns
    -------
    tuple
        The frames, each with its labels, ``info`` (material, source, made, split); and the number of frames
        dropped by reason.
    """
    walks = [_Walk(m, AseAtomsAdaptor.get_atoms(m.structure, msonable=False)) for m in materials]
    while open_walks := [walk for walk in walks if not walk.done]:
        for walk, answer in zip(open_walks, teacher([walk.atoms for walk in open_walks]), strict=True):
            walk.take(answer)
    shaken: list[tuple[_Walk, Atoms]] = []
    for walk in walks:
        rng = np.random.default_rng([seed, int(walk.material.material[1:])])
        calmest = walk.best()[0]
        count = SHAKEN_FRAMES if len(calmest) <= _SMALL else SHAKEN_LARGE
        shaken += [(walk, frame) for frame in shake(calmest, rng, count, shakings)]
    for (walk, frame), answer in zip(shaken, teacher([frame for _, frame in shaken]), strict=True):
        walk.frames.append(("shaken", frame, answer))
    kept: list[Atoms] = []
    dropped: Counter[str] = Counter()
    for walk in walks:
        atoms, answer = walk.best()
        lowest = answer.energy / len(atoms)
        # several teachers: the first one's energy of the calmest frame gives the scale, the mean what others rise above
        shift = (answer.members[0].energy - answer.energy) / len(atoms) if answer.members else 0.0
        for made, frame, answer in walk.frames:
            reason = fault(frame, answer, lowest)
            if reason:
                dropped[reason] += 1
            else:
                shifted = replace(answer, energy=answer.energy + shift * len(frame))
                kept.append(_labelled(frame, shifted, walk.material, made))
    return kept, dropped


def _labelled(frame: Atoms, label: Label, material: Material, made: str) -> Atoms:
    atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True)
    atoms.info = {
        "material": material.material,
        "source": material.source,
        "made": made,
        "split": "validation" if material.validation else "training",
    }
    moments = {} if label.magmoms is None else {"magmoms": label.magmoms}
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces, stress=label.stress, **moments)
    return atoms


def write_structures(path: Path, materials: Iterable[Material]) -> None:
    """Write starting structures as gzipped JSON lines."""
    with whole_file(path) as draft, gzip.open(draft, "wt") as file:
        for material in materials:
            file.write(json.dumps(material.to_dict()) + "\n")


def read_structures(path: Path) -> list[Material]:
    """Read what `write_structures` wrote."""
    try:
        with gzip.open(path, "rt") as file:
            return [Material.from_dict(json.loads(line)) for line in file]
    except FileNotFoundError as error:
        raise MatrisError(f"no structures at {path}: make them with the `structures` command first") from error


def label_all(
    output: Path,
    materials: Iterable[Material],
    teacher: Teacher | Committee,
    *,
    seed: int,
    piece: int,
    minutes: float,
    shakings: Sequence[Shaking],
) -> None:
    """Label piece after piece into ``output``/shard-NNNN.extxyz.gz until the time is up; present shards are skipped."""
    started = time.monotonic()
    ordered = list(materials)
    for number, start in enumerate(range(0, len(ordered), piece)):
        path = output / f"shard-{number:04d}.extxyz.gz"
        if path.exists():
            continue
        if time.monotonic() - started > 60 * minutes:
            logger.info("time is up before shard %d", number)
            return
        begun = time.monotonic()
        frames, dropped = label_piece(teacher, ordered[start : start + piece], seed, shakings)
        with whole_file(path) as draft, gzip.open(draft, "wt") as file:
            write(file, frames, format="extxyz")
        evaluated = len(frames) + sum(dropped.values())
        logger.info(
            "shard %d: %d frames, %s dropped, %.1f labels/s, mean |F| %.3f eV/Å",
            number, len(frames), dict(dropped) or "none", evaluated / (time.monotonic() - begun),
            np.abs(np.concatenate([f.get_forces() for f in frames])).mean(),
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.distill", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("structures", "make starting structures"), ("label", "label them with the teacher")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--output", type=Path, required=True, help="folder of structures.jsonl.gz and the shards")
        command.add_argument("--seed", type=int, default=0)
    commands.choices["structures"].add_argument("--count", type=int, default=3000, help="number of materials")
    commands.choices["structures"].add_argument(
        "--data", type=Path, help="vary the crystals of this folder's DFT frames"
    )
    commands.choices["structures"].add_argument("--sizes", type=int, nargs=2, default=SIZES, help="of varied cells")
    commands.choices["structures"].add_argument(
        "--kept", type=float, default=KEPT, help="share of the elements that stay in varied crystals"
    )
    commands.choices["label"].add_argument("--piece", type=int, default=56, help="materials in a shard")
    commands.choices["label"].add_argument("--minutes", type=float, default=40.0, help="start no shard after this time")
    commands.choices["label"].add_argument("--shaking", choices=SHAKINGS, default="strong", help="how far to shake")
    commands.choices["label"].add_argument("--committee", action="store_true", help="ask CHGNet too, keep agreement")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    path = options.output / "structures.jsonl.gz"
    if options.command == "structures":
        made = (
            variants(options.data, options.seed, options.count, sizes=tuple(options.sizes), kept=options.kept)
            if options.data
            else generate(options.seed, options.count)
        )
        write_structures(path, made)
    else:
        materials = read_structures(path)
        label_all(
            options.output,
            materials,
            Committee() if options.committee else Teacher(),
            seed=options.seed,
            piece=options.piece,
            minutes=options.minutes,
            shakings=SHAKINGS[options.shaking],
        )


if __name__ == "__main__":
    main()
