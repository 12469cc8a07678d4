"""What the filter and the teachers are worth: tables 1, 2 and 4."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.clothing1m import CLASSES as CLOTHING1M_CLASSES
from pudistill.distillation import average_proba, train_teachers
from pudistill.experiments import paper
from pudistill.experiments.setup import NOT_RUN, Result, Setup
from pudistill.learners import predict_proba
from pudistill.units import keeping
from pudistill.validation import MISSING
from pudistill.workflow import build_pudistill


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
        rows = []
        found = {seed: _teachers(setup, seed).clean_labels for seed in setup.seeds}
        for (seed, labels), parts in product(found.items(), variants):
            mixup, bootstrap, entropy = parts
            with keeping(setup.units):
                (teacher,) = train_teachers(
                    setup.network(mixup=mixup, entropy=entropy),
                    setup.train.X,
                    labels,
                    n_classes,
                    n_teachers=1,
                    # Without a bootstrap all of the clean set is learned, its classes uneven as
                    # they are.
                    sample_weight=None if bootstrap else np.ones(len(labels)),
                    seed=seed,
                )
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


class _Teachers(NamedTuple):
    clean_labels: np.ndarray
    eval_labels: np.ndarray
    test_proba: np.ndarray


def _teachers(setup: Setup, seed: int) -> _Teachers:
    """Fit the paper's method up to its teachers, which have labelled the test samples too."""
    settings = setup.settings(seed, method="paper", **setup.scale.of_paper)
    dataset = setup.trusted(seed)
    classifier = build_pudistill(settings, dataset.X).set_params(memory=setup.units)
    classifier.fit_teachers(dataset.X, dataset.y, dataset.verified, eval_set=setup.test.X)
    proba = average_proba(classifier.teachers_, setup.test.X, len(dataset.classes))
    pu_filter = classifier.filter_
    return _Teachers(pu_filter.clean_labels_, pu_filter.eval_labels_, proba)


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
    clothes = setup.on_clothing1m("val")
    theirs = reported[paper.CLOTHING1M].assign(data=paper.CLOTHING1M, status=NOT_RUN)
    if clothes is not None:  # first, as it is here that data may be missing
        theirs = measured(clothes).merge(theirs.assign(status=""), how="left", on=key)
    ours = measured(setup)
    beside = reported.get(setup.scale.reported_as or "")
    if beside is not None:
        ours = ours.merge(beside, how="left", on=key)
    ours = ours.assign(data=setup.edition, status="")
    cells = pd.concat([ours, theirs], ignore_index=True)
    return Result(
        cells[["data", *(name for name in cells if name not in ("data", "status")), "status"]]
    )
