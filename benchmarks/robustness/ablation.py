"""Measure what each part of the default method adds, as tables IV and VI of the paper do.

    python -m benchmarks.robustness.ablation --data ../shared/data

Breast cancer, digits and Fashion-MNIST as a table, as in `benchmarks.robustness`, two seeds; mean
test accuracy in %. An interrupted command continues where it stopped.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.problems import PROBLEMS, Group, Noise
from pudistill.distillation.candidates import CandidateWeights
from pudistill.distillation.noise_free_models import FirstGuess, collect_held_out
from pudistill.distillation.transition import fit_transition_matrix
from pudistill.distillation.views import held_out_truth
from pudistill.labels.corruption import CorruptedLabels
from pudistill.learners.calibration import Temperature
from pudistill.utils.files import write_atomic

KINDS, LEVELS = ("symmetric", "asymmetric", "instance"), (0.3, 0.6, 0.9)
ON = ("breast_cancer", "digits", "fashion-mnist table")
DEFAULT = "default: rounds, guess of all, mixture"


def once() -> AbstractContextManager:
    return patch("pudistill.distillation.rounds.MAX_ROUNDS", 1)


def always_to_the_end() -> AbstractContextManager:
    return patch("pudistill.distillation.rounds.best_round", lambda held_out, *_: len(held_out))


def student_alone() -> AbstractContextManager:
    alone = CandidateWeights({"student": 1.0}, {})
    return patch.object(CandidateWeights, "fit", lambda *_: alone)


def given_labels_out() -> AbstractContextManager:
    fit = CandidateWeights.fit

    def without(predictions: dict[str, Any], truth: Any, weight: Any = None) -> CandidateWeights:
        # As if all given labels were wrong.
        return fit(predictions | {"given_labels": 1 - truth}, truth, weight)

    return patch.object(CandidateWeights, "fit", without)


def calibration_off() -> AbstractContextManager:
    identity = Temperature()
    return patch.object(Temperature, "fit", lambda *_: identity)


def variant(
    *switched: Callable[[], AbstractContextManager],
    guess_from: Sequence[str] = (),
    first_matrix: bool = False,
    **params: Any,
) -> Method:
    """Return the default method with parts switched off.

    The first guess mixes the noise-free models that `guess_from` names, by default all of them.
    With `first_matrix` the transition matrix is estimated once, under the first guess.
    """
    return Method(
        partial(measure, switched, guess_from, first_matrix, params),
        needs=partial(fitted, params),
    )


def fitted(params: dict[str, Any], group: Group) -> Any:
    return group.with_teachers(**params)


def measure(
    switched: Sequence[Callable[[], AbstractContextManager]],
    guess_from: Sequence[str],
    first_matrix: bool,
    params: dict[str, Any],
    group: Group,
    _: Noise,
    noisy: CorruptedLabels,
) -> dict[str, Any]:
    classifier = group.with_teachers(**params)
    noise_free = classifier._noise_free
    if guess_from:
        classifier._noise_free = noise_free = with_guess_from(guess_from, noise_free, group)
    if first_matrix:
        guess = noise_free.guesses[0][~group.trusted]
        T = fit_transition_matrix(guess, noisy.y[~group.trusted])
        classifier.set_params(transition_matrix=T)
    with ExitStack() as stack:
        for switch in switched:
            stack.enter_context(switch())
        classifier.fit_student(group.X, noisy.y, group.trusted)
    return group.scored(classifier.predict(group.X_test))


def with_guess_from(names: Sequence[str], noise_free: Any, group: Group) -> Any:
    """Return a `NoiseFreeStage` with a first guess that mixes only the models of these names."""
    held_out = {name: collect_held_out(noise_free.models, name) for name in names}
    first_guess = FirstGuess.fit(held_out, held_out_truth(noise_free.views, group.n_classes))
    guesses = [
        first_guess.predict_proba(models, group.X, group.n_classes) for models in noise_free.models
    ]
    return replace(noise_free, first_guess=first_guess, guesses=guesses)


TRUSTED, TEACHER, BOTH = ("trusted_only",), ("teacher",), ("trusted_only", "teacher")
VARIANTS = {
    "one round, guess of the trusted samples": variant(once, student_alone, guess_from=TRUSTED),
    "one round, guess of the teachers": variant(once, student_alone, guess_from=TEACHER),
    "one round, guess of both": variant(once, student_alone, guess_from=BOTH),
    "one round, guess of all, self-trained too": variant(once, student_alone),
    "rounds, guess of the trusted samples": variant(student_alone, guess_from=TRUSTED),
    "rounds, guess of the teachers": variant(student_alone, guess_from=TEACHER),
    "rounds, guess of both": variant(student_alone, guess_from=BOTH),
    "rounds, guess of all, self-trained too": variant(student_alone),
    DEFAULT: variant(),
    "default, but nothing self-trained": variant(guess_from=BOTH),
    "default, but given labels not in the mixture": variant(given_labels_out),
    "default, but all rounds": variant(always_to_the_end),
    "default, but not calibrated": variant(calibration_off),
    "default, but T of the first guess": variant(first_matrix=True),
    "default, but nothing held out": variant(compare=False),
    "default, but α = 0.9, θ = 19 in the filter": variant(threshold=0.9, min_votes=0.95),
}


def summarise(folder: Path, output: Path) -> None:
    """Write the rows and the table."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, "python -m benchmarks.robustness.ablation --data ../shared/data")
    write_results(rows, run, output)
    table = rows.assign(accuracy=100 * rows["test_accuracy"])
    parts = ["# What each part adds\n", described(run)]
    parts += [
        "Mean test accuracy in %, two seeds; the last column is the mean over the data sets.\n"
    ]
    overall = table.pivot_table(index="method", columns="problem", values="accuracy")
    overall["mean"] = overall.mean(axis=1)
    parts += ["## All noises\n", shown(overall)]
    for problem, part in table.groupby("problem"):
        by_noise = part.pivot_table(index="method", columns=["kind", "level"], values="accuracy")
        by_noise.columns = [f"{kind} {level:.0%}" for kind, level in by_noise]
        parts += [f"## {problem}\n", shown(by_noise)]
    text = "\n".join(parts)
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def shown(table: pd.DataFrame) -> str:
    table = table.reindex([name for name in VARIANTS if name in table.index])
    return markdown(table.map("{:.1f}".format).rename_axis("variant").reset_index())


def main() -> None:
    options = options_parser(__doc__, "ablation.json", range(2)).parse_args()
    work = [
        (
            problem,
            [
                Cell(problem.name, seed, Noise(kind, level), name)
                for kind in KINDS
                for level in LEVELS
                for name in VARIANTS
            ],
        )
        for problem in PROBLEMS
        if problem.name in ON and problem.name.startswith(tuple(options.only))
        for seed in options.seeds
    ]
    compute_and_summarise(work, VARIANTS, summarise, options)


if __name__ == "__main__":
    main()
