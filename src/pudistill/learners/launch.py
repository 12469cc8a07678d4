"""What the processes of a launcher do: the first runs the program, the others train with it.

Only the first one reads data, filters, compares and writes: the others know of a run what it tells
them, a training at a time, and so there is nothing that they could disagree about.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import distributed

from pudistill.exceptions import InputError
from pudistill.learners.team import Team, leading
from pudistill.learners.training import Trainer

# The filter may take days, in which the others have nothing to do.
PATIENCE = timedelta(days=1000)
# What a launcher says to its processes, and not to the workers that these start.
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def run(program: Callable[[], None]) -> None:
    """Run a program in the first process of a launcher; the others train networks with it.

    Parameters
    ----------
    program : callable
        Is called without arguments, in the first process only.

    Raises
    ------
    ConnectionError
        If another process has ended.
    InputError
        If the processes cannot meet.
    """
    team = _join()
    if team.rank > 0:
        _help(team)
        return
    try:
        with leading(team):
            program()
    except SystemExit as end:
        if end.code:
            raise
    # Not after an error: the others may be amid an epoch, and not listen. They end when they find
    # that this process has.
    _dismiss(team)


def _join() -> Team:
    """Meet the other processes."""
    try:
        # Without an accelerator, PartialState takes no notice of a launcher unless it is told to.
        state = PartialState(cpu=not torch.accelerator.is_available())
        messages = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The processes of the launcher cannot work together ({error}): start no more than one "
            "a GPU, with torchrun or accelerate launch."
        ) from error
    for name in VARIABLES:
        os.environ.pop(name, None)
    return Team(state.process_index, state.num_processes, state.device, messages)


def _dismiss(team: Team) -> None:
    """Send the others home."""
    if team.size > 1 and not team.n_messages:
        warnings.warn(
            f"One of {team.size} processes did everything: together they train networks that are "
            "teachers or students, of which there was none to be trained.",
            stacklevel=2,
        )
    team.tell("end")
    distributed.destroy_process_group()


def _help(team: Team) -> None:
    """Take part in trainings until there are no more; what is to be said, the first one says."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes
    warnings.simplefilter("ignore")
    try:
        while True:
            match team.listen():
                case ("train", job, state):
                    job.module.to(team.device)
                    hardware = replace(job.hardware, device=team.device)
                    trainer = Trainer([replace(job, hardware=hardware)], team)
                    trainer.restore(state)
                case ("epoch",):
                    # For dropout, of which each process has its own.
                    torch.manual_seed(team.size * trainer.epoch + team.rank)
                    with suppress(InputError):  # as in the first process, which knows what to do
                        trainer.run_epoch()
                case ("end",):
                    break
    except ConnectionError:
        sys.exit(1)
    distributed.destroy_process_group()
