"""The paper's tables and figures, ours beside theirs.

Cells are kept under everything they were computed from, so that an interrupted experiment goes on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill import methods
from pudistill.data import TrustedDataset, load_dataset
from pudistill.distillation import average_proba, train_teachers
from pudistill.exceptions import InputError
from pudistill.experiments import paper
from pudistill.experiments.curve import (
    METHODS,
    OURS,
    Bench,
    CurveSettings,
    Score,
    codes_of,
    distilled,
    measure,
)
from pudistill.learners import predict_proba
from pudistill.noise import CIFAR10_CLASSES, CIFAR10_MAP
from pudistill.report import plots
from pudistill.runs import Run, Units
from pudistill.validation import MISSING
from pudistill.workflow import make_learner, versions, with_noise

PAPER, TOLD = "paper", "paper_told"
COMPARED = (*methods.METHODS, PAPER, TOLD, OURS)
NAMES = methods.NAMES | {
    PAPER: "PUDistill (paper)",
    TOLD: "PUDistill (paper, told the noise level)",
    OURS: "PUDistill",
}


@dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes
    ----------
    load : callable
        Given the folder of data sets, returns training and test samples, all labels right.
    edition : str
        What the tables call the data.
    levels : tuple of float
        Noise levels, shares of the whole data set.
    settings : dict
        Of `CurveSettings`: learner, recipe, size of the filter.
    class_map : dict or None
        What classes are mistaken for under asymmetric noise.
    seeds : int
        Number of seeds.
    """

    load: Callable[[Path | None], tuple[TrustedDataset, TrustedDataset]]
    edition: str
    levels: tuple[float, ...]
    settings: dict[str, Any]
    class_map: Mapping[Any, Any] | None = None
    seeds: int = 1


def _digits(_: Path | None) -> tuple[TrustedDataset, TrustedDataset]:
    return load_dataset("digits").holdout(0.25, random_state=0)


def _cifar10_features(data: Path | None) -> tuple[TrustedDataset, TrustedDataset]:
    path = _found(data, "cifar10-features") / "features.npz"
    with np.load(path, allow_pickle=False) as file:
        parts = [(file["X"], file["y"]), (file["X_test"], file["y_test"])]
    train, test = (_right(X.astype(np.float32), y) for X, y in parts)
    return train, test


def _right(X: np.ndarray, y: np.ndarray) -> TrustedDataset:
    n = len(y)
    return TrustedDataset(
        X=X,
        y=y.astype(str).astype(object),
        trusted=np.zeros(n, dtype=bool),
        verified=np.full(n, None, dtype=object),
        ids=np.arange(n).astype(str).astype(object),
    )


def _cifar10(data: Path | None) -> tuple[TrustedDataset, TrustedDataset]:
    folder = _found(data, "cifar10")
    if (folder / "batches.meta").exists():
        return load_dataset(folder), load_dataset(folder / "test_batch")
    train, test = (next(folder.glob(f"{part}*"), folder / part) for part in ("train", "test"))
    return load_dataset(train), load_dataset(test)


def _found(data: Path | None, name: str) -> Path:
    if data is None:
        raise InputError(f"This scale needs data: name the folder that holds {name}/ with --data.")
    for folder in (data / name, data):
        if folder.name == name and folder.is_dir():
            return folder
    raise InputError(f"There is no folder {name} in {data}: name the one that holds it.")


_CODES = {
    str(CIFAR10_CLASSES.index(name)): str(CIFAR10_CLASSES.index(wrong))
    for name, wrong in CIFAR10_MAP.items()
}
SCALES = {
    "smoke": Scale(
        _digits,
        "scikit-learn's digits",
        (0.3, 0.7),
        {"learner": "mlp", "n_members": 5, "max_iter": 2},
    ),
    "cpu": Scale(
        _cifar10_features,
        "CIFAR-10 (JPEG), features of an ImageNet network",
        (0.3, 0.5, 0.7, 0.9),
        {"learner": "mlp"},
        _CODES,
    ),
    "full": Scale(
        _cifar10,
        "CIFAR-10",
        (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        {"learner": "preact_resnet18", "recipe": "paper"},
        CIFAR10_MAP,
    ),
}


@dataclass(frozen=True)
class Setup:
    """What an experiment is run on.

    Attributes
    ----------
    scale : Scale
        Data, learner, levels.
    train, test : TrustedDataset
        Samples whose labels are right.
    levels : tuple of float
        Noise levels.
    methods : tuple of str
        Names of what is compared, where an experiment compares methods.
    seeds : tuple of int
        Seeds.
    units : Units
        Where finished stages are kept.
    """

    scale: Scale
    train: TrustedDataset
    test: TrustedDataset
    levels: tuple[float, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    units: Units

    @property
    def is_cifar10(self) -> bool:
        """Whether the paper's numbers on CIFAR-10 are about these data."""
        return self.scale.class_map is not None

    def settings(self, seed: int, **changes: Any) -> CurveSettings:
        """Return the settings of a seed."""
        fixed = {"data": self.scale.edition, "trusted_fraction": 0.1}
        return CurveSettings.read(fixed | self.scale.settings | {"seed": seed} | changes)

    def curve(
        self, prepare: Mapping[str, Callable[[Bench], Score]], **changes: Any
    ) -> pd.DataFrame:
        """Measure methods at all levels with all seeds; see `measure`."""
        parts = [
            measure(
                self.train,
                self.test,
                self.settings(seed, levels=list(self.levels), **changes),
                prepare,
                class_map=self.scale.class_map,
                units=self.units,
            ).assign(seed=seed)
            for seed in self.seeds
        ]
        return pd.concat(parts, ignore_index=True)

    def trusted(self, seed: int) -> TrustedDataset:
        """Return the training samples, a tenth of them trusted."""
        return with_noise(self.train, "symmetric", 0.0, 0.1, seed)

    def test_codes(self) -> np.ndarray:
        """Return the right classes of the test samples, as codes."""
        return codes_of(self.test.y, self.train.classes)


def told_the_level(bench: Bench) -> Score:
    """Fit the paper's method with the authors' λ and η for the noise's true kind and level."""
    settings = bench.settings.model_copy(update={"method": "paper"})
    return distilled(bench, settings, told=lambda noisy: paper.tuned(noisy.noise, noisy.level))


PREPARE: dict[str, Callable[[Bench], Score]] = METHODS | {TOLD: told_the_level}


class Result(NamedTuple):
    """What an experiment gives.

    Attributes
    ----------
    cells : DataFrame
        A row a number: what it is about, ours (``final``, ``best``), and the ``paper``'s.
    figure : DataFrame or None
        What `plots.accuracy_curve` draws.
    """

    cells: pd.DataFrame
    figure: pd.DataFrame | None = None


def _summary(results: pd.DataFrame, reported: Callable[[Any], float | None]) -> pd.DataFrame:
    """Average over seeds, in %, and put the paper's number beside it."""
    by = ["method", "noise", "level"]
    percent = results.assign(
        final=100 * results["accuracy"], best=100 * results["best_over_epochs"]
    )
    groups = percent.groupby(by, sort=False)
    found = groups.agg(
        overall_level=("overall_level", "mean"),
        final=("final", "mean"),
        final_std=("final", "std"),
        best=("best", "mean"),
        best_std=("best", "std"),
        seeds=("seed", "nunique"),
        seconds=("seconds", "mean"),
    ).reset_index()
    found["paper"] = [reported(row) for row in found.itertuples()]
    return found


def _at(values: Sequence[float], levels: Sequence[float], level: float) -> float | None:
    places = [n for n, one in enumerate(levels) if abs(one - level) < 1e-9]
    return values[places[0]] if places else None


def table5(setup: Setup) -> Result:
    """Accuracy of all methods under asymmetric noise."""
    return _methods(setup, ["asymmetric"])


def fig3(setup: Setup) -> Result:
    """Accuracy of all methods against the share of wrong labels, under both kinds of noise."""
    return _methods(setup, ["symmetric", "asymmetric"])


def _methods(setup: Setup, noises: list[str]) -> Result:
    def reported(row: Any) -> float | None:
        # Their λ and η were told the level, too.
        values = paper.TABLE_5.get(PAPER if row.method == TOLD else row.method)
        if values is None or row.noise != "asymmetric" or not setup.is_cifar10:
            return None
        return _at(values, paper.LEVELS, row.level)

    results = setup.curve({name: PREPARE[name] for name in setup.methods}, noises=noises)
    return Result(_summary(results, reported), results)


def fig1(setup: Setup) -> Result:
    """Accuracy with 1, 5 and 10 % trusted samples, by the paper's method."""
    parts = [
        setup.curve(
            {PAPER: PREPARE[PAPER]}, trusted_fraction=share, noises=["symmetric", "asymmetric"]
        ).assign(method=f"{share:.0%} trusted")
        for share in (0.01, 0.05, 0.1)
    ]
    results = pd.concat(parts, ignore_index=True)
    return Result(_summary(results, lambda _: None), results)


def fig2(setup: Setup) -> Result:
    """Accuracy with each kind of pseudo-label, by the paper's method with λ = 0.5 and η = 0.7."""
    parts = [
        setup.curve(
            {PAPER: PREPARE[PAPER]}, label_type=kind, noises=["symmetric", "asymmetric"]
        ).assign(method=kind.replace("_", " "))
        for kind in ("soft_bootstrap", "hard_bootstrap", "hard_label")
    ]
    results = pd.concat(parts, ignore_index=True)
    return Result(_summary(results, lambda _: None), results)


def table6(setup: Setup) -> Result:
    """Accuracy of students with and without mixup and entropy regularisation; η = 0.9, λ = 0.5."""
    variants = {
        "standard": (False, False),
        "+ mixup": (True, False),
        "+ entropy reg.": (False, True),
        "+ mixup + entropy reg.": (True, True),
    }

    def student(mixup: bool, entropy: bool) -> Callable[[Bench], Score]:
        def prepare(bench: Bench) -> Score:
            settings = bench.settings.model_copy(update={"method": "paper"})
            learner = _network(setup, mixup=mixup, entropy=entropy)
            return distilled(bench, settings, student=learner)

        return prepare

    def reported(row: Any) -> float | None:
        values = paper.TABLE_6[variants[row.method]][row.noise == "asymmetric"]
        return _at(values, paper.TABLE_6_LEVELS, row.level) if setup.is_cifar10 else None

    prepare = {name: student(*parts) for name, parts in variants.items()}
    noises = ["symmetric", "asymmetric"]
    results = setup.curve(prepare, noises=noises, min_confidence=0.9, blend=0.5)
    return Result(_summary(results, reported), results)


def _network(setup: Setup, *, mixup: bool, entropy: bool) -> Any:
    """Make the scale's network, with the paper's mixup and entropy regularisation or without."""
    settings = setup.settings(0)
    learner = make_learner(settings.learner, settings.recipe, setup.train.X)
    return learner.set_params(mixup=2.0 if mixup else 0.0, entropy_weight=0.8 if entropy else 0.0)


class _Teachers(NamedTuple):
    clean_labels: np.ndarray
    eval_labels: np.ndarray
    test_proba: np.ndarray


def _teachers(setup: Setup, seed: int) -> _Teachers:
    """Fit the paper's method up to its teachers, which have labelled the test samples too."""
    settings = setup.settings(seed, method="paper")
    dataset = setup.trusted(seed)
    classifier = settings.pudistill(dataset.X).set_params(memory=setup.units)
    classifier.fit_teachers(dataset.X, dataset.y, dataset.verified, eval_set=setup.test.X)
    proba = average_proba(classifier.teachers_, setup.test.X, len(dataset.classes))
    pu_filter = classifier.filter_
    return _Teachers(pu_filter.clean_labels_, pu_filter.eval_labels_, proba)


def table1(setup: Setup) -> Result:
    """Precision and size of the clean set on test samples, by class."""
    right = setup.test_codes()
    rows = []
    for seed in setup.seeds:
        found = _teachers(setup, seed).eval_labels
        for code, name in enumerate(setup.train.classes):
            mine = found == code
            precision = float((right[mine] == code).mean()) if mine.any() else None
            rows.append((name, seed, precision, int(mine.sum())))
        known = found != MISSING
        precision = float((right == found)[known].mean()) if known.any() else None
        rows.append(("overall", seed, precision, int(known.sum())))
    cells = pd.DataFrame(rows, columns=["class_name", "seed", "precision", "size"])
    cells = cells.groupby("class_name", sort=False)[["precision", "size"]].mean().reset_index()
    theirs = [(*pair,) for pair in zip(paper.TABLE_1_PRECISION, paper.TABLE_1_SIZE, strict=True)]
    theirs.append((0.94, 4204))
    if setup.is_cifar10:
        cells[["paper_precision", "paper_size"]] = theirs
    return Result(cells)


def table2(setup: Setup) -> Result:
    """Accuracy of the teachers on test samples that they are sure of."""
    right = setup.test_codes()
    rows = []
    probas = [_teachers(setup, seed).test_proba for seed in setup.seeds]
    for proba, (eta, (accuracy, size)) in product(probas, paper.TABLE_2.items()):
        sure = proba.max(axis=1) >= eta
        hits = (proba.argmax(axis=1) == right)[sure]
        ours = 100 * float(hits.mean()) if len(hits) else np.nan
        rows.append((eta, ours, len(hits), accuracy, size))
    columns = ["min_confidence", "accuracy", "size", "paper_accuracy", "paper_size"]
    cells = pd.DataFrame(rows, columns=columns)
    cells = cells.groupby("min_confidence", sort=False).mean().reset_index()
    return Result(cells if setup.is_cifar10 else cells[columns[:3]])


def table3(_: Setup) -> Result:
    """Clothing1M: the numbers that the paper reports; ours need data that are not at hand."""
    reported = paper.TABLE_3 | {"PUDistill": np.nan}
    rows = [(name, "not run: no data", value) for name, value in reported.items()]
    return Result(pd.DataFrame(rows, columns=["method", "ours", "paper"]))


def table4(setup: Setup) -> Result:
    """Test accuracy of teachers with and without mixup, bootstrap and entropy regularisation."""
    right = setup.test_codes()
    n_classes = len(setup.train.classes)
    rows = []
    found = {seed: _teachers(setup, seed).clean_labels for seed in setup.seeds}
    for (seed, labels), (parts, theirs) in product(found.items(), paper.TABLE_4.items()):
        mixup, bootstrap, entropy = parts
        learner = _network(setup, mixup=mixup, entropy=entropy)
        # Without a bootstrap all of the clean set is learned, its classes as uneven as they are.
        weight = None if bootstrap else np.ones(len(labels))
        (teacher,) = train_teachers(
            learner,
            setup.train.X,
            labels,
            n_classes,
            n_teachers=1,
            sample_weight=weight,
            seed=seed,
        )
        proba = predict_proba(teacher, setup.test.X, n_classes)
        name = " + ".join(
            word
            for word, used in zip(("mixup", "bootstrap", "entropy reg."), parts, strict=True)
            if used
        )
        rows.append((name or "standard", 100 * np.mean(proba.argmax(axis=1) == right), theirs))
    cells = pd.DataFrame(rows, columns=["teacher", "final", "paper"])
    cells = cells.groupby("teacher", sort=False).mean().reset_index()
    return Result(cells if setup.is_cifar10 else cells[["teacher", "final"]])


EXPERIMENTS: dict[str, Callable[[Setup], Result]] = {
    one.__name__: one for one in (table1, table2, table3, table4, table5, table6, fig1, fig2, fig3)
}


def reproduce(
    experiment: str,
    output: Path,
    *,
    scale: str = "smoke",
    data: Path | None = None,
    levels: Sequence[float] | None = None,
    compared: Sequence[str] | None = None,
    n_seeds: int | None = None,
) -> Run:
    """Run an experiment of the paper, and leave a folder with its table and figure.

    It holds ``config.toml``, ``cells.csv`` and ``cells.parquet``, ``table.md``, ``figure.svg``
    where methods or variants are compared and, at last, ``metrics.json``.

    Parameters
    ----------
    experiment : str
        A name in `EXPERIMENTS`.
    output : Path
        The folder, which must not exist yet; or that of the same experiment, interrupted.
    scale : {"smoke", "cpu", "full"}, default="smoke"
        A name in `SCALES`.
    data : Path, default=None
        The folder that holds the data sets; "smoke" needs none.
    levels : sequence of float, default=None
        Noise levels; the scale's by default.
    compared : sequence of str, default=None
        Methods, of `COMPARED`; all by default.
    n_seeds : int, default=None
        Number of seeds, from 0; the scale's by default.

    Returns
    -------
    run : Run
        The folder.

    Raises
    ------
    InputError
        If a name is unknown, or data are missing.
    """
    _check_names("experiment", [experiment], EXPERIMENTS)
    _check_names("scale", [scale], SCALES)
    _check_names("method", compared or (), COMPARED)
    size = SCALES[scale]
    config: dict[str, Any] = {
        "experiment": experiment,
        "scale": scale,
        "levels": list(levels or size.levels),
        "methods": list(compared or COMPARED),
        "seeds": n_seeds or size.seeds,
    }
    unknown = [one for one in config["levels"] if _at(paper.LEVELS, paper.LEVELS, one) is None]
    if unknown:
        raise InputError(f"The level {unknown[0]:g} is none of the paper's: {paper.LEVELS}.")
    Run.check_free(output, config)
    train, test = size.load(data)
    with Run.begin(output, config) as run:
        setup = Setup(
            size,
            train,
            test,
            tuple(config["levels"]),
            tuple(config["methods"]),
            tuple(range(config["seeds"])),
            run.units,
        )
        start = time.perf_counter()
        cells, figure = EXPERIMENTS[experiment](setup)
        seconds = time.perf_counter() - start
    run.write_table("cells", cells)
    title = EXPERIMENTS[experiment].__doc__ or ""
    run.write_bytes("table.md", _markdown(experiment, title, size, cells, config).encode())
    if figure is not None:
        by = ["noise", "level", "method"]
        shown = figure.groupby(by, sort=False)[["overall_level", "accuracy"]].mean().reset_index()
        run.write_bytes("figure.svg", plots.standalone(plots.accuracy_curve(shown)).encode())
    run.write_json("metrics.json", {"seconds": round(seconds, 1), "versions": versions()})
    return run


def _check_names(kind: str, names: Sequence[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")


def _name(method: Any) -> str:
    return NAMES.get(str(method), str(method))


def _markdown(
    experiment: str, title: str, scale: Scale, cells: pd.DataFrame, config: Mapping[str, Any]
) -> str:
    """Write the table: for curves a block per kind of noise, each cell ours and the paper's."""
    parts = [f"# {experiment}: {title}", f"{scale.edition}; {config['seeds']} seed(s)."]
    if "noise" not in cells:
        return "\n\n".join([*parts, _rows(cells)]) + "\n"
    parts.append("Test accuracy in %: final (best over epochs) [the paper's, best over epochs].")
    for noise, block in cells.groupby("noise", sort=False):
        text = block.assign(
            shown=[_cell(row) for row in block.itertuples()],
            name=[_name(method) for method in block["method"]],
        )
        wide = text.pivot_table(
            index="name", columns="level", values="shown", aggfunc="first", sort=False
        )
        wide.columns = [f"{100 * level:.0f} %" for level in wide.columns]
        parts += [f"## {noise} noise", _rows(wide.rename_axis("method").reset_index())]
    return "\n\n".join(parts) + "\n"


def _cell(row: Any) -> str:
    spread = f" ± {row.final_std:.1f}" if row.seeds > 1 else ""
    theirs = f" [{row.paper:.1f}]" if pd.notna(row.paper) else ""
    return f"{row.final:.1f}{spread} ({row.best:.1f}){theirs}"


def _rows(table: pd.DataFrame) -> str:
    """Write a data frame as a Markdown table."""

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [[text(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
