"""Passwords on the command line: hidden from the list of processes and from messages about wrong arguments."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from typer.core import TyperGroup

from matris.masking import masked

_VARIABLE = "MATRIS_PRIVATE_ARGUMENTS"


def hide_passwords() -> None:
    """
    Start this process again with masked arguments if they hold a password; the new process gets the true ones.

    All users of a machine see the arguments of a process (``ps``), but only its owner sees its environment. An address
    in ``MATRIS_STORE`` or in a file is never visible; one on the command line is visible for a moment. The process
    keeps its id, standard streams and terminal.
    """
    if private := os.environ.pop(_VARIABLE, None):
        sys.argv[1:] = json.loads(private)
        return
    shown = [masked(argument) for argument in sys.orig_argv]
    if shown != sys.orig_argv:
        environment = os.environ | {_VARIABLE: json.dumps(sys.argv[1:])}
        os.execve(sys.executable, shown, environment)  # noqa: S606 - this program itself


class PrivateGroup(TyperGroup):
    """Commands whose messages about wrong arguments show no password."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments, as click does."""
        with _Masked():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command, as click does."""
        with _Masked():
            return super().invoke(ctx)


class _Masked:
    """Context that masks the messages of click's errors."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(message := getattr(error, "message", None), str):
            error.message = masked(message)  # type: ignore[union-attr] # an error of typer's own copy of click
