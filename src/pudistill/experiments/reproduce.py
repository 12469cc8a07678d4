"""The paper's tables and figures, ours beside theirs.

Stages are kept under everything they were computed from, in one folder for all experiments: what
two of them have in common is computed once, and an interrupted experiment goes on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill import methods
from pudistill.data import TrustedDataset
from pudistill.data.clothing1m import CLASSES as CLOTHING1M_CLASSES
from pudistill.distillation import average_proba, train_teachers
from pudistill.exceptions import InputError
from pudistill.experiments import paper
from pudistill.experiments.curve import (
    METHODS,
    OURS,
    Bench,
    CurveSettings,
    NoisySet,
    Score,
    codes_of,
    distilled,
    measure,
    measure_on,
)
from pudistill.experiments.scales import SCALES, Scale, clothing1m
from pudistill.experiments.tables import as_markdown
from pudistill.learners import predict_proba
from pudistill.report import plots
from pudistill.runs import Run
from pudistill.units import Units
from pudistill.validation import MISSING
from pudistill.workflow import machine, make_learner, versions, with_noise

PAPER, TOLD = "paper", "paper_told"
# The paper's protocol for other methods: nobody says which labels are trusted.
_PUBLISHED = "_as_published"
AS_PUBLISHED = {
    name + _PUBLISHED: name
    for name in methods.METHODS
    if name not in methods.NEED_TRUSTED + methods.BLIND_TO_TRUSTED
}
# Whose numbers the paper reports, by the method that follows the same protocol. Its own system was
# told the level, too.
REPORTED = {name: name for name in methods.BLIND_TO_TRUSTED} | AS_PUBLISHED
REPORTED |= {PAPER: PAPER, TOLD: PAPER}
COMPARED = (*methods.BLIND_TO_TRUSTED, *AS_PUBLISHED)
COMPARED += (*(name for name in methods.METHODS if name not in COMPARED), PAPER, TOLD, OURS)
NAMES = (
    methods.NAMES
    | {
        PAPER: "PUDistill (paper)",
        TOLD: "PUDistill (paper, told the noise level)",
        OURS: "PUDistill",
    }
    | {
        name: f"{methods.NAMES[of]} (as published"
        + (", told the noise level)" if of in methods.CAN_BE_TOLD else ")")
        for name, of in AS_PUBLISHED.items()
    }
)


@dataclass(frozen=True)
class Setup:
    """What an experiment is run on.

    Attributes
    ----------
    scale : Scale
        Data, learner, levels.
    train, test : TrustedDataset
        Samples whose labels are right; where the noise is their own, training samples as they are.
    data : Path or None
        The folder of data sets.
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
    data: Path | None
    levels: tuple[float, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    units: Units

    @property
    def is_cifar10(self) -> bool:
        """Whether the paper's numbers on CIFAR-10 are about these data."""
        return self.scale.reported_as == paper.CIFAR10

    def on_clothing1m(self, held_out: str) -> "Setup | None":
        """Return the same on Clothing1M, tested on its "val" or "test" samples, if it is there."""
        scale = clothing1m(self.data, held_out)
        if scale is None:
            return None
        train, test = scale.load(self.data)
        return replace(self, scale=scale, train=train, test=test)

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
        """Return the training samples, a tenth of them trusted; or those that are."""
        if self.train.trusted.any():
            return self.train
        return with_noise(self.train, "symmetric", 0.0, 0.1, seed)

    def test_codes(self) -> np.ndarray:
        """Return the right classes of the test samples, as codes."""
        return codes_of(self.test.y, self.train.classes)


def told_the_level(bench: Bench) -> Score:
    """Fit the paper's method with the authors' λ and η for the noise's true kind and level."""
    settings = bench.settings.model_copy(update={"method": "paper"})
    return distilled(bench, settings, told=lambda noisy: paper.tuned(noisy.noise, noisy.level))


def as_published(method: str) -> Callable[[Bench], Score]:
    """Return what prepares a method by the paper's protocol.

    The trusted samples' labels are right, but it is not told which these are; methods whose authors
    read the rate and the kind of the noise from its generator are told both.
    """

    def prepare(bench: Bench) -> Score:
        settings = bench.settings.model_copy(update={"method": method})

        def score(noisy: NoisySet) -> float:
            classifier = settings.classifier(noisy.dataset.X)
            told = {"noise_rate": noisy.overall_level, "asymmetric": noisy.noise != "symmetric"}
            if noisy.dataset.true_labels is None:  # nobody knows
                told = {}
            known = {name: told[name] for name in told if name in classifier.get_params()}
            classifier.set_params(use_trusted=False, **known)
            classifier.fit(noisy.dataset.X, noisy.known_labels, noisy.dataset.verified)
            return float(np.mean(classifier.predict(bench.test.X) == bench.test.y))

        return score

    return prepare


PREPARE: dict[str, Callable[[Bench], Score]] = METHODS | {TOLD: told_the_level}
PREPARE |= {name: as_published(of) for name, of in AS_PUBLISHED.items()}


class Result(NamedTuple):
    """What an experiment gives.

    Attributes
    ----------
    cells : DataFrame
        A row a number: what it is about, ours (``final``, ``best``), and the ``paper``'s.
    curves : dict of str to DataFrame
        By the name of a figure, what `plots.accuracy_curve` draws.
    """

    cells: pd.DataFrame
    curves: Mapping[str, pd.DataFrame] = MappingProxyType({})


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
        values = paper.TABLE_5.get(REPORTED.get(row.method, ""))
        if values is None or row.noise != "asymmetric" or not setup.is_cifar10:
            return None
        return _at(values, paper.LEVELS, row.level)

    results = setup.curve({name: PREPARE[name] for name in setup.methods}, noises=noises)
    # Two figures: the paper's protocol, and what methods do that know the trusted samples.
    as_reported = results[results["method"].isin([*REPORTED, OURS])].replace(
        {"method": AS_PUBLISHED}
    )
    others = results[~results["method"].isin(AS_PUBLISHED)]
    return Result(_summary(results, reported), {"figure": as_reported, "figure-trusted": others})


def fig1(setup: Setup) -> Result:
    """Accuracy with 1, 5 and 10 % trusted samples, by the paper's method."""
    parts = [
        setup.curve(
            {PAPER: PREPARE[PAPER]}, trusted_fraction=share, noises=["symmetric", "asymmetric"]
        ).assign(method=f"{share:.0%} trusted")
        for share in (0.01, 0.05, 0.1)
    ]
    results = pd.concat(parts, ignore_index=True)
    return Result(_summary(results, lambda _: None), {"figure": results})


def fig2(setup: Setup) -> Result:
    """Accuracy with each kind of pseudo-label, by the paper's method with λ = 0.5 and η = 0.7."""
    parts = [
        setup.curve(
            {PAPER: PREPARE[PAPER]}, label_type=kind, noises=["symmetric", "asymmetric"]
        ).assign(method=kind.replace("_", " "))
        for kind in ("soft_bootstrap", "hard_bootstrap", "hard_label")
    ]
    results = pd.concat(parts, ignore_index=True)
    return Result(_summary(results, lambda _: None), {"figure": results})


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
    return Result(_summary(results, reported), {"figure": results})


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
    settings = setup.settings(seed, method="paper", **setup.scale.of_paper)
    dataset = setup.trusted(seed)
    classifier = settings.pudistill(dataset.X).set_params(memory=setup.units)
    classifier.fit_teachers(dataset.X, dataset.y, dataset.verified, eval_set=setup.test.X)
    proba = average_proba(classifier.teachers_, setup.test.X, len(dataset.classes))
    pu_filter = classifier.filter_
    return _Teachers(pu_filter.clean_labels_, pu_filter.eval_labels_, proba)


NOT_RUN = "not run: no data"


def _on_both(
    setup: Setup,
    key: str,
    measured: Callable[[Setup], pd.DataFrame],
    reported: Mapping[str, pd.DataFrame],
) -> Result:
    """Put the paper's numbers beside ours, on the scale's data and on Clothing1M.

    Parameters
    ----------
    setup : Setup
        The experiment's.
    key : str
        The column that says what a row is about.
    measured : callable
        Measures on a setup.
    reported : mapping of str to DataFrame
        By data set, the paper's numbers.

    Returns
    -------
    result : Result
        Ours, the paper's, and in the column ``status`` what was not run.
    """
    ours = measured(setup)
    beside = reported.get(setup.scale.reported_as or "")
    if beside is not None:
        ours = ours.merge(beside, how="left", on=key)
    parts = [ours.assign(data=setup.scale.edition, status="")]
    theirs = reported[paper.CLOTHING1M].assign(data=paper.CLOTHING1M, status=NOT_RUN)
    clothes = setup.on_clothing1m("val")
    if clothes is not None:
        theirs = measured(clothes).merge(theirs.assign(status=""), how="left", on=key)
    cells = pd.concat([*parts, theirs], ignore_index=True)
    return Result(
        cells[["data", *(name for name in cells if name not in ("data", "status")), "status"]]
    )


def table1(setup: Setup) -> Result:
    """Precision and size of the clean set on test samples, by class."""

    def measured(setup: Setup) -> pd.DataFrame:
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
        return cells.groupby("class_name", sort=False)[["precision", "size"]].mean().reset_index()

    # CIFAR-10's classes have the same order by number and by name.
    names = {paper.CIFAR10: setup.train.classes, paper.CLOTHING1M: CLOTHING1M_CLASSES}
    reported = {
        data: pd.DataFrame(
            {
                "class_name": [*names[data], "overall"],
                "paper_precision": precision,
                "paper_size": size,
            }
        )
        for data, (precision, size) in paper.TABLE_1.items()
        if data != paper.CIFAR10 or setup.is_cifar10
    }
    return _on_both(setup, "class_name", measured, reported)


def table2(setup: Setup) -> Result:
    """Accuracy of the teachers on test samples that they are sure of."""
    thresholds = list(paper.TABLE_2[paper.CIFAR10])

    def measured(setup: Setup) -> pd.DataFrame:
        right = setup.test_codes()
        rows = []
        probas = [_teachers(setup, seed).test_proba for seed in setup.seeds]
        for proba, eta in product(probas, thresholds):
            sure = proba.max(axis=1) >= eta
            hits = (proba.argmax(axis=1) == right)[sure]
            rows.append((eta, 100 * float(hits.mean()) if len(hits) else np.nan, len(hits)))
        cells = pd.DataFrame(rows, columns=["min_confidence", "accuracy", "size"])
        return cells.groupby("min_confidence", sort=False).mean().reset_index()

    reported = {
        data: pd.DataFrame(
            [(eta, *pair) for eta, pair in table.items()],
            columns=["min_confidence", "paper_accuracy", "paper_size"],
        )
        for data, table in paper.TABLE_2.items()
    }
    return _on_both(setup, "min_confidence", measured, reported)


def table3(setup: Setup) -> Result:
    """Test accuracy on Clothing1M, whose noise is its own."""
    our_name = {of: name for name, of in REPORTED.items() if name != TOLD}
    theirs = {our_name.get(name, name): accuracy for name, accuracy in paper.TABLE_3.items()}
    found = setup.on_clothing1m("test")
    results = pd.DataFrame(columns=["final", "best", "seconds", "seeds"])
    if found is not None:
        results = _on_own_noise(found)
    rows = []
    for name in dict.fromkeys([*theirs, *COMPARED]):
        ours = results.loc[name] if name in results.index else None
        if ours is None and name not in theirs and name != OURS:
            continue
        status = ""
        if name not in PREPARE:
            status = "reported only"
        elif ours is None:
            status = NOT_RUN if found is None else "not run"
        measured = [None] * 4 if ours is None else list(ours)
        called = NAMES.get(name, name).replace(", told the noise level", "")  # nobody knows it
        rows.append((called, *measured, theirs.get(name), status))
    return Result(pd.DataFrame(rows, columns=["method", *results.columns, "paper", "status"]))


def _on_own_noise(setup: Setup) -> pd.DataFrame:
    """Measure the methods on data whose noise is their own."""

    def authors(bench: Bench) -> Score:
        changes = {"method": "paper", **setup.scale.of_paper}
        return distilled(bench, bench.settings.model_copy(update=changes))

    prepare = PREPARE | {PAPER: authors}
    wanted = {name: prepare[name] for name in setup.methods if name != TOLD}
    noisy = NoisySet("own", np.nan, setup.train)
    parts = []
    for seed in setup.seeds:
        bench = Bench(setup.settings(seed), setup.train, setup.test, setup.units, watches=True)
        parts.append(measure_on(bench, [noisy], wanted).assign(seed=seed))
    results = pd.concat(parts, ignore_index=True)
    results[["final", "best"]] = 100 * results[["accuracy", "best_over_epochs"]]
    groups = results.groupby("method", sort=False)
    averages = groups[["final", "best", "seconds"]].mean()
    return averages.assign(seeds=groups["seed"].nunique())


def table4(setup: Setup) -> Result:
    """Test accuracy of teachers with and without mixup, bootstrap and entropy regularisation."""
    variants = list(paper.TABLE_4[paper.CIFAR10])
    words = ("mixup", "bootstrap", "entropy reg.")
    names = [
        " + ".join(word for word, used in zip(words, parts, strict=True) if used) or "standard"
        for parts in variants
    ]

    def measured(setup: Setup) -> pd.DataFrame:
        right = setup.test_codes()
        n_classes = len(setup.train.classes)
        teach = setup.units.cache(train_teachers)
        rows = []
        found = {seed: _teachers(setup, seed).clean_labels for seed in setup.seeds}
        for (seed, labels), parts in product(found.items(), variants):
            mixup, bootstrap, entropy = parts
            (teacher,) = teach(
                _network(setup, mixup=mixup, entropy=entropy),
                setup.train.X,
                labels,
                n_classes,
                n_teachers=1,
                # Without a bootstrap all of the clean set is learned, its classes as uneven as they
                # are.
                sample_weight=None if bootstrap else np.ones(len(labels)),
                seed=seed,
            ).members
            proba = predict_proba(teacher, setup.test.X, n_classes)
            accuracy = 100 * float(np.mean(proba.argmax(axis=1) == right))
            rows.append((names[variants.index(parts)], accuracy))
        cells = pd.DataFrame(rows, columns=["teacher", "final"])
        return cells.groupby("teacher", sort=False).mean().reset_index()

    reported = {
        data: pd.DataFrame({"teacher": names, "paper": list(table.values())})
        for data, table in paper.TABLE_4.items()
    }
    return _on_both(setup, "teacher", measured, reported)


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

    The folder, ``<experiment>-<scale>`` in `output`, holds ``config.toml``, ``cells.csv`` and
    ``cells.parquet``, ``table.md``, ``figure.svg`` where methods or variants are compared (by the
    paper's protocol, and ``figure-trusted.svg`` where all know the trusted samples) and, at last,
    ``metrics.json``. If it is there with other settings, ``<experiment>-<scale>-2`` is made,
    and so on; with the same settings it is returned as it is, or finished where it was interrupted.

    Parameters
    ----------
    experiment : str
        A name in `EXPERIMENTS`.
    output : Path
        The folder of all experiments, which share finished stages in its ``units``.
    scale : {"smoke", "cpu", "cpu-pictures", "full"}, default="smoke"
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
        The experiment's folder.

    Raises
    ------
    InputError
        If a name is unknown, or data are missing.
    """
    check_names("experiment", [experiment], EXPERIMENTS)
    check_names("scale", [scale], SCALES)
    check_names("method", compared or (), COMPARED)
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
    name = f"{experiment}-{scale}"
    path, is_finished = _place(output, name, config)
    if is_finished:
        return Run.open(path)
    train, test = size.load(data)
    with Run.begin(path, config) as run:
        setup = Setup(
            size,
            train,
            test,
            data,
            tuple(config["levels"]),
            tuple(config["methods"]),
            tuple(range(config["seeds"])),
            Units(output / "units"),
        )
        start = time.perf_counter()
        cells, curves = EXPERIMENTS[experiment](setup)
        seconds = time.perf_counter() - start
    run.write_table("cells", cells)
    title = f"{experiment}: {EXPERIMENTS[experiment].__doc__}"
    edition = paper.CLOTHING1M if experiment == "table3" else size.edition
    about = f"{edition}; {config['seeds']} seed{'s' if config['seeds'] > 1 else ''}."
    run.write_bytes("table.md", as_markdown(title, about, cells, NAMES).encode())
    for name, curve in curves.items():
        if len(curve):
            by = ["noise", "level", "method"]
            means = curve.groupby(by, sort=False)[["overall_level", "accuracy"]].mean()
            drawn = plots.accuracy_curve(means.reset_index())
            run.write_bytes(f"{name}.svg", plots.standalone(drawn).encode())
    metrics = {"seconds": round(seconds, 1), **machine(), "versions": versions()}
    run.write_json("metrics.json", metrics)
    return run


def _place(output: Path, name: str, config: dict[str, Any]) -> tuple[Path, bool]:
    """Find the folder of an experiment with these settings, and say whether it is finished."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: name a folder with --output.")
    for n in count(1):
        path = output / (name if n == 1 else f"{name}-{n}")
        if Run.is_finished(path, config):
            return path, True
        if not path.exists() or Run.is_interrupted(path, config):
            return path, False
    raise AssertionError  # there is no end to numbers


def check_names(kind: str, names: Sequence[str], known: Any) -> None:
    """Raise `InputError` for a name that is not known, with a list of those that are."""
    for name in names:
        if name not in known:
            raise InputError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")
