"""Commands that verify samples one after the other: `next`."""

from pathlib import Path
from typing import Annotated

import typer

from pudistill.cli.console import messages, results
from pudistill.cli.label_commands import FinishedRun
from pudistill.cli.options import check_free


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
        Run.open_fit(run),
        budget,
        output,
        random_share=random_share,
        max_error=max_error,
        seed=seed,
    )
    n_random = int((queue["part"] == "random").sum())
    results.print(
        f"{len(queue):,} samples to verify: {n_random:,} at random, {len(queue) - n_random:,} by "
        "what is gained. Correct the column label where it is wrong, add the rows to your trusted "
        "table with their weights, in this order, and fit again.",
        soft_wrap=True,
    )
    messages.print(f"Written to {path}.", soft_wrap=True)
