"""The command line."""

from pudistill.cli.start import main

__all__ = ["main"]
