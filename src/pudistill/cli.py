"""The command line: parse, call, print."""

import errno
import io
import os
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from pudistill import __version__
from pudistill.exceptions import InputError, readable, torch_extra

if TYPE_CHECKING:
    from pudistill.runs import Run
    from pudistill.workflow import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# Progress goes to stderr, so that stdout can be piped. Paths and class names are no markup.
messages = Console(stderr=True, highlight=False, markup=False)
output_console = Console(highlight=False, markup=False)

DATA_HELP = (
    "An image folder (DIR/label/file), a .parquet, .csv, .jsonl or .npz file, CIFAR-10 batches, "
    "Clothing1M, IDX images, or a scikit-learn set (digits, breast_cancer, wine, iris)."
)
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Output = Annotated[Path, typer.Option(help="Folder to write the run to; it must not exist yet.")]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
SkipBad = Annotated[bool, typer.Option(help="Leave unreadable pictures out, and list them.")]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of pictures.", show_default="image, img, picture, ...")
]
TextColumn = Annotated[
    str | None, typer.Option(help="Column of texts.", show_default="text, sentence, review, ...")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of given labels.", show_default="label, y, target, ...")
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of unique names.", show_default="id, else row numbers")
]
ImageSize = Annotated[
    int | None, typer.Option(help="Resize and crop pictures to a square of this many pixels.")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Run on a Ray cluster: ray://HOST:PORT, HOST:PORT or auto for one that there is, "
        "local-ray for one on this machine.",
        metavar="ADDRESS",
    ),
]
Gpus = Annotated[
    float,
    typer.Option(
        "--gpus-per-member", min=0, help="On a cluster: GPUs, or the share of one, for each member."
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL|FILE.npy",
        help="Learn from what a model of the Hugging Face hub, or a folder, makes of pictures or "
        "texts (facebook/dinov2-small, sentence-transformers/all-MiniLM-L6-v2), or from features "
        "of your own, a row a sample.",
    ),
]
TestFeatures = Annotated[
    str | None, typer.Option(metavar="FILE.npy", help="Your own features of the test data.")
]
FeaturesCache = Annotated[
    str | None,
    typer.Option(
        help="Folder of features, for runs to share what models made.",
        show_default="the run's own",
    ),
]


def main() -> None:
    """Run the command line; an error that is meant for the user ends it with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # whatever the locale: labels are any text
    warnings.showwarning = _show_warning
    try:
        if _is_launched():
            with torch_extra():
                from pudistill.learners import launch
            launch.run(app)
        else:
            app()
    except InputError as error:
        _complain("Error:", "bold red", str(error))
        sys.exit(2)
    except OSError as error:
        _complain("Error:", "bold red", _described(error))
        sys.exit(2)


def _is_launched() -> bool:
    """Whether torchrun, or another launcher, has started this process, perhaps with others."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _described(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    what = f"{where}{error.strerror or error}."
    return f"{what} Make room on the disk." if error.errno == errno.ENOSPC else what


def _complain(kind: str, style: str, message: str) -> None:
    messages.print(Text.assemble((kind, style), " ", readable(message)), soft_wrap=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning without the line of code that it comes from."""
    _complain("Warning:", "bold yellow", str(message))


def _show_version(wanted: bool) -> None:
    if wanted:
        output_console.print(f"pudistill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Learn from noisy labels with a few trusted ones; get a classifier and corrected labels."""


@app.command(epilog="Example: pudistill demo --noise symmetric --level 0.9")
def demo(
    ctx: typer.Context,
    noise: Annotated[
        str, typer.Option(help="symmetric, asymmetric (cyclic), pair or instance.")
    ] = "asymmetric",
    level: Annotated[float, typer.Option(help="Noise level of the whole data set.")] = 0.5,
    trusted: Annotated[float, typer.Option(help="Share of each class that is trusted.")] = 0.05,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="pudistill-demo")
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Symmetric and asymmetric noise of 30 to 90 %, as a curve."),
    ] = False,
) -> None:
    """Corrupt scikit-learn's digits and see what can be saved."""
    from pudistill.workflow import DEMO, Settings

    folder = _first_free("pudistill-demo") if output is None else output
    chosen = DEMO | {"trusted_fraction": trusted, "seed": seed}
    if sweep:
        for name in ("noise", "level"):
            if _was_given(ctx, name):
                raise InputError(
                    f"--sweep runs through all levels of two kinds of noise: leave --{name} out, "
                    "or choose with pudistill sweep digits --noises ... --levels ..."
                )
        _sweep_and_tell(chosen, folder)
    else:
        _fit_and_tell(Settings.read(chosen | {"noise": noise, "level": level}), folder)


@app.command(epilog="Example: pudistill sweep digits --learner svm --test-fraction 0.25 --output c")
def sweep(
    data: Data,
    output: Output,
    noises: Annotated[
        str, typer.Option(help="Kinds of noise: symmetric, asymmetric, pair, instance.")
    ] = "symmetric,asymmetric",
    levels: Annotated[
        str, typer.Option(help="Noise levels of the whole data set.")
    ] = "0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    methods: Annotated[
        str | None,
        typer.Option(
            help="What is compared: these, or any --method of `pudistill fit` but default.",
            show_default="given_labels,trusted_only,gold_loss_correction,paper,pudistill,"
            "true_labels",
        ),
    ] = None,
    trusted: Annotated[float, typer.Option(help="Share of each class that is trusted.")] = 0.1,
    test_data: Annotated[
        str | None, typer.Option(help="Samples with right labels to measure the accuracy on.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Or hold out this share of the samples for testing.")
    ] = None,
    features: Features = None,
    test_features: TestFeatures = None,
    features_cache: FeaturesCache = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    image_size: ImageSize = None,
    learner: Annotated[str, typer.Option(help="As for `pudistill fit`.")] = "auto",
    seed: Seed = 0,
) -> None:
    """Draw accuracy against noise level for data whose labels are right, for every method."""
    values: dict[str, Any] = {
        "data": data,
        "noises": [name.strip() for name in noises.split(",")],
        "levels": levels.split(","),
        "trusted_fraction": trusted,
        "test_data": test_data,
        "test_fraction": test_fraction,
        "features": features,
        "test_features": test_features,
        "features_cache": features_cache,
        "image_column": image_column,
        "text_column": text_column,
        "label_column": label_column,
        "image_size": image_size,
        "learner": learner,
        "seed": seed,
    }
    if methods is not None:
        values["methods"] = [name.strip() for name in methods.split(",")]
    _sweep_and_tell(values, output)


@app.command(
    epilog="Example: pudistill fit photos/ --trusted checked.csv --output run --image-size 64"
)
def fit(
    ctx: typer.Context,
    output: Output,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP)] = None,
    trusted: Annotated[
        str | None,
        typer.Option(help="Table with the ids of verified samples and, optionally, their labels."),
    ] = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    trusted_column: Annotated[
        str | None,
        typer.Option(help="Boolean column that marks verified samples.", show_default="trusted"),
    ] = None,
    image_size: ImageSize = None,
    skip_bad: SkipBad = False,
    lazy: Annotated[
        bool,
        typer.Option(
            "--lazy", help="Leave pictures on disk, as is done where they would fill the memory."
        ),
    ] = False,
    picture_cache: Annotated[
        float | None,
        typer.Option(
            help="GiB of disk (where TMPDIR says) for decoded pictures that are not in memory.",
            show_default="half of what is free",
        ),
    ] = None,
    test_data: Annotated[
        str | None, typer.Option(help="Samples with right labels to measure the accuracy on.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Hold out this share of the trusted samples for testing.")
    ] = None,
    features: Features = None,
    test_features: TestFeatures = None,
    features_cache: FeaturesCache = None,
    learner: Annotated[
        str,
        typer.Option(
            help="auto, logistic_regression, svm, mlp, small_cnn, airbench, preact_resnet18, "
            "transformers:NAME (as transformers:microsoft/resnet-50, or a folder), or "
            "module:Class (as sklearn.ensemble:RandomForestClassifier)."
        ),
    ] = "auto",
    method: Annotated[
        str,
        typer.Option(
            help="default: one setting for every noise; paper: Algorithm 1 as is; or another "
            "system: cross_entropy, mixup, joint_optimization, co_teaching, loss_correction, "
            "jocor, dividemix, forward_correction, l_dmi, gold_loss_correction, label_distillation."
        ),
    ] = "default",
    recipe: Annotated[
        str, typer.Option(help="How networks are trained: fast, paper or clothing1m.")
    ] = "fast",
    n_members: Annotated[int, typer.Option(help="Filter members per class, N.")] = 20,
    max_iter: Annotated[int, typer.Option(help="Filter iterations, K.")] = 10,
    threshold: Annotated[
        str, typer.Option(help="A member votes from this probability on, α; auto: by class.")
    ] = "auto",
    min_votes: Annotated[
        str, typer.Option(help="Votes needed, θ: a count (19), a fraction (0.95), or auto.")
    ] = "auto",
    target_precision: Annotated[
        float, typer.Option(help="Precision that auto aims at in each class.")
    ] = 0.95,
    min_confidence: Annotated[
        float, typer.Option(help="Paper: teachers are listened to from this probability on, η.")
    ] = 0.7,
    blend: Annotated[
        float, typer.Option(help="Paper: teachers' share of a pseudo-label, λ.")
    ] = 0.5,
    label_type: Annotated[
        str, typer.Option(help="Paper: soft_bootstrap, hard_bootstrap or hard_label.")
    ] = "soft_bootstrap",
    n_teachers: Annotated[str, typer.Option(help="Number of teachers, or auto.")] = "auto",
    tol: Annotated[
        float, typer.Option(help="Stop a class when its clean set changes by less than this.")
    ] = 0.01,
    all_iterations: Annotated[
        bool, typer.Option(help="Run all filter iterations, as the paper does.")
    ] = False,
    share_trunk: Annotated[
        str,
        typer.Option(
            help="Whether networks of the filter share layers: yes, no, or auto "
            "(with the default method)."
        ),
    ] = "auto",
    n_jobs: Annotated[
        int | None,
        typer.Option(
            help="Learners trained at the same time; -1: one a core.",
            show_default="-1 for networks on a CPU, else 1",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            help="Judge candidates on trusted samples that are held out in turn, and with test "
            "data also test what training on given or trusted labels alone would have given."
        ),
    ] = True,
    seed: Seed = 0,
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
    config: Annotated[
        Path | None,
        typer.Option(help="A run's config.toml to repeat; options given beside it win."),
    ] = None,
) -> None:
    """Fit on noisy data with a few trusted labels."""
    from pudistill.workflow import Settings

    values = {name: ctx.params[name] for name in Settings.model_fields if name in ctx.params}
    if config is not None:
        values = {name: value for name, value in values.items() if _was_given(ctx, name)}
        values = _read_toml(config) | values
    if values.get("data") is None:
        raise InputError("No data: name them, as in `pudistill fit DATA --output RUN`.")
    _fit_and_tell(Settings.read(values), output, cluster, gpus)


@app.command(epilog="Example: pudistill predict run new-photos/ --output predictions.csv")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option(help="CSV file to write, which must not exist yet.", show_default="print"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npy", help="Your own features of the samples, where the run has such."
        ),
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Predict the classes of new samples."""
    from pudistill.atomic import write_atomic
    from pudistill.runs import Run, to_csv
    from pudistill.workflow import predict_run

    if output is not None and output.exists():
        raise InputError(f"{output} already exists: choose another --output.")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"{output.parent} is no folder: make it, or choose another --output.")
    predictions = predict_run(Run.open_fit(run), data, features=features, skip_bad=skip_bad)
    if output is None:
        sys.stdout.write(to_csv(predictions))
    else:
        write_atomic(output, to_csv(predictions).encode())
        messages.print(f"{len(predictions):,} predictions written to {output}.", soft_wrap=True)


@app.command(
    epilog="Example: pudistill corrupt digits --noise symmetric --level 0.6 --output noisy.csv"
)
def corrupt(
    data: Data,
    output: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .npz.")],
    noise: Annotated[
        str, typer.Option(help="symmetric, asymmetric, pair or instance.")
    ] = "symmetric",
    level: Annotated[float, typer.Option(help="Noise level of the whole data set.")] = 0.5,
    trusted: Annotated[float, typer.Option(help="Share of each class that is trusted.")] = 0.1,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    image_size: ImageSize = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Put label noise into data whose labels are right, to experiment with.

    Beside the noisy `label`, the copy has the columns `trusted`, `verified_label` and `true_label`.
    """
    from pudistill.data import load_dataset, write_table
    from pudistill.workflow import Settings, with_noise

    Settings.read(
        {"data": data, "noise": noise, "level": level, "trusted_fraction": trusted, "seed": seed}
    )
    dataset = load_dataset(
        data,
        image_column=image_column,
        text_column=text_column,
        label_column=label_column,
        id_column=id_column,
        image_size=image_size,
        skip_bad=skip_bad,
    )
    noisy = with_noise(dataset, noise, level, trusted, seed)
    write_table(noisy, output)
    wrong = (noisy.y != noisy.true_labels)[~noisy.trusted].mean()
    messages.print(
        f"{len(noisy):,} samples written to {output}: {noisy.trusted.sum():,} are trusted, "
        f"{wrong:.1%} of the others have a wrong label.",
        soft_wrap=True,
    )


@app.command(epilog="Example: pudistill reproduce table5 fig3 --scale smoke")
def reproduce(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...",
            help="Some of table1 to table6 and fig1 to fig3 of the paper, or all.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="smoke (digits), cpu (CIFAR-10 features), cpu-pictures (Fashion-MNIST) or full "
            "(CIFAR-10, a GPU)."
        ),
    ] = "smoke",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds cifar10-features/, fashion-mnist/, cifar10/, clothing1m/; "
            "smoke needs none."
        ),
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help="Noise levels.", show_default="the scale's")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="What is compared.", show_default="all")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Number of seeds.", show_default="the scale's")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of all experiments, which share what they compute.")
    ] = Path("reproduction"),
    skip_bad: SkipBad = False,
) -> None:
    """Repeat tables and figures of the paper, ours beside theirs."""
    from pudistill.experiments.reproduce import EXPERIMENTS, check_names

    wanted = list(EXPERIMENTS) if experiments == ["all"] else experiments
    check_names("experiment", wanted, EXPERIMENTS)
    options = {
        "scale": scale,
        "data": data,
        "levels": _numbers(levels),
        "compared": methods and [name.strip() for name in methods.split(",")],
        "n_seeds": seeds,
        "skip_bad": skip_bad,
    }
    for experiment in wanted:
        _reproduce_and_tell(experiment, output, options)


@app.command(epilog="Example: pudistill resume run")
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an unfinished run.")],
    cluster: Cluster = None,
    gpus: Gpus = 0.0,
) -> None:
    """Go on with a run that was interrupted, whatever command made it."""
    from pudistill.runs import Run
    from pudistill.workflow import Settings

    command, config = Run.begun(run)
    if cluster is not None and command != "fit":
        raise InputError(f"{run} is no run of `pudistill fit`: resume it without --cluster.")
    if command == "sweep":
        _sweep_and_tell(config, run)
    elif command == "reproduce":
        options = {
            "scale": config["scale"],
            "data": Path(config["data"]) if config["data"] else None,
            "levels": config.get("levels"),
            "compared": config.get("methods"),
            "n_seeds": config["seeds"],
            "skip_bad": config["skip_bad"],
        }
        _reproduce_and_tell(config["experiment"], run.parent, options)
    else:
        _fit_and_tell(Settings.read(config), run, cluster, gpus)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{text!r} is no list of numbers: write them as in 0.3,0.5.") from None


@app.command(epilog="Example: pudistill report run")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
) -> None:
    """Write the HTML report of a run again."""
    from pudistill.experiments.curve import is_curve, write_curve_report
    from pudistill.runs import Run
    from pudistill.workflow import write_report

    finished = Run.open(run)
    if (finished.path / "cells.parquet").exists():
        raise InputError(
            f"{run} holds an experiment of the paper, whose results are {run / 'table.md'} and "
            "cells.csv: there is no report to write."
        )
    path = write_curve_report(finished) if is_curve(finished) else write_report(finished)
    messages.print(f"Report: {path}", soft_wrap=True)


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): name a run's config.toml.") from error


def _first_free(name: str) -> Path:
    n = 1
    while (path := Path(name if n == 1 else f"{name}-{n}")).exists():
        n += 1
    return path


def _fit_and_tell(
    settings: "Settings", folder: Path, cluster: str | None = None, gpus: float = 0.0
) -> None:
    from pudistill.cluster import running_on
    from pudistill.workflow import fit_run

    with _interruptible(folder), running_on(cluster, gpus), _progress():
        run = fit_run(settings, folder)
    _print_accuracy(run)
    _print_outputs(run)


def _reproduce_and_tell(experiment: str, output: Path, options: dict[str, Any]) -> None:
    from pudistill.experiments.reproduce import reproduce as run_experiment

    with _interruptible(output), _progress():
        run = run_experiment(experiment, output, **options)
    output_console.print(run.read_text("table.md"), soft_wrap=True)
    messages.print(f"Table and cells: {run.path}", soft_wrap=True)


def _sweep_and_tell(values: dict[str, Any], folder: Path) -> None:
    from pudistill.experiments.curve import CurveSettings, curve_run

    settings = CurveSettings.read(values)
    with _interruptible(folder), _progress():
        run = curve_run(settings, folder)
    _print_curve(run)


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Say how to go on, should a run be interrupted, as batch systems also do, or the disk fail."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        messages.print(f"Interrupted. {_how_to_go_on(folder)}", soft_wrap=True)
        raise typer.Exit(130) from None
    except OSError as error:
        advice = _how_to_go_on(folder) if folder.exists() else ""
        _complain("Error:", "bold red", f"{_described(error)} {advice}")
        raise typer.Exit(2) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _how_to_go_on(folder: Path) -> str:
    place = shlex.quote(str(folder))
    is_run = (folder / "run.json").exists()
    again = f"pudistill resume {place}" if is_run else f"the same command with --output {place}"
    return f"Finished stages are kept in {folder}: {again} goes on from there."


@contextmanager
def _progress() -> Iterator[None]:
    """Show a bar with a time estimate per stage, where somebody is watching."""
    if not messages.is_terminal:
        yield
        return
    from pudistill import progress

    with _Bars() as bars, progress.display(bars):
        yield


class _Bars:
    """Rich progress bars, one a stage."""

    def __init__(self) -> None:
        from rich import progress
        from rich.table import Column

        self._bars = progress.Progress(
            progress.TextColumn("{task.description:>16}"),
            progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            # Whatever room is left: the estimate matters more than the detail.
            progress.TextColumn(
                "{task.fields[detail]}",
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=messages,
        )

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        """Show one bar."""
        bar = self._bars.add_task(name, total=total, detail="")

        def advance(steps: int = 1, detail: str = "", *, to: int | None = None) -> None:
            if to is None:
                self._bars.update(bar, advance=steps, detail=detail)
            else:
                self._bars.update(bar, completed=to, detail=detail)

        yield advance
        self._bars.update(bar, detail="")


def _print_accuracy(run: "Run") -> None:
    """Print what the labels were, what they are, and the test accuracies."""
    from rich.table import Table

    from pudistill.methods import NAMES

    metrics = run.read_json("metrics.json")
    untrusted = metrics["n_samples"] - metrics["n_trusted"]
    output_console.print(
        f"\n{metrics['n_samples']:,} samples, {metrics['n_trusted']:,} of them trusted; "
        f"{metrics['n_changed']:,} given labels were changed.",
        soft_wrap=True,
    )
    if noise := metrics.get("noise"):
        low, high = noise["rate_interval"]
        output_console.print(
            f"About {noise['rate']:.0%} of the given labels are wrong (95 % interval: {low:.0%} to "
            f"{high:.0%}).",
            soft_wrap=True,
        )
        for warning in noise["warnings"][:3]:  # the report has all
            _complain("Warning:", "bold yellow", warning)
    if expected := metrics.get("expected_accuracy"):
        low, high = expected["interval"]
        output_console.print(
            f"Expected accuracy on new samples: {expected['value']:.1%} (95 % interval: {low:.1%} "
            f"to {high:.1%}), from {expected['n']:,} trusted samples held out in turn.\n"
            f"{metrics['comparison']['why']}",
            soft_wrap=True,
        )
    if right := metrics.get("label_accuracy"):
        output_console.print(
            f"Of the {untrusted:,} other labels {right['given']:.1%} were right as given, "
            f"{right['corrected']:.1%} are right as corrected.",
            soft_wrap=True,
        )
    if accuracy := metrics.get("test_accuracy"):
        table = Table(title=f"Accuracy on {metrics['n_test']:,} test samples", title_justify="left")
        table.add_column("")
        table.add_column("name in metrics.json", style="dim")
        table.add_column("accuracy", justify="right")
        own = run.read_config()["method"]
        for name, value in accuracy.items():
            style = "bold" if name in (own, "pudistill") else ""
            table.add_row(NAMES[name], name, f"{value:.1%}", style=style)
        output_console.print(table)


def _print_curve(run: "Run") -> None:
    """Print accuracies, a table for each kind of noise."""
    from rich.table import Table

    from pudistill.methods import NAMES

    results = run.read_table("curve")
    for noise, part in results.groupby("noise", sort=False):
        shown = part.pivot_table(index="method", columns="level", values="accuracy", sort=False)
        table = Table(title=f"Accuracy, {noise} noise of", title_justify="left")
        table.add_column("")
        for level in shown.columns:
            table.add_column(f"{level:.0%}", justify="right")
        for method, row in shown.iterrows():
            style = "bold" if method == "pudistill" else ""
            name = NAMES.get(str(method), str(method))
            table.add_row(name, *(f"{value:.1%}" for value in row), style=style)
        output_console.print(table)
    output_console.print(
        f"Table:  {run.path / 'curve.csv'}\nCurve:  {run.path / 'curve.svg'}\n"
        f"Report: {run.path / 'report.html'}",
        soft_wrap=True,
    )


def _program() -> str:
    """Say how to start the program again."""
    if shutil.which("pudistill"):
        return "pudistill"
    is_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m pudistill" if is_module else shlex.quote(sys.argv[0])


def _print_outputs(run: "Run") -> None:
    output_console.print(
        f"Corrected labels: {run.path / 'labels.csv'}\n"
        f"Report:           {run.path / 'report.html'}\n"
        f"New samples:      {_program()} predict {shlex.quote(str(run.path))} DATA",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
