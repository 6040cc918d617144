"""The command line."""

from matris.cli.main import app, main

__all__ = ["app", "main"]
