"""The command line: parse, call, print."""

from pudistill.cli.commands import app, main

__all__ = ["app", "main"]
