"""Commands of training: data, evaluate; train and finetune have their place at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from matris.cli_options import clear_errors
from matris.terminal import stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matris.training.labelled import Reading, Taken

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        exists=True,
        help="Extended XYZ, ASE databases, JSON (MPtrj, MatPES, pymatgen), sets, or folders of them.",
    ),
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
    files: Sources,
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
    with clear_errors():
        from matris.checkpoints import locate, read_file
        from matris.errors import MatrisError
        from matris.terminal_data import data_view
        from matris.training.dataset import DataSet
        from matris.training.dataset_writer import SetOptions, write_set
        from matris.training.labelled import Reading

        if output is None:
            if len(files) > 1:
                raise MatrisError("name the folder to make: --output SET")
            made = DataSet(files[0])
        else:
            reading = Reading(max_force, stress_unit, flip_stress)
            options = SetOptions(validation, split_by, scale, max_residual, check_labels=check)
            config = read_file(locate(checkpoint))[0].config if checkpoint else None
            with stderr.status("Reading …") as status:
                made = write_set(output, _sources(files, reading), options, _teller(status))
            if config is not None:
                with stderr.status("Counting angles …"):
                    made.edges(config)
        stdout().print(data_view(made))


def _sources(files: Iterable[Path], reading: Reading) -> Iterator[tuple[str, Iterator[Taken]]]:
    """Yield the name of each source and its frames."""
    from matris.training.reading import files_of, read_labelled

    for path in files:
        for file in files_of(path):
            yield file.name, read_labelled(file, reading)


def _teller(status: Any) -> Any:
    """Say now and then how far reading is."""

    def tell(n_taken: int, n_rejected: int) -> None:
        if not (n_taken + n_rejected) % 100:
            status.update(f"Reading … {n_taken} frames" + (f", {n_rejected} left out" if n_rejected else ""))

    return tell
