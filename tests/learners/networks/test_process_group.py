"""Two processes that train together, by gloo on the CPU, make the steps of one process."""

import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from pudistill.exceptions import InputError
from pudistill.learners.networks import launch
from pudistill.learners.networks.architectures import mlp, small_cnn
from pudistill.learners.networks.batches import move_to_device
from pudistill.learners.networks.hardware import Hardware, seeded
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.likelihood import Likelihood
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    _open_mapped,
    copy_with_synchronised_norm,
)
from pudistill.learners.networks.recipes import Recipe
from pudistill.learners.networks.trainer import Trainer
from pudistill.methods.l_dmi import Determinant
from pudistill.utils.mapped import MappedArray

CPU = Hardware(torch.device("cpu"), torch.float32, bf16=False)
LIKELIHOOD = Likelihood()
EXACT = replace(CPU, dtype=torch.float64)
PLAIN = Recipe(epochs=2, learning_rate=0.05, batch_size=10, augment=("flip", "crop"))
MIXED = replace(PLAIN, mixup=2.0, entropy_weight=0.8)


def job(factory=mlp, recipe=PLAIN, hardware=EXACT, **changes):
    """Make a training of 41 pictures, whose batches are of uneven size."""
    rng = np.random.RandomState(0)
    inputs = rng.randint(0, 256, (41, 8, 8, 1), dtype=np.uint8)
    with seeded(0, hardware.device):
        network = factory((1, 8, 8), 3).to(hardware.dtype)
    job = Job(
        network,
        inputs,
        np.eye(3)[rng.randint(3, size=41)],
        Normalisation.of(inputs, np.ones(41)),
        recipe,
        hardware,
        rng,
        weights=rng.uniform(0.5, 1.5, 41),
    )
    likelihoods = rng.rand(41, 3) if changes.get("objective") is LIKELIHOOD else job.targets
    return replace(job, targets=likelihoods, **changes)


TRAININGS = {
    "mixup and entropy": {"recipe": MIXED},
    "consistency": {
        "recipe": replace(PLAIN, consistency_weight=0.5),
        "objective": LIKELIHOOD,
    },
    "balanced": {"balanced": True},
    "a loss of the batch as a whole": {"objective": Determinant()},
    "batches of three": {"recipe": replace(MIXED, batch_size=3)},
    "batch normalisation, batches of three": {
        "recipe": replace(MIXED, batch_size=3),
        "factory": small_cnn,
    },
}


def trained(job, group=SINGLE_PROCESS):
    trainer = Trainer([job], group)
    losses = [trainer.run_epoch() for _ in range(job.recipe.epochs)]
    return [np.array(losses), *(value.numpy() for value in job.module.state_dict().values())]


def in_two_processes(work, folder):
    """Call `work` in both processes with a process group and a folder for the results."""
    # Imports take most of the time: a server makes them once, and both processes fork from it.
    multiprocessing.set_forkserver_preload(["pytest", "torch._dynamo", Determinant.__module__])
    multiprocessing.start_processes(_member, (work, folder), 2, start_method="forkserver")


def _member(rank, work, folder):
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    work(ProcessGroup(rank, 2, CPU.device, distributed.new_group(backend="gloo")), folder)


def _train_and_send(group, folder):
    found = {name: trained(job(**changes), group) for name, changes in TRAININGS.items()}
    in_file = np.load(folder / "pictures.npy", mmap_mode="r")
    sys.modules[move_to_device.__module__].LARGEST_SHARE = 0
    found["streamed"] = trained(job(recipe=MIXED, inputs=np.asarray(in_file)), group)
    found["statistics"] = trained(job(small_cnn, hardware=CPU), group)
    torch.save(found, folder / f"{group.rank}.pt")

    if group.rank == 0:
        group.send("look", np.asarray(in_file)[3:], np.arange(6.0).reshape(2, 3).T)
    else:
        message, mapped, array = group.receive()
        assert message == "look"
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, in_file[3:])
        np.testing.assert_array_equal(array, np.arange(6.0).reshape(2, 3).T)
        return  # which ends this process
    with pytest.raises(ConnectionError, match=r"One of the 2 processes .* has ended"):
        group.receive()


def test_two_processes_make_the_steps_of_one(tmp_path):
    np.save(tmp_path / "pictures.npy", job().inputs)
    in_two_processes(_train_and_send, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    for name, arrays in first.items():
        for array, other in zip(arrays, second[name], strict=True):
            np.testing.assert_array_equal(array, other, err_msg=name)
    statistics = first.pop("statistics")
    assert all(np.isfinite(array).all() for array in statistics)
    streamed = first.pop("streamed")
    for array, other in zip(streamed, first["mixup and entropy"], strict=True):
        np.testing.assert_array_equal(array, other)
    for name, arrays in first.items():
        for array, expected in zip(arrays, trained(job(**TRAININGS[name])), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_part_for_each_process():
    parts = [ProcessGroup(rank, 3).part(10) for rank in range(3)]
    assert [row for part in parts for row in range(10)[part]] == list(range(10))
    # If the rows are too few for all processes, each computes all of them.
    assert [ProcessGroup(rank, 3).part(5) for rank in range(3)] == [slice(0, 5)] * 3
    assert (ProcessGroup(0, 3).n_copies(10), ProcessGroup(0, 3).n_copies(5)) == (1, 3)


def test_a_synchronised_network_is_the_same_network():
    network = small_cnn((1, 8, 8), 3)
    copied = copy_with_synchronised_norm(network)
    assert [type(layer) for layer in network.modules() if "Norm" in type(layer).__name__] == [
        nn.BatchNorm2d
    ] * 4
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in copied.modules()) == 4
    for (name, value), (other_name, other) in zip(
        network.state_dict(keep_vars=True).items(),
        copied.state_dict(keep_vars=True).items(),
        strict=True,
    ):
        assert name == other_name
        assert value is other


def test_a_file_that_another_machine_does_not_have_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.npy cannot be read by all processes .*same path"):
        _open_mapped(MappedArray(str(tmp_path / "gone.npy"), np.dtype("u1"), 0, (3,)))


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_a_process_without_memory_ends_so_that_the_others_do_not_wait_for_it(monkeypatch, error):
    class Failing(Trainer):
        def run_epoch(self):
            raise InputError("It cannot compute a batch.") from error("reason")

    class Scripted(ProcessGroup):
        def receive(self):
            return next(messages)

    training = job()
    messages = iter([("train", training, Trainer([training]).state()), ("epoch",), ("end",)])
    monkeypatch.setattr(launch, "Trainer", Failing)
    monkeypatch.setattr(launch.signal, "signal", lambda *_: None)
    monkeypatch.setattr(launch.distributed, "destroy_process_group", lambda: None)
    ends_early = pytest.raises(InputError) if error is torch.OutOfMemoryError else nullcontext()
    with ends_early:
        launch._train_with_main(Scripted())
