"""
A campaign that learns, against labels of random candidates: ``python benchmarks/learning.py FOLDER``.

A potential of another kind stands for first principles: EMT, or nequix in an environment of its own. It relaxes all
candidates, and its own hull says which phases are stable. Loops that begin with the checkpoint's campaign ask it for
labels, as they choose or at random, fine-tune, and screen again. The table says how many of the stable phases are on
the hull with labels after each round.

The same command goes on after an interruption; finished parts stay in the folder. A small size, in minutes:

``python benchmarks/learning.py FOLDER --system Ag-Au-Cu-Pd --candidates 40 --labels 12 --rounds 1 --seeds 1``

With nequix, whose weights are copied first because it writes beside them:

``python benchmarks/learning.py FOLDER --teacher nequix --python PYTHON --weights FILE.nqx --system Al-Cu-Li-Mg-Ni-Ti``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.calculators.emt import EMT
from peers import machine
from scipy.stats import kendalltau

import matris
from matris.boards.other_python import OtherPython
from matris.files.whole_file import whole_file
from matris.flows import Campaign, Funnel, generate_candidates, run
from matris.flows.learning.loop import Learning
from matris.flows.learning.plan import Plan
from matris.flows.learning.selection import FIELDS, Chosen, select
from matris.flows.learning.snapshot import Snapshot
from matris.flows.learning.teacher import Teacher
from matris.flows.screening import with_elements
from matris.makers import BatchRelaxMaker
from matris.model import checkpoints
from matris.model.graph import Geometry
from matris.stores.documents.documents import hull_fields
from matris.stores.documents.learning import root_of
from matris.stores.hull.hull import hull_results
from matris.stores.report.outcomes import is_ranked
from matris.training.data.element_energies import refit_reference_energies
from matris.training.data.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matris.stores.documents.candidate import Candidate

SAME = 1e-3  # eV/atom: a candidate so close to the teacher's hull is the stable phase of its formula
WAYS = ("chosen", "random")


def teacher_of(options: argparse.Namespace) -> Teacher:
    """Make the potential that stands for first principles."""
    if options.teacher == "emt":
        return Teacher(matris.AseModel(EMT()), "EMT", "emt")
    calculator = OtherPython(
        options.python,
        "nequix.calculator",
        "NequixCalculator",
        options={"model_path": str(options.weights), "backend": "torch", "use_kernel": False},
    )
    digest = hashlib.sha256(Path(options.weights).read_bytes()).hexdigest()
    return Teacher(matris.AseModel(calculator, f"nequix {digest}"), options.weights.stem, "mp")


def taken(system: str, count: int) -> list[Candidate]:
    """Draw candidates of a chemical system, the same whenever it is called."""
    compounds = [c for c in generate_candidates(system) if c.structure and len(c.structure.composition) > 1]
    order = np.random.default_rng(0).permutation(len(compounds))[:count]
    return [compounds[i] for i in sorted(order)]


def truth(teacher: Teacher, candidates: Sequence[Candidate], folder: Path) -> dict[str, dict[str, Any]]:
    """Map the id of each candidate to its formula and its distance to the hull of the teacher's energies."""
    file = folder / "truth.json"
    if file.exists():
        found: dict[str, dict[str, Any]] = json.loads(file.read_text())
        return found
    everything = with_elements(candidates)
    structures = [candidate.structure for candidate in everything]
    documents = []
    records = matris.relax(structures, teacher.model, fmax=0.05, max_steps=500, journal=folder / "truth.jsonl")
    for n, record in enumerate(records, start=1):
        if not n % 20:
            told(f"truth: {n} of {len(everything)}")
        name = everything[record.index].candidate_id
        document = {"document_id": name, "state": record.state, "correction_scheme": None, "settings": {"digest": "0"}}
        document |= {"checkpoint": {"key": teacher.name, "sha256": "0" * 64, "energy_scale": teacher.energy_scale}}
        document |= {"chemsys": None, "composition": {}, "energy_per_atom": None}
        if record.structure is not None:
            document |= hull_fields(record.structure, record.energy, teacher.energy_scale)
        documents.append(document)
    places = hull_results(documents)
    formulas = {c.candidate_id: c.structure.composition.reduced_formula for c in candidates}
    found = {
        name: {"formula": formula, "above": places[name].energy_above_hull, "state": places[name].hull_state}
        for name, formula in formulas.items()
    }
    write(file, found)
    return found


def aligned(checkpoint: str | None, teacher: Teacher, candidates: Sequence[Candidate], folder: Path) -> str | None:
    """Return the checkpoint to begin with; on another energy scale, a copy with the teacher's elements."""
    network, card = checkpoints.read_file(checkpoints.locate(checkpoint))
    if card.energy_scale == teacher.energy_scale:
        return checkpoint
    path = folder / "aligned.safetensors"
    if not path.exists():
        elements = [c for c in with_elements(candidates) if len(c.structure.composition) == 1]
        frames = []
        for record in matris.relax([c.structure for c in elements], teacher.model, fmax=0.05):
            geometry = Geometry.of(record.structure)
            frames.append(Frame(geometry, record.energy, record.forces, record.stress, str(record.index)))
        refit_reference_energies(network, frames, {str(c.structure[0].specie) for c in elements})
        description = f"{card.key}, with the energies of elements by {teacher.name}"
        made = replace(card, key=f"{card.key}-{teacher.energy_scale}", energy_scale=teacher.energy_scale)
        checkpoints.save(path, network, replace(made, description=description, sha256=""))
    return str(path)


def screened(folder: Path, checkpoint: str | None, candidates: Iterable[Candidate]) -> Path:
    """Run the campaign with which all loops begin."""
    store = folder / "first"
    done = folder / "first.done"
    if not done.exists():
        maker = BatchRelaxMaker(checkpoint=checkpoint, device="cpu")
        run(Campaign(store, maker, Funnel(window=0.1), title="Learning"), candidates, devices=())
        done.touch()
    return store


def at_random(seed: int) -> Callable[..., list[Chosen]]:
    """Make a choice of elements, as `select` makes it, and then of candidates at random."""

    def choose(documents: Sequence[dict[str, Any]], budget: int, *, labelled: set[str], **options: Any) -> list[Chosen]:
        corners = [c for c in select(documents, budget, labelled=labelled, **options) if c.probability is None]
        free = [d for d in documents if is_ranked(d) and root_of(d) not in labelled]
        order = np.random.default_rng([seed, len(labelled)]).permutation(len(free))[: budget - len(corners)]
        picked = (free[i] for i in order)
        return corners + [Chosen(d["document_id"], d["candidate_id"], root_of(d), ("at random",), 0.5) for d in picked]

    return choose


def loop_rows(
    store: Path, way: str, seed: int, teacher: Teacher, plan: Plan, true: dict[str, dict[str, Any]], rounds: int
) -> list[dict[str, Any]]:
    """Run one loop to its end, and measure it after each round."""
    choose = select if way == "chosen" else at_random(seed)
    loop = Learning(store, None, replace(plan, seed=seed), teacher, devices=(), choose=choose)
    told(f"{way}, seed {seed}")
    record = loop.go_on()
    labels, roots = loop._labels()  # noqa: SLF001 - the benchmark looks inside
    rows = []
    for number in range(rounds + 1):
        closed = record.rounds[:number]
        ids = {name for each in closed for name in each.label_ids}
        if number < len(record.rounds):
            campaign = loop.campaign(record.rounds[number].campaign_id)
        else:
            campaign = loop.campaign(record.campaigns[-1] if record.campaigns else record.loop_id)
        documents = list(campaign.documents(FIELDS))
        snapshot = Snapshot.of(documents, [each for each in labels if each["label_id"] in ids], roots)
        rows.append({"round": number, "labels": closed[-1].n_labelled if closed else 0, **measured(snapshot, true)})
        rows[-1]["taken"] = sum(each.trained is not None and each.trained.taken for each in closed)
    return rows


def measured(snapshot: Snapshot, true: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Compare the hull with labels, and the checkpoint's own distances, with the teacher's hull."""
    stable = {each["formula"] for each in true.values() if is_stable(each)}
    on_hull = set(snapshot.stable())
    hits = {true[root]["formula"] for root in on_hull if root in true and is_stable(true[root])}
    pairs = [
        (d["energy_above_hull"], true[root_of(d)]["above"])
        for d in snapshot.documents
        if is_ranked(d) and d.get("energy_above_hull") is not None and true.get(root_of(d), {}).get("above") is not None
    ]
    ours, theirs = np.array(pairs).T if pairs else (np.zeros(0), np.zeros(0))
    return {
        "stable": len(stable),
        "found": len(hits & stable),
        "wrong": len([root for root in on_hull if root in true and not is_stable(true[root])]),
        "confirmed": len({true[root]["formula"] for root in snapshot.confirmed() if root in true} & stable),
        "tau": float(kendalltau(ours, theirs).statistic) if len(pairs) > 1 else None,
        "mae": float(1e3 * np.abs(ours - theirs).mean()) if pairs else None,
    }


def is_stable(place: dict[str, Any]) -> bool:
    """Whether the teacher has a candidate on its hull, but for the noise of relaxations."""
    return place["above"] is not None and place["above"] <= SAME


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Make the table: means over the seeds, and the range of the phases found."""
    names = ("round", "candidates", "labels", "found of stable", "range", "wrong", "confirmed", "τ")
    names += ("distance MAE, meV/atom", "checkpoints taken")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for number in sorted({row["round"] for row in rows}):
        for way in WAYS:
            chosen = [row for row in rows if row["round"] == number and row["way"] == way]
            if not chosen:
                continue

            def mean(name: str, chosen: Sequence[dict[str, Any]] = chosen) -> float:
                values = [row[name] for row in chosen if row[name] is not None]
                return float(np.mean(values)) if values else float("nan")

            found = [row["found"] for row in chosen]
            cells = [
                *(str(number), way, f"{mean('labels'):.0f}", f"{mean('found'):.1f} of {chosen[0]['stable']}"),
                *(f"{min(found)} to {max(found)}", f"{mean('wrong'):.1f}", f"{mean('confirmed'):.1f}"),
                *(f"{mean('tau'):.3f}", f"{mean('mae'):.1f}", f"{mean('taken'):.1f}"),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def told(message: str) -> None:
    """Print progress to standard error."""
    logging.getLogger("learning").info(message)


def write(path: Path, content: Any) -> None:
    """Write a JSON file as a whole."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of all results")
    parser.add_argument("--teacher", choices=("emt", "nequix"), default="emt")
    parser.add_argument("--python", help="interpreter of the environment with nequix")
    parser.add_argument("--weights", type=Path, help="weights of nequix")
    parser.add_argument("--system", default="Ag-Al-Au-Cu-Ni-Pd-Pt", help="chemical system")
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--labels", type=int, default=30, help="labels in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--checkpoint", help="key or file to begin with; default: the embedded checkpoint")
    parser.add_argument("--replay", type=Path, help="set of old data on the teacher's energy scale")
    parser.add_argument("--epochs", type=float, default=Plan().epochs)
    parser.add_argument("--learning-rate", type=float, default=Plan().learning_rate)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("learning").setLevel(logging.INFO)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: str(value) for name, value in vars(options).items() if name not in {"seeds", "threads", "folder"}}
    if (folder / "options.json").exists() and json.loads((folder / "options.json").read_text()) != asked:
        raise SystemExit(f"{folder} holds results of other options: name another folder")
    write(folder / "options.json", asked)
    teacher = teacher_of(options)
    candidates = taken(options.system, options.candidates)
    true = truth(teacher, candidates, folder)
    begin = aligned(options.checkpoint, teacher, candidates, folder)
    first = screened(folder, begin, candidates)
    plan = Plan(
        per_round=options.labels,
        budget=options.labels * options.rounds,
        patience=options.rounds + 1,
        replay=None if options.replay is None else str(options.replay.absolute()),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
    )
    rows, start = [], time.monotonic()
    for seed in range(options.seeds):
        for way in WAYS:
            name = f"{way}-{seed}"
            file = folder / f"{name}.json"
            if not file.exists():
                if not (folder / name).exists():
                    draft = folder / f".{name}.partial"
                    shutil.rmtree(draft, ignore_errors=True)
                    shutil.copytree(first, draft).rename(folder / name)
                write(file, loop_rows(folder / name, way, seed, teacher, plan, true, options.rounds))
            rows += [{"way": way, "seed": seed, **row} for row in json.loads(file.read_text())]
    card = checkpoints.read_file(checkpoints.locate(begin))[1]
    print(
        f"{len(candidates)} candidates of {options.system}; {teacher.name} for first principles; {card.key} "
        f"{card.sha256[:12]}; {options.seeds} seeds; {machine('cpu', options.threads)}; "
        f"{time.monotonic() - start:.0f} s in this run\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
