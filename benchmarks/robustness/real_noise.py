"""Compare pudistill with other systems on labels of crowds, rules and keywords.

    python -m benchmarks.robustness.real_noise --data ../shared/data
    python -m benchmarks.robustness.real_noise --only labelme --seeds 0 1 2 --jobs 1
    python -m benchmarks.robustness.real_noise --methods cross_entropy_mlp mlnt_mlp
    python -m benchmarks.robustness.real_noise --methods networks

3 and 10 % of the samples are verified, drawn at random. All systems have the same logistic
regression and the same verified labels. Only pudistill makes use of what verified samples were
called before, so it is measured twice, with these originals and without: as a mask. The methods of
the registry are compared with each other, as each needs a network: all have the same, "mlp", and
they are measured only where `--methods` names them. An interrupted command continues where it
stopped.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.paired import difference, mean_and_error, unpacked
from benchmarks.common.problems import ANY, KNOWN, REAL, Group, Noise, Problem, mlp
from benchmarks.common.real_noise import REAL_PROBLEMS, from_texts
from benchmarks.robustness import systems
from benchmarks.robustness.labels import corrected
from pudistill.labels.corruption import CorruptedLabels
from pudistill.methods.registry import METHODS as REGISTRY
from pudistill.utils.files import write_atomic

OURS = ("pudistill", KNOWN)
PEERS = (
    *("given_labels", "trusted_only", "self_training"),
    *("cleanlab", "cleanlab_trusted_kept", "gold_loss_correction"),
)
CEILING = "true_labels"
# Points between the best peer and the ceiling, from which pudistill shall be ahead.
ROOM = 0.03
COMMAND = "python -m benchmarks.robustness.real_noise --data ../shared/data"


# Systems


def cleaned(group: Group, noisy: CorruptedLabels, *, keeps_trusted: bool) -> dict[str, Any]:
    """Fit CleanLearning, and judge its labels: its model's where it finds an issue."""
    classifier, found = systems.clean_learning(group, noisy, keeps_trusted=keeps_trusted)
    is_issue = found["is_label_issue"]
    table = pd.DataFrame({"trusted": group.trusted})
    table["label"] = found["given_label"].mask(is_issue, found["predicted_label"])
    table["given_quality"] = found["label_quality"]
    return group.scored(classifier.predict(group.X_test)) | corrected(group, noisy, table)


def cleanlab(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return cleaned(group, noisy, keeps_trusted=False)


def cleanlab_trusted_kept(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return cleaned(group, noisy, keeps_trusted=True)


def pudistill(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    return our_labels(group, noise, noisy, *systems.as_mask(group, noisy))


def originals_known(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    return our_labels(group, noise, noisy, *systems.with_originals(group, noisy))


def our_labels(
    group: Group, noise: Noise, noisy: CorruptedLabels, y: np.ndarray, trusted: np.ndarray
) -> dict:
    classifier = group.ours()
    result = systems.our_result(group, noise, classifier, y, trusted)
    return result | corrected(group, noisy, classifier.label_table_)


METHODS = {
    **{name: systems.METHODS[name] for name in (*PEERS, CEILING) if name in systems.METHODS},
    "cleanlab": Method(cleanlab),
    "cleanlab_trusted_kept": Method(cleanlab_trusted_kept),
    "pudistill": Method(pudistill, needs=Group.ours),
    KNOWN: Method(originals_known, needs=Group.ours),
}
DEFAULT = tuple(METHODS)
NETWORKS = {
    f"{name}_mlp": Method(partial(systems.registered, name=name, make_learner=mlp))
    for name, system in REGISTRY.items()
    if not system.aggregates_sources
}
NETWORKS["pudistill_mlp"] = Method(partial(systems.pudistill_with, make_learner=mlp))
METHODS |= NETWORKS
PLAIN = "cross_entropy_mlp"


def cells_of(problem: Problem, seed: int, names: Sequence[str]) -> Iterator[Cell]:
    """Yield the cells of a problem and seed, those that read no given label first."""
    if problem.load.func is from_texts:
        names = [name for name in names if name not in NETWORKS]  # words are sparse features
    for noise in (ANY, REAL):
        for name in names:
            if METHODS[name].reads_noise == (noise == REAL):
                yield Cell(problem.name, seed, noise, name)


# Tables


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracies by problem and seed, a column per method."""
    table = rows.pivot(index=["problem", "seed"], columns="method", values="test_accuracy")
    return table.reindex(columns=[*PEERS, *OURS, CEILING]).astype(float)


def leads(table: pd.DataFrame) -> pd.DataFrame:
    """Return the lead over the best peer of each problem, chosen in hindsight."""
    found = []
    for problem, part in table.groupby("problem", sort=False):
        peers = part[[*PEERS]].mean()
        if peers.isna().all():
            continue
        best = str(peers.idxmax())
        room = (part[CEILING] - part[best]).mean()
        for name in OURS:
            if len(both := part[[name, best]].dropna()):
                lead, error = mean_and_error(both[name] - both[best])
                found.append(
                    {"problem": problem, "method": name, "best peer": best, "room": room}
                    | {"lead": lead, "error": error}
                )
    return pd.DataFrame(found, columns=["problem", "method", "best peer", "room", "lead", "error"])


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the difference to given labels in each run, and its error on the test samples."""
    found = []
    for (problem, seed), part in rows.groupby(["problem", "seed"], sort=False):
        of_method = part.set_index("method")
        for name in OURS:
            if {name, "given_labels"} <= {*of_method.index}:
                right, given = (unpacked(of_method.loc[key]) for key in (name, "given_labels"))
                lead, error = difference(right, given)
                found.append(
                    {"problem": problem, "seed": seed, "method": name}
                    | {"lead": lead, "loses": lead < -0.01 and lead < -2 * error}
                )
    return pd.DataFrame(found, columns=["problem", "seed", "method", "lead", "loses"])


def goals(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each goal of accuracy, labels and confidence, and what was measured."""
    lines, lead, loss = [], leads(accuracies(rows)), losses(rows)
    for name in OURS:
        ours, runs = lead[lead["method"] == name], rows[rows["method"] == name]
        for share, part in ours.groupby(ours["problem"].map(verified_share)):
            roomy = part["room"] > ROOM
            behind = part[~roomy & (part["lead"] < -2 * part["error"])]
            lines += [
                (
                    f"{name}, {share}: at least 1 point ahead of the best peer, in the mean over "
                    f"problems with more than {100 * ROOM:.0f} points to the ceiling",
                    points(part.loc[roomy, "lead"].mean()),
                ),
                (
                    f"{name}, {share}: elsewhere not behind by more than two standard errors",
                    ", ".join(behind["problem"]) or "nowhere",
                ),
            ]
        lost = loss[(loss["method"] == name) & loss["loses"]]
        lines.append(
            (
                f"{name}: no run below given labels by more than a point and two standard errors",
                f"{len(lost)} of {(loss['method'] == name).sum()}: "
                + (", ".join(f"{run.problem} ({run.seed})" for run in lost.itertuples()) or "none"),
            )
        )
        worse, unsure = [], []
        for problem, part in runs.groupby("problem", sort=False):
            gain, error = mean_and_error(part["right_after"] - part["right_before"])
            worse += [f"{problem} ({points(gain)})"] if gain < -2 * error else []
            gap = part["confidence"].dropna().map(lambda found: found["gap"]).mean()
            unsure += [f"{problem} ({points(gap)})"] if abs(gap) > 0.02 else []
        lines += [
            (
                f"{name}: labels not worse after correction by more than two standard errors",
                ", ".join(worse) or "nowhere",
            ),
            (
                f"{name}: confidence at most 2 points off in the mean",
                "more: " + (", ".join(unsure) or "nowhere"),
            ),
        ]
    return pd.DataFrame(lines, columns=["goal", "measured"])


def verified_share(problem: str) -> str:
    """Return what follows the comma in a problem's name."""
    return problem.split(", ")[1]


def accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean test accuracies in %, a row per problem, and the lead over the best peer."""
    means = table.dropna(axis="columns", how="all").groupby("problem", sort=False).mean()
    shown = (100 * means).map("{:.1f}".format)
    shown.insert(0, "seeds", table.groupby("problem", sort=False).size())
    for name, part in leads(table).set_index("problem").groupby("method", sort=False):
        shown[f"{name} − best peer"] = [
            f"{points(part.lead[problem])} ± {100 * part.error[problem]:.1f} "
            f"({part['best peer'][problem]})"
            if problem in part.index
            else ""
            for problem in shown.index
        ]
    return shown.reset_index()


def label_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return labels right before and after correction, and how well wrong ones are found."""
    lines = []
    known = having(rows, "right_after")
    for (problem, method), part in known.groupby(["problem", "method"], sort=False):
        gain, error = mean_and_error(part["right_after"] - part["right_before"])
        lines.append(
            {
                "problem": problem,
                "method": method,
                "right before, %": f"{100 * part['right_before'].mean():.1f}",
                "after": f"{100 * part['right_after'].mean():.1f}",
                "gain": f"{points(gain)} ± {100 * error:.1f}",
                "average precision of wrong labels": f"{part['finds_wrong'].mean():.2f}",
            }
        )
    return pd.DataFrame(lines)


def network_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean test accuracies of networks in %, and the lead over Cross Entropy, in points."""
    lines: dict[str, dict[str, str]] = {}
    for problem, part in rows.groupby("problem", sort=False):
        table = part.pivot(index="seed", columns="method", values="test_accuracy").astype(float)
        for name in (name for name in NETWORKS if name in table):
            text = f"{100 * table[name].mean():.1f}"
            if name != PLAIN and PLAIN in table and len(both := table[[name, PLAIN]].dropna()):
                lead, error = mean_and_error(both[name] - both[PLAIN])
                text += f" ({points(lead)} ± {100 * error:.1f})"
            lines.setdefault(name.removesuffix("_mlp"), {})[str(problem)] = text
    table = pd.DataFrame.from_dict(lines, orient="index").fillna("not run")
    order = [name for name in (*REGISTRY, "pudistill") if name in lines]
    return table.reindex(order).reset_index(names="method")


def truth_table(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return how true stated probabilities are."""
    lines = []
    known = having(rows, column)
    for (problem, method), part in known.groupby(["problem", "method"], sort=False):
        found = pd.DataFrame(part[column].tolist())
        gap, error = mean_and_error(found["gap"])
        fifths = np.mean(found["fifths"].tolist(), axis=0)
        lines.append(
            {
                "problem": problem,
                "method": method,
                "said, %": f"{100 * found['said'].mean():.1f}",
                "said − true, points": f"{points(gap)} ± {100 * error:.1f}",
                "Brier score": f"{found['brier'].mean():.3f}",
                "by fifths, said → true, %": ", ".join(
                    f"{100 * said:.0f} → {100 * true:.0f}" for said, true in fifths
                ),
            }
        )
    return pd.DataFrame(lines)


def having(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the results that have a value in a column."""
    return rows[rows[column].notna()] if column in rows else rows[:0]


def points(value: float) -> str:
    """Write a difference in percentage points."""
    return "no such problem" if np.isnan(value) else f"{100 * value:+.1f}"


def summarise(folder: Path, output: Path) -> None:
    """Write rows and tables."""
    all_rows = read_cells(folder)
    run = run_facts(folder, all_rows, COMMAND)
    write_results(all_rows, run, output)
    of_network = all_rows["method"].isin(NETWORKS)
    rows, networks = all_rows[~of_network], all_rows[of_network]
    text = "\n".join(
        [
            "# Real noise\n",
            described(run),
            "Verified samples are drawn at random. `pudistill` has them as a mask: what they were "
            f"called before is lost; `{KNOWN}` has that, too. All other systems read the verified "
            "labels alone. The best peer is chosen for each problem in hindsight; errors are "
            "standard errors of paired differences over seeds. Labels are judged on samples that "
            "nobody verified and that had a given label.\n",
            "## Goals\n",
            markdown(goals(rows)),
            "## Test accuracy, %\n",
            markdown(accuracy_table(accuracies(rows))),
            "## Labels\n",
            markdown(label_table(rows)),
            "## Confidence of corrected labels\n",
            markdown(truth_table(rows, "confidence")),
            "## Quality of given labels (`given_quality`; cleanlab: `label_quality`)\n",
            markdown(truth_table(rows, "given_quality")),
            "## Networks: test accuracy, %\n",
            "All have the same perceptron, `mlp`, on features that are scaled to unit variance, "
            "and the same verified labels, which some methods use only as labels; in brackets the "
            "lead over Cross Entropy, in points. They cannot be compared with the rows above, "
            "which have another learner.\n",
            markdown(network_table(networks)) if len(networks) else "Not run.",
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    parser = options_parser(__doc__, "real_noise.json", range(5))
    choices = [*METHODS, "networks"]
    parser.add_argument("--methods", nargs="+", choices=choices, default=DEFAULT)
    options = parser.parse_args()
    chosen = set(options.methods) | (set(NETWORKS) if "networks" in options.methods else set())
    names = [name for name in METHODS if name in chosen]
    work = [
        (problem, list(cells_of(problem, seed, names)))
        for seed in options.seeds
        for problem in REAL_PROBLEMS
        if problem.name.startswith(tuple(options.only))
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
