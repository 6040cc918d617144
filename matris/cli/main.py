"""The command line: all commands, in the panels of the help."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from matris import __version__
from matris.cli import (
    bias,
    board,
    campaign,
    cluster,
    doctor,
    label,
    learn,
    optimade,
    properties,
    query,
    relax,
    screen,
    serve,
    training,
    validate,
)
from matris.cli.config_file import configurable
from matris.cli.private_arguments import PrivateGroup, hide_passwords

_PANELS = {
    "Screening": (screen.screen, learn.learn, campaign.status, campaign.cancel, campaign.resume),
    "Properties": (
        relax.relax,
        properties.elastic,
        properties.eos,
        properties.phonon,
        properties.qha,
        properties.kappa,
        properties.neb,
        properties.defects,
        properties.surfaces,
        properties.md,
        properties.diffusion,
    ),
    "Benchmarks": (board.board,),
    "Results": (query.query, serve.serve, campaign.report, campaign.export, validate.validate, bias.bias),
    "Training": (training.data, label.label, training.train, training.finetune, training.evaluate),
    "Setup": (doctor.doctor, query.models),
}

app = typer.Typer(
    name="matris",
    cls=PrivateGroup,
    help="High-throughput screening of crystals with the MatRIS interatomic potential.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMPUTE = {
    screen.screen,
    learn.learn,
    *_PANELS["Properties"],
    board.board,
    training.data,
    label.label,
    training.finetune,
    training.evaluate,
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(configurable(_command) if _command in _COMPUTE else _command)
app.add_typer(optimade.app, name="optimade", rich_help_panel="Results")
app.add_typer(cluster.app, name="cluster", rich_help_panel="Cluster")


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"matris-flows {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    hide_passwords()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # users cannot act on deprecation warnings of other packages
    app()
