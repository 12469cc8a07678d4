"""Commands that give labels without training: `certify` and `correct`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pudistill.cli.console import messages, print_noise, results
from pudistill.cli.options import check_free, names_in, takes_settings

FinishedRun = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")]


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
        _write(table, output)


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
    _write(table, output)


def _write(table: Any, output: Path) -> None:
    from pudistill.runs.folder import csv_parts
    from pudistill.utils.files import open_atomic

    with open_atomic(output) as file:
        for text in csv_parts(table):
            file.write(text.encode())
    messages.print(f"{len(table):,} labels written to {output}.", soft_wrap=True)
