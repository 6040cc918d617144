"""Files of jobflow-remote's projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.flows.cluster.project import project_spec
from matris.stores.database.address import write_uri

if TYPE_CHECKING:
    from jobflow_remote.config.base import Project

    from matris.flows.cluster.project import ClusterAnswers


def need_jobflow_remote() -> None:
    """
    Check that jobflow-remote is installed.

    Raises
    ------
    MatrisError
        If it is not.
    """
    try:
        import jobflow_remote  # noqa: F401
    except ModuleNotFoundError as error:
        raise MatrisError(f"clusters need jobflow-remote ({error}): pip install 'matris-flows[remote]'") from error


def projects_folder() -> Path:
    """Return the folder of jobflow-remote's projects on this machine, from its settings."""
    need_jobflow_remote()
    from jobflow_remote import SETTINGS

    return Path(SETTINGS.projects_folder).expanduser().absolute()


def validated(spec: dict[str, Any]) -> Project:
    """
    Convert the content of a project file to a project.

    Raises
    ------
    MatrisError
        If jobflow-remote rejects the content.
    """
    need_jobflow_remote()
    from jobflow_remote.config.base import Project
    from pydantic import ValidationError

    try:
        return Project.model_validate(spec)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].splitlines()[-1]}" for e in error.errors())
        raise MatrisError(f"jobflow-remote rejects the project {spec.get('name')!r}: {problems}") from error


def write_project(answers: ClusterAnswers, uri: str, *, force: bool = False) -> Project:
    """
    Write the file of a project, and a file with the address of its database that only the user can read.

    Parameters
    ----------
    answers
        Description of the cluster.
    uri
        Address of the database.
    force
        Whether to replace an existing project of this name.

    Returns
    -------
    Project
        Project as jobflow-remote reads it.

    Raises
    ------
    MatrisError
        If the project exists, or the answers contradict each other.
    """
    project = validated(project_spec(answers))
    existing = [path for path in answers.folder.glob(f"{answers.name}.*") if path.suffix in {".yaml", ".json", ".toml"}]
    if existing and not force:
        raise MatrisError(f"{existing[0]} exists already: choose another name, or --force to replace it")
    write_uri(answers.uri_file, uri)
    for path in existing:
        path.unlink()
    with answers.file.open("w", encoding="utf-8") as file:
        file.write(f"# A project of jobflow-remote. The address of its database is in {answers.uri_file.name}.\n")
        _yaml().dump(_readable(project_spec(answers)), file)
    for folder in (project.base_dir, project.tmp_dir, project.log_dir):  # required by the runner
        Path(str(folder)).mkdir(parents=True, exist_ok=True)
    return project


def read_project(name: str | None) -> tuple[Project, Path]:
    """
    Read a project on this machine.

    Parameters
    ----------
    name
        Name of the project. Default: the one in jobflow-remote's settings, or the only one.

    Returns
    -------
    Project
        Project of jobflow-remote.
    Path
        File of the project.

    Raises
    ------
    MatrisError
        If there is no such project, or it cannot be read.
    """
    folder = projects_folder()
    from jobflow_remote import SETTINGS

    files = {path.stem: path for ext in ("yaml", "json", "toml") for path in sorted(folder.glob(f"*.{ext}"))}
    name = name or SETTINGS.project or (next(iter(files)) if len(files) == 1 else None)
    if not files:
        raise MatrisError(f"{folder} holds no project: write one with matris cluster init")
    if name is None:
        raise MatrisError(f"choose one of the projects in {folder}: {', '.join(files)}")
    if name in files and files[name].suffix == ".yaml":
        return validated(_yaml().load(files[name].read_text(encoding="utf-8"))), files[name]
    from jobflow_remote.config.base import ConfigError
    from jobflow_remote.config.manager import ConfigManager

    try:
        data = ConfigManager().get_project_data(name)
    except ConfigError as error:
        raise MatrisError(f"no project {name!r} in {folder}, which holds {', '.join(files)}: {error}") from error
    return data.project, Path(data.filepath)


def prepare_queue(project: Project) -> bool:
    """
    Create the collections of a project's queue if they do not exist.

    Parameters
    ----------
    project
        Project whose database answers.

    Returns
    -------
    bool
        Whether the collections are new.
    """
    controller = project.get_job_controller()
    try:
        is_new = controller.auxiliary.find_one({"next_id": {"$exists": True}}) is None
        if is_new:
            controller.reset()
        return is_new
    finally:
        controller.close()


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1000
    return yaml


def _readable(spec: Any) -> Any:
    """Write multi-line strings as blocks, and quote strings that start with a digit, such as times, for YAML."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(spec, dict):
        return {key: _readable(value) for key, value in spec.items()}
    if isinstance(spec, str) and "\n" in spec:
        return LiteralScalarString(spec)
    return DoubleQuotedScalarString(spec) if isinstance(spec, str) and spec[:1].isdigit() else spec
