"""What `TorchClassifier.fit` costs on top of a bare PyTorch loop of the same steps.

Both train the same network from the same weights on the same random pictures with the same batch
sizes, augmentation, loss, optimiser, schedule and precision. The bare loop starts with everything
on the device; `fit` also checks its input, measures the normalisation, builds the network and moves
the data. The two alternate, so that whatever else happens to the computer happens to both; each
number is a median. Run it with one thread a core, for example:

    OMP_NUM_THREADS=1 python benchmarks/training_overhead.py --network small_cnn
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pudistill.learners.augmentation import random_crop, random_flip
from pudistill.learners.networks import NETWORKS
from pudistill.learners.recipes import Recipe
from pudistill.learners.torch_classifier import TorchClassifier
from pudistill.learners.training import choose_hardware

SHAPES = {"small_cnn": (28, 28, 1), "preact_resnet18": (32, 32, 3)}
N_CLASSES = 10


def bare_loop(network, pictures, targets, recipe, device, bf16):
    """Train as a script would, and return the seconds it took."""
    module = NETWORKS[network]((pictures.shape[-1], *pictures.shape[1:3]), N_CLASSES).to(device)
    module = module.to(memory_format=torch.channels_last)
    data, wanted = torch.tensor(pictures, device=device), torch.tensor(targets, device=device)
    mean = data.float().mean((0, 1, 2))
    scale = data.float().std((0, 1, 2))
    generator = torch.Generator(device).manual_seed(0)
    optimiser = torch.optim.SGD(
        module.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    synchronise(device)
    start = time.perf_counter()
    module.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(data), generator=generator, device=device)
        for chosen in order.split(recipe.batch_size):
            batch = random_crop(random_flip(data[chosen], generator), generator)
            batch = ((batch.float() - mean) / scale).permute(0, 3, 1, 2)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = module(batch)
            loss = cross_entropy(logits.float(), wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    synchronise(device)
    return time.perf_counter() - start


def our_fit(network, pictures, targets, recipe, device, precision):
    """Return the seconds that a whole `fit` takes."""
    estimator = TorchClassifier(
        network, recipe=recipe, device=device, precision=precision, random_state=0
    )
    synchronise(device)
    start = time.perf_counter()
    estimator.fit(pictures, targets)
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=sorted(SHAPES), default="small_cnn")
    parser.add_argument("--samples", type=int, default=None, help="training pictures")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    arguments = parser.parse_args()

    hardware = choose_hardware(arguments.device, arguments.precision, pictures=True)
    on_cpu = hardware.device.type == "cpu"
    n = arguments.samples or (256 if on_cpu and arguments.network != "small_cnn" else 4096)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, *SHAPES[arguments.network]), dtype=np.uint8)
    targets = np.eye(N_CLASSES, dtype=np.float32)[rng.integers(N_CLASSES, size=n)]
    recipe = Recipe(
        epochs=arguments.epochs,
        learning_rate=0.01,
        batch_size=arguments.batch_size,
        augment=("flip", "crop"),
    )

    case = (arguments.network, pictures, targets, recipe, hardware.device)
    seconds = {"bare PyTorch": [], "TorchClassifier.fit": []}
    for trial in range(arguments.trials + 1):
        bare, ours = bare_loop(*case, hardware.bf16), our_fit(*case, arguments.precision)
        if trial:  # the first one warms the caches up
            seconds["bare PyTorch"].append(bare)
            seconds["TorchClassifier.fit"].append(ours)

    precision = "bf16" if hardware.bf16 else "fp32"
    print(
        f"{arguments.network}, {n} pictures, {recipe.epochs} epochs, batch {recipe.batch_size}, "
        f"{hardware.device}, {precision}, {torch.get_num_threads()} thread(s), "
        f"{arguments.trials} trials"
    )
    print(f"{'':<20} {'seconds':>8} {'pictures/s':>11}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<20} {median:>8.3f} {n * recipe.epochs / median:>11.0f}")
    pairs = zip(seconds["TorchClassifier.fit"], seconds["bare PyTorch"], strict=True)
    print(f"{'median ratio':<20} {statistics.median(ours / bare for ours, bare in pairs):>8.3f}")


if __name__ == "__main__":
    main()
