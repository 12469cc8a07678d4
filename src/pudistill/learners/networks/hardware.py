"""Device, precision and global random state of a network."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pudistill.exceptions import InputError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Hardware:
    """The device and the precision in which a network computes.

    Parameters
    ----------
    device : torch.device
        Holds the data and the network.
    dtype : torch.dtype
        Type of weights, normalised inputs, targets and loss.
    bf16 : bool
        Whether convolutions and matrix products compute in bfloat16 (by autocast; weights and loss
        stay in `dtype`).
    """

    device: torch.device
    dtype: torch.dtype
    bf16: bool

    def autocast(self) -> torch.autocast:
        """Return the context in which the network's forward pass runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def supported(self, inputs: Any) -> Any:
        """Return samples in a type that the device has: a Mac's GPU has no float64."""
        if self.device.type == "mps" and inputs.dtype == np.float64:
            return inputs.astype(np.float32)
        return inputs


def choose_hardware(
    device: str | torch.device, precision: Precision, *, is_table: bool
) -> Hardware:
    """Choose device and precision.

    `accelerate` chooses the device: the best available device or, under a launcher, that of this
    process. Its ``Accelerator`` is not used, because it fixes one precision for the whole process,
    which can train networks in different precisions.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"``, or any value that :class:`torch.device` accepts.
    precision : {"auto", "fp32", "bf16"}
        ``"auto"`` means bfloat16 if the hardware computes it itself, except for feature tables.
        Those on a CPU are cheap, so they use float64, in which a sample of weight 2 and two copies
        of it give the same network up to the last digits.
    is_table : bool
        Whether the samples are a feature table, and not pictures or texts.

    Returns
    -------
    hardware : Hardware

    Examples
    --------
    >>> from pudistill.learners.networks.hardware import choose_hardware
    >>> choose_hardware("cpu", "fp32", is_table=False)
    Hardware(device=device(type='cpu'), dtype=torch.float32, bf16=False)
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f'precision={precision!r} must be "auto", "fp32" or "bf16".')
    if device == "auto":
        # Imported here, because a named device does not need accelerate.
        from accelerate import PartialState

        chosen = PartialState().device
    else:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen).tolist()  # "meta" holds no values
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            raise InputError(
                f'device={device!r} is not available on this machine: pass "cpu", or "auto" for '
                "the best available device."
            ) from error
    if precision != "auto":
        return Hardware(chosen, torch.float32, bf16=precision == "bf16")
    if is_table:
        return Hardware(
            chosen, torch.float64 if chosen.type == "cpu" else torch.float32, bf16=False
        )
    return Hardware(chosen, torch.float32, bf16=_computes_bf16(chosen))


def _computes_bf16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 itself, faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Measured with AVX-512 BF16, one thread, channels_last: training is 1.3 times (small_cnn)
        # to 2 times (preact_resnet18) as fast as in float32. Without AVX-512 BF16, PyTorch
        # emulates bfloat16.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


_seeding = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators of the CPU and of `device`, and restore them after it.

    Initial weights and dropout can draw from these generators only. Threads take turns, so that
    the result depends only on the seed.
    """
    accelerators = [] if device.type == "cpu" else [device]
    device_type = "cuda" if device.type == "cpu" else device.type
    with _seeding, torch.random.fork_rng(accelerators, device_type=device_type):
        # Not by `torch.manual_seed`, which seeds all GPUs: only that of `device` is restored.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif accelerators:
            torch.get_device_module(device).manual_seed(seed)
        yield


def global_random_states(device: torch.device) -> list[np.ndarray]:
    """Return the states of PyTorch's global generators: the CPU's, and that of a GPU."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return [state.numpy() for state in states]


def set_global_random_states(states: list[np.ndarray], device: torch.device) -> None:
    """Restore the states from `global_random_states`; to be called inside `seeded`."""
    cpu_state, *gpu_states = (torch.tensor(state) for state in states)
    torch.set_rng_state(cpu_state)
    for state in gpu_states:
        torch.get_device_module(device).set_rng_state(state, device)
