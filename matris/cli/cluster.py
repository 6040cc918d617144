"""Commands that set up a cluster: matris cluster init, matris cluster check."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout, write_columns, write_json
from matris.cli.options import FAILURE, Checkpoint, Format, clear_errors
from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer(no_args_is_help=True, help="Set up jobflow-remote for a cluster, and check the setup.")

Scheduler = Literal["slurm", "pbs", "sge", "shell"]
ProjectName = Annotated[
    str | None,
    typer.Argument(metavar="PROJECT", help="Name of the project.", show_default="jobflow-remote's own choice"),
]


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")],
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            envvar="MATRIS_MONGO_URI",
            help="MongoDB database of the project; its URI is kept in a file that only you can read.",
        ),
    ] = None,
    scheduler: Annotated[
        Scheduler | None, typer.Option(help="Scheduler of the cluster; shell for a machine without one.")
    ] = None,
    work_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder for jobs on the cluster, as an absolute path that all its nodes can access."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="[USER@]HOST", help="Login node, reached by SSH.", show_default="this machine"),
    ] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Partition or queue that has GPUs.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Account that is charged for the jobs.")] = None,
    walltime: Annotated[str, typer.Option(metavar="[D-]HH:MM:SS", help="Time limit of a job.")] = "24:00:00",
    gpus_per_node: Annotated[int, typer.Option(metavar="N", min=1, help="Number of GPUs per node.")] = 1,
    gpu_request: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Resource that requests {n} GPUs, such as gres=gpu:a100:{n} or gpus_per_node={n}.",
            show_default="gres=gpu:{n}, ngpus={n}, gpu={n}",
        ),
    ] = None,
    cpus_per_gpu: Annotated[int, typer.Option(metavar="N", min=1, help="Number of CPU cores per GPU.")] = 4,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a job with one GPU, such as 32G.")
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Environment module to load; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Environment variable to set; may be repeated.")
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|COMMAND",
            help="Folder of the virtual environment on the cluster, or a command that activates an environment.",
            show_default="this environment, if the cluster is this machine",
        ),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for checkpoints and compiled kernels on the cluster.")
    ] = None,
    max_jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of jobs in the scheduler at a time.")
    ] = 8,
    whole_node: Annotated[
        bool, typer.Option("--whole-node", help="Run one Slurm job per node that gives each GPU its own work.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing project of this name.")] = False,
) -> None:
    """
    Write a jobflow-remote project with the workers `gpu` on the cluster and `cpu` on this machine.

    The database is given as mongodb://USER:PASSWORD@HOST:PORT/DATABASE. At a terminal, the command prompts for the
    database, the scheduler and the work folder if they are not given.

    `matris cluster init hull --scheduler slurm --partition gpu --work-dir /scratch/me/matris`
    """
    with clear_errors():
        from matris.flows.cluster.project import ClusterAnswers
        from matris.flows.cluster.project_files import prepare_queue, projects_folder, write_project
        from matris.stores.database.address import uri_database

        folder = projects_folder()
        needed = {"--database": database, "--scheduler": scheduler, "--work-dir": work_dir}
        uri, scheduler_name, work = _prompt_for_missing(needed)
        user, _, machine = (host or "").rpartition("@")
        answers = ClusterAnswers(
            name=name,
            scheduler=scheduler_name,
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
        out.print(_prepare(project, prepare_queue), soft_wrap=True)
        out.print(
            f"Next:\n  matris cluster check {name} --no-job\n  jf -p {name} runner start\n  matris cluster check {name}"
        )


@app.command()
def check(
    project: ProjectName = None,
    checkpoint: Checkpoint = None,
    job: Annotated[bool, typer.Option("--job/--no-job", help="Run a test job on every worker.")] = True,
    wait: Annotated[
        float, typer.Option(metavar="MIN", min=0.0, help="Maximum time to wait for a test job (minutes).")
    ] = 10.0,
    output: Format = "table",
) -> None:
    """
    Check the database, the workers, the runner, and a test job on each worker; nothing else is started.

    `matris cluster check hull`
    """
    with clear_errors():
        from matris.flows.cluster.checks import check_cluster
        from matris.flows.cluster.project_files import read_project

        config, file = read_project(project)
        findings = []
        for name, failed, message in check_cluster(config, file, checkpoint=checkpoint, minutes=wait if job else None):
            findings.append({"check": name, "state": "wrong" if failed else "ok", "message": message})
            mark = "[red]wrong[/red]" if failed else "[green]ok[/green]"
            if output == "table":
                stdout().print(f"{mark} {escape(name)}: {escape(message)}", soft_wrap=True)
        if output == "json":
            write_json(findings)
        elif output == "csv":
            write_columns(list(findings[0]), [list(finding.values()) for finding in findings])
        if any(finding["state"] == "wrong" for finding in findings):
            raise typer.Exit(FAILURE)


def _prompt_for_missing(needed: Mapping[str, str | None]) -> Sequence[str]:
    """
    Prompt for required options that were not given.

    Raises
    ------
    MatrisError
        If options are missing and there is no terminal.
    """
    missing = [option for option, value in needed.items() if not value]
    if missing and not sys.stdin.isatty():
        raise MatrisError(f"give {', '.join(missing)}: there is no terminal to prompt at")
    return [value or typer.prompt(option.removeprefix("--"), err=True) for option, value in needed.items()]


def _environment(settings: Sequence[str]) -> dict[str, str]:
    """Read the environment variables from values of --env."""
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not equals:
            raise MatrisError(f"--env {name} has no value: write --env {name}=VALUE")
    return {name: value for name, _, value in pairs}


def _prepare(project: Any, prepare: Any) -> str:
    """Create the queue's collections, or return how to do it once the database answers."""
    from pymongo.errors import PyMongoError

    try:
        with stderr.status("Preparing the queue …"):
            return "Its queue is new" if prepare(project) else "Its queue existed already and is unchanged"
    except PyMongoError as error:
        return f"The database does not answer yet ({error}). When it does: jf -p {project.name} admin reset"
