"""A fitted network as a file that other programs run: ONNX, or PyTorch's own `torch.export`."""

import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.learners.networks.own import reason_of

LARGEST_MEAN = 2**18  # of a feature, as a multiple of its scale: single precision has 24 bits


class RawToProbabilities(nn.Module):
    """A network with what pudistill does before and after it.

    Parameters
    ----------
    estimator : TorchClassifier
        Fitted on pictures or a table.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.network = copy.deepcopy(estimator.module_).cpu().float().eval()
        scales = estimator.normalisation_
        self.register_buffer("mean", torch.as_tensor(scales.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scales.scale, dtype=torch.float32))

    def forward(self, samples: Tensor) -> Tensor:
        """Map samples, of which pictures have been cropped, to probabilities ``(n, n_classes)``."""
        if samples.ndim == 3:  # grey pictures
            samples = samples[..., None]
        values = (samples.float() - self.mean) / self.scale
        if values.ndim == 4:
            values = values.permute(0, 3, 1, 2)
        return self.network(values).softmax(dim=1)


def as_onnx(estimator: Any, path: Path, about: dict[str, str]) -> None:
    """Write a fitted network as ONNX.

    Parameters
    ----------
    estimator : TorchClassifier
        The network. The file takes pictures of the size of ``in_shape_`` only: those of `fit`,
        after the centre crop of its recipe.
    path : Path
        The file.
    about : dict of str to str
        Stored as metadata.

    Raises
    ------
    InputError
        If a package is missing, or ONNX lacks an operator of the network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # PyTorch needs it
    except ModuleNotFoundError as error:
        raise InputError(
            f"ONNX needs {error.name}, which is not installed: pip install 'pudistill[onnx]', or "
            "export to .pt2."
        ) from error
    _warn_of_lost_features(estimator)
    name = type(estimator.module_).__name__
    with _failing_as(f"The network {name} cannot be written as ONNX", "export it to .pt2"):
        program = torch.onnx.export(
            _program_of(estimator),
            dynamo=True,
            input_names=["samples"],
            output_names=["probabilities"],
        )
        assert program is not None
        model = program.model_proto
        onnx.helper.set_model_props(model, about)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())


def as_torch_export(estimator: Any, path: Path, about: dict[str, str]) -> None:
    """Write a fitted network by `torch.export`; parameters and errors are those of `as_onnx`."""
    _warn_of_lost_features(estimator)
    content = io.BytesIO()  # PyTorch's own errors of a full disk look like any other
    torch.export.save(_program_of(estimator), content, extra_files=about)
    path.write_bytes(content.getvalue())


def _warn_of_lost_features(estimator: Any) -> None:
    scales = estimator.normalisation_
    lost = np.abs(scales.mean) > LARGEST_MEAN * scales.scale
    if lost.any():
        warn_user(
            f"Feature number {lost.argmax()} varies so little beside its mean that it is lost in "
            "single precision, in which the file reads it: subtract the mean from it, and train "
            "again.",
            DataWarning,
        )


def _program_of(estimator: Any) -> ExportedProgram:
    if not estimator.in_shape_:
        raise InputError(
            "A network of texts needs its tokenizer beside it, which no exported file can hold: "
            "use `pudistill predict`."
        )
    channels, *sides = estimator.in_shape_
    example = torch.zeros(2, channels)
    if sides:
        shape = (2, *sides) if channels == 1 else (2, *sides, channels)
        example = torch.zeros(shape, dtype=torch.uint8)
    batch = Dim("n", min=1)
    problem = f"The network {type(estimator.module_).__name__} cannot be exported by PyTorch"
    with _failing_as(problem, _REMEDY):
        return torch.export.export(
            RawToProbabilities(estimator), (example,), dynamic_shapes=({0: batch},)
        )
    raise AssertionError("_failing_as raises, too")


_REMEDY = (
    "write x.shape[0] for len(x) in its forward(), and remove branches that depend on the values "
    "of tensors"
)


@contextmanager
def _failing_as(problem: str, remedy: str) -> Iterator[None]:
    """Raise whatever PyTorch raises as an `InputError`; silence what it prints and logs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    except (InputError, OSError):  # such as that of a full disk
        raise
    except Exception as error:  # of any kind
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        lacks = re.search(r"target=torch\.ops\.([\w.]+)", str(cause))
        reason = f"it lacks the operator {lacks[1]}" if lacks else reason_of(cause)
        raise InputError(f"{problem} ({reason}): {remedy}.") from error
    finally:
        logging.disable(disabled)
