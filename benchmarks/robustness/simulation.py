"""Simulate shares and certificates: thousands of draws of verified samples, without classifiers.

    python -m benchmarks.robustness.simulation --draws 2000

Predictions are right in the mean, too sure, too careful, half as high as they should be, or say
nothing: intervals and promises have to hold for all. See `benchmarks.robustness.coverage` for those
of fitted classifiers.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import binom

from benchmarks.common.facts import RESULTS, described, facts, markdown, write_results
from benchmarks.robustness.coverage import GOAL, MAX_ERRORS, ROUNDING
from pudistill.estimates.certificates import Curve, certified
from pudistill.estimates.shares import exact_interval, rectified_share
from pudistill.utils.files import write_atomic

# Samples that nobody verified, for each that is.
REST = 10
# Sum of the parameters of the beta distribution of the samples' probabilities: less is surer.
CONCENTRATION = 1.5

# What a model says where the truth is `p`.
Predict = Callable[[np.ndarray, np.random.Generator], np.ndarray]
PREDICTIONS: Mapping[str, Predict] = {
    "right in the mean": lambda p, _: p,
    "too sure": lambda p, _: expit(3 * logit(np.clip(p, 1e-9, 1 - 1e-9))),
    "too careful": lambda p, _: expit(logit(np.clip(p, 1e-9, 1 - 1e-9)) / 3),
    "half": lambda p, _: p / 2,
    "nothing": lambda p, rng: rng.permutation(p),
}


class Setting(NamedTuple):
    """What is simulated."""

    what: str  # "share", "share in a class" or "certificate"
    share: float  # that is estimated, or of wrong labels
    n_verified: int
    n_rest: int
    predictions: str


def settings() -> Iterator[Setting]:
    """Yield all settings."""
    for share, n, name in product((0.02, 0.1, 0.3, 0.5), (20, 60, 200, 2000), PREDICTIONS):
        yield Setting("share", share, n, REST * n, name)
    for share, n, name in product((0.1, 0.3), (60, 200, 2000), PREDICTIONS):
        yield Setting("share in a class", share, n, REST * n, name)
    for share, n_rest in product((0.02, 0.3), (1, 5, 20, 100)):
        yield Setting("share", share, 200, n_rest, "right in the mean")
    for share, n, name in product((0.05, 0.2), (100, 400), PREDICTIONS):
        yield Setting("certificate", share, n, REST * n, name)


def simulated(setting: Setting, n_draws: int) -> Iterator[dict[str, Any]]:
    """Simulate a setting; yield its results, one for each promise."""
    rng = np.random.default_rng(0)
    if setting.what == "certificate":
        yield from certificates(setting, n_draws, rng)
        return
    draws = pd.DataFrame([share(setting, rng) for _ in range(n_draws)])
    yield setting._asdict() | {
        "draws": n_draws,
        "held": int(draws["holds"].sum()),
        "width": float(draws["width"].mean()),
        "of_counting": float(draws["width"].mean() / draws["counted_width"].mean()),
    }


def probabilities(mean: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw probabilities with this mean."""
    return rng.beta(CONCENTRATION * mean, CONCENTRATION * (1 - mean), n)


def share(setting: Setting, rng: np.random.Generator) -> dict[str, Any]:
    """Estimate a share once, and say whether the interval holds the truth."""
    predict = PREDICTIONS[setting.predictions]
    n = setting.n_verified + setting.n_rest
    verified = np.arange(n) < setting.n_verified
    p = probabilities(setting.share, n, rng)
    outcomes, said = rng.random(n) < p, predict(p, rng)
    chances = {}
    if setting.what == "share in a class":
        q = probabilities(0.3, n, rng)
        member, said_member = rng.random(n) < q, predict(q, rng)
        outcomes, said = outcomes & member, said * said_member
        chances = {
            "among": member[verified],
            "among_controls": said_member[verified] - said_member[~verified].mean(),
        }
        n_rest = float(said_member[~verified].sum())
    else:
        member, n_rest = np.ones(n, dtype=bool), setting.n_rest
    found = rectified_share(
        outcomes[verified], said[verified] - said[~verified].mean(), n_rest, **chances
    )
    low, high = found.interval
    truth = outcomes[~verified & member].mean()
    counted = outcomes[verified & member]
    ends = exact_interval(counted.mean(), len(counted)) if len(counted) else (0.0, 1.0)
    return {
        "holds": low - ROUNDING <= truth <= high + ROUNDING,
        "width": high - low,
        "counted_width": ends[1] - ends[0],
    }


def certificates(
    setting: Setting, n_draws: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Certify labels at each `max_error`, and count how often too many of them are wrong."""
    predict = PREDICTIONS[setting.predictions]
    results = {max_error: [] for max_error in MAX_ERRORS}
    for _ in range(n_draws):
        p = probabilities(1 - setting.share, setting.n_verified + setting.n_rest, rng)
        is_wrong, scores = rng.random(len(p)) > p, predict(p, rng)
        first, rest = slice(setting.n_verified), slice(setting.n_verified, None)
        curve = Curve.of(scores[first], is_wrong[first], scores[rest])
        for max_error, found in results.items():
            position = certified(curve, max_error)
            accepted = scores[rest] >= curve.threshold[position] if position >= 0 else False
            wrong = is_wrong[rest] & accepted
            found.append((wrong.sum() > max_error * np.sum(accepted), np.mean(accepted)))
    for max_error, found in results.items():
        violated, accepted = np.transpose(found)
        yield setting._asdict() | {
            "max_error": max_error,
            "draws": n_draws,
            "violations": int(violated.sum()),
            "accepted": float(accepted.mean()),
        }


# Tables


def share_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often intervals hold, a column for each kind of predictions."""
    rows = rows.assign(
        cell=(rows["held"] / rows["draws"]).map("{:.1%}".format)
        + rows["of_counting"].map(" ({:.2f})".format)
    )
    table = rows.pivot(
        index=["what", "share", "n_verified", "n_rest"], columns="predictions", values="cell"
    )
    return table.reindex(columns=[*PREDICTIONS]).fillna("").reset_index()


def certificate_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often certificates are wrong, a column for each kind of predictions."""
    rows = rows.assign(
        cell=rows["violations"].astype(int).astype(str)
        + " of "
        + rows["draws"].astype(str)
        + rows["accepted"].map(" ({:.0%})".format)
    )
    table = rows.pivot(
        index=["share", "n_verified", "max_error"], columns="predictions", values="cell"
    )
    return table.reindex(columns=[*PREDICTIONS]).reset_index()


def goals(shares: pd.DataFrame, promises: pd.DataFrame) -> pd.DataFrame:
    """Return how many settings reach the goals, and the worst."""
    coverage = shares["held"] / shares["draws"]
    worst = shares.loc[coverage.idxmin()]
    many = binom.sf(promises["violations"] - 1, promises["draws"], 0.05) < 0.05
    most = promises.loc[(promises["violations"] / promises["draws"]).idxmax()]
    return pd.DataFrame(
        [
            {
                "goal": f"95 % intervals of shares hold in at least {GOAL:.0%} of the draws",
                "settings": len(shares),
                "reached": int((coverage >= GOAL).sum()),
                "worst": f"{coverage.min():.1%} ({worst['what']} {worst['share']:g}, "
                f"{worst['n_verified']} verified, {worst['n_rest']} others, predictions: "
                f"{worst['predictions']})",
            },
            {
                "goal": "certificates: violations not significantly above 5 %",
                "settings": len(promises),
                "reached": int((~many).sum()),
                "worst": f"{most['violations']:.0f} of {most['draws']} (max_error "
                f"{most['max_error']:g}, {most['n_verified']} verified, predictions: "
                f"{most['predictions']})",
            },
        ]
    )


def summarise(rows: pd.DataFrame, run: dict[str, Any], output: Path) -> None:
    """Write rows and tables."""
    write_results(rows, run, output)
    is_promise = rows["what"] == "certificate"
    shares, promises = rows[~is_promise], rows[is_promise]
    text = "\n".join(
        [
            "# Simulated intervals and certificates\n",
            described(run),
            "Columns: what predictions say. The truth is that of the samples that nobody "
            "verified.\n",
            "## Goals\n",
            markdown(goals(shares, promises)),
            "## Shares: draws in which the 95 % interval holds (width / counting's)\n",
            markdown(share_table(shares)),
            "## Certificates: draws in which more are wrong than promised (share accepted)\n",
            markdown(certificate_table(promises)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=RESULTS / "simulation.json")
    options = parser.parse_args()
    start = time.time()
    rows = pd.DataFrame(
        [row for setting in settings() for row in simulated(setting, options.draws)]
    )
    run = facts() | {"wall_minutes": round((time.time() - start) / 60)}
    summarise(rows, run, options.output)


if __name__ == "__main__":
    main()
