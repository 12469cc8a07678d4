"""Compare ways to learn pictures from few verified labels, with and without the noisy ones.

    python -m benchmarks.robustness.pictures --data ../shared/data

20,000 pictures of Fashion-MNIST, 2 % verified, `small_cnn`, one seed; test accuracy in %. Networks
that read noisy labels know the true transition matrix. An interrupted command continues.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.problems import ANY, PROBLEMS, Group, Noise, small_cnn
from pudistill.distillation.network_student import train_semi_supervised
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.self_training import train_on_labels
from pudistill.distillation.views import View
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cache import StageCache, caching_to
from pudistill.learners.networks.recipes import RECIPES
from pudistill.utils.files import write_atomic

NOISES = [Noise("symmetric", 0.9), Noise("asymmetric", 0.6), Noise("symmetric", 0.6)]


def semi_supervised(group: Group, **changes: Any) -> Any:
    """Train on verified labels, then on all other pictures without a label; once for all cells."""
    verified = np.where(group.trusted, group.y, MISSING)
    view = View(verified, np.full(len(verified), MISSING), np.arange(0))
    with caching_to(StageCache(group.filters)):
        trusted_only = train_on_labels(small_cnn(), group.X, verified, group.n_classes, group.seed)
        trusted_only.set_params(**changes)
        return train_semi_supervised(trusted_only, group.X, view, group.n_classes, group.seed)


def without_given(group: Group, *_: Any, **changes: Any) -> dict[str, Any]:
    return group.score(semi_supervised(group, **changes))


def with_given(
    group: Group, _: Noise, noisy: CorruptedLabels, *, continues: bool = False, **changes: Any
) -> dict[str, Any]:
    """Train on the likelihood of the given labels, perhaps from the semi-supervised network on."""
    verified = np.where(group.trusted, group.y, MISSING)
    likelihood = NoiseModel(noisy.transition_matrix).likelihood(noisy.y, verified)
    network = semi_supervised(group) if continues else small_cnn()
    network.set_params(
        role="continued" if continues else "noise_aware",
        loss="likelihood",
        warm_start=continues,
        random_state=group.seed,
        **changes,
    )
    return group.score(network.fit(group.X, likelihood))


def fine_tuned(group: Group, _: Noise, noisy: CorruptedLabels) -> dict[str, Any]:
    """Train on all labels as they are, then on the verified ones at a tenth of the rate."""
    labels = np.where(group.trusted, group.y, noisy.y)
    network = small_cnn(random_state=group.seed)
    network.fit(group.X, one_hot(labels, group.n_classes))
    recipe = RECIPES["fast"]["reference"]
    tuning = replace(recipe, learning_rate=recipe.learning_rate / 10)
    network.set_params(recipe=tuning, warm_start=True)
    rows = np.flatnonzero(group.trusted)
    return group.score(network.fit(group.X[rows], one_hot(group.y[rows], group.n_classes)))


IGNORING = {
    "semi-supervised": without_given,
    "semi-supervised, twice the epochs": partial(without_given, epochs=40),
}
READING = {
    "likelihood": with_given,
    "likelihood, from the semi-supervised network": partial(with_given, continues=True),
    "likelihood, consistency, from the semi-supervised network": partial(
        with_given, continues=True, consistency_weight=1.0
    ),
    "likelihood, consistency": partial(with_given, consistency_weight=1.0),
    "all given labels, fine-tuned on the verified ones": fine_tuned,
}
VARIANTS = {
    **{name: Method(result, reads_noise=False) for name, result in IGNORING.items()},
    **{name: Method(result) for name, result in READING.items()},
}


def summarise(folder: Path, output: Path) -> None:
    """Write the rows and the table."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, "python -m benchmarks.robustness.pictures --data ../shared/data")
    write_results(rows, run, output)
    noise = rows["kind"] + (100 * rows["level"]).map(" {:.0f} %".format)
    rows = rows.assign(accuracy=100 * rows["test_accuracy"], noise=noise.replace("any 0 %", "any"))
    table = rows.pivot_table(index="method", columns="noise", values="accuracy")
    table = table.reindex([name for name in VARIANTS if name in table.index])
    table["CPU seconds"] = rows.groupby("method")["cpu_seconds"].mean()
    shown = markdown(table.map("{:.1f}".format, na_action="ignore").fillna("").reset_index())
    text = f"# Learning pictures\n\n{described(run)}\n{__doc__.splitlines()[0]}\n\n{shown}"
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    options = options_parser(__doc__, "pictures.json", range(1)).parse_args()
    problem = next(each for each in PROBLEMS if each.name == "fashion-mnist networks")
    settings = [(name, noise) for noise in NOISES for name in READING]
    settings += [(name, ANY) for name in IGNORING]
    work = [
        (
            replace(problem, cells_apart=False),
            [Cell(problem.name, seed, noise, name) for name, noise in settings],
        )
        for seed in options.seeds
        if problem.name.startswith(tuple(options.only))
    ]
    compute_and_summarise(work, VARIANTS, summarise, options)


if __name__ == "__main__":
    main()
