"""Rows about training one network."""

import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.measurement import N_CLASSES, PICTURES, Figures, Goal, alternate, ratio, row


def training(network: str, shape: tuple[int, ...], n: int, n_trials: int) -> Figures:
    """Train a network for two epochs by pudistill, by a bare loop, and by a loop with a loader."""
    import torch

    from pudistill import TorchClassifier
    from pudistill.learners.networks.hardware import choose_hardware
    from pudistill.learners.networks.recipes import Recipe

    hardware = choose_hardware("auto", "auto", is_table=False)
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
    """Count the floating-point operations of one picture in a training step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pudistill.learners.networks.architectures import NETWORKS

    module = NETWORKS[network]((shape[-1], *shape[:-1]), N_CLASSES)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(2, shape[-1], *shape[:-1])).sum().backward()
    return counter.get_total_flops() / 2


def peak_flops(hardware: Any) -> float:
    """Measure the FLOP/s of a large matrix product, an upper bound for the hardware."""
    import torch

    n = 8192 if hardware.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if hardware.bf16 else torch.float32
    matrix = torch.randn(n, n, device=hardware.device, dtype=dtype)

    def multiply() -> None:
        (matrix @ matrix)[0, 0].item()  # waits for the product

    times = alternate(10, product=multiply)["product"]
    return 2 * n**3 / statistics.median(times)


def bare_loop(network: str, pictures: Any, labels: Any, recipe: Any, hardware: Any) -> None:
    """Train as a careful script would: data on the device, the same steps and precision."""
    import torch

    from pudistill.learners.networks.architectures import NETWORKS
    from pudistill.learners.networks.augmentation import random_crop, random_flip

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
    """Train as most repositories do: a data loader, PIL transforms of each sample, float32."""
    import torch
    from PIL import Image, ImageOps
    from torch.utils.data import DataLoader, Dataset

    from pudistill.learners.networks.architectures import NETWORKS

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


@row("training of preact_resnet18, 32 x 32", TRAINING_GOALS, "long")
def training_preact_resnet18(_: Path) -> Figures:
    return training("preact_resnet18", (32, 32, 3), 192, n_trials=2)


@row("training of preact_resnet18 on a GPU", TRAINING_GOALS, "gpu")
def training_on_gpu(_: Path) -> Figures:
    return training("preact_resnet18", (32, 32, 3), PICTURES["limit"] or 50_000, n_trials=3)
