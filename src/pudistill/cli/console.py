"""What the command line prints: errors, warnings, progress bars and results."""

import errno
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from pudistill.exceptions import DataNotice, without_middle
from pudistill.utils.displays import Bars, Lines, UnfailingStderr, described
from pudistill.utils.terminal import printable
from pudistill.utils.time_limit import duration

if TYPE_CHECKING:
    from pudistill.runs.folder import Run
    from pudistill.runs.preliminary import Progress


class _Console(Console):
    """A console that shows characters which control a terminal, instead of obeying them."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a text into one with a style: all texts pass here, those in tables, too."""
        return super().render_str(printable(text), **options)


# Progress goes to stderr, so that stdout can be piped. Paths and class names are no markup.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
messages = _Console(file=cast("IO[str]", UnfailingStderr()), **_AS_IT_IS)
results = _Console(**_AS_IT_IS)


def describe(error: OSError) -> str:
    """Return a sentence that describes an error of the operating system."""
    where = f"{error.filename}: " if error.filename else ""
    problem = f"{where}{error.strerror or error}."
    return f"{problem} Make room on the disk." if error.errno == errno.ENOSPC else problem


def complain(kind: str, style: str, message: str) -> None:
    """Print an error, a warning or a notice."""
    messages.print(
        Text.assemble((kind, style), " ", printable(without_middle(message))), soft_wrap=True
    )


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning or a notice without the line of code that issued it."""
    if isinstance(message, DataNotice):
        complain("Note:", "bold", str(message))
    else:
        complain("Warning:", "bold yellow", str(message))


@contextmanager
def progress_bars() -> Iterator[None]:
    """Show a bar with a time estimate for each stage; without a terminal, a line now and then."""
    from pudistill.utils import progress

    # A kernel of Jupyter sets GIT_PAGER: a cell that runs a command shows each redrawn bar anew.
    if not messages.is_terminal or os.environ.get("GIT_PAGER") == "cat":
        with progress.display(Lines(messages, LINE_EVERY)):
            yield
        return
    with Bars(messages) as bars, progress.display(bars):
        yield


# Seconds between two lines about the progress.
LINE_EVERY = 30.0


def print_noise(noise: dict[str, Any] | None, of_labels: dict[str, Any] | None) -> None:
    """Print how many given labels are wrong, and how many corrected ones are right, if known."""
    from pudistill.distillation.sentences import label_accuracy_sentence, noise_sentence
    from pudistill.utils.formats import plain

    if noise:
        results.print(plain(noise_sentence(noise)), soft_wrap=True)
        for warning in noise["warnings"][:3]:  # the report shows all of them
            complain("Warning:", "bold yellow", warning)
    if of_labels:
        sentence = label_accuracy_sentence(of_labels, (noise or {}).get("basis"))
        results.print(plain(sentence), soft_wrap=True)


def print_accuracy(run: "Run") -> None:
    """Print the number of changed labels, the estimated noise, and the accuracies."""
    metrics = run.read_json("metrics.json")
    results.print(
        f"\n{metrics['n_samples']:,} samples, {metrics['n_trusted']:,} of them trusted; "
        f"{metrics['n_changed']:,} given labels were changed.",
        soft_wrap=True,
    )
    print_noise(metrics.get("noise"), metrics.get("expected_label_accuracy"))
    if expected := metrics.get("expected_accuracy"):
        from pudistill.distillation.sentences import expectation_sentence
        from pudistill.utils.formats import plain

        sentence = plain(expectation_sentence(expected))
        results.print(f"{sentence}\n{metrics['comparison']['why']}", soft_wrap=True)
    if right := metrics.get("label_accuracy"):
        untrusted = metrics["n_samples"] - metrics["n_trusted"]
        results.print(
            f"Of the other {untrusted:,} labels, {right['given']:.1%} were right before the "
            f"correction and {right['corrected']:.1%} are right after it.",
            soft_wrap=True,
        )
    if "test_accuracy" in metrics:
        _print_test_accuracy(metrics, run.read_config()["method"])


def _print_test_accuracy(metrics: dict[str, Any], method: str) -> None:
    from rich.table import Table

    from pudistill.methods.registry import OURS, title_of

    table = Table(title=f"Accuracy on {metrics['n_test']:,} test samples", title_justify="left")
    table.add_column("")
    table.add_column("name in metrics.json", style="dim")
    table.add_column("accuracy", justify="right")
    for name, value in metrics["test_accuracy"].items():
        style = "bold" if name in (method, OURS) else ""
        table.add_row(title_of(name), name, f"{value:.1%}", style=style)
    results.print(table)


def print_progress(progress: "Progress") -> None:
    """Print how far an unfinished run is, and its first result."""
    from pudistill.distillation.sentences import noise_sentence
    from pudistill.runs.preliminary import LABELS
    from pudistill.utils.formats import plain

    place = shlex.quote(str(progress.path))
    done = [
        f"{described(name, '')} ({duration(seconds)[0]})" for name, seconds in progress.done.items()
    ]
    now, later = progress.begun, [described(name, "") for name in progress.to_come]
    states = {True: "is being computed", False: "was interrupted", None: "is not finished"}
    state = states[progress.is_running]
    lines = [f"The run in {progress.path} {state}."]
    if done:
        lines.append(f"Done: {', '.join(done)}.")
    if now is not None:
        lines.append(f"{'Now' if progress.is_running else 'Begun'}: {described(now, '')}.")
    if later:
        lines.append(f"Still to come: {', '.join(later)}.")
    if (first := progress.first) is None:
        lines.append("There is no result yet: the first one comes after the first round.")
    else:
        lines.append(
            f"First result: {first['n_changed']:,} of {first['n_samples']:,} given labels would be "
            f"changed: {progress.path / LABELS}"
        )
        if noise := first.get("noise"):
            lines.append(plain(noise_sentence(noise)))
        lines.append(first["note"])
    if progress.is_running is False:
        lines.append(f"Continue with: {program()} resume {place}{options_to_repeat(progress.path)}")
    results.print("\n".join(lines), soft_wrap=True)


def print_curve(run: "Run") -> None:
    """Print the accuracies of a sweep, one table for each kind of noise."""
    import pandas as pd
    from rich.table import Table

    from pudistill.methods.registry import OURS, title_of

    curve = run.read_table("curve")
    for noise, part in curve.groupby("noise", sort=False):
        shown = part.pivot_table(
            index="method", columns="level", values="accuracy", sort=False, dropna=False
        )
        table = Table(title=f"Accuracy, {noise} noise of", title_justify="left")
        table.add_column("")
        for level in shown.columns:
            table.add_column(f"{level:.0%}", justify="right")
        for method, row in shown.iterrows():
            style = "bold" if method == OURS else ""
            cells = ("–" if pd.isna(value) else f"{value:.1%}" for value in row)
            table.add_row(title_of(str(method)), *cells, style=style)
        results.print(table)
    results.print(
        f"Table:  {run.path / 'curve.csv'}\nCurve:  {run.path / 'curve.svg'}\n"
        f"Report: {run.path / 'report.html'}",
        soft_wrap=True,
    )


def print_csv(text: str) -> None:
    """Print a table, if there is a standard output."""
    if sys.stdout is not None:
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


def program() -> str:
    """Return the words that start this program in a shell."""
    if shutil.which("pudistill"):
        return "pudistill"
    is_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m pudistill" if is_module else shlex.quote(sys.argv[0])


def options_to_repeat(run: Path) -> str:
    """Return the options that a further command on a run must repeat, as part of a command."""
    from pudistill.runs.folder import Run
    from pudistill.runs.settings import Settings

    config = Run(run).read_config()  # of a sweep, it has further settings
    known = {name: value for name, value in config.items() if name in Settings.model_fields}
    return Settings.read({"data": ""} | known).trusted_options()


def print_outputs(run: "Run") -> None:
    """Print where the results of a run are."""
    from pudistill.runs.models import own_network_in

    own = own_network_in(run.read_json("model/model.json"))
    again = "" if own is None else f" --learner {shlex.quote(own)}"
    results.print(
        f"Corrected labels: {run.path / 'labels.csv'}\n"
        f"Report:           {run.path / 'report.html'}\n"
        f"New samples:      {program()} predict {shlex.quote(str(run.path))} DATA{again}",
        soft_wrap=True,
    )


@contextmanager
def interruptible(folder: Path, options: str = "") -> Iterator[None]:
    """Print how to continue if the run is interrupted or a file cannot be written."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # Batch systems stop a job with SIGTERM.
    before = {
        which: signal.signal(which, interrupt)
        for which in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(which) is not signal.SIG_IGN
    }
    try:
        yield
    except KeyboardInterrupt:
        messages.print(f"Interrupted. {_how_to_continue(folder, options)}", soft_wrap=True)
        raise typer.Exit(130) from None
    except OSError as error:
        complain("Error:", "bold red", f"{describe(error)} {_how_to_continue(folder, options)}")
        raise typer.Exit(2) from None
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _how_to_continue(folder: Path, options: str) -> str:
    """Name the command that continues."""
    place = shlex.quote(str(folder))
    if (folder / "config.toml").exists():
        again = f"{program()} resume {place}{options}"
    elif (folder / "units").exists():
        again = f"the same command with --output {place}"
    else:
        return "Nothing was stored yet: repeat the command."
    return f"Finished stages are kept in {folder}: {again} continues from there."
