"""The command line."""

from pudistill.cli.commands import app, main

__all__ = ["app", "main"]
