"""Quality of the filter and of the teachers: tables 1, 2 and 4."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.clothing1m import CLASSES as CLOTHING1M_CLASSES
from pudistill.distillation.paper import average_proba, train_teachers
from pudistill.experiments import paper
from pudistill.experiments.setup import NOT_RUN, Result, Setup
from pudistill.labels.checks import MISSING
from pudistill.learners.cache import caching_to
from pudistill.learners.scoring import predict_proba
from pudistill.runs.classifiers import build_pudistill


def table1(setup: Setup) -> Result:
    """Precision and size of the clean set on test samples, by class."""

    def measure(setup: Setup) -> pd.DataFrame:
        true = setup.test_codes()
        rows = []
        for seed in setup.seeds:
            labels = _fit_teachers(setup, seed).eval_labels
            for code, name in enumerate(setup.train.classes):
                rows.append((name, seed, *_precision_and_size(labels == code, true == code)))
            rows.append(("overall", seed, *_precision_and_size(labels != MISSING, true == labels)))
        cells = pd.DataFrame(rows, columns=["class_name", "seed", "precision", "size"])
        return cells.groupby("class_name", sort=False)[["precision", "size"]].mean().reset_index()

    # CIFAR-10's classes have the same order by number and by name.
    classes = {paper.CIFAR10: setup.train.classes, paper.CLOTHING1M: CLOTHING1M_CLASSES}
    reported = {
        data: pd.DataFrame(
            {
                "class_name": [*classes[data], "overall"],
                "paper_precision": precision,
                "paper_size": size,
            }
        )
        for data, (precision, size) in paper.TABLE_1.items()
        if data != paper.CIFAR10 or setup.is_cifar10
    }
    return _compare_with_paper(setup, "class_name", measure, reported)


def _precision_and_size(chosen: np.ndarray, is_correct: np.ndarray) -> tuple[float | None, int]:
    """Return the share of chosen samples that is correct (None if none is chosen), their number."""
    precision = float(is_correct[chosen].mean()) if chosen.any() else None
    return precision, int(chosen.sum())


def table2(setup: Setup) -> Result:
    """Accuracy of the teachers on test samples that they are sure of."""
    thresholds = list(paper.TABLE_2[paper.CIFAR10])

    def measure(setup: Setup) -> pd.DataFrame:
        true = setup.test_codes()
        rows = []
        probas = [_fit_teachers(setup, seed).test_proba for seed in setup.seeds]
        for proba, eta in product(probas, thresholds):
            is_confident = proba.max(axis=1) >= eta
            hits = (proba.argmax(axis=1) == true)[is_confident]
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
    return _compare_with_paper(setup, "min_confidence", measure, reported)


def table4(setup: Setup) -> Result:
    """Test accuracy of teachers with and without mixup, bootstrap and entropy regularisation."""
    variants = list(paper.TABLE_4[paper.CIFAR10])
    components = ("mixup", "bootstrap", "entropy reg.")
    names = [
        " + ".join(name for name, used in zip(components, variant, strict=True) if used)
        or "standard"
        for variant in variants
    ]

    def measure(setup: Setup) -> pd.DataFrame:
        true = setup.test_codes()
        n_classes = len(setup.train.classes)
        rows = []
        clean_labels = {seed: _fit_teachers(setup, seed).clean_labels for seed in setup.seeds}
        for (seed, labels), (name, variant) in product(
            clean_labels.items(), zip(names, variants, strict=True)
        ):
            mixup, bootstrap, entropy = variant
            with caching_to(setup.stages):
                (teacher,) = train_teachers(
                    setup.network(mixup=mixup, entropy=entropy),
                    setup.train.X,
                    labels,
                    n_classes,
                    n_teachers=1,
                    # Without a bootstrap the teacher learns the whole clean set, unbalanced.
                    balance=bootstrap,
                    seed=seed,
                )
            proba = predict_proba(teacher, setup.test.X, n_classes)
            accuracy = 100 * float(np.mean(proba.argmax(axis=1) == true))
            rows.append((name, accuracy))
        cells = pd.DataFrame(rows, columns=["teacher", "final"])
        return cells.groupby("teacher", sort=False).mean().reset_index()

    reported = {
        data: pd.DataFrame({"teacher": names, "paper": list(table.values())})
        for data, table in paper.TABLE_4.items()
    }
    return _compare_with_paper(setup, "teacher", measure, reported)


class _Teachers(NamedTuple):
    clean_labels: np.ndarray
    eval_labels: np.ndarray
    test_proba: np.ndarray


def _fit_teachers(setup: Setup, seed: int) -> _Teachers:
    """Fit the paper's filter and teachers, and let both label the test samples."""
    settings = setup.settings(seed, method="paper", **setup.scale.paper_settings)
    dataset = setup.train_with_trusted(seed)
    classifier = build_pudistill(settings, dataset.X).set_params(memory=setup.stages)
    classifier.fit_teachers(dataset.X, dataset.y, dataset.verified, eval_set=setup.test.X)
    proba = average_proba(classifier.teachers_, setup.test.X, len(dataset.classes))
    pu_filter = classifier.filter_
    return _Teachers(pu_filter.clean_labels_, pu_filter.eval_labels_, proba)


def _compare_with_paper(
    setup: Setup,
    key: str,
    measure: Callable[[Setup], pd.DataFrame],
    reported: Mapping[str, pd.DataFrame],
) -> Result:
    """Measure on the scale's data and on Clothing1M; add the paper's numbers.

    Parameters
    ----------
    setup : Setup
        The experiment's setup.
    key : str
        The column on which our rows and the paper's are joined.
    measure : callable
        Takes a setup, returns our numbers.
    reported : mapping of str to DataFrame
        The paper's numbers, by data set.

    Returns
    -------
    result : Result
        Our numbers and the paper's; the column ``status`` marks what was not run.
    """
    # Clothing1M comes first: an error about missing files appears before the long work.
    clothing1m = setup.on_clothing1m("val")
    on_clothing1m = reported[paper.CLOTHING1M].assign(data=paper.CLOTHING1M, status=NOT_RUN)
    if clothing1m is not None:
        numbers = on_clothing1m.assign(status="")
        on_clothing1m = measure(clothing1m).merge(numbers, how="left", on=key)
    on_scale = measure(setup)
    numbers_of_scale = reported.get(setup.scale.reported_as or "")
    if numbers_of_scale is not None:
        on_scale = on_scale.merge(numbers_of_scale, how="left", on=key)
    on_scale = on_scale.assign(data=setup.edition, status="")
    cells = pd.concat([on_scale, on_clothing1m], ignore_index=True)
    columns = [name for name in cells if name not in ("data", "status")]
    return Result(cells[["data", *columns, "status"]])
