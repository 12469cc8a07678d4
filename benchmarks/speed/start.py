"""Rows about the time that an import or the start of a command takes."""

import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.speed.measurement import Figures, Goal, alternate, row


def start_of(*commands: Sequence[str]) -> list[float]:
    """Run commands in turn; return the median seconds of each."""
    calls = {
        str(number): partial(subprocess.run, command, check=True, capture_output=True)
        for number, command in enumerate(commands)
    }
    return [statistics.median(times) for times in alternate(7, **calls).values()]


@row("import pudistill, beyond Python's own start", {"seconds": Goal(at_most=0.2)})
def import_package(_: Path) -> Figures:
    bare, ours = start_of([sys.executable, "-c", ""], [sys.executable, "-c", "import pudistill"])
    return {"seconds": ours - bare, "Python's start, s": bare}


@row("pudistill --help", {"seconds": Goal(at_most=0.6)})
def help_text(_: Path) -> Figures:
    return {"seconds": start_of([str(Path(sys.executable).with_name("pudistill")), "--help"])[0]}


@row(
    "from pudistill import PUDistillClassifier",
    {"times import sklearn.svm, pandas": Goal(at_most=1.5)},
)
def import_classifier(_: Path) -> Figures:
    ours, theirs = start_of(
        [sys.executable, "-c", "from pudistill import PUDistillClassifier"],
        [sys.executable, "-c", "import sklearn.svm, pandas"],
    )
    return {"times import sklearn.svm, pandas": ours / theirs, "ours, s": ours, "theirs, s": theirs}
