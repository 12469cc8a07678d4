"""Accuracy against noise level: figure 3 of the paper, on any data whose labels are right.

One trusted split serves every noise setting, so all that reads no noisy label (the filter and the
teachers, the classifier trained on trusted samples, the one trained on true labels) is computed
once, and a setting costs a student.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import joblib
import numpy as np
import pandas as pd
from pydantic import Field

from pudistill.data import TrustedDataset
from pudistill.distillation import average_proba
from pudistill.exceptions import DivergedError, InputError, as_input_error
from pudistill.features import embedded
from pudistill.learners import continues_training, in_order
from pudistill.methods import registry
from pudistill.methods.registry import OURS, SYSTEMS
from pudistill.progress import stage, watching
from pudistill.pseudo_labels import one_hot
from pudistill.report import plots
from pudistill.report.curve_page import CurveSummary, render_curve
from pudistill.runs import Run
from pudistill.settings import Settings
from pudistill.units import Units
from pudistill.validation import MISSING, check_labels
from pudistill.workflow import (
    about_features,
    build_classifier,
    build_pudistill,
    features_folder,
    learners_at_once,
    load_data,
    load_embedder,
    reference_accuracy,
    versions,
    with_noise,
)

Noise = Literal["symmetric", "asymmetric", "pair", "instance"]
NOISES: tuple[Noise, ...] = ("symmetric", "asymmetric")
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COMPARED = (
    "given_labels",
    "trusted_only",
    "gold_loss_correction",
    "paper",
    "pudistill",
    "true_labels",
)
COLUMNS = ["noise", "level", "overall_level", "method", "accuracy"]


class CurveSettings(Settings):
    """Everything that decides what a sweep computes; ``config.toml`` holds just this.

    Beside the settings of `Settings`, of which ``noise`` and ``level`` have no meaning here.

    Attributes
    ----------
    noises : list of {"symmetric", "asymmetric", "pair", "instance"}
        Kinds of noise.
    levels : list of float in [0, 1]
        Noise levels of the whole data set; those that the share of trusted samples does not leave
        room for are left out.
    methods : list of str
        What is compared, names of `METHODS`.
    """

    noises: list[Noise] = Field(
        list(NOISES), min_length=1, description="some of symmetric, asymmetric, pair and instance"
    )
    levels: list[float] = Field(
        list(LEVELS), min_length=1, description="a list of noise levels from 0 to 1"
    )
    methods: list[str] = Field(list(COMPARED), min_length=1)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as ``config.toml`` holds them, to be repeated from anywhere."""
        return super().to_config() | {"trusted_fraction": self.trusted_fraction}

    def split(self) -> tuple[list[float], list[float]]:
        """Return the levels that the share of trusted samples leaves room for, and the others."""
        levels = sorted(set(self.levels))
        n_possible = sum(level + self.trusted_fraction <= 1 + 1e-9 for level in levels)
        return levels[:n_possible], levels[n_possible:]

    def check(self) -> None:
        """Raise `InputError` where the settings describe no sweep."""
        if self.noise is not None:
            raise InputError(
                "A curve goes through kinds and levels of noise: give `noises` and `levels`, and "
                "leave `noise` out."
            )
        if self.test_data is None and self.test_fraction is None:
            raise InputError(
                "A curve needs samples to test on: name `test_data`, or hold out a "
                "`test_fraction` such as 0.2."
            )
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown:
            raise InputError(
                f"There is no method {unknown[0]!r}: choose some of {', '.join(METHODS)}."
            )
        if not all(0 <= level <= 1 for level in self.levels):
            raise InputError(f"The levels {self.levels} are no shares: give numbers from 0 to 1.")
        if not self.split()[0]:
            raise InputError(
                f"With a trusted share of {self.trusted_fraction:g} no level can be more than "
                f"{1 - self.trusted_fraction:g}: give lower levels, or trust less."
            )

    def check_classifiers(self, X: np.ndarray) -> None:
        """Raise `InputError` where a classifier would refuse its parameters or its learner."""
        with as_input_error():
            build_pudistill(self, X)._validate_params()
        for name in self.methods:
            if name in registry.METHODS:
                build_classifier(self.model_copy(update={"method": name}), X)


@dataclass(frozen=True)
class Bench:
    """What all methods of a sweep have in common.

    Attributes
    ----------
    settings : Settings
        How to learn.
    clean : TrustedDataset
        The training samples before any noise: `true_labels`, and which samples are trusted.
    test : TrustedDataset
        Test samples with right labels.
    units : Units or None
        Where finished stages are kept.
    watches : bool
        Whether what only the paper's tables need is measured: networks after each epoch, and the
        paper's filter on test samples.
    """

    settings: Settings
    clean: TrustedDataset
    test: TrustedDataset
    units: Units | None = None
    watches: bool = False

    def n_jobs(self, method: str) -> int:
        """Noise settings scored at once: one a core, but for networks that use all of them."""
        if self.settings.n_jobs is not None:
            return self.settings.n_jobs
        settings = self.settings_of(method) if method in registry.METHODS else self.settings
        learner = build_classifier(settings, self.clean.X).estimator
        if self.clean.is_pictures and continues_training(learner):
            return 1
        return learners_at_once(learner) or 1

    @property
    def learner(self) -> Any:
        """What all methods learn with."""
        return build_classifier(self.settings, self.clean.X).estimator

    def reference(self, labels: np.ndarray) -> float:
        """Train the student's learner on labels as they are (None: left out), and test it."""
        codes = self._codes(labels)
        known = np.flatnonzero(codes != MISSING)
        result = reference_accuracy(
            self.learner,
            self.clean.X,
            one_hot(codes[known], len(self.clean.classes)),
            self.test.X,
            self._codes(self.test.y),
            self.settings.seed,
            known,
        )
        return float(result.accuracy)

    def settings_of(self, method: str, **changes: Any) -> Settings:
        """Return the settings for another method."""
        return self.settings.model_copy(update={"method": method, **changes})

    def accuracy_of(self, classifier: Any) -> float:
        """Test a fitted classifier."""
        return float(np.mean(classifier.predict(self.test.X) == self.test.y))

    def test_accuracy(self, networks: Sequence[Any]) -> float:
        """Test networks that predict by the mean of their probabilities."""
        proba = average_proba(list(networks), self.test.X, len(self.clean.classes))
        return float(np.mean(proba.argmax(axis=1) == self._codes(self.test.y)))

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        return codes_of(labels, self.clean.classes)

    def fingerprint(self) -> str:
        """Hash everything that an accuracy depends on, but the method and the given labels."""
        settings = self.settings.model_dump(exclude={"noises", "levels", "methods", "n_jobs"})
        data = (self.clean.X, self.clean.true_labels, self.clean.verified)
        return joblib.hash((settings, data, self.test.X, self.test.y))


def codes_of(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the classes' positions; -1 for None."""
    code = {name: n for n, name in enumerate(classes)} | {None: MISSING}
    return np.array([code[name] for name in labels])


class NoisySet(NamedTuple):
    """The training samples with noise of a kind and level."""

    noise: str
    level: float
    dataset: TrustedDataset

    @property
    def known_labels(self) -> np.ndarray:
        """Given labels, but the right ones of trusted samples."""
        return np.where(self.dataset.trusted, self.dataset.verified, self.dataset.y)

    @property
    def overall_level(self) -> float:
        """Share of the labels that are wrong; trusted ones are right. NaN where nobody knows."""
        if self.dataset.true_labels is None:
            return np.nan
        return float(np.mean(self.known_labels != self.dataset.true_labels))


Score = Callable[[NoisySet], float]
"""Test accuracy of a method that learned from a data set with noisy labels."""


def given_labels(bench: Bench) -> Score:
    """Prepare the student's learner, trained on all labels as given; trusted ones are right."""

    def score(noisy: NoisySet) -> float:
        return bench.reference(noisy.known_labels)

    return score


def trusted_only(bench: Bench) -> Score:
    """Train the student's learner on the trusted samples; no noise reaches it."""
    return lambda noisy: bench.reference(bench.clean.verified)  # noqa: ARG005


def pudistill(bench: Bench) -> Score:
    """Grow the clean set and train the teachers, for a student per noise setting."""
    return distilled(bench, bench.settings)


def true_labels(bench: Bench) -> Score:
    """Train the student's learner on all true labels: the ceiling."""
    right = bench.clean.true_labels
    assert right is not None
    return lambda noisy: bench.reference(right)  # noqa: ARG005


def distilled(
    bench: Bench,
    settings: Settings,
    *,
    told: Callable[[NoisySet], dict[str, Any]] | None = None,
    **params: Any,
) -> Score:
    """Fit the classifier's teachers once, for a student per noise setting.

    Parameters
    ----------
    bench : Bench
        What all methods have in common.
    settings : Settings
        Which classifier; often those of `bench`, or a copy with one changed.
    told : callable, default=None
        Gives parameters of the student's training by the noise, where an experiment tells them.
    **params
        Parameters of the classifier that are no settings.

    Returns
    -------
    score : callable
        Takes noisy labels, returns the student's test accuracy.
    """
    clean = bench.clean
    classifier = build_pudistill(settings, clean.X).set_params(memory=bench.units, **params)
    eval_set = bench.test.X if bench.watches and settings.method == "paper" else None
    classifier.fit_teachers(clean.X, clean.y, clean.verified, eval_set=eval_set)
    if bench.n_jobs(OURS) != 1:  # noise settings run side by side
        classifier.set_params(n_jobs=None)

    def score(noisy: NoisySet) -> float:
        if told is not None:
            classifier.set_params(**told(noisy))
        classifier.fit_student(noisy.dataset.X, noisy.dataset.y, noisy.dataset.verified)
        return bench.accuracy_of(classifier)

    return score


def learned_by(method: str) -> Callable[[Bench], Score]:
    """Return what prepares another method, by its name in `pudistill.methods.registry.METHODS`."""

    def prepare(bench: Bench) -> Score:
        settings = bench.settings_of(method)

        def score(noisy: NoisySet) -> float:
            X, y, verified = noisy.dataset.X, noisy.dataset.y, noisy.dataset.verified
            return bench.accuracy_of(build_classifier(settings, X).fit(X, y, verified))

        return score

    return prepare


def paper(bench: Bench) -> Score:
    """Fit the paper's method, with one λ and η for all levels."""
    return distilled(bench, bench.settings_of("paper"))


METHODS: dict[str, Callable[[Bench], Score]] = {
    "given_labels": given_labels,
    "trusted_only": trusted_only,
    **{name: learned_by(name) for name in registry.METHODS},
    "paper": paper,
    "pudistill": pudistill,
    "true_labels": true_labels,
}
"""What can be compared. Each does at once what reads no noisy label, and returns the rest."""


def accuracy_curve(
    dataset: TrustedDataset,
    test: TrustedDataset,
    settings: CurveSettings,
    *,
    units: Units | None = None,
) -> pd.DataFrame:
    """Measure how accurate each method is at each kind and level of noise.

    Parameters
    ----------
    dataset : TrustedDataset
        Training samples, with `true_labels` or given labels that are all right. The trusted ones
        are drawn anew, a share of `settings.trusted_fraction` of each class.
    test : TrustedDataset
        Test samples with right labels, of the same kind.
    settings : CurveSettings
        Kinds and levels of noise, methods, and how to learn.
    units : Units, default=None
        Where to keep finished stages, so that an interrupted sweep goes on.

    Returns
    -------
    results : DataFrame
        A row per kind, level and method: ``noise``, ``level`` (the level asked for),
        ``overall_level`` (the share of labels of the whole data set that are wrong), ``method`` and
        ``accuracy`` (on the test samples, after the last epoch).

    Raises
    ------
    InputError
        If the settings describe no sweep, or data and settings do not fit.

    Examples
    --------
    >>> from pudistill.data import load_dataset
    >>> from pudistill.experiments.curve import CurveSettings, accuracy_curve
    >>> train, test = load_dataset("iris").holdout(0.3, random_state=0)
    >>> settings = CurveSettings.read(
    ...     {"data": "iris", "test_fraction": 0.3, "trusted_fraction": 0.2, "levels": [0.6],
    ...      "methods": ["given_labels", "true_labels"]}
    ... )
    >>> results = accuracy_curve(train, test, settings)
    >>> results[["noise", "level", "method"]].drop_duplicates().shape
    (4, 3)
    """
    settings.check()
    prepare = {method: METHODS[method] for method in settings.methods}
    return measure(dataset, test, settings, prepare, units=units, watches=False)[COLUMNS]


def measure(
    dataset: TrustedDataset,
    test: TrustedDataset,
    settings: CurveSettings,
    methods: Mapping[str, Callable[[Bench], Score]],
    *,
    class_map: Mapping[Any, Any] | None = None,
    units: Units | None = None,
    watches: bool = True,
) -> pd.DataFrame:
    """Measure methods at each kind and level of noise, with what only the paper's tables need.

    Parameters
    ----------
    dataset, test, settings, units
        As for `accuracy_curve`.
    methods : mapping of str to callable
        What prepares each method, as in `METHODS`.
    class_map : mapping, default=None
        What classes are mistaken for under asymmetric noise; each for the next one by default.
    watches : bool, default=True
        Whether networks are tested after each epoch, too.

    Returns
    -------
    results : DataFrame
        As of `accuracy_curve`, and ``best_over_epochs`` (the largest test accuracy after any epoch
        of the last network, which no user can know; ours, a mixture, has its accuracy) and
        ``seconds`` (without what all noise settings share).
    """
    levels, _ = settings.split()

    def noisy(noise: str, level: float) -> TrustedDataset:
        share, seed = settings.trusted_fraction, settings.seed
        return with_noise(dataset, noise, level, share, seed, class_map=class_map)

    bench = Bench(settings, noisy("symmetric", 0.0), test, units, watches)
    noisy_sets = [
        NoisySet(noise, level, noisy(noise, level)) for noise in settings.noises for level in levels
    ]
    return measure_on(bench, noisy_sets, methods)


def measure_on(
    bench: Bench, noisy_sets: list[NoisySet], methods: Mapping[str, Callable[[Bench], Score]]
) -> pd.DataFrame:
    """Measure methods on samples whose labels are noisy in several ways; see `measure`."""
    rows = []
    with stage("curve", len(methods) * len(noisy_sets)) as advance, as_input_error():
        fingerprint = bench.fingerprint()
        for name, prepare in methods.items():
            found = _measured(name, prepare, bench, noisy_sets, fingerprint)
            for one, cell in zip(noisy_sets, found, strict=True):
                rows.append((*one[:2], one.overall_level, name, *map(float, cell)))
                advance(1, detail=f"{name}, {one.noise} {one.level:.0%}".replace("_", " "))
    return pd.DataFrame(rows, columns=[*COLUMNS, "best_over_epochs", "seconds"])


class _UnknownError(Exception):
    """An accuracy was measured by no earlier run."""


class Cell(NamedTuple):
    """What is measured of a method at a noise, as `Units` stores it."""

    accuracy: np.ndarray
    best_over_epochs: np.ndarray
    seconds: np.ndarray


def _measured(
    method: str,
    prepare: Callable[[Bench], Score],
    bench: Bench,
    noisy_sets: list[NoisySet],
    fingerprint: str,
) -> Iterator[Cell]:
    """Yield a method's cells; it starts to work only if one of them is not yet known."""
    cell = curve_cell if bench.units is None else bench.units.cache(curve_cell, ignore=["score"])
    keys: list[np.ndarray | None] = [
        check_labels(part.dataset.y, part.dataset.verified).given for part in noisy_sets
    ]
    if method in SYSTEMS and not SYSTEMS[method].reads_noisy_labels:
        keys = [None]  # one accuracy for all

    def unknown() -> Cell:
        raise _UnknownError

    missing, seen = [], set()
    for n, key in enumerate(keys):
        same = joblib.hash(key)  # noise of level 0 is the same of every kind
        try:
            cell(fingerprint, method, key, unknown)
        except _UnknownError:
            if same not in seen:
                missing.append(n)
        seen.add(same)
    found: Iterator[Cell] = iter(())
    if missing:
        score = prepare(bench)
        # What we ship is a mixture, which has no epochs.
        watches = bench.watches and method != OURS
        tasks = (joblib.delayed(_watched)(score, bench, noisy_sets[n], watches) for n in missing)
        n_jobs = bench.n_jobs(method)
        found = in_order(tasks, n_jobs, alone=n_jobs == 1)
    known: dict[str, Cell] = {}
    for key in keys:
        same = joblib.hash(key)
        if same not in known:
            known[same] = cell(fingerprint, method, key, lambda: next(found))
        yield from [known[same]] * (len(noisy_sets) // len(keys))


def _watched(score: Score, bench: Bench, noisy: NoisySet, watches: bool) -> Cell:
    """Let a method learn and be tested, if it `watches` after each epoch of networks, too."""
    epochs: list[float] = []
    watched = 0.0

    def watch(epoch: int, networks: Sequence[Any]) -> None:
        nonlocal watched
        start = time.perf_counter()
        if epoch == 1:  # another training: what counts is the last one
            epochs.clear()
        epochs.append(bench.test_accuracy(networks))
        watched += time.perf_counter() - start

    start = time.perf_counter()
    try:
        with watching(watch) if watches else nullcontext():
            final = score(noisy)
    except DivergedError:  # even at a smaller rate: there is no accuracy, but other cells have one
        return Cell(*map(np.asarray, (np.nan, np.nan, time.perf_counter() - start)))
    seconds = time.perf_counter() - start - watched
    return Cell(*map(np.asarray, (final, max([final, *epochs]), seconds)))


def curve_cell(
    fingerprint: str,  # noqa: ARG001
    method: str,  # noqa: ARG001
    given: np.ndarray | None,  # noqa: ARG001
    score: Callable[[], Cell],
) -> Cell:
    """Compute one cell; the other parameters are the key under which `Units` keeps it."""
    return score()


def curve_run(settings: CurveSettings, output: Path) -> Run:
    """Measure a curve and leave a run folder behind.

    It holds ``config.toml``, ``curve.csv`` and ``curve.parquet`` (see `accuracy_curve`),
    ``curve.svg``, ``report.html``, ``metrics.json`` and what every run has (see `Run`).

    Parameters
    ----------
    settings : CurveSettings
        What to do.
    output : Path
        The run folder, which must not exist yet; or that of the same sweep, interrupted, which
        then goes on.

    Returns
    -------
    run : Run
        The finished run.

    Raises
    ------
    InputError
        If something in the data or the settings is wrong; then no folder is left.
    """
    settings.check()
    config = settings.to_config()
    Run.check_free(output, config)
    dataset, test = load_data(settings.model_copy(update={"noise": "symmetric", "level": 0.0}))
    assert test is not None  # the settings name one
    embedder = load_embedder(settings, dataset)
    settings.check_classifiers(dataset.X if embedder is None else np.empty((0, 1)))
    with Run.begin(output, config, "sweep") as run:
        start = time.perf_counter()
        about = {}
        if embedder is not None:
            cache = features_folder(settings, run)
            dataset, test = (embedded(part, embedder, cache) for part in (dataset, test))
            about["features"] = about_features(embedder, dataset)
        results = accuracy_curve(dataset, test, settings, units=run.units)
        seconds = time.perf_counter() - start
        metrics = {
            "n_samples": len(dataset),
            "n_trusted": int(dataset.trusted.sum()),
            "n_classes": len(dataset.classes),
            "n_test": len(test),
            **about,
            "seconds": round(seconds, 3),
            "versions": versions(),
            "warnings": run.warnings(),
        }
        run.write_table("curve", results)
        _write_pictures(run, results, metrics)
        run.finish(metrics)
    return run


def write_curve_report(run: Run) -> Path:
    """Write ``report.html``, whose path is returned, and ``curve.svg`` of a sweep again."""
    _write_pictures(run, run.read_table("curve"), run.read_json("metrics.json"))
    return run.path / "report.html"


def is_curve(run: Run) -> bool:
    """Tell whether a run folder holds a sweep."""
    return (run.path / "curve.parquet").is_file()


def _write_pictures(run: Run, results: pd.DataFrame, metrics: dict[str, Any]) -> None:
    settings = run.read_config()
    summary = CurveSummary(
        title=f"pudistill: {Path(settings['data']).name}",
        results=results,
        metrics=metrics,
        settings=settings,
        notes=[*_notes(CurveSettings.model_validate(settings)), *metrics["warnings"]],
    )
    run.write_bytes("report.html", render_curve(summary).encode())
    run.write_bytes("curve.svg", plots.standalone(plots.accuracy_curve(results)).encode())


def _notes(settings: CurveSettings) -> list[str]:
    _, left_out = settings.split()
    if not left_out:
        return []
    return [
        f"Left out: a noise level of {' and '.join(f'{level:g}' for level in left_out)}, because a "
        f"share of {settings.trusted_fraction:g} of the samples is trusted."
    ]
