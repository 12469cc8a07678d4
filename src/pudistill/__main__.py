"""Run the command line with ``python -m pudistill``."""

from pudistill.cli import main

main()
