"""The tools that labels are exported to, one record each; a module is imported when it is used."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pudistill.exceptions import InputError
from pudistill.runs.exchange.samples import samples_of
from pudistill.runs.folder import Run
from pudistill.utils.shown import listed, shown


class Tool(NamedTuple):
    """A tool, and the function ``write(run, samples, output)`` of its module, which says a hint."""

    module: str
    suffixes: tuple[str, ...]
    shows_samples: bool = True


TOOLS = {
    "label-studio": Tool("label_studio", (".json",)),
    "argilla": Tool("argilla", (".json",)),
    "fiftyone": Tool("fiftyone", (".json",)),
    "cleanlab": Tool("cleanlab", (".npz", ".csv"), shows_samples=False),
    "csv": Tool("spreadsheet", (".csv",)),
}


def check_tool(name: str) -> None:
    """Raise `InputError` if there is no such tool."""
    if name not in TOOLS:
        raise InputError(
            f"--to cannot be {shown(name)}: it is one of {listed(TOOLS)}, or a file that ends in "
            ".onnx or .pt2."
        )


def export_labels(
    run: Run, to: str, output: Path, *, only: Path | None = None, learner: str | None = None
) -> tuple[int, str]:
    """Write samples and labels of a run for another tool.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    to : str
        A name in `TOOLS`.
    output : Path
        The file, which must not exist yet.
    only : Path, optional
        A table with a column ``id``: the samples to export. By default all that nobody verified.
    learner : str, optional
        The own network of the run, for "cleanlab", which trains it.

    Returns
    -------
    n_samples : int
        Number of samples.
    hint : str
        What to do with the file.

    Raises
    ------
    InputError
        If there is no such tool, or it cannot hold these samples.
    """
    check_tool(to)
    tool = TOOLS[to]
    if learner is not None and to != "cleanlab":
        raise InputError(f"{to} needs no learner: leave --learner out.")
    if output.suffix.lower() not in tool.suffixes:
        raise InputError(f"{output}: let the file end in {' or '.join(tool.suffixes)}.")
    samples = samples_of(run, only, is_shown=tool.shows_samples)
    if not len(samples):
        raise InputError(f"All samples of {run.path} are verified: there is nothing to export.")
    write = import_module(f"pudistill.runs.exchange.{tool.module}").write
    options = {} if learner is None else {"learner": learner}
    return len(samples), write(run, samples, output, **options)
