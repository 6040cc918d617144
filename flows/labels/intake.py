"""Calculations that the user ran otherwise: from a job store of atomate2, or from files."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.flows.labels.matching import CandidateMatcher, known_ids
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import job_store_at, open_job_store
from matris.stores.dft_labels import DftLabel, DftLabels, DftResult
from matris.stores.dft_method import MethodError
from matris.stores.dft_tasks import TaskError, task_labels
from matris.training.data.reading import LabelledFiles, files_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.training.data.labelled import LabelOptions

_TASK = {"output.calcs_reversed": {"$exists": True}}
_RUN = "vasprun"


@dataclass
class TakenIn:
    """
    What became of calculations.

    Attributes
    ----------
    n_labels
        Number of labels that were stored.
    unmatched
        Calculations that are of no candidate: formula and place.
    left_out
        Calculations and frames without a label, by reason.
    """

    n_labels: int = 0
    unmatched: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def take_in_tasks(
    tasks: Iterable[tuple[str, dict[str, Any]]],
    location: str | Path | None,
    energy_scale: str,
    *,
    ionic_steps: bool = False,
) -> TakenIn:
    """
    Add labels of task documents to the candidates that they are calculations of.

    Parameters
    ----------
    tasks
        Place and content of each document, as `stored_tasks` and `vasp_files` yield them. A document whose metadata
        name a candidate of the store belongs to it; others are matched by their last and their first geometry.
    location
        Store of the candidates.
    energy_scale
        Energy scale of the labels; calculations that are not on it are left out.
    ionic_steps
        Whether to make labels of all ionic steps.
    """
    jobs = open_job_store(location)
    labels, store = DftLabels(jobs), CandidateStore.beside(jobs)
    matcher, taken = CandidateMatcher(store), TakenIn()
    for place, task in tasks:
        named = (task.get("metadata") or {}).get("candidate_id")
        try:
            found, left_out = task_labels(task, named or "", energy_scale, ionic_steps=ionic_steps, source=place)
        except (TaskError, MethodError) as error:
            taken.left_out[f"{place}: {error}"] += 1
            continue
        taken.left_out += left_out
        first_last = [decode_structure(found[-1].structure or {}), *_first_geometry(task)]
        candidate = named if named and known_ids(store, [named]) else matcher.match(*first_last)
        if candidate is None:
            taken.unmatched.append(f"{found[-1].formula_pretty} ({place})")
            continue
        taken.n_labels += labels.add([label.model_copy(update={"candidate_id": candidate}) for label in found])
    return taken


def take_in_frames(
    files: Sequence[Path],
    location: str | Path | None,
    options: LabelOptions,
    *,
    code: str,
    functional: str,
    energy_scale: str,
) -> TakenIn:
    """
    Add labelled frames of files to their candidates: by the candidate_id in a frame, or by its structure.

    Parameters
    ----------
    files
        Files for `matris.training.data.reading.read_labelled`.
    location
        Store of the candidates.
    options
        Units and limits of the labels.
    code, functional, energy_scale
        Method of the calculations.

    Raises
    ------
    MatrisError
        If the files name another energy scale.
    """
    jobs = open_job_store(location)
    labels, store = DftLabels(jobs), CandidateStore.beside(jobs)
    matcher, taken = CandidateMatcher(store), TakenIn()
    read = LabelledFiles(files, options)
    known: dict[str, bool] = {}

    def matched() -> Iterator[DftLabel]:
        for source, frame in read.frames():
            if other := read.scales - {energy_scale}:
                raise MatrisError(
                    f"{source} is on the energy scale {min(other)}, not on {energy_scale}: labels of one store that "
                    "training mixes must be on one scale"
                )
            structure = frame.geometry.structure()
            name = frame.material
            if name not in known:
                known[name] = bool(known_ids(store, [name]))
            candidate = name if known[name] else matcher.match(structure)
            if candidate is None:
                taken.unmatched.append(f"{structure.composition.reduced_formula} ({source}, {name})")
                continue
            result = DftResult(
                energy=frame.energy,
                forces=frame.forces.tolist(),
                stress=None if frame.stress is None else frame.stress.tolist(),
                magmoms=None if frame.magmoms is None else frame.magmoms.tolist(),
                code=code,
                functional=functional,
                energy_scale=energy_scale,
            )
            yield DftLabel.of(candidate, structure, result, source)

    taken.n_labels = labels.add(matched())
    taken.left_out = read.left_out
    return taken


def stored_tasks(address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yield the task documents of VASP in a job store, with the metadata of their jobs.

    Parameters
    ----------
    address
        As for `matris.stores.database.jobstore.job_store_at`: a folder, a MongoDB address, or ``project://NAME``. It is
        only read.

    Raises
    ------
    MatrisError
        If there is no such store.
    """
    store = job_store_at(address)
    store.connect()
    try:
        for document in list(store.docs_store.query(_TASK, ["uuid", "index"], sort={"uuid": 1, "index": 1})):
            task = store.query_one({"uuid": document["uuid"], "index": document["index"]}, load=True)
            if task is not None:
                yield f"job {task['uuid']}", {**task["output"], "metadata": task.get("metadata") or {}}
    finally:
        store.close()


def is_of_vasp(path: Path) -> bool:
    """Tell whether a file holds calculations whose method it tells: vasprun.xml, or task documents in JSON."""
    name = path.name.lower()
    if name.startswith(_RUN) and ".xml" in name:
        return True
    if ".json" not in name:
        return False
    from monty.io import zopen

    with zopen(path, "rt", encoding="utf-8") as stream:
        return "calcs_reversed" in stream.read(2**20)


def calculation_files(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """
    Sort files and the files of folders into those whose method they tell, see `is_of_vasp`, and others.

    Folders are searched for ``vasprun.xml`` to any depth; a folder without any has labelled frames.
    """
    told: list[Path] = []
    others: list[Path] = []
    for path in paths:
        runs = sorted(path.rglob(f"{_RUN}*.xml*")) if path.is_dir() else []
        for file in runs or files_of(path):
            (told if file.is_file() and is_of_vasp(file) else others).append(file)
    return told, others


def vasp_files(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yield the task documents of files: of ``vasprun.xml``, or of JSON.

    A file that cannot be read yields a document with an ``error``, which gives no label.
    """
    from monty.io import zopen
    from monty.json import jsanitize

    for path in paths:
        if path.name.lower().startswith(_RUN):
            yield str(path), jsanitize(_of_run(path), strict=True)
            continue
        with zopen(path, "rt", encoding="utf-8") as stream:
            content = json.load(stream)
        documents = content if isinstance(content, list) else [content]
        for number, document in enumerate(documents):
            place = f"{path}:{number}" if len(documents) > 1 else str(path)
            yield place, document["output"] if "calcs_reversed" in (document.get("output") or {}) else document


def _of_run(path: Path) -> dict[str, Any]:
    """Task document of a vasprun.xml, with the moments in the OUTCAR beside it, if there is one."""
    from pymatgen.io.vasp.outputs import Outcar, Vasprun

    outcar = path.parent / f"OUTCAR{path.name.partition('.xml')[2]}"  # such as .gz, or .relax1.gz
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
            moments = [moment["tot"] for moment in Outcar(outcar).magnetization] if outcar.is_file() else []
            structure = run.final_structure
            if moments:
                structure.add_site_property("magmom", moments)
            output = {"structure": structure, "energy": run.final_energy, "ionic_steps": run.ionic_steps}
            given = {name: getattr(run, name) for name in ("incar", "parameters", "potcar_spec", "hubbards")}
        except Exception as error:  # noqa: BLE001 - pymatgen raises anything for a damaged file
            return {"error": f"pymatgen cannot read it: {error!r}"}
    calculation = {"input": {**given, "structure": run.initial_structure}, "output": output}
    return {"output": output, "calcs_reversed": [calculation]}


def _first_geometry(task: dict[str, Any]) -> list[Structure]:
    given = ((task.get("calcs_reversed") or [{}])[-1].get("input") or {}).get("structure")
    return [decode_structure(json.loads(given) if isinstance(given, str) else given)] if given else []
