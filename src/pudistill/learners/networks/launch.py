"""The launcher's processes: the main process runs the program, the others train networks with it.

Only the main process reads data, filters, compares and writes. It sends the others one training at
a time, so that they need not agree on anything else.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import torch
from accelerate import PartialState
from torch import distributed

from pudistill.exceptions import InputError, warn_user
from pudistill.learners.networks.process_group import ProcessGroup, training_in
from pudistill.learners.networks.trainer import Trainer

# The filter can take days, during which the other processes wait.
PATIENCE = timedelta(days=1000)
# Set by the launcher for its own processes; the workers that these start must not see them.
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def run(program: Callable[[], None]) -> None:
    """Run a program in the main process of a launcher; the others train networks with it.

    Parameters
    ----------
    program : callable
        Called without arguments, in the main process only.

    Raises
    ------
    ConnectionError
        If another process has ended.
    InputError
        If the processes cannot connect.
    """
    group = _connect()
    if group.rank > 0:
        _train_with_main(group)
        return
    try:
        with training_in(group):
            program()
    except SystemExit as end:
        if end.code:
            raise
    # Not after an error: the others can be in the middle of an epoch and would not receive the
    # message. They end when they find that this process has ended.
    _release(group)


def _connect() -> ProcessGroup:
    """Connect to the other processes."""
    try:
        # Without an accelerator, PartialState ignores a launcher unless `cpu` is true.
        state = PartialState(cpu=not torch.accelerator.is_available())
        messages = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The processes of the launcher cannot connect ({error}): start at most one "
            "per GPU, with torchrun or accelerate launch."
        ) from error
    for name in VARIABLES:
        os.environ.pop(name, None)
    return ProcessGroup(state.process_index, state.num_processes, state.device, messages)


def _release(group: ProcessGroup) -> None:
    """Let the other processes end."""
    if group.size > 1 and not group.n_messages:
        warn_user(
            f"One of {group.size} processes did all the work: together they train only teachers "
            "and students that are networks, and there were none.",
            UserWarning,
        )
    group.send("end")
    distributed.destroy_process_group()


def _train_with_main(group: ProcessGroup) -> None:
    """Train with the main process until it ends; leave all messages to the user to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes
    warnings.simplefilter("ignore")
    try:
        while True:
            match group.receive():
                case ("train", job, state):
                    job.module.to(group.device)
                    hardware = replace(job.hardware, device=group.device)
                    trainer = Trainer([replace(job, hardware=hardware)], group)
                    trainer.restore(state)
                case ("epoch",):
                    # Seeds dropout, which each process draws for its own part of the batch.
                    numbers = (trainer.jobs[0].seed, trainer.epoch, group.rank)
                    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
                    try:
                        trainer.run_epoch()
                    except InputError as error:
                        # The main process meets the same error, but may itself have enough memory:
                        # it would wait for this process forever.
                        if isinstance(error.__cause__, torch.OutOfMemoryError):
                            raise
                case ("end",):
                    break
    except ConnectionError:
        sys.exit(1)
    distributed.destroy_process_group()
