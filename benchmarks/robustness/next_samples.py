"""Verify samples that `pudistill next` chooses, and as many that are drawn at random.

    python -m benchmarks.robustness.next_samples --data ../shared/data
    python -m benchmarks.robustness.next_samples --only digits --seeds 0 --jobs 1

A simulated reviewer answers with the truth. Chosen samples come in batches of 50, after each of
which all is fitted again. How many random ones make as many labels right? Then 200 reviews of one
fit count how often estimates from chosen samples hold the truth, and others whether promises are
true whenever one stops. An interrupted command continues where it stopped.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.problems import (
    REAL,
    Group,
    Noise,
    Problem,
    draw_at_random,
    held_out,
    logistic_regression,
)
from benchmarks.common.real_noise import from_arrays, from_table, from_texts, plain
from benchmarks.robustness import stopping
from pudistill import PUDistillClassifier
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels
from pudistill.review.drawing import draw
from pudistill.review.promises import Decided, Judged, estimates
from pudistill.review.selection import gain_of
from pudistill.utils.files import write_atomic

BATCH, N_BATCHES = 50, 3
AT_RANDOM = (100, 200, 300)  # further samples verified, where random choice is measured
RANDOM_SHARE = 0.5
N_REVIEWS, N_DRAWN = 200, 150
FIRST_SEED, N_STOPPED = 1000, 60
QUICK = {"n_members": 5, "max_iter": 3}  # of the filter, as all is fitted seven times
COMMAND = "python -m benchmarks.robustness.next_samples --data ../shared/data"


problem = partial(Problem, kinds=(), extremes=(), draw=draw_at_random)
PROBLEMS = (
    problem(
        "digits, cyclic", partial(held_out, load_digits), logistic_regression, trusted=0.05, seeds=3
    ),
    problem("sentiment", partial(from_arrays, "sentiment"), plain, trusted=0.03, seeds=3),
    problem("youtube", partial(from_arrays, "youtube"), plain, trusted=0.03, seeds=3),
    problem("credit", partial(from_table, "credit"), logistic_regression, trusted=0.03, seeds=2),
    problem("labelme", partial(from_arrays, "labelme"), plain, trusted=0.1, seeds=1),
    problem("hausa", partial(from_texts, "hausa"), plain, trusted=0.05, seeds=1),
)


def noise_of(problem: Problem) -> Noise:
    return Noise("asymmetric", 0.5) if problem.name.startswith("digits") else REAL


def review(group: Group, _: Noise, noisy: CorruptedLabels) -> dict[str, Any]:
    """Verify samples in both ways, and count the right labels of all samples."""
    n, rng = len(group.y), np.random.default_rng([group.seed, 2])
    given = np.where(noisy.would_be == MISSING, np.nan, noisy.would_be)
    y = given if group.sources is None else group.sources
    rows = np.flatnonzero(group.trusted)
    drawn = pd.Series(1.0, index=rows)  # weights, in the order of drawing
    first = fitted(group, y, drawn)
    others = rng.permutation(np.flatnonzero(~group.trusted))
    at_random = {0: n_right(group, first)}
    for size in AT_RANDOM:
        more = pd.Series(1.0, index=others[:size])
        at_random[size] = n_right(group, fitted(group, y, pd.concat([drawn, more])))
    chosen, held, classifier = {0: at_random[0]}, [], first
    for batch in range(1, N_BATCHES + 1):
        found = draw(gain(classifier), BATCH, RANDOM_SHARE, rng)
        drawn = pd.concat([drawn, pd.Series(found.weight, index=found.rows)])
        classifier = fitted(group, y, drawn)
        chosen[BATCH * batch] = n_right(group, classifier)
        held += intervals_hold(group, given, classifier)
    score = group.scored(classifier.predict(group.X_test))
    counts = {"at_random": pairs(at_random), "chosen": pairs(chosen)}
    return score | counts | {"n": n, "held": held} | reviews(group, given, first)


def fitted(group: Group, y: np.ndarray, drawn: pd.Series) -> PUDistillClassifier:
    trusted = np.full(len(group.y), np.nan)
    trusted[drawn.index] = group.y[drawn.index]
    classifier = PUDistillClassifier(group.learner, random_state=group.seed, **QUICK)
    weight = dict(drawn) if (drawn != 1).any() else None
    return classifier.fit(group.X, y, trusted, draw_weight=weight)


def n_right(group: Group, classifier: PUDistillClassifier) -> int:
    """Count the right labels of all samples, verified ones included."""
    return int((classifier.label_table_["label"].to_numpy() == group.y).sum())


def pairs(counts: dict[int, int]) -> list[list[int]]:
    return [list(pair) for pair in counts.items()]


def gain(classifier: PUDistillClassifier) -> np.ndarray:
    """Return what `pudistill next` says of each sample."""
    table = classifier.label_arrays_
    unsure = np.diff(classifier.noise_.class_rate_interval, axis=1)[:, 0]
    held_out_labels = classifier.held_out_labels_
    sure = np.where(table.outlier, held_out_labels.score, table.confidence)
    return gain_of(held_out_labels, table.label, sure, ~table.trusted, unsure, 0.02).value


def intervals_hold(
    group: Group, given: np.ndarray, classifier: PUDistillClassifier
) -> list[list[bool]]:
    """Tell whether rate and accuracy of the labels are in their intervals, after a new fit."""
    table = classifier.label_table_
    rest = ~table["trusted"].to_numpy()
    right = float((table["label"].to_numpy() == group.y)[rest].mean())
    known = rest & ~np.isnan(given)
    rate = float((given != group.y)[known].mean())
    noise, accuracy = classifier.noise_, classifier.label_accuracy_
    found = [holds(noise.rate_interval, rate)]
    return [found + ([] if accuracy is None else [holds(accuracy.interval, right)])]


def holds(interval: tuple[float, float], truth: float) -> bool:
    return bool(interval[0] - 1e-9 <= truth <= interval[1] + 1e-9)


def reviews(group: Group, given: np.ndarray, classifier: PUDistillClassifier) -> dict[str, Any]:
    """Review one fit many times; only samples drawn since judge it."""
    table, held_out_labels = classifier.label_arrays_, classifier.held_out_labels_
    trusted, of_gain = table.trusted, gain(classifier)
    score = np.where(trusted, np.nan, held_out_labels.score)
    quality = np.asarray(table.given_quality, dtype=float)
    quality = np.where(np.isnan(given), np.nan, quality)
    unknown = np.full(len(trusted), np.nan)
    judged = Judged(
        type(held_out_labels)(held_out_labels.label, score, 1.0, None),
        np.where(trusted, group.y, MISSING),
        unknown,
        np.where(trusted, np.nan, 1 - quality),
        trusted,
    )
    is_right, is_wrong = held_out_labels.label == group.y, given != group.y
    rng, results = np.random.default_rng([group.seed, 3]), []
    for _ in range(N_REVIEWS):
        found = draw(of_gain, N_DRAWN, RANDOM_SHARE, rng)
        rows = found.rows
        wrong = np.where(np.isnan(given), np.nan, is_wrong)[rows]
        nobody = np.zeros(len(rows), dtype=bool)
        decided = Decided(rows, group.y[rows], wrong, found.weight, nobody)
        rate, right, certified = estimates(judged, decided)
        rest = ~trusted
        rest[rows] = False
        truth = is_right[rest].mean()
        of_rate = is_wrong[rest & ~np.isnan(given)].mean()
        accepted = certified_wrong(certified, score, is_right, rest)
        results.append(
            (
                *(right.value - truth, holds(right.interval, truth)),
                *(rate.value - of_rate, holds(rate.interval, of_rate)),
                accepted,
            )
        )
    found = np.array(results, dtype=float)
    names = ("right_error", "right_held", "rate_error", "rate_held", "certificate_broken")
    return {name: column.tolist() for name, column in zip(names, found.T, strict=True)}


def certified_wrong(
    certified: list, score: np.ndarray, is_right: np.ndarray, rest: np.ndarray
) -> float:
    """Return the share of the certificates that are false."""
    rows = np.flatnonzero(rest)
    order = rows[np.argsort(-score[rows], kind="stable")]
    broken = [
        found.n_accepted > 0 and (~is_right[order[: found.n_accepted]]).mean() > found.max_error
        for found in certified
    ]
    return float(np.mean(broken))


METHODS = {"review": Method(review)}


# Tables


def needed(at_random: list[list[int]], n_right: int) -> float:
    """Return how many random samples make so many labels right; infinite if more than measured."""
    sizes, counts = np.array(at_random, dtype=float).T
    counts = np.maximum.accumulate(counts)
    if n_right > counts[-1]:
        return np.inf
    return float(np.interp(n_right, counts, sizes))


def savings(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how many labels chosen samples save, a row a problem."""
    lines = []
    for name, part in rows.groupby("problem", sort=False):
        line: dict[str, Any] = {"data": name, "seeds": len(part), "samples": part["n"].iloc[0]}
        line["right at the start"] = f"{part['chosen'].str[0].str[1].mean():.0f}"
        for position in range(1, N_BATCHES + 1):
            size = BATCH * position
            counts = part["chosen"].str[position].str[1]
            line[f"{size} chosen: right"] = f"{counts.mean():.0f}"
            random = [
                needed(pairs, count) for pairs, count in zip(part["at_random"], counts, strict=True)
            ]
            capped = np.minimum(random, AT_RANDOM[-1])
            more = "≥ " if np.isinf(random).any() else ""
            line[f"{size} chosen are worth at random"] = f"{more}{np.mean(capped):.0f}"
        for position, size in enumerate(AT_RANDOM, start=1):
            counts = part["at_random"].str[position].str[1]
            line[f"{size} at random: right"] = f"{counts.mean():.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def estimate_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return errors and coverage of estimates from chosen samples, a row a problem and seed."""
    lines = []
    for row in rows.itertuples():
        line = {"data": row.problem, "seed": row.seed}
        for name, title in (("right", "labels right"), ("rate", "noise rate")):
            errors = np.array(getattr(row, f"{name}_error"))
            error = errors.std(ddof=1) / np.sqrt(len(errors))
            line[f"{title}: mean error, points"] = f"{100 * errors.mean():+.2f}"
            line[f"{title}: in standard errors"] = f"{errors.mean() / error:+.1f}"
            line[f"{title}: intervals that hold"] = f"{np.mean(getattr(row, f'{name}_held')):.1%}"
        line["false certificates"] = f"{np.mean(row.certificate_broken):.1%}"
        lines.append(line)
    return pd.DataFrame(lines)


def refitted_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Count the intervals that hold after a new fit with the weights."""
    of_rate = [held[0] for part in rows["held"] for held in part]
    of_labels = [held[1] for part in rows["held"] for held in part if len(held) > 1]
    return pd.DataFrame(
        {
            "interval": ["noise rate", "labels right"],
            "holds": [f"{sum(held)} of {len(held)}" for held in (of_rate, of_labels)],
        }
    )


def stopped(output: Path) -> pd.DataFrame:
    """Return how often a promise was false at any look; computed once."""
    path = output.with_suffix(".stopping.csv")
    if not path.exists():
        found = pd.DataFrame([stopping.simulate(FIRST_SEED + n) for n in range(N_STOPPED)])
        write_atomic(path, found.to_csv(index=False).encode())
    found = pd.read_csv(path)
    titles = stopping.TITLES
    return pd.DataFrame(
        [(titles[name], f"{found[name].mean():.1%} of {len(found)} reviews") for name in found],
        columns=["bound", "false at any look"],
    )


def summarise(folder: Path, output: Path) -> None:
    """Write the tables."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, COMMAND)
    write_results(rows, run, output)
    text = "\n".join(
        [
            "# What to verify next\n",
            described(run),
            f"A reviewer answers with the truth; {RANDOM_SHARE:.0%} of the chosen samples are "
            f"drawn at random, too. All is fitted again after each {BATCH} chosen samples. Labels "
            "right are those of all samples, the verified ones included. What they are worth at "
            f"random is interpolated, up to {AT_RANDOM[-1]}.\n",
            markdown(savings(rows)),
            f"## Estimates from {N_DRAWN} chosen samples, {N_REVIEWS} reviews of one fit each\n",
            markdown(estimate_table(rows)),
            "## 95 % intervals after a new fit with the weights\n",
            markdown(refitted_table(rows)),
            "## Promises whenever one stops, simulated\n",
            f"{stopping.N_OF_FIT} verified samples at the fit, {stopping.N_REVIEWED} afterwards; "
            f"plain 95 % bounds are looked at after every {stopping.BATCH}.\n",
            markdown(stopped(output)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    parser = options_parser(__doc__, "next_samples.json", range(3))
    options = parser.parse_args()
    work = [
        (problem, [Cell(problem.name, seed, noise_of(problem), "review")])
        for problem in PROBLEMS
        if problem.name.startswith(tuple(options.only))
        for seed in options.seeds
        if seed < problem.seeds
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
