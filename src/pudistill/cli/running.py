"""Run a fit with progress bars, and print what came out."""

from pathlib import Path
from typing import TYPE_CHECKING

from pudistill.cli.console import interruptible, print_accuracy, print_outputs, progress_bars

if TYPE_CHECKING:
    from pudistill.runs.settings import Settings


def fit_and_print(
    settings: "Settings", folder: Path, cluster: str | None = None, gpus: float = 0.0
) -> None:
    """Fit, and print what came out."""
    from pudistill.runs.fit import fit_run
    from pudistill.utils.cluster import running_on

    again = settings.trusted_options()
    with interruptible(folder, again), running_on(cluster, gpus), progress_bars():
        run = fit_run(settings, folder)
    print_accuracy(run)
    print_outputs(run)
