"""Commands that verify samples and learn from them: `next`, `review`, `start` and `update`."""

import os
import shlex
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pudistill.cli.console import (
    messages,
    options_to_repeat,
    print_accuracy,
    print_outputs,
    program,
    progress_bars,
    results,
)
from pudistill.cli.label_commands import FinishedRun
from pudistill.cli.options import check_free, first_free, takes_settings
from pudistill.cli.running import fit_and_print
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.review.session import ReviewSession
    from pudistill.review.start import Review

SECONDS_BETWEEN_LOOKS = 0.2  # at whether all is decided
PASSWORD = "PUDISTILL_REVIEW_PASSWORD"

Who = Annotated[
    str | None,
    typer.Option(help="Your name, for the list of decisions.", show_default="your user name"),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any that is free.")]
NoOpen = Annotated[
    bool, typer.Option("--no-open", metavar="", help="Do not open the page in a browser.")
]


def next_samples(
    run: FinishedRun,
    budget: Annotated[
        int, typer.Option(metavar="N", help="How many samples to verify.", show_default="50")
    ] = 50,
    output: Annotated[
        Path | None,
        typer.Option(
            help="CSV file to write; it must not exist yet.",
            show_default="review/queue-N.csv in the run folder",
        ),
    ] = None,
    random_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the samples that are drawn at random, above 0; the others are those of "
            "which most is gained.",
        ),
    ] = 0.5,
    max_error: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Largest share of wrong labels among those that are to be certified.",
        ),
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Say which samples to verify next, and how probably each was drawn."""
    from pudistill.review.selection import write_queue
    from pudistill.runs.folder import Run

    check_free(output)
    path, queue = write_queue(
        Run.open_with_data(run),
        budget,
        output,
        random_share=random_share,
        max_error=max_error,
        seed=seed,
    )
    n_random = int((queue["part"] == "random").sum())
    results.print(
        f"{len(queue):,} samples to verify: {n_random:,} at random, {len(queue) - n_random:,} by "
        f"what is gained. Correct the column label where it is wrong, and run `{program()} update "
        f"{shlex.quote(str(run))} --trusted {shlex.quote(str(path))}{options_to_repeat(run)}`. Or "
        "add the rows to your trusted table with their weights, in this order, and fit again.",
        soft_wrap=True,
    )
    messages.print(f"Written to {path}.", soft_wrap=True)


def review(
    run: FinishedRun,
    queue: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of the samples to ask for.",
            show_default="the first open queue in RUN/review, or a new one",
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Samples of a new queue.")] = 50,
    who: Who = None,
    show_suggestion: Annotated[
        bool,
        typer.Option(
            "--show-suggestion",
            metavar="",
            help="Show corrected labels at once, except those of samples drawn at random.",
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            metavar="",
            help="Ask also for samples that somebody else has decided or is looking at.",
        ),
    ] = False,
    port: Port = 0,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at. One that others can reach needs a password."),
    ] = "127.0.0.1",
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            metavar="",
            help=f"Ask for a password that opens the page; or set the variable {PASSWORD}.",
        ),
    ] = False,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password.")
    ] = None,
    no_open: NoOpen = False,
) -> None:
    """Verify labels of a run on a local web page."""
    server_class = _server_class()
    from pudistill.runs.folder import Run

    opened = Run.open_with_data(run)

    def open_session() -> "ReviewSession":
        """Read the samples while the page is already there: the imports alone take seconds."""
        from pudistill.review.samples import open_samples
        from pudistill.review.session import Options, ReviewSession

        options = Options(queue, budget, _name(who), show_suggestion, again)
        return ReviewSession(opened, options, open_samples)

    server = server_class(open_session, host, port, _password(password, password_file))
    _announce(server.url, no_open)
    server.run()
    if server.session is not None:
        _print_end(run, server.session)


@takes_settings(data=None)
def start(
    output: Annotated[
        Path,
        typer.Option(help="Folder of the review: of its decisions, and of a run for each fit."),
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="PROMISE",
            help='Stop as soon as it holds, such as "max-error 0.02": with 95 % confidence, at '
            "most that share of all corrected labels is wrong.",
            show_default="stop with Ctrl-C",
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Samples to ask before each fit.")] = 50,
    who: Who = None,
    port: Port = 0,
    no_open: NoOpen = False,
    **values: Any,
) -> None:
    """Begin with no verified label: verify samples on a page, and fit again and again."""
    from pudistill.runs.settings import Settings

    if values.get("data") is None:
        raise InputError("DATA is missing: name it, as in `pudistill start DATA --output RUN`.")
    max_error = _max_error_in(until)
    server_class = _server_class()
    from pudistill.review.start import Review

    review = Review(Settings.read(values), output, budget)
    if _is_exhausted(review):
        _print_result(review)
        return
    if review.dataset.is_pictures and review.settings.features is None:
        messages.print(
            "Networks learn pictures anew after each queue, which takes minutes. With --features "
            "MODEL, such as facebook/dinov2-small, it takes seconds.",
            soft_wrap=True,
        )
    server = server_class(lambda: _session_of(review, who), port=port)

    def serve() -> None:
        with suppress(InputError):  # which is raised below
            server.run()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    _announce(server.url, no_open)
    try:
        while True:
            while serving.is_alive() and not server.is_done:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            if not serving.is_alive():
                break
            server.close_session()
            if _learn(review, max_error) or _is_exhausted(review):
                break
            server.open_session(lambda: _session_of(review, who))
    except KeyboardInterrupt:
        messages.print("Stopped.")
    finally:
        server.stop()
        serving.join()
    server.raise_error()
    _print_result(review)


def _session_of(review: "Review", who: str | None) -> "ReviewSession":
    from pudistill.review.samples import open_samples
    from pudistill.review.session import Options, ReviewSession

    options = Options(
        who=_name(who),
        draws=False,
        learns=True,
        looks_before=review.looks_before,
        skipped_before=review.skipped,
    )
    return ReviewSession(review.run, options, open_samples)


def _is_exhausted(review: "Review") -> bool:
    if review.queue_path is not None:
        return False
    messages.print("All samples are decided: nothing is left to ask.")
    return True


def _learn(review: "Review", max_error: float | None) -> bool:
    """Fit with all decisions, and print the promise; return whether it is what was asked for."""
    from pudistill.review.promises import reached

    with progress_bars():
        has_fitted = review.learn()
    if not has_fitted:
        messages.print("A class has hardly any verified sample yet: more is asked.")
        return False
    promised = review.promises() if max_error is None else review.promises([max_error])
    if promised is None:
        return False
    right = promised.labels_right
    low, high = right.interval
    messages.print(
        f"{promised.n_verified:,} samples verified: {right.value:.0%} of the other labels are "
        f"right ({100 * promised.confidence:.4g}% interval, as you look more than once: {low:.0%} "
        f"to {high:.0%}).",
        soft_wrap=True,
    )
    return max_error is not None and reached(promised, max_error)


def _print_result(review: "Review") -> None:
    if review.run.path.name == "0":
        messages.print(
            f"Nothing was fitted yet. Repeat the command to go on: {review.folder}", soft_wrap=True
        )
        return
    print_accuracy(review.run)
    promised = review.promises()
    if promised is not None and promised.look > 1:
        low, high = promised.labels_right.interval
        messages.print(
            f"The intervals above hold for a single look. This was look {promised.look}: with 95% "
            f"confidence in all looks together, {low:.0%} to {high:.0%} of the corrected labels "
            "are right.",
            soft_wrap=True,
        )
    print_outputs(review.run)


def _max_error_in(until: str | None) -> float | None:
    if until is None:
        return None
    name, _, value = until.strip().partition(" ")
    with suppress(ValueError):
        if name == "max-error" and 0 < float(value) < 1:
            return float(value)
    raise InputError(
        f'The promise {until!r} is not known: write "max-error 0.02", with a share between 0 and 1.'
    )


def _server_class() -> Any:
    try:
        from pudistill.review.server import ReviewServer
    except ModuleNotFoundError as error:
        raise InputError(
            f'The page needs {error.name}, which is not installed: pip install "pudistill[review]".'
        ) from error
    return ReviewServer


def _announce(url: str, no_open: bool) -> None:
    messages.print(f"Review: {url}", soft_wrap=True)
    messages.print("Stop with Ctrl-C; every decision is stored at once.", soft_wrap=True)
    if not no_open:
        # A browser in the terminal returns only when it is closed; the page is served meanwhile.
        threading.Thread(target=_open, args=(url,), daemon=True).start()


def _open(url: str) -> None:
    with suppress(webbrowser.Error):
        webbrowser.open(url)


def _print_end(run: Path, session: "ReviewSession") -> None:
    with session.decisions.locked():  # others may have decided, too
        n_verified = len(session.decisions.current())
    are = "sample is" if n_verified == 1 else "samples are"
    messages.print(
        f"{n_verified:,} {are} verified, {n_verified - session.n_before:,} of them now: "
        f"{session.decisions.path}",
        soft_wrap=True,
    )
    if n_verified:
        place = shlex.quote(str(run))
        again = f"{program()} update {place}{options_to_repeat(run)}"
        messages.print(f"Learn from them with: {again}", soft_wrap=True)


def update(
    run: FinishedRun,
    trusted: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Table of samples verified since, as for `pudistill fit`; repeat the option for "
            "each.",
            show_default="the decisions of `pudistill review`",
        ),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help="Further data of the same kind, a batch whose labels have noise of their own; "
            "repeat the option for each.",
        ),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Count all labels OLD as NEW from now on; repeat the option for each. All is "
            "fitted anew then.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the new run.", show_default="RUN-2, or the next that is free"),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Repeat it if the run has a learner of your own."),
    ] = None,
) -> None:
    """Learn from further verified labels and data, in a fraction of the time of the first fit."""
    from pudistill.review.update import settings_for_update

    settings = settings_for_update(
        run, trusted or [], add or [], merge=merge or [], learner=learner
    )
    fit_and_print(settings, _free_folder(run) if output is None else output)


def _free_folder(run: Path) -> Path:
    """Return the run's path with the first free number; that of an update is counted on."""
    run = run if run.name not in ("", "..") else run.resolve()
    stem, _, number = run.name.rpartition("-")
    is_update = number.isdigit() and (run.with_name(stem) / "run.json").exists()
    return first_free(run.with_name(stem) if is_update else run, 2)


def _name(who: str | None) -> str:
    """Return the name of who decides, by default the user's."""
    import getpass

    if who is not None:
        return who.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return "reviewer"


def _password(is_asked: bool, file: Path | None) -> str | None:
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the password cannot be read ({error}).") from error
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if is_asked:
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return None
