"""The commands: each one parses its options, calls the code that does the work, and prints."""

import io
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pudistill import __version__
from pudistill.cli.console import (
    complain,
    describe,
    interruptible,
    messages,
    print_csv,
    print_curve,
    print_progress,
    progress_bars,
    results,
    show_warning,
)
from pudistill.cli.label_commands import (
    FinishedRun,
    apply,
    certify,
    correct,
    export,
    write_csv,
)
from pudistill.cli.options import (
    OWN_NETWORK,
    SettingsCommand,
    check_free,
    first_free,
    names_in,
    numbers_in,
    takes_settings,
)
from pudistill.cli.review_commands import next_samples, review, start, update
from pudistill.cli.running import fit_and_print
from pudistill.exceptions import InputError, torch_extra
from pudistill.experiments.sweep_defaults import SWEEP_LEVELS, SWEEP_METHODS, SWEEP_NOISES


class _Group(TyperGroup):
    """The commands; an interrupted one ends with a sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            messages.print("Interrupted.")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)

Output = Annotated[Path, typer.Option(help="Folder to write the run to; it must not exist yet.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to run on: ray://HOST:PORT, HOST:PORT, auto (a cluster that is already "
        "running) or local-ray (a new cluster on this machine).",
        metavar="ADDRESS",
        rich_help_panel="Running",
    ),
]
Gpus = Annotated[
    float,
    typer.Option(
        "--gpus-per-member",
        min=0,
        metavar="NUMBER",
        help="GPUs for each task on a cluster, such as a member; a fraction shares one.",
        rich_help_panel="Running",
    ),
]


def main() -> None:
    """Run the command line; after an error that the user can correct, exit with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In any locale: a label can be any text, and a file name any bytes.
            errors = "backslashreplace" if stream is sys.stderr else "surrogateescape"
            stream.reconfigure(encoding="utf-8", errors=errors)
    warnings.showwarning = show_warning
    try:
        if _is_launched():
            with torch_extra():
                from pudistill.learners.networks import launch
            launch.run(app)
        else:
            # The script for shell completion needs the installed name.
            app(prog_name="pudistill" if shutil.which("pudistill") else None)
    except InputError as error:
        complain("Error:", "bold red", str(error))
        sys.exit(2)
    except OSError as error:
        complain("Error:", "bold red", describe(error))
        sys.exit(2)


def _is_launched() -> bool:
    """Return whether torchrun or a similar launcher started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _show_version(wanted: bool) -> None:
    if wanted:
        results.print(f"pudistill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_show_version,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    """Train a classifier on noisy labels and a few trusted labels, and correct the noisy labels."""


@app.command(cls=SettingsCommand, epilog="Example: pudistill demo --noise symmetric --level 0.9")
@takes_settings("noise", "level", "trusted_fraction", "seed", noise="asymmetric")
def demo(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write the run to.", show_default="pudistill-demo"),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep",
            metavar="",
            help="Draw accuracy against noise level: symmetric and asymmetric noise, 30 to 90 %.",
        ),
    ] = False,
    **values: Any,
) -> None:
    """Try pudistill on scikit-learn's digits with artificial label noise."""
    from pudistill.runs.settings import DEMO, Settings

    folder = first_free(Path("pudistill-demo")) if output is None else output
    if not sweep:
        fit_and_print(Settings.read(DEMO | values), folder)
        return
    for name in ("noise", "level"):
        if _was_given(ctx, name):
            raise InputError(
                f"--sweep runs through all levels of two kinds of noise: leave --{name} out, "
                "or choose with pudistill sweep digits --noises ... --levels ..."
            )
        del values[name]
    _sweep_and_print(DEMO | {"learner": "svm"} | values, folder)


@app.command(
    cls=SettingsCommand,
    epilog="Example: pudistill fit photos/ --trusted checked.csv --output run",
)
@takes_settings(data=None)
def fit(
    ctx: typer.Context,
    output: Output,
    config: Annotated[
        Path | None,
        typer.Option(
            help="config.toml of an earlier run, to repeat it. Other options override its settings."
        ),
    ] = None,
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
    **values: Any,
) -> None:
    """Fit a classifier on noisy labels and a few trusted labels, and correct the noisy labels."""
    from pudistill.runs.settings import Settings

    if config is not None:
        given = {name: value for name, value in values.items() if _was_given(ctx, name)}
        stored = _read_toml(config)
        Settings.check_trust(stored | given, given, f"pudistill fit --config {config}")
        values = stored | given
    if values.get("data") is None:
        raise InputError("DATA is missing: name it, as in `pudistill fit DATA --output RUN`.")
    fit_and_print(Settings.read(values), output, cluster, gpus)


@app.command(
    cls=SettingsCommand,
    epilog="Example: pudistill predict run new-photos/ --output predictions.csv",
)
@takes_settings("data", "skip_bad")
def predict(
    run: FinishedRun,
    output: Annotated[
        Path | None,
        typer.Option(help="CSV file to write; it must not exist yet.", show_default="stdout"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npy",
            help="Your own features of these samples, if the run was fitted on your own features.",
        ),
    ] = None,
    learner: Annotated[str | None, OWN_NETWORK] = None,
    **values: Any,
) -> None:
    """Predict the classes of new samples."""
    from pudistill.runs.folder import Run, to_csv
    from pudistill.runs.predict import predict_run

    check_free(output)
    options = {"features": features, "skip_bad": values["skip_bad"], "learner": learner}
    predictions = predict_run(Run.open_fit(run), values["data"], **options)
    if output is None:
        print_csv(to_csv(predictions))
    else:
        write_csv(predictions, output, "predictions")


@app.command(epilog="Example: pudistill report run")
def report(run: FinishedRun) -> None:
    """Write a run's HTML report again; of an unfinished run, show how far it is."""
    from pudistill.experiments.curve import is_curve, write_curve_report
    from pudistill.runs.folder import Run
    from pudistill.runs.preliminary import progress_of
    from pudistill.runs.summary import write_report

    is_unfinished = Run.is_unfinished_fit(run)
    finished = Run(run) if is_unfinished else Run.open(run)
    if (finished.path / "cells.parquet").exists():
        raise InputError(
            f"{run} holds an experiment of the paper, whose results are {run / 'table.md'} and "
            "cells.csv: there is no report to write."
        )
    write = write_curve_report if is_curve(finished) else write_report
    try:
        if is_unfinished:
            print_progress(progress_of(run))
            return
        path = write(finished)
    except (InputError, OSError):
        raise
    except Exception as error:  # what somebody else wrote can raise anything
        raise InputError(
            f"{run} holds results that make no report ({type(error).__name__}: {error}): restore a "
            "copy of them."
        ) from error
    messages.print(f"Report: {path}", soft_wrap=True)


app.command(
    epilog="Examples: pudistill export run --to model.onnx; pudistill export run --to label-studio "
    "--output tasks.json"
)(export)
app.command(epilog="Example: pudistill certify run --max-error 0.01 --output certified.csv")(
    certify
)
app.command("next", epilog="Example: pudistill next run --budget 50")(next_samples)
app.command(
    cls=SettingsCommand,
    epilog="Example: pudistill correct labels.csv --predictions probabilities.npy "
    "--trusted checked.csv --output corrected.csv",
)(correct)
app.command(
    cls=SettingsCommand,
    epilog='Example: pudistill start photos/ --output run --until "max-error 0.02"',
)(start)
app.command(epilog="Example: pudistill review run --budget 100")(review)
app.command(epilog="Example: pudistill update run --trusted checked.csv")(update)
app.command(epilog="Example: pudistill apply run --output corrected.csv")(apply)


@app.command(epilog="Example: pudistill resume run")
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an unfinished run.")],
    learner: Annotated[
        str | None,
        typer.Option(
            help="The run's module:Class, if it is not scikit-learn's: a module is imported only "
            "if you name it."
        ),
    ] = None,
    features_cache: Annotated[
        str | None,
        typer.Option(help="The run's features_cache, if it has one: a folder to write to."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Another time limit, or none. Each resumption has the whole time.",
            show_default="the run's",
        ),
    ] = None,
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
) -> None:
    """Continue an interrupted run of any command."""
    from pudistill.runs.folder import Run
    from pudistill.runs.settings import Settings

    command, config = Run.begun(run)
    repeated = {"learner": learner, "features_cache": features_cache}
    repeated["tracker"] = config.get("tracker")  # the run began with it
    Settings.check_trust(config, repeated, f"pudistill resume {shlex.quote(str(run))}")
    if time_limit is not None and command != "fit":
        raise InputError(f"{run} is not a run of `pudistill fit`: resume it without --time-limit.")
    if command == "sweep":
        _sweep_and_print(config, run, cluster, gpus)
    elif command == "reproduce":
        try:
            options = {
                "scale": config["scale"],
                "data": Path(config["data"]) if config["data"] else None,
                "levels": config.get("levels"),
                "compared": config.get("methods"),
                "n_seeds": config["seeds"],
                "skip_bad": config["skip_bad"],
            }
            experiment = config["experiment"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{run / 'config.toml'} lacks the setting {error}: add it.") from error
        _reproduce_and_print([experiment], run.parent, options, cluster, gpus)
    else:
        changed = {} if time_limit is None else {"time_limit": time_limit}
        fit_and_print(Settings.read(config | changed), run, cluster, gpus)


@app.command(
    cls=SettingsCommand,
    epilog="Example: pudistill sweep digits --test-fraction 0.25 --output curve",
)
@takes_settings(
    *("data", "trusted_fraction", "test_data", "test_fraction", "features", "test_features"),
    *("features_cache", "image_column", "text_column", "label_column", "image_size", "learner"),
    "seed",
    trusted_fraction=0.1,
)
def sweep(
    output: Output,
    noises: Annotated[
        str,
        typer.Option(metavar="LIST", help="Kinds of noise: symmetric, asymmetric, pair, instance."),
    ] = ",".join(SWEEP_NOISES),
    levels: Annotated[
        str,
        typer.Option(metavar="LIST", help="Noise levels: shares of all samples, from 0 to 1."),
    ] = ",".join(map(str, SWEEP_LEVELS)),
    methods: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help=f"Methods to compare: some of {', '.join(SWEEP_METHODS)} (the default: all of "
            "these), and the other methods that `pudistill fit --method` takes.",
            show_default=False,
        ),
    ] = ",".join(SWEEP_METHODS),
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
    **values: Any,
) -> None:
    """Add noise to correct labels, and draw each method's accuracy against the noise level."""
    lists = {"noises": names_in(noises), "levels": levels.split(","), "methods": names_in(methods)}
    _sweep_and_print(values | lists, output, cluster, gpus)


@app.command(
    cls=SettingsCommand,
    epilog="Example: pudistill corrupt digits --noise symmetric --level 0.6 --output noisy.csv",
)
@takes_settings(
    *("data", "noise", "level", "trusted_fraction", "image_column", "text_column", "label_column"),
    *("id_column", "image_size", "skip_bad", "seed"),
    noise="symmetric",
    trusted_fraction=0.1,
)
def corrupt(
    output: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .npz.")],
    sources: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of simulated sources, each of which labels the samples with noise of its "
            "own: the columns source_1, source_2, ...",
            show_default=False,
        ),
    ] = None,
    abstain: Annotated[
        float, typer.Option(help="Probability that a source says nothing of a sample.")
    ] = 0.0,
    copies: Annotated[
        int, typer.Option(min=0, help="How many of the sources are exact copies of the first.")
    ] = 0,
    adversarial: Annotated[
        int,
        typer.Option(min=0, help="How many of the sources name the next class nine times in ten."),
    ] = 0,
    **values: Any,
) -> None:
    """Add label noise to correctly labelled data, for experiments.

    Beside the noisy `label`, the file has the columns `trusted`, `verified_label` and `true_label`,
    and those of the sources.
    """
    from pudistill.data.loading import load_dataset
    from pudistill.data.writing import write_table
    from pudistill.runs.inputs import with_noise, with_sources
    from pudistill.runs.settings import Settings

    if sources is None and (abstain or copies or adversarial):
        raise InputError("--abstain, --copies and --adversarial describe sources: add --sources.")
    settings = Settings.read(values)
    dataset = load_dataset(settings.data, **settings.read_options())
    noisy = with_noise(
        dataset, settings.noise, settings.level, settings.trusted_fraction, settings.seed
    )
    if sources is not None:
        options = {"abstain": abstain, "copies": copies, "adversarial": adversarial}
        options |= {"n_sources": sources, "level": settings.level}
        noisy = with_sources(noisy, settings.noise, settings.seed, **options)
    write_table(noisy, output)
    wrong = (noisy.y != noisy.true_labels)[~noisy.trusted].mean()
    messages.print(
        f"{len(noisy):,} samples written to {output}: {noisy.trusted.sum():,} are trusted, "
        f"{wrong:.1%} of the others have a wrong label.",
        soft_wrap=True,
    )


@app.command(cls=SettingsCommand, epilog="Example: pudistill reproduce table5 fig3 --scale smoke")
@takes_settings("skip_bad")
def reproduce(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT",
            help="One or more of table1 to table6 and fig1 to fig3 of the paper, or all.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="Size: smoke (digits), cpu (CIFAR-10 features), cpu-pictures (Fashion-MNIST), "
            "cpu-network (CIFAR-10; hours) or full (CIFAR-10; needs a GPU)."
        ),
    ] = "smoke",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds cifar10-features/, fashion-mnist/, cifar10/ and clothing1m/; "
            "--scale smoke needs none."
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Noise levels.", show_default="those of the scale"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Methods to compare.", show_default="all"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds.", show_default="that of the scale"),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of all experiments; they share intermediate results.")
    ] = Path("reproduction"),
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
    **values: Any,
) -> None:
    """Repeat the paper's tables and figures; show our numbers beside the paper's."""
    from pudistill.experiments.reproduce import EXPERIMENTS, check_names

    wanted = list(EXPERIMENTS) if "all" in experiments else experiments
    check_names("experiment", wanted, EXPERIMENTS)
    options = {
        "scale": scale,
        "data": data,
        "levels": numbers_in(levels),
        "compared": methods and names_in(methods),
        "n_seeds": seeds,
        "skip_bad": values["skip_bad"],
    }
    _reproduce_and_print(wanted, output, options, cluster, gpus)


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): name the config.toml of a run."
        ) from error


def _reproduce_and_print(
    experiments: list[str],
    output: Path,
    options: dict[str, Any],
    cluster: str | None = None,
    gpus: float = 0.0,
) -> None:
    from pudistill.experiments.reproduce import reproduce as run_experiment
    from pudistill.utils.cluster import running_on

    with interruptible(output), running_on(cluster, gpus):  # one cluster for all experiments
        for experiment in experiments:
            with progress_bars():
                run = run_experiment(experiment, output, **options)
            results.print(run.read_text("table.md"), soft_wrap=True)
            messages.print(f"Table and cells: {run.path}", soft_wrap=True)


def _sweep_and_print(
    values: dict[str, Any], folder: Path, cluster: str | None = None, gpus: float = 0.0
) -> None:
    from pudistill.experiments.curve import curve_run
    from pudistill.experiments.curve_settings import CurveSettings
    from pudistill.utils.cluster import running_on

    settings = CurveSettings.read(values)
    again = settings.trusted_options()
    with interruptible(folder, again), running_on(cluster, gpus), progress_bars():
        run = curve_run(settings, folder)
    print_curve(run)
