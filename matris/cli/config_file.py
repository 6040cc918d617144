"""Options of a command from a YAML file: the option --config of all commands that compute."""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matris.masking import masked
from matris.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

_OTHERS = 0o077  # permissions of a file's group and of everybody


def configurable(command: Callable[..., None]) -> Callable[..., None]:
    """
    Give a command the option ``--config FILE.yaml``, whose keys are the names of its options and arguments.

    A value in the file takes the place of a default; options on the command line, and environment variables that an
    option reads, come first.

    Parameters
    ----------
    command
        Function of the command, as typer takes it.

    Examples
    --------
    >>> def greet(name: Annotated[str, typer.Option()] = "you") -> None:
    ...     print(f"Hello, {name}")
    >>> app = typer.Typer()
    >>> _ = app.command()(configurable(greet))
    >>> _ = Path("greet.yaml").write_text("name: Mg")
    >>> app(["--config", "greet.yaml"], standalone_mode=False)
    Hello, Mg
    """

    @wraps(command)
    def configured(*args: Any, config: Path | None = None, **options: Any) -> None:  # noqa: ARG001 - its callback reads it
        command(*args, **options)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Config)
    configured.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    configured.__annotations__ = {**command.__annotations__, "config": _Config}
    return configured


def _read(context: typer.Context, path: Path | None) -> None:
    """Put the content of the file in the place of the defaults, before any other option is read."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_values(context, path)}


_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.yaml",
        exists=True,
        dir_okay=False,
        is_eager=True,
        callback=_read,
        help="Options in a file, as 'max-steps: 200'; those on the command line come first.",
        show_default=False,
    ),
]


def _values(context: typer.Context, path: Path) -> dict[str, Any]:
    """
    Read the values by the names of parameters.

    Raises
    ------
    BadParameter
        If the file is no mapping, names no option of the command, or holds a password that others may read.
    """
    known: dict[str, tuple[Any, bool]] = {}  # a parameter, and whether its name switches it off
    for parameter in context.command.params:
        for spelling in parameter.opts:
            known[_key(spelling)] = (parameter, False)
        for spelling in parameter.secondary_opts:
            known[_key(spelling)] = (parameter, True)
    names = [name for name, (parameter, _) in known.items() if len(name) > 1 and parameter.name != "config"]
    values = {}
    for key, value in _content(path).items():
        name = _key(str(key))
        if name not in names:
            told = did_you_mean(name, names)
            raise typer.BadParameter(f"{path}: matris {context.info_name} has no option {str(key)!r}{told}")
        if value is not None:
            parameter, off = known[name]
            values[parameter.name] = _value(f"{path}: {key}", value, parameter, off=off)
    return values


def _key(spelling: str) -> str:
    """Name of an option in a file: that of the command line, without dashes before it; an underscore is a dash."""
    return spelling.lstrip("-").replace("_", "-")


def _content(path: Path) -> dict[Any, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text(encoding="utf-8")
        content = YAML(typ="safe").load(text)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{path} holds no options: write lines such as 'max-steps: 200'")
    if masked(text) != text and path.stat().st_mode & _OTHERS:
        raise typer.BadParameter(f"{path} holds a password and others may read it: chmod 600 {path}")
    return content


def _value(place: str, value: Any, parameter: Any, *, off: bool) -> Any:
    """Convert a value to what the command line would give."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise typer.BadParameter(f"{place} is {value!r}, and must be true or false")
        return value != off
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        raise typer.BadParameter(f"{place} must be a value, or a list of values")
    texts = [str(item) for item in items]
    return texts if getattr(parameter, "multiple", False) or parameter.nargs != 1 else ",".join(texts)
