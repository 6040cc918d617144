"""The help of every command: a sentence, an example, and a text for each argument and option."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from matris.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(group: object = None, *path: str) -> Iterator[tuple[tuple[str, ...], object]]:
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 34
    assert ("cluster", "init") in COMMANDS


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_a_command(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = COMMANDS[path]
    paragraphs = inspect.cleandoc(command.help).split("\n\n")  # type: ignore[attr-defined]
    assert paragraphs[0].endswith(".")
    assert paragraphs[0][0].isupper()
    assert f"`matris {' '.join(path)}" in command.help  # type: ignore[attr-defined]
    for parameter in command.params:  # type: ignore[attr-defined]
        text = parameter.help or ""
        assert text.endswith((".", "…")), parameter.name
        assert not text.startswith("Of "), parameter.name
        assert text[0].isupper() or text.startswith("HTML"), parameter.name
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for line in result.stdout.splitlines():
        assert not any(word.endswith("…") and len(word) > 8 for word in line.split()), line  # cut off
