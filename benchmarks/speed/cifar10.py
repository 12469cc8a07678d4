"""Rows about pictures of CIFAR-10 and fine-tuned texts, most of which need a GPU."""

import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.problems import Group, Noise, Problem, Split
from benchmarks.speed.measurement import N_CLASSES, PICTURES, Figures, Goal, row
from benchmarks.speed.runs import run_pictures


def cifar10(data: Path, _: int) -> Split:
    """Read CIFAR-10 (JPEG)."""
    from pudistill import load_dataset

    folder = data / "cifar10"
    parts = [load_dataset(next(folder.glob(f"{name}*"))) for name in ("train", "test")]
    X, X_test = (part.X for part in parts)
    y, y_test = (np.unique(part.y.astype(str), return_inverse=True)[1] for part in parts)
    limit = PICTURES["limit"]
    return Split(X[:limit], y[:limit], X_test[:limit], y_test[:limit])


def cifar10_group(recipe: str, network: str, data: Path, trusted: float = 0.1) -> Group:
    from pudistill import TorchClassifier

    if PICTURES["limit"]:  # a try on a CPU
        network = "small_cnn"
    learner = partial(TorchClassifier, network, recipe=recipe)
    problem = Problem("CIFAR-10 (JPEG)", cifar10, learner, trusted, seeds=1)
    return Group(problem, 0, data, Path())


@row(
    "CIFAR-10 (JPEG), symmetric 50 %, the paper's method and recipe with PreAct ResNet-18: N = 4, "
    "K = 3, and 20 of 100 epochs of teachers and student",
    {"minutes": Goal(at_most=4)},
    "gpu",
)
def paper_cell(data: Path) -> Figures:
    group = cifar10_group("paper", "preact_resnet18", data)
    members, epochs = ((2, 1), 1) if PICTURES["limit"] else ((4, 3), 20)
    distilled = group.problem.learner().set_params(epochs=epochs)
    return run_pictures(
        group,
        Noise("symmetric", 0.5),
        group.learner.set_params(epochs=1 if PICTURES["limit"] else None),
        method="paper",
        teacher=distilled,
        student=distilled,
        n_members=members[0],
        max_iter=members[1],
        tol=None,
        n_jobs=None,
    )


@row(
    "CIFAR-10 (JPEG), symmetric 90 %, `fast`: the default method with its semi-supervised network",
    {"minutes": Goal(at_most=4), "points above the semi-supervised network": Goal(at_least=-0.5)},
    "gpu",
)
def default_at_symmetric_90(data: Path) -> Figures:
    from pudistill.distillation.network_student import train_semi_supervised
    from pudistill.distillation.self_training import train_on_labels
    from pudistill.distillation.views import whole_view
    from pudistill.labels.checks import check_labels

    group = cifar10_group("fast", "airbench", data)
    if PICTURES["limit"]:
        group.learner.set_params(epochs=1)
    compared = {"compare": True, "semi_supervised": True, "n_jobs": None}
    noise = Noise("symmetric", 0.9)
    figures = run_pictures(group, noise, group.learner, **compared)
    view = whole_view(check_labels(group.corrupt(noise).y, group.trusted))
    start = time.perf_counter()
    trusted_only = train_on_labels(group.learner, group.X, view.verified, N_CLASSES, seed=0)
    twin = train_semi_supervised(trusted_only, group.X, view, N_CLASSES, seed=0)
    minutes = (time.perf_counter() - start) / 60
    accuracy = group.score(twin)["test_accuracy"]
    return figures | {
        "points above the semi-supervised network": 100 * (figures["test accuracy"] - accuracy),
        "semi-supervised network, minutes": minutes,
    }


@row(
    "5,000 texts, 500 verified, 30 % wrong: all-MiniLM-L6-v2 fine-tuned by the default method",
    {"minutes": Goal(at_most=2), "test accuracy": Goal(0.84), "labels right": Goal(0.9)},
    "gpu",
)
def fine_tuned_texts(data: Path) -> Figures:
    from pudistill import PUDistillClassifier, TorchClassifier

    model = os.environ.get("PUDISTILL_TEXT_MODEL", "sentence-transformers/all-MiniLM-L6-v2")
    folder, limit = data / "texts", PICTURES["limit"]
    texts, checked, truth, test = (
        pd.read_csv(folder / f"{name}.csv").set_index("id")
        for name in ("texts", "checked", "truth", "test")
    )
    if limit:
        first = checked.index[: limit // 2]
        texts = pd.concat([texts.loc[first], texts.drop(first)[: limit - len(first)]])
    verified = checked["label"].reindex(texts.index).to_numpy(dtype=object)
    true = truth["true"].reindex(texts.index).to_numpy()
    network = TorchClassifier(f"transformers:{model}", epochs=1 if limit else None)
    start = time.perf_counter()
    classifier = PUDistillClassifier(network, random_state=0)
    classifier.fit(texts["text"].tolist(), texts["label"].to_numpy(), trusted=verified)
    minutes = (time.perf_counter() - start) / 60
    test = test[:limit]
    right = classifier.predict(test["text"].tolist()) == test["label"].to_numpy()
    corrected = classifier.classes_[classifier.targets_.argmax(axis=1)]
    is_new = pd.isna(verified)
    return {
        "minutes": minutes,
        "test accuracy": float(right.mean()),
        "labels right": float((corrected == true)[is_new].mean()),
        "given labels right": float((texts["label"].to_numpy() == true)[is_new].mean()),
        "shipped": classifier.shipped_,
    }


@row("2,000 trusted pictures of CIFAR-10 (JPEG): a teacher of either recipe", kind="long")
def recipes_of_a_teacher(data: Path) -> Figures:
    from pudistill.labels.pseudo_labels import one_hot
    from pudistill.learners.tasks import Training, train

    figures: Figures = {}
    for recipe, network in (("fast", "airbench"), ("paper", "preact_resnet18")):
        group = cifar10_group(recipe, network, data, trusted=0.04)
        rows = group.trusted
        targets = one_hot(group.y[rows], N_CLASSES)
        start = time.perf_counter()
        teacher = train(Training(group.learner, group.X[rows], targets, role="teacher", seed=0))
        figures[f"{recipe}, {network}, s"] = time.perf_counter() - start
        figures |= {f"{recipe}, {name}": value for name, value in group.score(teacher).items()}
    return figures


@row(
    "CIFAR-10 (JPEG), the paper's setting: filter of one class, N = 20, K = 10",
    {"minutes": Goal(at_most=3)},
    "gpu",
)
def paper_filter_of_a_class(data: Path) -> Figures:
    from pudistill.pu_filter.one_class import filter_class
    from pudistill.pu_filter.plan import FilterInputs, make_plan

    group = cifar10_group("paper", "preact_resnet18", data)
    n_members, max_iter = (2, 2) if PICTURES["limit"] else (20, 10)
    plan = make_plan(
        n_members=n_members,
        max_iter=max_iter,
        threshold=0.9,
        min_votes=0.95,
        target_precision=0.95,
        tol=None,
        seed=0,
    )
    verified = np.where(group.trusted, group.y, -1)
    folds = np.full(len(verified), -1)
    judged, classes = np.zeros(len(verified), dtype=bool), np.arange(N_CLASSES)
    inputs = FilterInputs([group.X], [], verified, folds, group.learner, plan, judged, classes)
    start = time.perf_counter()
    found = filter_class(0, inputs)
    minutes = (time.perf_counter() - start) / 60
    accepted = ~np.isnan(found.mean_proba)
    right = group.y[~group.trusted][accepted] == 0
    return {
        "minutes": minutes,
        "all ten classes, projected, minutes": 10 * minutes,
        "found": int(accepted.sum()),
        "precision": float(right.mean()) if len(right) else None,
    }


@row(
    "CIFAR-10 (JPEG), the paper's setting: teachers and student",
    {"minutes": Goal(at_most=6)},
    "gpu",
)
def paper_distillation(data: Path) -> Figures:
    from pudistill.distillation.paper import average_proba, train_student, train_teachers

    group = cifar10_group("paper", "preact_resnet18", data)
    n = N_CLASSES
    labels = np.where(group.trusted, group.y, -1)
    start = time.perf_counter()
    teachers = train_teachers(group.learner, group.X, labels, n, n_teachers=5, seed=0)
    proba = average_proba(teachers, group.X, n)
    student = train_student(group.learner, group.X, proba, seed=0)
    minutes = (time.perf_counter() - start) / 60
    return {"minutes": minutes, **group.score(student)}


@row(
    "CIFAR-10 (JPEG), symmetric 50 %, `fast`: everything but the comparison",
    {"minutes": Goal(at_most=3)},
    "gpu",
)
def fast_run(data: Path) -> Figures:
    group = cifar10_group("fast", "airbench", data)
    return run_pictures(group, Noise("symmetric", 0.5), group.learner, n_jobs=None)
