"""The measurements of speed.py.

Every row is a function that returns figures; its goals are about some of them, by name. What is
compared alternates within a row, so that whatever else happens to the computer happens to both;
figures are medians, ratios medians of paired ratios.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import delayed
from sklearn.base import clone

from problems import PROBLEMS, Group, Noise, Problem, Split, fashion_mnist, small_cnn

Figures = dict[str, Any]
ROWS: dict[str, "Row"] = {}
N_CLASSES = 10
PEAK = "peak of memory, MiB"  # measured with every row
PICTURES: dict[str, Any] = {"limit": None}  # of GPU rows; fewer try them out on a CPU


class Goal(NamedTuple):
    """A bound on a figure."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        over = self.at_most is not None and value > self.at_most
        return not over and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


class Row(NamedTuple):
    """A measurement and its goals."""

    measure: Callable[[Path], Figures]  # given the folder with the data
    what: str
    goals: dict[str, Goal]  # by the names of figures
    kind: str  # "short", "long" or "gpu"


def row(
    what: str, goals: dict[str, Goal] | None = None, kind: str = "short"
) -> Callable[[Callable[[Path], Figures]], Callable[[Path], Figures]]:
    """Make a function a row, under its own name."""

    def register(measure: Callable[[Path], Figures]) -> Callable[[Path], Figures]:
        ROWS[measure.__name__] = Row(measure, what, goals or {}, kind)
        return measure

    return register


def alternate(n_trials: int, **calls: Callable[[], Any]) -> dict[str, list[float]]:
    """Time calls in turn, in seconds; a first round warms the caches up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for trial in range(n_trials + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if trial:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times as fast `fast` is."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(one / other for one, other in pairs)


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {f"{name}, s": statistics.median(times) for name, times in seconds.items()}


# Training


def training(network: str, shape: tuple[int, ...], n: int, n_trials: int) -> Figures:
    """Train a network for two epochs by the engine, by a bare loop, and as scripts often do."""
    import torch

    from pudistill import TorchClassifier
    from pudistill.learners.recipes import Recipe
    from pudistill.learners.training import choose_hardware

    hardware = choose_hardware("auto", "auto", pictures=True)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = rng.integers(N_CLASSES, size=n)
    recipe = Recipe(epochs=2, learning_rate=0.01, batch_size=128, augment=("flip", "crop"))

    def engine() -> None:
        TorchClassifier(network, recipe=recipe, random_state=0).fit(pictures, labels)
        if hardware.device.type == "cuda":
            torch.cuda.synchronize()

    bare = partial(bare_loop, network, pictures, labels, recipe, hardware)
    loader = partial(loader_loop, network, pictures, labels, recipe, hardware)
    seconds = alternate(n_trials, engine=engine, bare=bare, loader=loader)
    images = {name: n * recipe.epochs / statistics.median(times) for name, times in seconds.items()}
    per_image = flops_per_image(network, shape)
    return {
        "against the bare loop": ratio(seconds, "bare", "engine"),
        "against the loader": ratio(seconds, "loader", "engine"),
        **{f"{name}, images/s": value for name, value in images.items()},
        "GFLOP/s": images["engine"] * per_image / 1e9,
        "share of a matrix product's FLOP/s": images["engine"] * per_image / peak_flops(hardware),
        "precision": "bf16" if hardware.bf16 else "fp32",
        "threads": torch.get_num_threads(),
    }


def flops_per_image(network: str, shape: tuple[int, ...]) -> float:
    """Count what one picture costs in a training step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pudistill.learners.networks import NETWORKS

    module = NETWORKS[network]((shape[-1], *shape[:-1]), N_CLASSES)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(2, shape[-1], *shape[:-1])).sum().backward()
    return counter.get_total_flops() / 2


def peak_flops(hardware: Any) -> float:
    """Measure the FLOP/s of a large matrix product, which is what the hardware can do at most."""
    import torch

    n = 8192 if hardware.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if hardware.bf16 else torch.float32
    matrix = torch.randn(n, n, device=hardware.device, dtype=dtype)

    def multiply() -> None:
        (matrix @ matrix)[0, 0].item()  # which waits for it

    times = alternate(10, product=multiply)["product"]
    return 2 * n**3 / statistics.median(times)


def bare_loop(network: str, pictures: Any, labels: Any, recipe: Any, hardware: Any) -> None:
    """Train as a careful script would: all on the device, the same steps and precision."""
    import torch

    from pudistill.learners.augmentation import random_crop, random_flip
    from pudistill.learners.networks import NETWORKS

    device = hardware.device
    module = NETWORKS[network]((pictures.shape[-1], *pictures.shape[1:3]), N_CLASSES).to(device)
    module = module.to(memory_format=torch.channels_last).train()
    data, wanted = torch.tensor(pictures, device=device), torch.tensor(labels, device=device)
    mean, scale = data.float().mean((0, 1, 2)), data.float().std((0, 1, 2))
    generator = torch.Generator(device).manual_seed(0)
    optimiser = sgd(module, recipe, fused=True)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(data), generator=generator, device=device)
        for chosen in order.split(recipe.batch_size):
            batch = random_crop(random_flip(data[chosen], generator), generator)
            batch = ((batch.float() - mean) / scale).permute(0, 3, 1, 2)
            with torch.autocast(device.type, torch.bfloat16, enabled=hardware.bf16):
                logits = module(batch)
            step(optimiser, logits.float(), wanted[chosen])
    if device.type == "cuda":
        torch.cuda.synchronize()


def loader_loop(network: str, pictures: Any, labels: Any, recipe: Any, hardware: Any) -> None:
    """Train as repositories do: a data loader, PIL transforms of each sample, float32."""
    import torch
    from PIL import Image, ImageOps
    from torch.utils.data import DataLoader, Dataset

    from pudistill.learners.networks import NETWORKS

    side, rng = pictures.shape[1], np.random.default_rng(0)
    mean, scale = pictures.mean((0, 1, 2)) / 255, pictures.std((0, 1, 2)) / 255

    class Samples(Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image = Image.fromarray(pictures[index].squeeze())
            left, top = rng.integers(0, side // 4 + 1, 2)
            image = ImageOps.expand(image, side // 8).crop((left, top, left + side, top + side))
            if rng.random() < 0.5:
                image = ImageOps.mirror(image)
            array = np.asarray(image, dtype=np.float32).reshape(side, side, -1) / 255
            normalised = (array - mean) / scale
            return torch.from_numpy(normalised.transpose(2, 0, 1).astype(np.float32)), labels[index]

    device = hardware.device
    module = NETWORKS[network]((pictures.shape[-1], side, side), N_CLASSES).to(device).train()
    optimiser = sgd(module, recipe)
    workers = min(4, os.cpu_count() or 1)
    loader = DataLoader(Samples(), recipe.batch_size, shuffle=True, num_workers=workers)
    for _ in range(recipe.epochs):
        for batch, wanted in loader:
            step(optimiser, module(batch.to(device)), wanted.to(device))


def sgd(module: Any, recipe: Any, *, fused: bool = False) -> Any:
    import torch

    return torch.optim.SGD(
        module.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def step(optimiser: Any, logits: Any, wanted: Any) -> None:
    from torch.nn.functional import cross_entropy

    optimiser.zero_grad()
    cross_entropy(logits, wanted).backward()
    optimiser.step()


TRAINING_GOALS = {"against the bare loop": Goal(0.95), "against the loader": Goal(2)}


@row("training of small_cnn, 28 x 28", TRAINING_GOALS)
def training_small_cnn(_: Path) -> Figures:
    return training("small_cnn", (28, 28, 1), 4096, n_trials=4)


@row("training of preact_resnet18, 32 x 32", TRAINING_GOALS)
def training_preact_resnet18(_: Path) -> Figures:
    return training("preact_resnet18", (32, 32, 3), 192, n_trials=2)


@row("training of preact_resnet18 on a GPU", TRAINING_GOALS, "gpu")
def training_on_gpu(_: Path) -> Figures:
    return training("preact_resnet18", (32, 32, 3), PICTURES["limit"] or 50_000, n_trials=3)


# Ensembles


def binary_pictures(n: int, n_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures of noise; positives have a bright square in the middle, faint in some."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 160, (n, 28, 28, 1), dtype=np.uint8)
    positive = np.arange(n) < n_positives
    strength = rng.integers(20, 95, n_positives)[:, None, None, None]
    pictures[positive, 8:20, 8:20] += strength.astype(np.uint8)
    return pictures, positive


def member_trainings(
    network: str, n_members: int, per_class: int = 40, precision: str = "auto"
) -> list[Any]:
    from pudistill import TorchClassifier
    from pudistill.learners import Training
    from pudistill.pseudo_labels import one_hot

    pictures, positive = binary_pictures(2 * per_class, per_class)
    targets = one_hot(positive.astype(int), 2)
    learner = TorchClassifier(network, precision=precision)
    return [
        Training(learner, pictures, targets, role="member", seed=seed) for seed in range(n_members)
    ]


def ensemble(network: str, n_members: int, **params: Any) -> Figures:
    """Train members one by one, as a stack, and in parallel processes."""
    from pudistill.learners import in_order, train
    from pudistill.learners.torch_classifier import fit_together

    tasks = member_trainings(network, n_members, **params)

    def stack() -> None:
        networks = [
            clone(task.estimator).set_params(role="member", random_state=task.seed)
            for task in tasks
        ]
        samples = [(task.X, task.targets, None) for task in tasks]
        fit_together(networks, samples, stack=lambda _: True)

    seconds = alternate(
        2,
        one_by_one=lambda: [train(task) for task in tasks],
        stack=stack,
        in_parallel=lambda: list(in_order((delayed(train)(task) for task in tasks), -1)),
    )
    rates = {
        f"{name}, members/min": 60 * len(tasks) / statistics.median(times)
        for name, times in seconds.items()
    }
    best = max(ratio(seconds, "one_by_one", name) for name in ("stack", "in_parallel"))
    return {
        "the best against one by one": best,
        "a stack against one by one": ratio(seconds, "one_by_one", "stack"),
        "in parallel against one by one": ratio(seconds, "one_by_one", "in_parallel"),
        **rates,
    }


@row("8 members of small_cnn")
def members(_: Path) -> Figures:
    return ensemble("small_cnn", 8, precision="fp32")


@row("20 members of preact_resnet18, batch 128", {"the best against one by one": Goal(3)}, "gpu")
def members_on_gpu(_: Path) -> Figures:
    return ensemble("preact_resnet18", 20, per_class=640)


@row("scoring, N = 20, θ = 19", {"the cascade against full voting": Goal(5)})
def scoring(_: Path) -> Figures:
    from pudistill.learners import predict_proba, train
    from pudistill.pu_filter import cascade_vote

    networks = [train(task) for task in member_trainings("small_cnn", 20)]
    pictures, positive = binary_pictures(5000, 500)

    def score(member: Any, rows: np.ndarray) -> np.ndarray:
        return predict_proba(member, pictures, 2, rows)[:, 1]

    def vote() -> Any:
        return cascade_vote(networks, score, len(pictures), 0.9, 19)

    everyone = np.arange(len(pictures))
    seconds = alternate(
        3, cascade=vote, full=lambda: [score(network, everyone) for network in networks]
    )
    elected = ~np.isnan(vote().mean_proba)
    return {
        "the cascade against full voting": ratio(seconds, "full", "cascade"),
        "elected": float(elected.mean()),
        "positives elected": float(elected[positive].mean()),
        **medians(seconds),
    }


# Filter and whole runs


@row(
    "filter on 50,000 x 256 features, C = 10, N = 20, K = 5, 10 % trusted",
    {"paper, s": Goal(at_most=20)},
)
def filter_features(data: Path) -> Figures:
    from sklearn.linear_model import LogisticRegression

    from pudistill import TieredPUFilter

    with np.load(data / "cifar10-features" / "features.npz") as file:
        X, y = file["X"].astype(np.float32), file["y"].astype(int)
    rng = np.random.default_rng(0)
    trusted = np.zeros(len(y), dtype=bool)
    for c in range(N_CLASSES):
        trusted[rng.choice(np.flatnonzero(y == c), 500, replace=False)] = True

    def run(n_jobs: int | None, **params: Any) -> None:
        member = LogisticRegression(C=1, max_iter=1000)
        settings = {"max_iter": 5, "tol": None, "n_jobs": n_jobs, "random_state": 0}
        TieredPUFilter(member, **settings, **params).fit(X, y, trusted)

    rules = {"threshold": "auto", "min_votes": "auto"}
    seconds = alternate(
        2,
        paper=lambda: run(-1),
        paper_one_process=lambda: run(None),
        default=lambda: run(-1, **rules),
    )
    return medians(seconds)


@row("digits demo, whole", {"seconds": Goal(at_most=15)})
def digits_demo(_: Path) -> Figures:
    seconds = []
    for _trial in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            pudistill("demo", "--output", str(Path(folder, "run")))
            seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds)}


def pudistill(*arguments: str) -> str:
    command = [sys.executable, "-m", "pudistill", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# Pictures


class StageTimes:
    """A display that shows nothing and remembers how long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def task(self, name: str, _: int) -> Iterator[Callable[..., None]]:
        """Time a stage."""
        start = time.perf_counter()
        yield lambda *_, **__: None
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def run_pictures(group: Group, noise: Noise, learner: Any, **params: Any) -> Figures:
    """Run everything but the comparison, and see what it is worth."""
    from pudistill import PUDistillClassifier
    from pudistill.progress import display

    noisy = group.corrupt(noise)
    trusted_only = group.learner_on(group.y, group.trusted)["test_accuracy"]
    settings = {"compare": False, "n_jobs": -1, "random_state": 0} | params
    stages = StageTimes()
    start = time.perf_counter()
    with display(stages):
        classifier = PUDistillClassifier(learner, **settings)
        classifier.fit(group.X, noisy.y, group.trusted)
    seconds = time.perf_counter() - start
    accuracy = group.scored(classifier.predict(group.X_test))["test_accuracy"]
    return {
        "minutes": seconds / 60,
        "points above trusted only": 100 * (accuracy - trusted_only),
        "test accuracy": accuracy,
        **found_by(classifier.filter_, group),
        **{f"{name}, s": value for name, value in stages.seconds.items()},
    }


def found_by(pu_filter: Any, group: Group) -> Figures:
    """Say how large and how right a clean set is, without its trusted samples."""
    found = (pu_filter.clean_labels_ >= 0) & ~group.trusted
    right = pu_filter.clean_labels_[found] == group.y[found]
    return {"found": int(found.sum()), "precision": float(right.mean()) if len(right) else None}


@row(
    "Fashion-MNIST, 60,000 pictures, 2 % trusted, asymmetric 40 %: everything but the comparison",
    {"minutes": Goal(at_most=30), PEAK: Goal(at_most=3072), "points above trusted only": Goal(3)},
    "long",
)
def fashion_mnist_run(data: Path) -> Figures:
    problem = replace(FASHION_PICTURES, load=partial(fashion_mnist, 60_000))
    group = Group(problem, 0, data, Path())
    return run_pictures(group, Noise("asymmetric", 0.4), small_cnn())


@row("filter of 20,000 pictures, 2 % trusted: members that share a trunk, and others", kind="long")
def shared_trunk(data: Path) -> Figures:
    from pudistill import TieredPUFilter

    group = Group(FASHION_PICTURES, 0, data, Path())
    figures: Figures = {}
    for name, share_trunk in (("shared", True), ("of their own", False)):
        start = time.perf_counter()
        pu_filter = TieredPUFilter(
            small_cnn(),
            threshold="auto",
            min_votes="auto",
            share_trunk=share_trunk,
            n_jobs=-1,
            random_state=0,
        ).fit(group.X, group.y, group.trusted)
        figures[f"{name}, s"] = time.perf_counter() - start
        for figure, value in found_by(pu_filter, group).items():
            figures[f"{name}, {figure}"] = value
    return figures


@row("filter that stops when its clean sets stop growing, and all ten iterations", kind="long")
def early_stop(data: Path) -> Figures:
    figures: Figures = {}
    noises = [Noise("symmetric", 0.6), Noise("symmetric", 0.9), Noise("asymmetric", 0.6)]
    for name in ("breast_cancer", "digits", "fashion-mnist table"):
        problem = next(one for one in PROBLEMS if one.name == name)
        found = []
        for seed in range(2):
            group = Group(problem, seed, data, Path())
            for way, params in (("stops", {}), ("all", {"tol": None})):
                classifier = group.with_teachers(**params)
                accuracies = []
                for noise in noises:
                    student = group.with_teachers(**params)
                    student.fit_student(group.X, group.corrupt(noise).y, group.trusted)
                    accuracies.append(group.scored(student.predict(group.X_test)))
                found.append(
                    {
                        "way": way,
                        "s": float(classifier.filter_.history_["seconds"].sum()),
                        "iterations": float(classifier.filter_.n_iter_.mean()),
                        "accuracy": np.mean([one["test_accuracy"] for one in accuracies]),
                        **found_by(classifier.filter_, group),
                    }
                )
        means = pd.DataFrame(found).groupby("way").mean()
        for way, row_of_way in means.iterrows():
            figures |= {f"{name}, {way}, {what}": value for what, value in row_of_way.items()}
    return figures


@row("2,000 trusted pictures of CIFAR-10 (JPEG): a teacher of either recipe", kind="long")
def recipes_of_a_teacher(data: Path) -> Figures:
    from pudistill.learners import Training, train
    from pudistill.pseudo_labels import one_hot

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


@row("20,000 pictures, 2 % trusted, symmetric 60 %: a run of either recipe", kind="long")
def recipes_of_a_run(data: Path) -> Figures:
    group = Group(FASHION_PICTURES, 0, data, Path())
    figures: Figures = {}
    for recipe in ("fast", "paper"):
        found = run_pictures(group, Noise("symmetric", 0.6), small_cnn(recipe=recipe))
        figures |= {f"{recipe}, {name}": value for name, value in found.items()}
    return figures


FASHION_PICTURES = next(one for one in PROBLEMS if one.name == "fashion-mnist networks")


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

    learner = partial(TorchClassifier, network, recipe=recipe)
    problem = Problem("CIFAR-10 (JPEG)", cifar10, learner, trusted, seeds=1)
    return Group(problem, 0, data, Path())


@row(
    "CIFAR-10 (JPEG), the paper's setting: filter of one class, N = 20, K = 10",
    {"minutes": Goal(at_most=3)},
    "gpu",
)
def paper_filter_of_a_class(data: Path) -> Figures:
    from pudistill import TieredPUFilter
    from pudistill.pu_filter import _filter_class

    group = cifar10_group("paper", "preact_resnet18", data)
    size = {"n_members": 2, "max_iter": 2} if PICTURES["limit"] else {}
    pu_filter = TieredPUFilter(group.learner, min_votes=0.95, tol=None, **size)
    settings = pu_filter._settings(0, pu_filter.max_iter)
    verified = np.where(group.trusted, group.y, -1)
    folds = np.full(len(verified), -1)
    start = time.perf_counter()
    found = _filter_class(0, [group.X], verified, folds, group.learner, settings, [])
    minutes = (time.perf_counter() - start) / 60
    elected = ~np.isnan(found.mean_proba)
    right = group.y[~group.trusted][elected] == 0
    return {
        "minutes": minutes,
        "all ten classes, projected, minutes": 10 * minutes,
        "found": int(elected.sum()),
        "precision": float(right.mean()) if len(right) else None,
    }


@row(
    "CIFAR-10 (JPEG), the paper's setting: teachers and student",
    {"minutes": Goal(at_most=6)},
    "gpu",
)
def paper_distillation(data: Path) -> Figures:
    from pudistill.distillation import average_proba, train_student, train_teachers

    group = cifar10_group("paper", "preact_resnet18", data)
    n = N_CLASSES
    labels = np.where(group.trusted, group.y, -1)
    start = time.perf_counter()
    teachers = train_teachers(group.learner, group.X, labels, n, n_teachers=5, seed=0)
    proba = average_proba(teachers, group.X, n, np.arange(len(group.X)))
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


# Growth


def blobs(n: int, n_classes: int = N_CLASSES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make samples of overlapping classes, fifty of each trusted."""
    from sklearn.datasets import make_blobs

    X, y = make_blobs(n, 32, centers=n_classes, cluster_std=6, random_state=0)
    trusted = np.zeros(n, dtype=bool)
    for c in range(n_classes):
        trusted[np.flatnonzero(y == c)[:50]] = True
    return X.astype(np.float32), y, trusted


def run_filter(n: int = 10_000, n_classes: int = N_CLASSES, **params: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    from pudistill import TieredPUFilter

    settings = {"n_members": 10, "max_iter": 3, "tol": None, "threshold": "auto"} | params
    TieredPUFilter(LogisticRegression(), **settings, random_state=0).fit(*blobs(n, n_classes))


def run_all(n: int) -> None:
    from sklearn.linear_model import LogisticRegression

    from pudistill import PUDistillClassifier, corrupt_labels

    X, y, trusted = blobs(n)
    given = corrupt_labels(y, "symmetric", 0.5, trusted=trusted, random_state=0).y
    classifier = PUDistillClassifier(LogisticRegression(), n_members=10, max_iter=3, random_state=0)
    classifier.fit(X, given, trusted)


def growth(run: Callable[[int], None], sizes: Sequence[int]) -> Figures:
    """Run at every size in a process of its own, and fit exponents."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    found = []
    for size in sizes:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=timed, args=(run, size, max(2, sizes[0] // 4), sender))
        process.start()
        sender.close()  # so that the receiver notices if the process dies
        found.append(receiver.recv())
        process.join()
    seconds, added = zip(*found, strict=True)
    return {
        "exponent of time": exponent(sizes, seconds),
        "exponent of the memory added": exponent(sizes, added),
        "sizes": list(sizes),
        "seconds": seconds,
        "MiB added": added,
    }


def timed(run: Callable[[int], None], size: int, small: int, sender: Any) -> None:
    from resource import RUSAGE_SELF, getrusage

    run(small)  # imports and first calls cost the same whatever the size
    before = getrusage(RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(size)
    seconds = time.perf_counter() - start
    sender.send((seconds, max(1, getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


LINEAR = {"exponent of time": Goal(at_most=1.05)}


@row("filter, growth with the number of samples", LINEAR)
def growth_of_filter(_: Path) -> Figures:
    return growth(run_filter, (40_000, 80_000, 160_000, 320_000, 640_000))


@row("whole run, growth with the number of samples", LINEAR)
def growth_of_run(_: Path) -> Figures:
    return growth(run_all, (5_000, 10_000, 20_000, 40_000))


@row("filter, growth with N")
def growth_with_members(_: Path) -> Figures:
    return growth(lambda size: run_filter(n_members=size), (5, 10, 20, 40))


@row("filter, growth with K")
def growth_with_iterations(_: Path) -> Figures:
    return growth(lambda size: run_filter(max_iter=size), (2, 4, 8))


@row("filter, growth with C")
def growth_with_classes(_: Path) -> Figures:
    return growth(lambda size: run_filter(n_classes=size), (4, 8, 16, 32))


# Start


def start_of(*commands: Sequence[str]) -> list[float]:
    """Medians of the seconds that commands take, in turn."""
    calls = {
        str(number): partial(subprocess.run, command, check=True, capture_output=True)
        for number, command in enumerate(commands)
    }
    return [statistics.median(times) for times in alternate(7, **calls).values()]


@row("import pudistill, beyond Python's own start", {"seconds": Goal(at_most=0.2)})
def import_package(_: Path) -> Figures:
    bare, ours = start_of([sys.executable, "-c", ""], [sys.executable, "-c", "import pudistill"])
    return {"seconds": ours - bare, "Python's start, s": bare}


@row("pudistill --help", {"seconds": Goal(at_most=0.6)})
def help_text(_: Path) -> Figures:
    return {"seconds": start_of([str(Path(sys.executable).with_name("pudistill")), "--help"])[0]}


@row(
    "from pudistill import PUDistillClassifier",
    {"times import sklearn.svm, pandas": Goal(at_most=1.5)},
)
def import_classifier(_: Path) -> Figures:
    ours, theirs = start_of(
        [sys.executable, "-c", "from pudistill import PUDistillClassifier"],
        [sys.executable, "-c", "import sklearn.svm, pandas"],
    )
    return {"times import sklearn.svm, pandas": ours / theirs, "ours, s": ours, "theirs, s": theirs}
