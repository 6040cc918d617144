"""
Label materials with the teacher, one shard after the other: ``python -m recipes.embedded.label``.

``--structures FILE`` walks each material towards zero pressure and force, shakes it, and makes a pair. ``--near
FOLDER`` relaxes labelled materials further, from the calmest frame of their walks, and makes a pair and near copies.
The command goes on where it was stopped, and several processes can work on one folder. Random numbers follow from the
seed and the material, so that a repeated shard is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.model.potential import load
from matris.structures import problem_with
from recipes.embedded.labels import Labels, formulas_of_wbm, part_of, shards_in, write_shard
from recipes.embedded.materials import Material, distance_ratio, read_structures
from recipes.embedded.pieces import claim
from recipes.embedded.shaking import NEAR, SHAKINGS, pair, shake
from recipes.embedded.teacher import Label, Teacher
from recipes.embedded.walks import Relaxation, Walk, follow, unrest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from matris.model.potential import Potential
    from recipes.embedded import walks
    from recipes.embedded.shaking import Shaking
    from recipes.embedded.teacher import Labeller

    type Kept = list[tuple[Atoms, dict[str, Any]]]
    type Outcome = tuple[Kept, Counter[str]]

logger = logging.getLogger(__name__)

PIECE = 36
"""Materials of a shard: some minutes of work."""

SHAKEN, SHAKEN_LARGE, SMALL = 5, 3, 16
"""Shaken frames of a material; fewer of cells above the last number of atoms, where a frame holds more."""

NEAR_FRAMES = 4
MAX_FORCE = 50.0  # eV/Å
MAX_STRESS = 3.0  # eV/Å³, 480 GPa
MAX_ENERGY_RISE = 10.0  # eV/atom above the calmest frame of the material
MAX_ENERGY_FALL = 1.0  # eV/atom below it: the teacher has left what it knows
MIN_DISTANCE = 0.5  # in sums of covalent radii

PLAN = "plan.json"


def fault(atoms: Atoms, label: Label, lowest: float) -> str | None:
    """
    Tell why a frame should not be learnt from; None if it may.

    Parameters
    ----------
    atoms, label
        The frame.
    lowest
        Energy per atom of the calmest frame of the material (eV).
    """
    if not label.finite:
        return "not finite"
    if float(np.linalg.norm(label.forces, axis=1).max()) > MAX_FORCE:
        return "force"
    if float(np.abs(label.stress).max()) > MAX_STRESS:
        return "stress"
    if not -MAX_ENERGY_FALL < label.energy / len(atoms) - lowest < MAX_ENERGY_RISE:
        return "energy"
    if distance_ratio(AseAtomsAdaptor.get_structure(atoms)) < MIN_DISTANCE:
        return "distance"
    return None


def label_piece(
    teacher: Labeller, materials: Sequence[tuple[str, Atoms]], seed: int, shakings: Sequence[Shaking]
) -> Outcome:
    """
    Walk some materials towards zero pressure and force; shake the calmest frame of each, and make a pair of it.

    Parameters
    ----------
    teacher
        Function that labels frames.
    materials
        Identifiers and starting structures.
    seed
        Seed of the random numbers.
    shakings
        How to shake, in turns.

    Returns
    -------
    tuple
        Frames for `write_shard`, and the number of refused frames by reason.
    """
    paths = [Walk(name, atoms.copy()) for name, atoms in materials]

    def around(atoms: Atoms, rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
        count = SHAKEN if len(atoms) <= SMALL else SHAKEN_LARGE
        return (("shaken", frame) for frame in shake(atoms, rng, count, shakings))

    return _follow_and_shake(teacher, paths, [seed, 0], around)


def near_piece(teacher: Labeller, starts: Sequence[tuple[str, Atoms]], seed: int) -> Outcome:
    """
    Relax labelled frames; keep some steps, a pair at the end, and copies near it.

    Parameters
    ----------
    teacher
        Function that labels frames.
    starts
        Identifiers and frames.
    seed
        Seed of the random numbers.

    Returns
    -------
    tuple
        As for `label_piece`.
    """

    def around(atoms: Atoms, rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
        return (("near", frame) for frame in shake(atoms, rng, NEAR_FRAMES, NEAR))

    paths = [Relaxation(name, atoms.copy()) for name, atoms in starts]
    return _follow_and_shake(teacher, paths, [seed, 1], around)


def _follow_and_shake(
    teacher: Labeller,
    paths: Sequence[walks.Path],
    seed: Sequence[int],
    around: Callable[[Atoms, np.random.Generator], Iterable[tuple[str, Atoms]]],
) -> Outcome:
    follow(teacher, paths)
    lowest = [best[1].energy / len(best[0]) if (best := path.best()) else np.nan for path in paths]
    extra: list[tuple[walks.Path, str, Atoms]] = []
    for path in paths:
        if best := path.best():
            rng = np.random.default_rng([*seed, zlib.crc32(path.material.encode())])
            first, second = pair(best[0], rng)
            made = [*around(best[0], rng), ("pair0", first), ("pair1", second)]
            extra += [(path, name, frame) for name, frame in made]
    for (path, name, frame), label in zip(extra, teacher([frame for _, _, frame in extra]), strict=True):
        path.frames.append((name, frame, label))
    kept: Kept = []
    refused: Counter[str] = Counter()
    for path, energy in zip(paths, lowest, strict=True):
        faults = [fault(atoms, label, energy) for _, atoms, label in path.frames]
        is_pair = [made.startswith("pair") for made, _, _ in path.frames]
        broken_pair = any(of_pair and reason for of_pair, reason in zip(is_pair, faults, strict=True))
        for (made, atoms, label), of_pair, found in zip(path.frames, is_pair, faults, strict=True):
            reason = found or ("other half of a pair" if of_pair and broken_pair else None)
            if reason:
                refused[reason] += 1
            else:
                kept.append((atoms, {**label.__dict__, "material": path.material, "made": made}))
    return kept, refused


def calmest(labels: Labels, reserved: Collection[str] = ()) -> list[tuple[str, Atoms]]:
    """
    Find the calmest frame of the walk of each material, in the order of the materials.

    Parameters
    ----------
    labels
        Labelled frames.
    reserved
        As for `part_of`; materials of reserved formulas are left out.
    """
    best: dict[str, tuple[float, int]] = {}
    for index, (made, formula) in enumerate(zip(labels.made(), labels.formulas(), strict=True)):
        if made.startswith("walk") and part_of(formula, reserved) != "reserved":
            frame = labels[index]
            found = unrest(Label(frame.energy, frame.forces, frame.stress, frame.forces[:, 0]))
            best[frame.material] = min(best.get(frame.material, (np.inf, -1)), (found, index))
    chosen = [(material, labels[index].geometry) for material, (_, index) in best.items()]
    return [(name, Atoms(g.numbers, positions=g.positions, cell=g.cell, pbc=True)) for name, g in chosen]


def by_extrapolation(student: Potential, materials: Sequence[Material]) -> list[Material]:
    """
    Order materials by the extrapolation of a potential at their starting structures, the largest first.

    Materials that the potential cannot compute come first.

    Raises
    ------
    MatrisError
        If the checkpoint has no domain, and so does not know when it extrapolates.
    """
    if student.network.domain is None:
        raise MatrisError(f"{student.card.key} has no training domain to order materials by: package it with one")
    known = [m for m in materials if problem_with(m.structure, student.elements) is None]
    found = zip(known, student.predict(m.structure for m in known), strict=True)
    values = {m.material: prediction.extrapolation for m, prediction in found}
    return sorted(materials, key=lambda m: -values.get(m.material, np.inf))


def planned(output: Path, settings: Mapping[str, Any], names: Callable[[], list[str]]) -> list[str]:
    """
    Read which materials a folder labels, in their order; the first process decides and writes it down.

    Parameters
    ----------
    output
        The folder.
    settings
        All that decides on the content of the shards.
    names
        Makes the list of materials.

    Raises
    ------
    MatrisError
        If the folder was begun with other settings.
    """
    path = output / PLAN
    with claim(path, wait=True) as mine:
        if mine:
            with whole_file(path) as draft:
                draft.write_text(json.dumps({"settings": settings, "materials": names()}))
    plan: dict[str, Any] = json.loads(path.read_text())
    other = {k for k in (*settings, *plan["settings"]) if settings.get(k) != plan["settings"].get(k)}
    if other:
        told = ", ".join(f"{k} {plan['settings'].get(k)} (now {settings.get(k)})" for k in sorted(other))
        raise MatrisError(f"{output} was begun with {told}: go on with the same, or name another folder")
    return list(plan["materials"])


def label_pieces(pieces: Iterable[tuple[Path, Callable[[], Outcome]]], minutes: float) -> None:
    """
    Make shards that neither exist nor are being made by another process, until there are none or the time is up.

    Parameters
    ----------
    pieces
        Each shard, and what makes its content.
    minutes
        No shard is begun after this time.
    """
    started = time.monotonic()
    elsewhere = 0
    for path, make in pieces:
        if path.exists():
            continue
        if time.monotonic() - started > 60 * minutes:
            logger.info("time is up before %s: run the command again to go on", path.name)
            return
        with claim(path) as mine:
            if not mine:
                elsewhere += not path.exists()
                continue
            begun = time.monotonic()
            kept, refused = make()
            write_shard(path, kept)
        speed = (len(kept) + refused.total()) / (time.monotonic() - begun)
        logger.info("%s: %d frames, refused %s, %.1f labels/s", path.name, len(kept), dict(refused) or "none", speed)
    logger.info("nothing left to begin; %d shards are made by other processes", elsewhere)


def pieces_of_structures(
    teacher: Labeller,
    output: Path,
    materials: Mapping[str, Material],
    names: Sequence[str],
    options: argparse.Namespace,
) -> Iterator[tuple[Path, Callable[[], Outcome]]]:
    """Yield the shards of a structure file, and what makes them."""
    for number, begin in enumerate(range(0, len(names), options.piece)):

        def make(chosen: Sequence[str] = names[begin : begin + options.piece]) -> Outcome:
            atoms = [AseAtomsAdaptor.get_atoms(materials[name].structure, msonable=False) for name in chosen]
            return label_piece(teacher, list(zip(chosen, atoms, strict=True)), options.seed, SHAKINGS[options.shaking])

        yield output / f"{output.name}-{number:05d}.npz", make


def pieces_near(
    teacher: Labeller, output: Path, folders: Sequence[Path], reserved: Collection[str], seed: int
) -> Iterator[tuple[Path, Callable[[], Outcome]]]:
    """Yield one shard near equilibrium for each shard in some folders, and what makes it."""
    shards = shards_in(folders)
    if twice := [stem for stem, count in Counter(path.stem for path in shards).items() if count > 1]:
        raise MatrisError(f"several shards have the names {', '.join(twice)}: relax their folders into other folders")
    for path in shards:

        def make(source: Path = path) -> Outcome:
            return near_piece(teacher, calmest(Labels([source]), reserved), seed)

        yield output / f"near-{path.name}", make


def main(arguments: Sequence[str] | None = None, teacher: Labeller | None = None) -> None:
    """
    Label.

    Parameters
    ----------
    arguments
        Of the command line.
    teacher
        Labels frames instead of the teacher that the arguments name; for tests.
    """
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.label", description=__doc__.split("\n")[1])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--structures", type=Path, help="file of python -m recipes.embedded.structures")
    what.add_argument("--near", type=Path, nargs="+", help="folders of shards, whose materials are relaxed further")
    parser.add_argument("--output", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--data", type=Path, required=True, help="folder of reference data, for the formulas of WBM")
    parser.add_argument("--teacher", default="nequix-oam-1-pft", help="name, or file of weights (.nqx)")
    parser.add_argument("--student", help="label first where this checkpoint extrapolates most (with --structures)")
    parser.add_argument("--shaking", choices=SHAKINGS, default="gentle", help="how far to shake (with --structures)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--piece", type=int, default=PIECE, help="materials in a shard (with --structures)")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no shard after this time; memory grows")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(options.threads)
    reserved = formulas_of_wbm(options.data)
    asked = Teacher(options.teacher) if teacher is None else teacher
    settings = {"teacher": getattr(asked, "identity", "a function"), "seed": options.seed}
    if options.near:
        planned(options.output, settings | {"of": "shards"}, list)
        label_pieces(pieces_near(asked, options.output, options.near, reserved, options.seed), options.minutes)
        return
    materials = read_structures(options.structures)
    labelled = [m for m in materials if part_of(m.formula, reserved) != "reserved"]
    logger.info("%d materials; %d have reserved formulas", len(materials), len(materials) - len(labelled))
    by_name = {m.material: m for m in labelled}
    if len(by_name) < len(labelled):
        raise MatrisError(f"{options.structures}: several materials have the same identifier")
    student = load(options.student, device="cpu") if options.student else None
    names = planned(
        options.output,
        settings
        | {
            "of": hashlib.sha256(options.structures.read_bytes()).hexdigest()[:12],
            "piece": options.piece,
            "shaking": options.shaking,
            "student": student.card.sha256 if student else None,
        },
        lambda: [m.material for m in (by_extrapolation(student, labelled) if student else labelled)],
    )
    label_pieces(pieces_of_structures(asked, options.output, by_name, names, options), options.minutes)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # of this process only
    main()
