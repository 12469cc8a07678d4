"""What the command line prints: errors, warnings, progress bars and results."""

import errno
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from pudistill.exceptions import shortened
from pudistill.utils.time_limit import duration

if TYPE_CHECKING:
    from pudistill.runs.folder import Run
    from pudistill.runs.preliminary import Progress
    from pudistill.utils.progress import Advance

# Characters that move the cursor, run commands of the terminal, or turn the direction of text, and
# halves of characters, which cannot be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text for a terminal: names of classes can hold characters that control it.

    Examples
    --------
    >>> from pudistill.cli.console import printable
    >>> print(printable("cat\x1b[2J"))
    cat\x1b[2J
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class _Console(Console):
    """A console that shows characters which control a terminal, instead of obeying them."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a text into one with a style: all texts pass here, those in tables, too."""
        return super().render_str(printable(text), **options)


# Progress goes to stderr, so that stdout can be piped. Paths and class names are no markup.
messages = _Console(stderr=True, highlight=False, markup=False)
results = _Console(highlight=False, markup=False)


def describe(error: OSError) -> str:
    """Return a sentence that describes an error of the operating system."""
    where = f"{error.filename}: " if error.filename else ""
    problem = f"{where}{error.strerror or error}."
    return f"{problem} Make room on the disk." if error.errno == errno.ENOSPC else problem


def complain(kind: str, style: str, message: str) -> None:
    """Print an error or a warning."""
    messages.print(Text.assemble((kind, style), " ", printable(shortened(message))), soft_wrap=True)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that issued it."""
    complain("Warning:", "bold yellow", str(message))


@contextmanager
def progress_bars() -> Iterator[None]:
    """Show a bar with a time estimate for each stage; without a terminal, a line now and then."""
    from pudistill.utils import progress

    # A kernel of Jupyter sets GIT_PAGER: a cell that runs a command shows each redrawn bar anew.
    if not messages.is_terminal or os.environ.get("GIT_PAGER") == "cat":
        with progress.display(_Lines()):
            yield
        return
    with _Bars() as bars, progress.display(bars):
        yield


# What users read in place of the names of stages.
PLAIN_NAMES = {
    "filter": "finding clean samples",
    "noise-free models": "learning from clean samples",
    "student": "learning from all labels",
    "comparison": "comparing",
    "accuracy": "measuring the accuracy",
    "features": "computing features",
}


def _described(name: str, place: str) -> str:
    """Return the words that a stage is shown with."""
    words = PLAIN_NAMES.get(name, name)
    return f"{place}: {words}" if place else words


# Seconds between two lines about the progress.
LINE_EVERY = 30.0


class _Pace:
    """The time that a run still needs, by what was expected and by what has happened so far."""

    def __init__(self) -> None:
        self.expected: dict[str, float] = {}
        self._finished: dict[str, float] = {}

    def finish(self, stage: str, seconds: float) -> None:
        """Note how long a stage has taken."""
        self._finished[stage] = seconds

    def left_of_stage(self, stage: str, seconds: float, share: float) -> float | None:
        """Return the seconds that a stage still needs, of which a share is done; None: unknown."""
        if stage in self.expected:
            return (1 - share) * max(self.expected[stage] * self._slowness, seconds)
        return seconds * (1 - share) / share if share > 0 else None

    def left_of_run(self, left_of_stage: float, stage: str) -> float:
        """Return the seconds that the run still needs."""
        names = list(self.expected)
        later = names[names.index(stage) + 1 :] if stage in names else []
        return left_of_stage + self._slowness * sum(self.expected[name] for name in later)

    @property
    def _slowness(self) -> float:
        """How much longer stages take than expected; a few seconds prove little."""
        known = [name for name in self._finished if name in self.expected]
        little = 0.1 * sum(self.expected.values()) + 1e-9
        actual = sum(self._finished[name] for name in known) + little
        return min(max(actual / (sum(self.expected[name] for name in known) + little), 0.3), 3.0)


class _Lines:
    """A line about the progress every half minute, for logs and pipes."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._pace = _Pace()

    def expect(self, text: str, seconds: Mapping[str, float]) -> None:
        """Print the text."""
        self._pace.expected = dict(seconds)
        if text:
            messages.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int, place: str) -> "Iterator[Advance]":
        """Say how far a stage is; the result advances it."""
        done, start = 0.0, time.monotonic()

        def advance(steps: float = 1, *_: str, to: float | None = None, **__: str) -> None:
            nonlocal done
            done = done + steps if to is None else to
            if time.monotonic() - self._last >= LINE_EVERY:
                self._last = time.monotonic()
                share = min(done / total, 1.0) if total else 0.0
                left = self._pace.left_of_stage(name, self._last - start, share)
                about = ""
                if left is not None and self._pace.expected:
                    about = f", about {duration(self._pace.left_of_run(left, name))[0]} left"
                messages.print(
                    f"{_described(name, place)}, {share:.0%} done{about}", soft_wrap=True
                )

        advance(0)
        yield advance
        self._pace.finish(name, time.monotonic() - start)


# Width of a bar with its times, without the detail.
FIXED_WIDTH = 74


class _Bars:
    """One rich progress bar for each stage, and one for the whole run if its time is known."""

    def __init__(self) -> None:
        from rich import progress
        from rich.table import Column
        from rich.text import Text

        self._pace = _Pace()
        self._whole: Any = None
        self._begin = time.monotonic()

        class TimeLeft(progress.ProgressColumn):
            max_refresh = 0.5  # seconds

            def render(self, task: progress.Task) -> Text:
                if task.fields["ends"] is None:
                    return Text("-:--:--", style="progress.remaining")
                left = 0 if task.finished else task.fields["ends"] - time.monotonic()
                minutes, seconds = divmod(max(0, round(left)), 60)
                hours, minutes = divmod(minutes, 60)
                return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")

        room = max(1, messages.width - FIXED_WIDTH)  # a wider detail would squeeze the times
        self._bars = progress.Progress(
            progress.TextColumn("{task.description:<35}"),
            progress.BarColumn(bar_width=10),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            TimeLeft(),
            # The detail gets the remaining width only: the time estimate matters more.
            progress.TextColumn(
                "{task.fields[detail]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room),
            ),
            console=messages,
        )

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._whole is not None and kind is None:
            self._bars.update(self._whole, completed=1.0)
        self._bars.stop()

    def expect(self, text: str, seconds: Mapping[str, float]) -> None:
        """Print the text above the bars, and add a bar for the whole run."""
        self._pace.expected = dict(seconds)
        if text:
            messages.print(text)
            self._begin = time.monotonic()
            ends = self._begin + sum(seconds.values())
            self._whole = self._bars.add_task("whole run", total=1.0, detail="", ends=ends)

    @contextmanager
    def task(self, name: str, total: int, place: str) -> "Iterator[Advance]":
        """Show a bar; the result advances it."""
        start, done = time.monotonic(), 0.0
        bar = self._bars.add_task(_described(name, place), total=total, detail="", ends=None)

        def advance(steps: float = 1, detail: str = "", *, to: float | None = None) -> None:
            nonlocal done
            done = done + steps if to is None else to
            share = min(done / total, 1.0) if total else 0.0
            now = time.monotonic()
            left = self._pace.left_of_stage(name, now - start, share)
            ends = None if left is None else now + left
            self._bars.update(bar, completed=done, detail=printable(detail), ends=ends)
            if self._whole is not None and left is not None:
                left, passed = self._pace.left_of_run(left, name), now - self._begin
                share = passed / (passed + left + 1e-9)
                self._bars.update(self._whole, completed=share, ends=now + left)

        advance(0)
        yield advance
        self._pace.finish(name, time.monotonic() - start)
        self._bars.update(bar, completed=total, detail="")


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
        from pudistill.distillation.metrics import METRICS

        metric = METRICS[expected.get("metric", "accuracy")]
        low, high = metric.shown_interval(expected["interval"])
        results.print(
            f"Expected {metric.title} on new samples: {metric.shown(expected['value'])} (95% "
            f"interval: {low} to {high}), from {expected['n']:,} trusted samples held out in turn."
            f"\n{metrics['comparison']['why']}",
            soft_wrap=True,
        )
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
        f"{_described(name, '')} ({duration(seconds)[0]})"
        for name, seconds in progress.done.items()
    ]
    now, later = progress.begun, [_described(name, "") for name in progress.to_come]
    state = "is being computed" if progress.is_running else "was interrupted"
    lines = [f"The run in {progress.path} {state}."]
    if done:
        lines.append(f"Done: {', '.join(done)}.")
    if now is not None:
        lines.append(f"{'Now' if progress.is_running else 'Begun'}: {_described(now, '')}.")
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
    if not progress.is_running:
        lines.append(f"Continue with: {_program()} resume {place}")
    results.print("\n".join(lines), soft_wrap=True)


def print_curve(run: "Run") -> None:
    """Print the accuracies of a sweep, one table for each kind of noise."""
    from rich.table import Table

    from pudistill.methods.registry import OURS, title_of

    curve = run.read_table("curve")
    for noise, part in curve.groupby("noise", sort=False):
        shown = part.pivot_table(index="method", columns="level", values="accuracy", sort=False)
        table = Table(title=f"Accuracy, {noise} noise of", title_justify="left")
        table.add_column("")
        for level in shown.columns:
            table.add_column(f"{level:.0%}", justify="right")
        for method, row in shown.iterrows():
            style = "bold" if method == OURS else ""
            table.add_row(title_of(str(method)), *(f"{value:.1%}" for value in row), style=style)
        results.print(table)
    results.print(
        f"Table:  {run.path / 'curve.csv'}\nCurve:  {run.path / 'curve.svg'}\n"
        f"Report: {run.path / 'report.html'}",
        soft_wrap=True,
    )


def _program() -> str:
    """Return the words that start this program in a shell."""
    if shutil.which("pudistill"):
        return "pudistill"
    is_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m pudistill" if is_module else shlex.quote(sys.argv[0])


def print_outputs(run: "Run") -> None:
    """Print where the results of a run are."""
    from pudistill.runs.models import own_network_in

    own = own_network_in(run.read_json("model/model.json"))
    again = "" if own is None else f" --learner {shlex.quote(own)}"
    results.print(
        f"Corrected labels: {run.path / 'labels.csv'}\n"
        f"Report:           {run.path / 'report.html'}\n"
        f"New samples:      {_program()} predict {shlex.quote(str(run.path))} DATA{again}",
        soft_wrap=True,
    )


@contextmanager
def interruptible(folder: Path, options: str = "") -> Iterator[None]:
    """Print how to continue if the run is interrupted or a file cannot be written."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # Batch systems stop a job with SIGTERM.
    before = {which: signal.signal(which, interrupt) for which in (signal.SIGINT, signal.SIGTERM)}
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
        again = f"pudistill resume {place}{options}"
    elif (folder / "units").exists():
        again = f"the same command with --output {place}"
    else:
        return "Nothing was stored yet: repeat the command."
    return f"Finished stages are kept in {folder}: {again} continues from there."
