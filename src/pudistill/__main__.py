"""Run the command line with ``python -m pudistill``."""

from pudistill.cli.commands import main

main()
