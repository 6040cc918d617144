"""Commands of training: data, evaluate, label, train, finetune."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout, write_columns, write_json
from matris.cli.options import Device, Format, Store, check_there, clear_errors, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matris.training.assess import Assessment
    from matris.training.data.labelled import LabelOptions, Outcome
    from matris.training.data.reading import LabelledFiles

_SOURCES = "Extended XYZ, ASE databases, JSON (MPtrj, MatPES, pymatgen), sets, or folders of them."
Sources = Annotated[list[Path], typer.Argument(metavar="FILE", exists=True, help=_SOURCES)]
OptionalSources = Annotated[
    list[Path] | None, typer.Argument(metavar="FILE", exists=True, help=_SOURCES, show_default=False)
]
MaxForce = Annotated[float, typer.Option(metavar="F", min=0.0, help="Leave out frames with a larger force (eV/Å).")]
StressUnit = Annotated[
    Literal["eV/Å³", "eV/A^3", "GPa", "kbar"] | None,
    typer.Option(help="Of stresses whose source names none.", show_default="eV/Å³ in XYZ and ASE databases"),
]
FlipStress = Annotated[
    bool, typer.Option("--flip-stress", help="Stresses count compression as positive, as VASP's do.")
]


def data(
    files: OptionalSources = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="SET", help="Folder to make.", show_default="show a set")
    ] = None,
    validation: Annotated[float, typer.Option(metavar="X", min=0.0, max=1.0, help="Share to set aside.")] = 0.05,
    split_by: Annotated[
        Literal["formula", "material", "source"],
        typer.Option(help="What is never split, unless frames have a 'split'."),
    ] = "formula",
    scale: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Energy scale: mp, omat24, matpes-pbe, …", show_default="as the files say"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="DIR|URI", help="Take the labels that 'matris label' put there.", show_default=False),
    ] = None,
    max_force: MaxForce = 100.0,
    max_residual: Annotated[
        float | None,
        typer.Option(
            metavar="EV",
            min=0.0,
            help="Leave out energies farther from what the elements explain (eV/atom).",
            show_default="12 robust standard deviations, 1 at least",
        ),
    ] = None,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse labels that contradict each other: signs, units.")
    ] = True,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE", help="Count angles for its cut-offs now.", show_default="training counts them"
        ),
    ] = None,
) -> None:
    """
    Make a set to train on from labelled structures, or show one: sizes, elements, labels, what was left out and why.

    `matris data MPtrj_2022.9_full.json --output mptrj`

    `matris data mptrj`
    """
    with clear_errors(resumes=False):
        from matris.cli.data_view import data_view
        from matris.errors import MatrisError
        from matris.model.checkpoints import locate, read_file
        from matris.model.potential import load
        from matris.training.data.dataset import DataSet
        from matris.training.data.labelled import LabelOptions
        from matris.training.data.writer import SetOptions, write_set

        if not files and store is None:
            raise MatrisError("name files with labels, or a store that holds some: --store DIR")
        if output is None:
            if store is not None or not files or len(files) > 1:
                raise MatrisError("name the folder to make: --output SET")
            made = DataSet(files[0])
            made.verify()
        else:
            label_options = LabelOptions(max_force, stress_unit, flip_stress)
            options = SetOptions(validation, split_by, scale, max_residual, check_labels=check)
            config = read_file(locate(checkpoint))[0].config if checkpoint else None
            with stderr.status("Reading …") as status:
                made = write_set(
                    output,
                    _sources(files or [], store, label_options),
                    options,
                    _teller(status),
                    load() if check else None,
                )
            if config is not None:
                with stderr.status("Counting angles …"):
                    made.edges(config)
        stdout().print(data_view(made))


def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A key, as 'matris models' lists them, or a file.")
    ],
    files: Sources,
    part: Annotated[
        Literal["validation", "training", "all"],
        typer.Option(help="Of sets of 'matris data'; of other files all frames count."),
    ] = "validation",
    elements: Annotated[bool, typer.Option("--elements", help="Print the errors of each element too.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with parity plots and all errors.")
    ] = None,
    max_force: MaxForce = 100.0,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    device: Device = None,
    output: Format = "table",
) -> None:
    """
    Errors of a checkpoint against labels: energies, forces, stresses, magnetic moments, by set and by element.

    `matris evaluate matris_10m_mp dft.extxyz --report errors.html`
    """
    with clear_errors(resumes=False):
        from matris.cli.data_view import error_table
        from matris.errors import MatrisError
        from matris.model.potential import load
        from matris.training.assess import assess
        from matris.training.data.labelled import LabelOptions
        from matris.training.data.reading import LabelledFiles

        potential = load(checkpoint, device=device)
        read = LabelledFiles(files, LabelOptions(max_force, stress_unit, flip_stress), part)
        with stderr.status("Evaluating …") as status:
            found = assess(potential, _told(read.frames(), status))
        rows, remarks = found.rows(), _remarks(read, found, potential.card.energy_scale)
        for remark in remarks:
            stderr.print(f"[yellow]Note:[/yellow] {escape(remark)}", soft_wrap=True)
        if not rows:
            raise MatrisError("nothing to compare with: no frame could be used")
        shown = rows if elements or output != "table" else [row for row in rows if row["kind"] != "element"]
        if output == "json":
            write_json(shown)
        elif output == "csv":
            write_columns(list(shown[0]), [list(row.values()) for row in shown])
        else:
            stdout().print(error_table(shown))
        if report is not None:
            from matris.training.parity import parity_figure, write_parity_page

            title = f"{potential.card.key} against {listed([path.name or str(path) for path in files])}"
            write_parity_page(report, title, rows, parity_figure(found.points(), found.sets), remarks)
            stderr.print(f"Report: {escape(str(report))}", soft_wrap=True)


def label(
    files: Sources,
    code: Annotated[str, typer.Option(metavar="NAME", help="Program that calculated them, such as VASP.")],
    functional: Annotated[str, typer.Option(metavar="NAME", help="Such as PBE, PBE+U or r2SCAN.")],
    scale: Annotated[
        str, typer.Option(metavar="NAME", help="Energy scale: mp, omat24, matpes-pbe, … or a name of your own.")
    ],
    max_force: MaxForce = 100.0,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    store: Store = None,
) -> None:
    """
    Put first-principles results of candidates into their store, to train on: energies, forces, stresses, moments.

    Frames name their candidate by candidate_id, as 'matris export' writes it; geometries may be any.

    `matris label done.extxyz --code VASP --functional PBE --scale mp`

    `matris data --store matris-results --output mine`
    """
    with clear_errors():
        from matris.errors import MatrisError
        from matris.stores.dft_labels import DftLabel, DftLabels, DftResult
        from matris.training.data.labelled import LabelOptions
        from matris.training.data.reading import LabelledFiles

        check_there(store)
        read = LabelledFiles(files, LabelOptions(max_force, stress_unit, flip_stress))
        labels = (
            DftLabel.of(
                frame.material,
                frame.geometry.structure(),
                DftResult(
                    energy=frame.energy,
                    forces=frame.forces.tolist(),
                    stress=None if frame.stress is None else frame.stress.tolist(),
                    magmoms=None if frame.magmoms is None else frame.magmoms.tolist(),
                    code=code,
                    functional=functional,
                    energy_scale=scale,
                ),
            )
            for _, frame in read.frames()
        )
        n = DftLabels(store).add(labels)
        for reason, n_left_out in read.left_out.most_common():
            stderr.print(f"[yellow]Note:[/yellow] {n_left_out} frames left out: {escape(reason)}", soft_wrap=True)
        if not n:
            raise MatrisError("no frame could be used")
        stderr.print(f"{n} labels in the store")


def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", exists=True, dir_okay=False, show_default=False)
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a configuration that explains itself.")] = False,
) -> None:
    """
    Train a checkpoint from nothing on a set of 'matris data'. Run it again to go on after a stop.

    `matris train --example > config.yaml`

    `matris train config.yaml`

    `torchrun --nproc-per-node 4 -m matris.cli train config.yaml`
    """
    with clear_errors():
        from matris.errors import MatrisError
        from matris.training.recipe import EXAMPLE, read_config, train_checkpoint

        if example:
            sys.stdout.write(EXAMPLE)
            return
        if config is None:
            raise MatrisError("name a configuration; --example prints one")
        _show_log()
        path = train_checkpoint(read_config(config))
        if path is not None:
            stderr.print(f"Checkpoint: {escape(str(path))}, its log beside it", soft_wrap=True)


def finetune(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A key, as 'matris models' lists them, or a file.")
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="DATA", exists=True, help="A set of 'matris data', or files to make one of.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="State, log and new checkpoint.")],
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the new checkpoint.", show_default="CHECKPOINT-finetuned")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="SET", exists=True, help="Old frames to mix in, against forgetting.", show_default=False),
    ] = None,
    replay_share: Annotated[
        float, typer.Option(metavar="X", min=0.01, max=0.95, help="Of old frames in each batch.")
    ] = 0.3,
    refit_energies: Annotated[
        bool, typer.Option("--refit-energies", help="Fit element energies to labels of another functional first.")
    ] = False,
    energy_scale: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the labels, if re-fitted: mp, omat24, …", show_default="the parent's"),
    ] = None,
    epochs: Annotated[float, typer.Option(metavar="N", min=0.01, help="Passes over DATA.")] = 20.0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Structures in a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(metavar="X", min=1e-9, help="Peak.")] = 3e-4,
    freeze: Annotated[
        int, typer.Option(metavar="N", min=0, help="The embeddings and so many first blocks stay as they are.")
    ] = 0,
    layer_decay: Annotated[
        float, typer.Option(metavar="X", min=0.01, max=1.0, help="Each block learns so much slower than the next one.")
    ] = 1.0,
    patience: Annotated[
        int, typer.Option(metavar="N", min=1, help="End after so many validations without a lower loss.")
    ] = 10,
    validate_every: Annotated[int, typer.Option(metavar="N", min=1, help="Steps between validations.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the order of the frames.")] = 0,
    device: Device = None,
) -> None:
    """
    Train a checkpoint on: labels of your own, a few hundred are enough. Run it again to go on after a stop.

    `matris finetune matris_10m_oam mine.extxyz --output tuned --replay mptrj-sample`
    """
    with clear_errors():
        from dataclasses import replace

        from matris.cli.data_view import tuned_table
        from matris.training.data.dataset import META, DataSet
        from matris.training.finetuning import GENTLE, set_of
        from matris.training.finetuning import finetune as tune

        settings = replace(
            GENTLE,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            frozen_blocks=freeze,
            layer_decay=layer_decay,
            early_stopping=patience,
            validate_every=validate_every,
            seed=seed,
            replay=0.0 if replay is None else replay_share,
        )
        is_set = len(files) == 1 and (files[0] / META).is_file()
        _show_log()
        tuned = tune(
            checkpoint,
            DataSet(files[0]) if is_set else set_of(files, output / "data"),
            output,
            settings,
            key=key,
            replay=None if replay is None else DataSet(replay),
            refit_energies=refit_energies,
            energy_scale=energy_scale,
            device=device,
        )
        if tuned is not None:
            stdout().print(tuned_table(tuned))
            stderr.print(f"Checkpoint: {escape(str(tuned.path))}, its log beside it", soft_wrap=True)


def _show_log() -> None:
    """Let the training tell on the terminal how far it is."""
    logger = logging.getLogger("matris.training")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _remarks(read: LabelledFiles, found: Assessment, scale: str) -> list[str]:
    """Tell what a reader of errors must know: what was left out, and energy scales that differ."""
    left_out = read.left_out + found.left_out
    remarks = [f"{n} frames left out: {reason}" for reason, n in left_out.most_common()]
    if found.unknown:
        remarks.append("unknown elements: " + ", ".join(f"{s} ({n})" for s, n in found.unknown.most_common()))
    other = sorted(read.scales - {scale})
    if other and scale != "unknown":
        remarks.append(
            f"the labels are on the energy scale {', '.join(other)}, the checkpoint is on {scale}: "
            "energy errors mean little but after the shift"
        )
    return remarks + ([remark] if (remark := found.remark()) else [])


def _told[T](items: Iterable[T], status: Any) -> Iterator[T]:
    """Say now and then how far it is."""
    for number, item in enumerate(items, 1):
        if not number % 20:
            status.update(f"Evaluating … {number} frames")
        yield item


def _sources(
    files: Iterable[Path], store: str | None, options: LabelOptions
) -> Iterator[tuple[str, Iterator[Outcome]]]:
    """Yield the name of each source and its frames."""
    from matris.training.data.json_documents import from_document
    from matris.training.data.reading import files_of, read_labelled

    for path in files:
        for file in files_of(path):
            yield file.name, read_labelled(file, options)
    if store is not None:
        from matris.stores.dft_labels import DftLabels

        check_there(store)
        labels = DftLabels(store).documents()
        yield "labelled candidates", (from_document(identity, document, options) for identity, document in labels)


def _teller(status: Any) -> Any:
    """Say now and then how far reading is."""

    def tell(n_taken: int, n_rejected: int) -> None:
        if not (n_taken + n_rejected) % 100:
            status.update(f"Reading … {n_taken} frames" + (f", {n_rejected} left out" if n_rejected else ""))

    return tell
