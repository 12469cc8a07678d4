"""Methods at several levels of noise: tables 5 and 6, figures 1 to 3."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from pudistill.experiments import paper
from pudistill.experiments.curve import METHODS, Bench, NoisySet, Score, distilled
from pudistill.experiments.setup import Result, Setup
from pudistill.methods import registry
from pudistill.methods.registry import OURS, SYSTEMS, title_of
from pudistill.workflow import build_classifier

PAPER, TOLD = "paper", "paper_told"
# The paper's protocol for other methods: nobody says which labels are trusted.
_PUBLISHED = "_as_published"
AS_PUBLISHED = {
    name + _PUBLISHED: name
    for name, system in registry.METHODS.items()
    if not (system.needs_trusted or system.ignores_trusted)
}
# Whose numbers the paper reports, by the method that follows the same protocol: its own system was
# told the level, too.
_IGNORE_TRUSTED = tuple(name for name, system in registry.METHODS.items() if system.ignores_trusted)
REPORTED = {name: name for name in _IGNORE_TRUSTED} | AS_PUBLISHED | {TOLD: PAPER}
COMPARED = (*_IGNORE_TRUSTED, *AS_PUBLISHED)
COMPARED += (*(name for name in registry.METHODS if name not in COMPARED), PAPER, TOLD, OURS)
COMPARED += ("trusted_only", "true_labels")
NAMES = (
    {name: system.title for name, system in SYSTEMS.items()}
    | {
        PAPER: "PUDistill (paper)",
        TOLD: "PUDistill (paper, told the noise level)",
        OURS: "PUDistill",
    }
    | {
        name: f"{title_of(of)} (as published"
        + (", told the noise level)" if SYSTEMS[of].accepts_noise_level else ")")
        for name, of in AS_PUBLISHED.items()
    }
)


def told_the_level(bench: Bench) -> Score:
    """Fit the paper's method with the authors' λ and η for the noise's true kind and level."""
    settings = bench.settings_of("paper")
    return distilled(bench, settings, told=lambda noisy: paper.tuned(noisy.noise, noisy.level))


def as_published(method: str) -> Callable[[Bench], Score]:
    """Return what prepares a method by the paper's protocol.

    The trusted samples' labels are right, but it is not told which these are; methods whose authors
    read the rate and the kind of the noise from its generator are told both.
    """

    def prepare(bench: Bench) -> Score:
        settings = bench.settings_of(method)

        def score(noisy: NoisySet) -> float:
            classifier = build_classifier(settings, noisy.dataset.X)
            told = {"noise_rate": noisy.overall_level, "asymmetric": noisy.noise != "symmetric"}
            if noisy.dataset.true_labels is None:  # nobody knows
                told = {}
            known = {name: told[name] for name in told if name in classifier.get_params()}
            classifier.set_params(use_trusted=False, **known)
            classifier.fit(noisy.dataset.X, noisy.known_labels, noisy.dataset.verified)
            return bench.accuracy_of(classifier)

        return score

    return prepare


PREPARE: dict[str, Callable[[Bench], Score]] = METHODS | {TOLD: told_the_level}
PREPARE |= {name: as_published(of) for name, of in AS_PUBLISHED.items()}


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
    is_published = results["method"].isin(AS_PUBLISHED)
    has_twin = results["method"].isin(AS_PUBLISHED.values())
    curves = {"figure": results[~has_twin], "figure-trusted": results[~is_published]}
    short = {
        name: title_of(of) + (", told" if SYSTEMS[of].accepts_noise_level else "")
        for name, of in AS_PUBLISHED.items()
    }
    return Result(_summary(results, reported), curves, short)


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
            learner = setup.network(mixup=mixup, entropy=entropy)
            return distilled(bench, bench.settings_of("paper"), student=learner)

        return prepare

    def reported(row: Any) -> float | None:
        values = paper.TABLE_6[variants[row.method]][row.noise == "asymmetric"]
        return _at(values, paper.TABLE_6_LEVELS, row.level) if setup.is_cifar10 else None

    prepare = {name: student(*parts) for name, parts in variants.items()}
    noises = ["symmetric", "asymmetric"]
    results = setup.curve(prepare, noises=noises, min_confidence=0.9, blend=0.5)
    return Result(_summary(results, reported), {"figure": results})


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
