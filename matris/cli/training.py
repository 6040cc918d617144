"""Commands for training: data, train, finetune, evaluate."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout, write_columns, write_json
from matris.cli.options import Device, Format, clear_errors, require_results, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matris.training.assess import Assessment
    from matris.training.data.labelled import LabelOptions, Outcome
    from matris.training.data.reading import LabelledFiles

_SOURCES = "Labelled structures: extended XYZ, ASE databases, JSON (MPtrj, MatPES, pymatgen), sets, or folders of them."
Sources = Annotated[list[Path], typer.Argument(metavar="FILE", exists=True, help=_SOURCES)]
OptionalSources = Annotated[
    list[Path] | None, typer.Argument(metavar="FILE", exists=True, help=_SOURCES, show_default=False)
]
MaxForce = Annotated[
    float, typer.Option(metavar="F", min=0.0, help="Maximum force; frames with a larger one are left out (eV/Å).")
]
StressUnit = Annotated[
    Literal["eV/Å³", "eV/A^3", "GPa", "kbar"] | None,
    typer.Option(
        metavar="UNIT",
        help="Unit of stresses whose source names none: eV/Å³ (or eV/A^3), GPa or kbar.",
        show_default="eV/Å³ in XYZ and ASE databases",
    ),
]
FlipStress = Annotated[
    bool,
    typer.Option(
        "--flip-stress", help="Reverse the sign of stresses that are positive under compression, as VASP's are."
    ),
]


def data(
    files: OptionalSources = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="SET", help="Folder of the new set.", show_default="show an existing set"
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(metavar="X", min=0.0, max=1.0, help="Fraction of the frames to set aside for validation.")
    ] = 0.05,
    split_by: Annotated[
        Literal["formula", "material", "source", "block"],
        typer.Option(
            metavar="GROUP",
            help="Frames of one formula, material, source or block (a tenth of the consecutive frames of a source) are "
            "not split, unless they have a 'split' of their own.",
        ),
    ] = "formula",
    energy_scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Energy scale of the labels: mp, omat24, matpes-pbe, …", show_default="from the files"
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="DIR|URI", help="Store with labels that 'matris label' added.", show_default=False),
    ] = None,
    max_force: MaxForce = 100.0,
    max_residual: Annotated[
        float | None,
        typer.Option(
            metavar="EV",
            min=0.0,
            help="Maximum deviation of an energy from a fit to the elements (eV/atom); others are left out.",
            show_default="12 robust standard deviations, at least 1",
        ),
    ] = None,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Reject labels whose signs or units contradict each other.")
    ] = True,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE",
            help="Checkpoint for whose cutoffs to count angles now.",
            show_default="count in training",
        ),
    ] = None,
) -> None:
    """
    Make a training set from labelled structures, or show one: sizes, elements, labels, and frames left out.

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
            raise MatrisError("name files with labels, or a store with labels: --store DIR")
        if output is None:
            if store is not None or not files or len(files) > 1:
                raise MatrisError("name the folder of the new set: --output SET")
            made = DataSet(files[0])
            made.verify()
        else:
            label_options = LabelOptions(max_force, stress_unit, flip_stress)
            options = SetOptions(validation, split_by, energy_scale, max_residual, check_labels=check)
            config = read_file(locate(checkpoint))[0].config if checkpoint else None
            with stderr.status("Reading …") as status:
                made = write_set(
                    output,
                    _sources(files or [], store, label_options),
                    options,
                    _reading_progress(status),
                    load() if check else None,
                )
            if config is not None:
                with stderr.status("Counting angles …"):
                    made.edges(config)
        stdout().print(data_view(made))


def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint: a key that 'matris models' lists, or a file.")
    ],
    files: Sources,
    part: Annotated[
        Literal["validation", "training", "all"],
        typer.Option(help="Part of a set of 'matris data'; all frames of other files are used."),
    ] = "validation",
    elements: Annotated[bool, typer.Option("--elements", help="Print the errors of each element too.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="HTML page with parity plots and all errors.")
    ] = None,
    max_force: MaxForce = 100.0,
    stress_unit: StressUnit = None,
    flip_stress: FlipStress = False,
    device: Device = None,
    output: Format = "table",
) -> None:
    """
    Print the errors of a checkpoint against labels: energies, forces, stresses and magnetic moments, by set.

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
            assessment = assess(potential, _counted(read.frames(), status))
        rows, remarks = assessment.rows(), _remarks(read, assessment, potential.card.energy_scale)
        for remark in remarks:
            stderr.print(f"[yellow]Note:[/yellow] {escape(remark)}", soft_wrap=True)
        if not rows:
            raise MatrisError("nothing to compare: no frame could be used")
        shown = rows if elements or output != "table" else [row for row in rows if row["kind"] != "element"]
        if output == "json":
            write_json(shown)
        elif output == "csv":
            write_columns(list(shown[0]), [list(row.values()) for row in shown])
        else:
            stdout().print(error_table(shown))
        if report is not None:
            from matris.training.parity import parity_figure, write_parity_page

            title = f"{potential.card.key} against {shortened([path.name or str(path) for path in files])}"
            write_parity_page(report, title, rows, parity_figure(assessment.points(), assessment.sets), remarks)
            stderr.print(f"Report: {escape(str(report))}", soft_wrap=True)


def train(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG.yaml",
            exists=True,
            dir_okay=False,
            help="Configuration of the training.",
            show_default=False,
        ),
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a commented example configuration.")] = False,
) -> None:
    """
    Train a checkpoint from scratch on a set of 'matris data'; after an interruption, the same command resumes.

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
            raise MatrisError("name a configuration file; --example prints one")
        _show_log()
        path = train_checkpoint(read_config(config))
        if path is not None:
            stderr.print(f"Checkpoint: {escape(str(path))}, with its log in the same folder", soft_wrap=True)


def finetune(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint: a key that 'matris models' lists, or a file.")
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="DATA", exists=True, help="A set of 'matris data', or labelled structures.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for training state, log and new checkpoint.")
    ],
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Key of the new checkpoint.", show_default="CHECKPOINT-finetuned")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="SET",
            exists=True,
            help="Set of earlier training data to mix in, against forgetting.",
            show_default=False,
        ),
    ] = None,
    replay_share: Annotated[
        float, typer.Option(metavar="X", min=0.01, max=0.95, help="Fraction of --replay frames in each batch.")
    ] = 0.3,
    refit_energies: Annotated[
        bool,
        typer.Option("--refit-energies", help="Refit the element energies first, for labels of another functional."),
    ] = False,
    energy_scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Energy scale of the labels, with --refit-energies: mp, omat24, …",
            show_default="CHECKPOINT's",
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(metavar="N", min=0.01, help="Number of passes over DATA.")] = 20.0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Number of structures in a training step.")] = 16,
    learning_rate: Annotated[float, typer.Option(metavar="X", min=1e-9, help="Maximum learning rate.")] = 3e-4,
    frozen_blocks: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of first blocks to freeze, with the embeddings.")
    ] = 0,
    layer_decay: Annotated[
        float,
        typer.Option(metavar="X", min=0.01, max=1.0, help="Ratio of a block's learning rate to the next block's."),
    ] = 1.0,
    early_stopping: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Number of validations without a lower loss after which training ends."),
    ] = 10,
    validate_every: Annotated[int, typer.Option(metavar="N", min=1, help="Number of steps between validations.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed for the order of the frames.")] = 0,
    device: Device = None,
) -> None:
    """
    Fine-tune a checkpoint on your own labels; a few hundred are enough.

    After an interruption, the same command resumes.

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
            frozen_blocks=frozen_blocks,
            layer_decay=layer_decay,
            early_stopping=early_stopping,
            validate_every=validate_every,
            seed=seed,
            replay_share=0.0 if replay is None else replay_share,
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
            stderr.print(f"Checkpoint: {escape(str(tuned.path))}, with its log in the same folder", soft_wrap=True)


def _show_log() -> None:
    """Show the log of the training in the terminal."""
    logger = logging.getLogger("matris.training")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _remarks(read: LabelledFiles, assessment: Assessment, scale: str) -> list[str]:
    """List what limits the comparison: frames that were left out, and different energy scales."""
    left_out = read.left_out + assessment.left_out
    remarks = [f"{n} frames left out: {reason}" for reason, n in left_out.most_common()]
    if assessment.unknown:
        remarks.append("unknown elements: " + ", ".join(f"{s} ({n})" for s, n in assessment.unknown.most_common()))
    other = sorted(read.scales - {scale})
    if other and scale != "unknown":
        remarks.append(
            f"the labels are on the energy scale {', '.join(other)}, the checkpoint is on {scale}: "
            "compare energy errors only after the shift"
        )
    return remarks + ([remark] if (remark := assessment.remark()) else [])


def _counted[T](items: Iterable[T], status: Any) -> Iterator[T]:
    """Show the number of items so far, every 20 items."""
    for number, item in enumerate(items, 1):
        if not number % 20:
            status.update(f"Evaluating … {number} frames")
        yield item


def _sources(
    files: Iterable[Path], store: str | None, options: LabelOptions
) -> Iterator[tuple[str, Iterator[Outcome]]]:
    """Yield the name and the frames of each source."""
    from matris.training.data.json_documents import from_document
    from matris.training.data.reading import files_of, read_labelled

    for path in files:
        for file in files_of(path):
            yield file.name, read_labelled(file, options)
    if store is not None:
        from matris.flows.labels.harvest import harvest_labels
        from matris.stores.database.jobstore import open_job_store
        from matris.stores.dft_labels import DftLabels

        require_results(store)
        job_store = open_job_store(store)
        harvest_labels(job_store)
        labels = DftLabels(job_store).documents()
        yield "labelled candidates", (from_document(identity, document, options) for identity, document in labels)


def _reading_progress(status: Any) -> Any:
    """Return a function that shows the number of frames, every 100 frames."""

    def update(n_taken: int, n_rejected: int) -> None:
        if not (n_taken + n_rejected) % 100:
            status.update(f"Reading … {n_taken} frames" + (f", {n_rejected} left out" if n_rejected else ""))

    return update
