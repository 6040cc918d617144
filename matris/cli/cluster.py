"""Commands that set up a cluster: `matris cluster init`, `matris cluster check`."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout
from matris.cli.options import NOTHING_COMPUTED, Checkpoint, clear_errors
from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer(no_args_is_help=True, help="Set up jobflow-remote for a cluster, and check it.")

Scheduler = Literal["slurm", "pbs", "sge", "shell"]
Project = Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="By default jobflow-remote's own choice.")]


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")],
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            envvar="MATRIS_MONGO_URI",
            help="mongodb://USER:PASSWORD@HOST:PORT/DATABASE. It goes into a file that you alone may read.",
        ),
    ] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="'shell' is a machine without one.")] = None,
    work_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Absolute folder for jobs on the cluster, seen by its nodes.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="[USER@]HOST", help="Login node, reached by ssh.", show_default="this machine"),
    ] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Partition or queue with GPUs.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Account that pays.")] = None,
    walltime: Annotated[str, typer.Option(metavar="[D-]HH:MM:SS", help="Time of a job.")] = "24:00:00",
    gpus_per_node: Annotated[int, typer.Option(metavar="N", min=1, help="GPUs of a node.")] = 1,
    gpu_request: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="How to ask for {n} GPUs, such as gres=gpu:a100:{n} or gpus_per_node={n}.",
            show_default="gres=gpu:{n}, ngpus={n}, gpu={n}",
        ),
    ] = None,
    cpus_per_gpu: Annotated[int, typer.Option(metavar="N", min=1, help="Cores of a job.")] = 4,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Of a job with one GPU, such as 32G.")] = None,
    module: Annotated[list[str] | None, typer.Option(metavar="NAME", help="To load; may be repeated.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="To set; may be repeated.")] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|COMMAND",
            help="Virtual environment on the cluster, or the command that activates an environment there.",
            show_default="the one that runs this, if the cluster is this machine",
        ),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="For checkpoints and compiled kernels on the cluster.")
    ] = None,
    max_jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Most jobs of the scheduler at a time.")] = 8,
    whole_node: Annotated[
        bool, typer.Option("--whole-node", help="Slurm: one job holds all GPUs of a node, and feeds each.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a project of the same name.")] = False,
) -> None:
    """
    Write a jobflow-remote project for a cluster: a worker `gpu`, and a worker `cpu` on this machine.

    `matris cluster init NAME --scheduler slurm --partition gpu --work-dir /scratch/me/matris`
    """
    with clear_errors():
        from matris.flows.cluster.project import ClusterAnswers
        from matris.flows.cluster.project_files import prepare_queue, projects_folder, write_project
        from matris.stores.database.private_mongo import uri_database

        folder = projects_folder()
        needed = {"--database": database, "--scheduler": scheduler, "--work-dir": work_dir}
        uri, which, work = _asked(needed)
        user, _, machine = (host or "").rpartition("@")
        answers = ClusterAnswers(
            name=name,
            scheduler=which,
            work_dir=work.rstrip("/"),
            folder=folder,
            executables=Path(sys.executable).parent,
            database=uri_database(uri, "the address of the database"),
            host=machine or None,
            user=user or (None if machine else getpass.getuser()),
            partition=partition,
            account=account,
            walltime=walltime,
            gpus_per_node=gpus_per_node,
            gpu_request=gpu_request,
            cpus_per_gpu=cpus_per_gpu,
            memory=memory,
            modules=tuple(module or ()),
            environment=_environment(env or []),
            python=python or (None if machine else f'export PATH={Path(sys.executable).parent}:"$PATH"'),
            cache_dir=cache_dir,
            max_jobs=max_jobs,
            whole_node=whole_node,
        )
        project = write_project(answers, uri, force=force)
        out = stdout()
        out.print(f"Written: {answers.file}, and {answers.uri_file} with the address of the database", soft_wrap=True)
        out.print(_prepared(project, prepare_queue), soft_wrap=True)
        out.print(
            f"Next:\n  matris cluster check {name} --no-job\n  jf -p {name} runner start\n  matris cluster check {name}"
        )


@app.command()
def check(
    project: Project = None,
    checkpoint: Checkpoint = None,
    job: Annotated[bool, typer.Option("--job/--no-job", help="Run a test job on every worker for GPUs.")] = True,
    wait: Annotated[float, typer.Option(metavar="MIN", min=0.0, help="Most minutes to wait for a test job.")] = 10.0,
) -> None:
    """
    Check database, workers, runner, and a job on a GPU. Nothing is started but the test job.

    `matris cluster check NAME`
    """
    with clear_errors():
        from matris.flows.cluster.checks import check_cluster
        from matris.flows.cluster.project_files import read_project

        found, file = read_project(project)
        failed = False
        for what, problem, told in check_cluster(found, file, checkpoint=checkpoint, minutes=wait if job else None):
            failed |= problem
            mark = "[red]wrong[/red]" if problem else "[green]ok[/green]"
            stdout().print(f"{mark} {escape(what)}: {escape(told)}", soft_wrap=True)
        if failed:
            raise typer.Exit(NOTHING_COMPUTED)


def _asked(needed: Mapping[str, str | None]) -> Sequence[str]:
    """Ask for what is needed and was not given, if somebody is there."""
    missing = [option for option, value in needed.items() if not value]
    if missing and not sys.stdin.isatty():
        raise MatrisError(f"give {', '.join(missing)}: there is no terminal to ask at")
    return [value or typer.prompt(option.removeprefix("--"), err=True) for option, value in needed.items()]


def _environment(settings: Sequence[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not equals:
            raise MatrisError(f"--env {name} has no value: write --env {name}=VALUE")
    return {name: value for name, _, value in pairs}


def _prepared(project: Any, prepare: Any) -> str:
    """Make the queue's collections now, or say how later."""
    from pymongo.errors import PyMongoError

    try:
        with stderr.status("Preparing the queue …"):
            return "Its queue is new" if prepare(project) else "Its queue was there already, and is as it was"
    except PyMongoError as error:
        return f"The database does not answer yet ({error}). When it does: jf -p {project.name} admin reset"
