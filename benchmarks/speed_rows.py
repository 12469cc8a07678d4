"""The measurements of speed.py.

Every row is a function that returns figures, of which ``value`` is the one that a goal is about.
What is compared alternates within a row, so that whatever else happens to the computer happens to
both; figures are medians, ratios medians of paired ratios.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Figures = dict[str, Any]
ROWS: dict[str, "Row"] = {}
N_CLASSES = 10


class Row(NamedTuple):
    """A measurement and its goal."""

    measure: Callable[[Path], Figures]  # given the folder with the data
    what: str
    unit: str
    at_least: float | None
    at_most: float | None
    long: bool

    def goal(self) -> str:
        """Write the goal."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}".strip()
        return "" if self.at_most is None else f"≤ {self.at_most:g} {self.unit}".strip()


def row(
    what: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    long: bool = False,
) -> Callable[[Callable[[Path], Figures]], Callable[[Path], Figures]]:
    """Make a function a row, under its own name."""

    def register(measure: Callable[[Path], Figures]) -> Callable[[Path], Figures]:
        ROWS[measure.__name__] = Row(measure, what, unit, at_least, at_most, long)
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
    return {
        "value": ratio(seconds, "bare", "engine"),
        "against a data loader": ratio(seconds, "loader", "engine"),
        **{
            f"{name}, images/s": n * recipe.epochs / statistics.median(times)
            for name, times in seconds.items()
        },
        "precision": "bf16" if hardware.bf16 else "fp32",
        "threads": torch.get_num_threads(),
    }


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


@row("training throughput of small_cnn against a bare loop", at_least=0.95)
def training_small_cnn(_: Path) -> Figures:
    return training("small_cnn", (28, 28, 1), 4096, n_trials=5)


@row("training throughput of preact_resnet18 against a bare loop", at_least=0.95)
def training_preact_resnet18(_: Path) -> Figures:
    return training("preact_resnet18", (32, 32, 3), 256, n_trials=5)


# Ensembles


def binary_pictures(n: int, n_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures of noise; positives have a bright square in the middle, faint in some."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 160, (n, 28, 28, 1), dtype=np.uint8)
    positive = np.arange(n) < n_positives
    strength = rng.integers(20, 95, n_positives)[:, None, None, None]
    pictures[positive, 8:20, 8:20] += strength.astype(np.uint8)
    return pictures, positive


def member_trainings(n_members: int, per_class: int = 40) -> list[Any]:
    from pudistill import TorchClassifier
    from pudistill.learners import Training
    from pudistill.pseudo_labels import one_hot

    pictures, positive = binary_pictures(2 * per_class, per_class)
    targets = one_hot(positive.astype(int), 2)
    learner = TorchClassifier("small_cnn")
    return [
        Training(learner, pictures, targets, role="member", seed=seed) for seed in range(n_members)
    ]


@row("members a minute, all cores against one by one")
def members(_: Path) -> Figures:
    from pudistill.learners import train_all

    tasks = member_trainings(8)
    seconds = alternate(
        2,
        one_by_one=lambda: list(train_all(tasks, None)),
        in_parallel=lambda: list(train_all(tasks, -1)),
    )
    return {
        "value": ratio(seconds, "one_by_one", "in_parallel"),
        **{
            f"{name}, members/min": 60 * len(tasks) / statistics.median(times)
            for name, times in seconds.items()
        },
    }


@row("scoring with the cascade against full voting, N = 20, θ = 19", at_least=5)
def scoring(_: Path) -> Figures:
    from pudistill.learners import predict_proba, train
    from pudistill.pu_filter import cascade_vote

    networks = [train(task) for task in member_trainings(20)]
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
        "value": ratio(seconds, "full", "cascade"),
        "elected": float(elected.mean()),
        "positives elected": float(elected[positive].mean()),
        **medians(seconds),
    }


# Filter and whole runs


@row("filter on 50,000 x 256 features, C = 10, N = 20, K = 5, 10 % trusted", unit="s", at_most=20)
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
    figures = medians(seconds)
    return {"value": figures["paper, s"], **figures}


@row("digits demo, whole", unit="s", at_most=15)
def digits_demo(_: Path) -> Figures:
    seconds = []
    for _trial in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            pudistill("demo", "--output", str(Path(folder, "run")))
            seconds.append(time.perf_counter() - start)
    return {"value": statistics.median(seconds)}


def pudistill(*arguments: str) -> str:
    command = [sys.executable, "-m", "pudistill", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


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
        process = context.Process(target=timed, args=(run, size, sizes[0], sender))
        process.start()
        found.append(receiver.recv())
        process.join()
    seconds, added = zip(*found, strict=True)
    return {
        "value": exponent(sizes, seconds),
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


@row("growth of the filter's time with the number of samples, an exponent", at_most=1.05)
def growth_of_filter(_: Path) -> Figures:
    return growth(run_filter, (10_000, 20_000, 40_000, 80_000, 160_000))


@row("growth of the whole run's time with the number of samples, an exponent", at_most=1.05)
def growth_of_run(_: Path) -> Figures:
    return growth(run_all, (10_000, 20_000, 40_000, 80_000))


@row("growth of the filter's time with N, an exponent")
def growth_with_members(_: Path) -> Figures:
    return growth(lambda size: run_filter(n_members=size), (5, 10, 20, 40))


@row("growth of the filter's time with K, an exponent")
def growth_with_iterations(_: Path) -> Figures:
    return growth(lambda size: run_filter(max_iter=size), (2, 4, 8))


@row("growth of the filter's time with C, an exponent")
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


@row("import pudistill, beyond Python's own start", unit="s", at_most=0.2)
def import_package(_: Path) -> Figures:
    bare, ours = start_of([sys.executable, "-c", ""], [sys.executable, "-c", "import pudistill"])
    return {"value": ours - bare, "Python's start, s": bare}


@row("pudistill --help", unit="s", at_most=0.6)
def help_text(_: Path) -> Figures:
    return {"value": start_of([str(Path(sys.executable).with_name("pudistill")), "--help"])[0]}


@row("import of PUDistillClassifier against that of sklearn.svm and pandas", at_most=1.5)
def import_classifier(_: Path) -> Figures:
    ours, theirs = start_of(
        [sys.executable, "-c", "from pudistill import PUDistillClassifier"],
        [sys.executable, "-c", "import sklearn.svm, pandas"],
    )
    return {"value": ours / theirs, "ours, s": ours, "theirs, s": theirs}
