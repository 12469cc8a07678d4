"""Commands about labels that train nothing: certify, correct, apply and export."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pudistill.cli.console import messages, print_csv, print_noise, program, progress_bars, results
from pudistill.cli.options import (
    OWN_NETWORK,
    check_free,
    complete_tools,
    completion,
    names_in,
    takes_settings,
)
from pudistill.exceptions import InputError


def _last_run(path: Path) -> Path:
    """Return the last run of the folder of a review, see `pudistill start`; else the folder."""
    n = 0
    while (path / str(n) / "SHA256SUMS").is_file():
        n += 1
    return path / str(n - 1) if n else path


FinishedRun = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A finished run folder, or that of a review, whose last run it stands for.",
        callback=_last_run,
    ),
]


def certify(
    run: FinishedRun,
    max_error: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Largest share of wrong labels among the accepted ones that nobody verified.",
        ),
    ] = 0.01,
    confidence: Annotated[
        float,
        typer.Option(metavar="SHARE", help="How sure the promise is, from 0 to 1."),
    ] = 0.95,
    output: Annotated[
        Path | None,
        typer.Option(
            help="CSV file to write: the label table with the column accepted. It must not exist "
            "yet.",
            show_default="only say how many",
        ),
    ] = None,
) -> None:
    """Accept as many labels of a run as possible, with a promise on how many of them are wrong."""
    from pudistill.runs.certificates import certify_run
    from pudistill.runs.folder import Run

    check_free(output)
    certified, table = certify_run(Run.open_fit(run), max_error, confidence)
    results.print(str(certified), soft_wrap=True)
    if output is not None:
        write_csv(table, output)
        n_verified = int((table["accepted"] & table["trusted"]).sum())
        hint = f"Use the rows whose column accepted is True: {certified.n_accepted:,} and the "
        if not certified.n_accepted:
            hint = "Only the rows whose column accepted is True can be used so far: the "
        messages.print(f"{hint}{n_verified:,} that you have verified.", soft_wrap=True)


@takes_settings(
    *(
        "data",
        "trusted",
        "annotations",
        "id_column",
        "label_column",
        "group_column",
        "noise_group_column",
        "seed",
    ),
)
def correct(
    predictions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Probability of each class by models that have not learned from the sample: a "
            "table with a column for each class and perhaps one of ids, or an .npy file with a row "
            "for each label and a column for each class, sorted.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="CSV file to write; it must not exist yet.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Classes of the columns of an .npy file.",
            show_default="all labels, sorted",
        ),
    ] = None,
    **values: Any,
) -> None:
    """Correct labels by predictions of your own model; nothing is trained."""
    from pudistill.runs.correct import correct_table
    from pudistill.runs.settings import Settings

    check_free(output)
    settings = Settings.read(values)
    corrected, table = correct_table(
        settings, predictions, None if classes is None else names_in(classes)
    )
    results.print(
        f"{len(table):,} labels, {table.trusted.sum():,} of them verified; "
        f"{table.changed.sum():,} were changed.",
        soft_wrap=True,
    )
    accuracy = corrected.label_accuracy
    print_noise(corrected.noise.to_dict(), None if accuracy is None else vars(accuracy))
    write_csv(table, output)


def apply(
    run: FinishedRun,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write, in the format of the data; it must not exist yet.",
            show_default=False,
        ),
    ] = None,
    certified: Annotated[
        bool,
        typer.Option(
            "--certified",
            metavar="",
            help="Change certified labels only; all other changes are listed for review.",
        ),
    ] = False,
    max_error: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Largest share of wrong labels among the certified ones that nobody verified: "
            "decides the column accepted.",
        ),
    ] = 0.01,
    link: Annotated[
        str,
        typer.Option(
            metavar="copy|hardlink|symlink|move",
            help="How pictures get into the folder of their class. Only move touches your data: it "
            "first writes undo.csv, and goes on after an interruption if the command is repeated.",
            autocompletion=completion(("copy", "hardlink", "symlink", "move")),
        ),
    ] = "copy",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="List the changes, and write nothing."),
    ] = False,
    undo: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST", help="Move pictures back by the undo.csv of a move.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a corrected copy of a run's data: a table, a folder of pictures, an .npz file.

    Tables keep rows and columns, and get the columns given, confidence and accepted (certified).
    Pictures get into the folder of their class.
    Samples that were verified as none of these get that label.
    Outliers that nobody verified keep their given label, listed in review.csv.
    """
    from pudistill.runs.apply import apply_run, summary_of, undo_run
    from pudistill.runs.folder import Run, to_csv

    finished = Run.open_with_data(run)
    if undo is not None:
        if dry_run or certified or output is not None:
            raise InputError(
                "--undo moves pictures back: leave --dry-run, --certified and --output out."
            )
        n_moved = undo_run(finished, undo)
        messages.print(f"{n_moved:,} pictures are back at their places.", soft_wrap=True)
        return
    if output is None:
        raise InputError("--output is missing: name a file or a folder that does not exist yet.")
    options: dict[str, Any] = {"certified": certified, "max_error": max_error}
    applied = apply_run(finished, output, link=link, dry_run=dry_run, **options)
    if dry_run:
        print_csv(to_csv(applied.changes))
    messages.print(summary_of(applied, dry_run=dry_run), soft_wrap=True)
    if not dry_run:
        messages.print(f"Corrected data: {output}", soft_wrap=True)
    if applied.undo_list is not None and not dry_run:
        undo_list = shlex.quote(str(applied.undo_list))
        again = f"{program()} apply {shlex.quote(str(run))} --undo {undo_list}"
        messages.print(f"Undo with: {again}", soft_wrap=True)


def export(
    run: FinishedRun,
    to: Annotated[
        str,
        typer.Option(
            metavar="FILE|TOOL",
            help="The network as a file, .onnx or .pt2 (torch.export); or samples and labels for "
            "label-studio, argilla, fiftyone, cleanlab or csv.",
            autocompletion=complete_tools,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write for a tool: .json, or .npz or .csv for cleanlab, or .csv. It must "
            "not exist yet.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table with a column id: the samples to export, such as a queue of samples to "
            "verify.",
            show_default="all that nobody verified",
        ),
    ] = None,
    learner: Annotated[str | None, OWN_NETWORK] = None,
) -> None:
    """Write the network of a run as one file, or its labels for another tool."""
    from pudistill.runs.folder import Run

    if Path(to).suffix or "/" in to:
        if output is not None or only is not None:
            raise InputError("--to names the file of the network: leave --output and --only out.")
        _export_network(run, Path(to), learner)
        return
    from pudistill.runs.exchange.registry import check_tool, export_labels

    check_tool(to)
    if output is None:
        raise InputError(f"--output is missing: name a file for {to}.")
    check_free(output)
    with progress_bars():
        n_samples, hint = export_labels(
            Run.open_with_data(run), to, output, only=only, learner=learner
        )
    messages.print(f"{n_samples:,} samples written to {output}. {hint}", soft_wrap=True)


def _export_network(run: Path, to: Path, learner: str | None) -> None:
    from pudistill.runs.classifiers import own_network
    from pudistill.runs.export import export_run
    from pudistill.runs.folder import Run

    check_free(to)
    module = None if learner is None else own_network(learner)
    export_run(Run.open_fit(run), to, module=module)
    messages.print(f"Network: {to}", soft_wrap=True)


def write_csv(table: Any, output: Path, what: str = "labels") -> None:
    """Write a table to a file that does not exist yet, and say so."""
    from pudistill.runs.folder import csv_parts
    from pudistill.utils.files import open_atomic

    with open_atomic(output) as file:
        for text in csv_parts(table):
            file.write(text.encode())
    messages.print(f"{len(table):,} {what} written to {output}.", soft_wrap=True)
