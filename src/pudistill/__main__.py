"""``python -m pudistill``."""

from pudistill.cli import main

main()
