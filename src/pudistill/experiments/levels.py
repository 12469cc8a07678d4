"""Systems at several levels of noise: tables 5 and 6, figures 1 to 3."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from pudistill.experiments import paper
from pudistill.experiments.evaluation import Evaluator, FitAndScore, NoisyDataset, Prepare
from pudistill.experiments.setup import Result, Setup
from pudistill.experiments.systems import PREPARE, distilled
from pudistill.methods.registry import METHODS, OURS, SYSTEMS, title_of
from pudistill.runs.classifiers import build_classifier

PAPER, PAPER_TUNED = "paper", "paper_told"
WITH_UNLABELLED = f"{OURS}_semi_supervised"
# The paper's protocol for other methods: they do not know which samples are trusted.
AS_PUBLISHED = {
    f"{name}_as_published": name
    for name, system in METHODS.items()
    if not (system.needs_trusted or system.ignores_trusted or system.aggregates_sources)
}
_IGNORE_TRUSTED = tuple(name for name, system in METHODS.items() if system.ignores_trusted)
# The paper's name of each system that follows the paper's protocol. Its authors tuned their own
# system to the noise level, too.
REPORTED = {name: name for name in _IGNORE_TRUSTED} | AS_PUBLISHED | {PAPER_TUNED: PAPER}
COMPARED = (*_IGNORE_TRUSTED, *AS_PUBLISHED)
COMPARED += tuple(
    name
    for name, system in METHODS.items()
    if name not in COMPARED and not system.aggregates_sources
)
COMPARED += (PAPER, PAPER_TUNED, OURS)
COMPARED += ("trusted_only", "true_labels")
"""The systems that the experiments compare by default, in the order of the tables."""

ALWAYS_DRAWN: tuple[str, ...] = ("cross_entropy", PAPER, PAPER_TUNED, OURS, WITH_UNLABELLED)
ALWAYS_DRAWN += ("trusted_only", "true_labels")
MAX_OTHERS = 8  # in a figure, where more lines than these cannot be told apart
CAPTION = f"Others: the {MAX_OTHERS} of the best mean accuracy; table.md has all."

TITLES = (
    {name: system.title for name, system in SYSTEMS.items()}
    | {
        PAPER: "PUDistill (paper)",
        PAPER_TUNED: "PUDistill (paper, told the noise level)",
        OURS: "PUDistill",
        WITH_UNLABELLED: "PUDistill, semi_supervised=True",
    }
    | {
        name: f"{title_of(method)} (as published"
        + (", told the noise level)" if SYSTEMS[method].accepts_noise_level else ")")
        for name, method in AS_PUBLISHED.items()
    }
)
"""Names of the systems in tables."""


def paper_tuned(evaluator: Evaluator) -> FitAndScore:
    """Fit the paper's method with the authors' λ and η for the true kind and level of the noise."""

    def student_params(noisy: NoisyDataset) -> dict[str, Any]:
        return paper.tuned(noisy.noise, noisy.level)

    return distilled(evaluator, evaluator.settings_for("paper"), student_params=student_params)


def with_unlabelled(evaluator: Evaluator) -> FitAndScore:
    """Fit `PUDistillClassifier` with the option that first learns pictures without noisy labels."""
    return distilled(evaluator, evaluator.settings, semi_supervised=True)


def as_published(method: str) -> Prepare:
    """Return how to prepare a method by the paper's protocol.

    The labels of trusted samples are correct, but the method does not know which samples these are.
    If its authors read the rate and the kind of the noise from the generator, it gets both.
    """

    def prepare(evaluator: Evaluator) -> FitAndScore:
        settings = evaluator.settings_for(method)

        def fit_and_score(noisy: NoisyDataset) -> float:
            classifier = build_classifier(settings, noisy.dataset.X)
            classifier.set_params(use_trusted=False)
            if SYSTEMS[method].accepts_noise_level and noisy.dataset.true_labels is not None:
                classifier.set_params(noise_rate=noisy.overall_level)
                if "asymmetric" in classifier.get_params():
                    classifier.set_params(asymmetric=noisy.noise != "symmetric")
            classifier.fit(noisy.dataset.X, noisy.known_labels, noisy.dataset.verified)
            return evaluator.classifier_accuracy(classifier)

        return fit_and_score

    return prepare


PREPARE_COMPARED: dict[str, Prepare] = (
    PREPARE
    | {PAPER_TUNED: paper_tuned, WITH_UNLABELLED: with_unlabelled}
    | {name: as_published(method) for name, method in AS_PUBLISHED.items()}
)
"""How to prepare each system in `COMPARED`."""


def table5(setup: Setup) -> Result:
    """Accuracy of all methods under asymmetric noise."""
    return _compare_systems(setup, ["asymmetric"])


def fig3(setup: Setup) -> Result:
    """Accuracy of all methods against the share of wrong labels, under both kinds of noise."""
    return _compare_systems(setup, ["symmetric", "asymmetric"])


def _compare_systems(setup: Setup, noises: list[str]) -> Result:
    def reported(row: Any) -> float | None:
        values = paper.TABLE_5.get(REPORTED.get(row.method, ""))
        if values is None or row.noise != "asymmetric" or not setup.is_cifar10:
            return None
        return _value_at(row.level, paper.LEVELS, values)

    results = setup.curve({name: PREPARE_COMPARED[name] for name in setup.methods}, noises=noises)
    # Two figures: all systems by the paper's protocol, and all that know the trusted samples.
    is_published = results["method"].isin(AS_PUBLISHED)
    knows_trusted = [name for name, system in METHODS.items() if not system.ignores_trusted]
    is_told = results["method"].isin(set(knows_trusted) - {PAPER, OURS})
    curves = {"figure": results[~is_told], "figure-trusted": results[~is_published]}
    drawn = {name: _best(curve) for name, curve in curves.items()}
    is_cut = any(len(drawn[name]) < len(curve) for name, curve in curves.items())
    titles = {
        name: title_of(method) + (", told" if SYSTEMS[method].accepts_noise_level else "")
        for name, method in AS_PUBLISHED.items()
    }
    return Result(_average_over_seeds(results, reported), drawn, titles, CAPTION if is_cut else "")


def _best(results: pd.DataFrame) -> pd.DataFrame:
    """Return the results that a figure shows: of some systems always, of others the best."""
    is_other = ~results["method"].isin(ALWAYS_DRAWN)
    means = results[is_other].groupby("method")["accuracy"].mean()
    return results[~is_other | results["method"].isin(means.nlargest(MAX_OTHERS).index)]


def fig1(setup: Setup) -> Result:
    """Accuracy with 1, 5 and 10 % trusted samples, by the paper's method."""
    variants = {f"{share:.0%} trusted": {"trusted_fraction": share} for share in (0.01, 0.05, 0.1)}
    return _compare_settings(setup, variants)


def fig2(setup: Setup) -> Result:
    """Accuracy with each kind of pseudo-label, by the paper's method with λ = 0.5 and η = 0.7."""
    kinds = ("soft_bootstrap", "hard_bootstrap", "hard_label")
    variants = {kind.replace("_", " "): {"label_type": kind} for kind in kinds}
    return _compare_settings(setup, variants)


def _compare_settings(setup: Setup, variants: dict[str, dict[str, Any]]) -> Result:
    """Compare the paper's method with different settings under both kinds of noise."""
    parts = [
        setup.curve({PAPER: PREPARE[PAPER]}, noises=["symmetric", "asymmetric"], **changes).assign(
            method=name
        )
        for name, changes in variants.items()
    ]
    results = pd.concat(parts, ignore_index=True)
    return Result(_average_over_seeds(results, lambda _: None), {"figure": results})


def table6(setup: Setup) -> Result:
    """Accuracy of students with and without mixup and entropy regularisation; η = 0.9, λ = 0.5."""
    variants = {
        "standard": (False, False),
        "+ mixup": (True, False),
        "+ entropy reg.": (False, True),
        "+ mixup + entropy reg.": (True, True),
    }

    def with_student(mixup: bool, entropy: bool) -> Prepare:
        def prepare(evaluator: Evaluator) -> FitAndScore:
            student = setup.network(mixup=mixup, entropy=entropy)
            return distilled(evaluator, evaluator.settings_for("paper"), student=student)

        return prepare

    def reported(row: Any) -> float | None:
        values = paper.TABLE_6[variants[row.method]][row.noise == "asymmetric"]
        return _value_at(row.level, paper.TABLE_6_LEVELS, values) if setup.is_cifar10 else None

    systems = {name: with_student(*terms) for name, terms in variants.items()}
    noises = ["symmetric", "asymmetric"]
    results = setup.curve(systems, noises=noises, min_confidence=0.9, blend=0.5)
    return Result(_average_over_seeds(results, reported), {"figure": results})


def _average_over_seeds(
    results: pd.DataFrame, reported: Callable[[Any], float | None]
) -> pd.DataFrame:
    """Average over seeds, in %; add the paper's numbers, which `reported` finds for a row."""
    percent = results.assign(
        final=100 * results["accuracy"], best=100 * results["best_over_epochs"]
    )
    cells = (
        percent.groupby(["method", "noise", "level"], sort=False)
        .agg(
            overall_level=("overall_level", "mean"),
            final=("final", "mean"),
            final_std=("final", "std"),
            best=("best", "mean"),
            best_std=("best", "std"),
            seeds=("seed", "nunique"),
            diverged=("accuracy", lambda found: found.isna().sum()),
            seconds=("seconds", "mean"),
        )
        .reset_index()
    )
    cells["paper"] = [reported(row) for row in cells.itertuples()]
    return cells


def _value_at(level: float, levels: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the value at a noise level; None if the paper has none."""
    for known, value in zip(levels, values, strict=True):
        if abs(known - level) < 1e-9:
            return value
    return None
