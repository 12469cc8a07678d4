"""Displays of the progress: bars in a terminal, bars in a notebook, and lines elsewhere."""

import io
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, cast

from rich.console import Console

from pudistill.utils import progress
from pudistill.utils.progress import Advance
from pudistill.utils.terminal import printable
from pudistill.utils.time_limit import duration

# What users read in place of the names of stages, in the words of docs/explanation/method.md.
PLAIN_NAMES = {
    "reading pictures": "reading pictures",
    "features": "computing features",
    "trunks": "training the filter's networks",
    "filter": "finding clean samples",
    "noise-free models": "learning from clean samples",
    "teachers": "training the teachers",
    "student": "learning from all labels",
    "rounds": "learning from all labels",
    "comparison": "comparing",
    "accuracy": "measuring the accuracy",
    "curve": "measuring at all noise levels",
    # Networks, by their roles.
    "network epochs": "training a network",
    "teacher epochs": "training a teacher",
    "student epochs": "training the student",
    "noise_aware epochs": "learning from all labels",
    "cross_fit epochs": "cross-fitting",
    "reference epochs": "learning from verified labels",
    "semi_supervised epochs": "learning from unlabelled pictures",
    "continued epochs": "learning from all labels",
    "continued_cross_fit epochs": "cross-fitting",
}


class UnfailingStderr:
    """The present stderr; what it cannot hold, as it is closed or a disk is full, is lost."""

    def write(self, text: str) -> int:
        """Write if it is possible: no work ends because nobody can read how far it is."""
        with suppress(OSError, ValueError):
            _stderr().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if it is possible."""
        with suppress(OSError, ValueError):
            _stderr().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(_stderr(), name)


def _stderr() -> IO[str]:
    """Return the stream itself, which rich replaces while it draws bars."""
    stream = io.StringIO() if sys.stderr is None else sys.stderr
    return getattr(stream, "rich_proxied_file", stream)


def described(name: str, place: str) -> str:
    """Return the words that a stage is shown with."""
    words = PLAIN_NAMES.get(name, name)
    return f"{place}: {words}" if place else words


@contextmanager
def showing(verbose: bool | int) -> Iterator[None]:
    """Show the progress of everything inside the ``with`` block, if it is wanted.

    Parameters
    ----------
    verbose : bool or int
        Whether to show it: as bars in a notebook or in a terminal, elsewhere as a line for each
        finished stage. All but those of a notebook go to stderr. Nothing is shown twice where a
        display, such as that of the command line, is installed already.
    """
    if not verbose or progress.has_display():
        yield
        return
    console = Console(
        file=cast("IO[str]", UnfailingStderr()), highlight=False, markup=False, emoji=False
    )
    if _is_notebook():
        with NotebookBars() as table, progress.display(table):
            yield
    elif console.is_terminal:
        with Bars(console) as bars, progress.display(bars):
            yield
    else:
        with progress.display(FinishedLines(console)):
            yield


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class FinishedLines:
    """A line for each stage that has finished."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, total: int, place: str) -> Iterator[Advance]:  # noqa: ARG002
        """Say how long a stage has taken, when it has ended."""
        start = time.monotonic()
        yield progress.ignore
        seconds = time.monotonic() - start
        self._console.print(f"{described(name, place)}: {seconds:.1f} s", soft_wrap=True)


class _Steps:
    """Steps of a stage, and how many of them are done."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0.0

    def advance(self, steps: float, to: float | None) -> float:
        """Go on by some steps or to a step; return the share that is done."""
        self.done = self.done + steps if to is None else to
        return min(self.done / self.total, 1.0) if self.total else 0.0


class _Row(NamedTuple):
    """A stage as the bars of a notebook show it."""

    name: str
    share: float
    seconds: float
    detail: str


class NotebookBars:
    """A bar for each stage, which a notebook draws without a widget, and keeps when it is saved."""

    LEAST_SECONDS = 0.2  # between two drawings

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._text, self._handle, self._drawn = "", None, 0.0

    def __enter__(self) -> "NotebookBars":
        from IPython.display import display

        self._handle = display(self, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw(at_once=True)

    def expect(self, text: str, seconds: Mapping[str, float]) -> None:  # noqa: ARG002
        """Show what the user should read before long work."""
        self._text = text
        self._draw(at_once=True)

    @contextmanager
    def task(self, name: str, total: int, place: str) -> Iterator[Advance]:
        """Show a bar; the result advances it."""
        start, done, number = time.monotonic(), _Steps(total), len(self._rows)
        self._rows.append(_Row(described(name, place), 0.0, 0.0, ""))

        def advance(steps: float = 1, detail: str = "", *, to: float | None = None) -> None:
            share, seconds = done.advance(steps, to), time.monotonic() - start
            self._rows[number] = _Row(self._rows[number].name, share, seconds, detail)
            self._draw()

        advance(0)
        yield advance
        self._rows[number] = _Row(self._rows[number].name, 1.0, time.monotonic() - start, "")
        self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._handle is not None and (at_once or now - self._drawn >= self.LEAST_SECONDS):
            self._drawn = now
            self._handle.update(self)

    def __repr__(self) -> str:
        lines = [f"{row.name}: {row.share:.0%}, {row.seconds:.1f} s" for row in self._rows]
        return printable("\n".join(filter(None, [self._text, *lines])))

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        from pudistill.utils.notebook import ACCENT, QUIET, plain_table  # which needs numpy

        bar = Markup(
            '<div style="width: 160px; height: 8px; border-radius: 4px; background: '
            f'rgba({QUIET}, 0.25)"><div style="width: {{:.0f}}%; height: 8px; border-radius: 4px; '
            f'background: rgb({ACCENT})"></div></div>'
        )
        rows = [
            [
                row.name,
                bar.format(100 * row.share),
                f"{row.share:.0%}",
                f"{row.seconds:.1f} s",
                row.detail,
            ]
            for row in self._rows
        ]
        text = Markup("<p>{}</p>").format(self._text) if self._text else Markup()
        return str(text + (plain_table((), rows) if rows else Markup()))


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


class Lines:
    """A line about the progress every so many seconds, for logs and pipes."""

    def __init__(self, console: Console, every: float) -> None:
        self._console, self._every = console, every
        self._last = time.monotonic()
        self._pace = _Pace()

    def expect(self, text: str, seconds: Mapping[str, float]) -> None:
        """Print the text."""
        self._pace.expected = dict(seconds)
        if text:
            self._console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int, place: str) -> "Iterator[Advance]":
        """Say how far a stage is; the result advances it."""
        done, start = _Steps(total), time.monotonic()

        def advance(steps: float = 1, *_: str, to: float | None = None, **__: str) -> None:
            share = done.advance(steps, to)
            if time.monotonic() - self._last >= self._every:
                self._last = time.monotonic()
                left = self._pace.left_of_stage(name, self._last - start, share)
                about = ""
                if left is not None and self._pace.expected:
                    about = f", about {duration(self._pace.left_of_run(left, name))[0]} left"
                self._console.print(
                    f"{described(name, place)}, {share:.0%} done{about}", soft_wrap=True
                )

        advance(0)
        yield advance
        self._pace.finish(name, time.monotonic() - start)


# Width of a bar with its times, without the detail.
FIXED_WIDTH = 74


class Bars:
    """One rich progress bar for each stage, and one for the whole run if its time is known."""

    def __init__(self, console: Console) -> None:
        from rich import progress
        from rich.table import Column
        from rich.text import Text

        self._console, self._pace = console, _Pace()
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

        room = max(1, self._console.width - FIXED_WIDTH)  # a wider detail would squeeze the times
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
            console=console,
        )

    def __enter__(self) -> "Bars":
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
            self._console.print(text)
            self._begin = time.monotonic()
            ends = self._begin + sum(seconds.values())
            self._whole = self._bars.add_task("whole run", total=1.0, detail="", ends=ends)

    @contextmanager
    def task(self, name: str, total: int, place: str) -> "Iterator[Advance]":
        """Show a bar; the result advances it."""
        start, done = time.monotonic(), _Steps(total)
        bar = self._bars.add_task(described(name, place), total=total, detail="", ends=None)

        def advance(steps: float = 1, detail: str = "", *, to: float | None = None) -> None:
            share, now = done.advance(steps, to), time.monotonic()
            left = self._pace.left_of_stage(name, now - start, share)
            ends = None if left is None else now + left
            self._bars.update(bar, completed=done.done, detail=printable(detail), ends=ends)
            if self._whole is not None and left is not None:
                left, passed = self._pace.left_of_run(left, name), now - self._begin
                share = passed / (passed + left + 1e-9)
                self._bars.update(self._whole, completed=share, ends=now + left)

        advance(0)
        yield advance
        self._pace.finish(name, time.monotonic() - start)
        self._bars.update(bar, completed=total, detail="")
