"""Files of jobflow-remote's projects: written, never over another, and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.flows.cluster.project import project_spec
from matris.stores.database.private_mongo import write_uri

if TYPE_CHECKING:
    from jobflow_remote.config.base import Project

    from matris.flows.cluster.project import ClusterAnswers


def need_jobflow_remote() -> None:
    """
    See that jobflow-remote is there.

    Raises
    ------
    MatrisError
        If it is not installed.
    """
    try:
        import jobflow_remote  # noqa: F401
    except ModuleNotFoundError as error:
        raise MatrisError(f"clusters need jobflow-remote ({error}): pip install 'matris-flows[remote]'") from error


def projects_folder() -> Path:
    """Folder of jobflow-remote's projects on this machine, as its settings have it."""
    need_jobflow_remote()
    from jobflow_remote import SETTINGS

    return Path(SETTINGS.projects_folder).expanduser().absolute()


def validated(spec: dict[str, Any]) -> Project:
    """
    Read a project as jobflow-remote does.

    Raises
    ------
    MatrisError
        If jobflow-remote does not take it.
    """
    need_jobflow_remote()
    from jobflow_remote.config.base import Project
    from pydantic import ValidationError

    try:
        return Project.model_validate(spec)
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].splitlines()[-1]}" for e in error.errors())
        raise MatrisError(f"jobflow-remote does not take the project {spec.get('name')!r}: {what}") from error


def write_project(answers: ClusterAnswers, uri: str, *, force: bool = False) -> Project:
    """
    Write the file of a project, and beside it one with the address of its database, for the user alone.

    Parameters
    ----------
    answers
        About the cluster.
    uri
        Address of the database.
    force
        Whether files of a project of the same name are replaced.

    Returns
    -------
    Project
        As jobflow-remote reads it.

    Raises
    ------
    MatrisError
        If there is such a project, or answers do not fit together.
    """
    project = validated(project_spec(answers))
    there = [path for path in answers.folder.glob(f"{answers.name}.*") if path.suffix in {".yaml", ".json", ".toml"}]
    if there and not force:
        raise MatrisError(f"{there[0]} is there already: take another name, or --force to replace it")
    write_uri(answers.uri_file, uri)
    for old in there:
        old.unlink()
    with answers.file.open("w", encoding="utf-8") as file:
        file.write(f"# A project of jobflow-remote. The address of its database stands in {answers.uri_file.name}.\n")
        _yaml().dump(_readable(project_spec(answers)), file)
    for folder in (project.base_dir, project.tmp_dir, project.log_dir):  # the runner expects them
        Path(str(folder)).mkdir(parents=True, exist_ok=True)
    return project


def read_project(name: str | None) -> tuple[Project, Path]:
    """
    Read a project of this machine, and tell its file.

    Parameters
    ----------
    name
        Of the project; by default the one that jobflow-remote's settings name, or the only one.

    Raises
    ------
    MatrisError
        If there is none, or it cannot be read.
    """
    folder = projects_folder()
    from jobflow_remote import SETTINGS

    files = {path.stem: path for ext in ("yaml", "json", "toml") for path in sorted(folder.glob(f"*.{ext}"))}
    name = name or SETTINGS.project or (next(iter(files)) if len(files) == 1 else None)
    if not files:
        raise MatrisError(f"{folder} holds no project: write one by matris cluster init")
    if name is None:
        raise MatrisError(f"name one of the projects in {folder}: {', '.join(files)}")
    if name in files and files[name].suffix == ".yaml":
        return validated(_yaml().load(files[name].read_text(encoding="utf-8"))), files[name]
    from jobflow_remote.config.base import ConfigError
    from jobflow_remote.config.manager import ConfigManager

    try:
        found = ConfigManager().get_project_data(name)
    except ConfigError as error:
        raise MatrisError(f"no project {name!r} in {folder}, which holds {', '.join(files)}: {error}") from error
    return found.project, Path(found.filepath)


def prepare_queue(project: Project) -> bool:
    """
    Make the collections of a project's queue, if there are none.

    Parameters
    ----------
    project
        Whose database answers.

    Returns
    -------
    bool
        Whether they had to be made.
    """
    controller = project.get_job_controller()
    try:
        fresh = controller.auxiliary.find_one({"next_id": {"$exists": True}}) is None
        if fresh:
            controller.reset()
        return fresh
    finally:
        controller.close()


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1000
    return yaml


def _readable(spec: Any) -> Any:
    """Put texts of several lines in blocks, and times, which some readers take for numbers, in quotes."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(spec, dict):
        return {key: _readable(value) for key, value in spec.items()}
    if isinstance(spec, str) and "\n" in spec:
        return LiteralScalarString(spec)
    return DoubleQuotedScalarString(spec) if isinstance(spec, str) and spec[:1].isdigit() else spec
