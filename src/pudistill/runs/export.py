"""`pudistill export`: the network of a run as one file that needs no pudistill."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pudistill.exceptions import InputError, torch_extra
from pudistill.learners.scoring import Mixture
from pudistill.learners.storage import is_network
from pudistill.runs.folder import Run
from pudistill.utils.files import write_atomic

SUFFIXES = (".onnx", ".pt2")


def export_run(run: Run, output: Path, *, module: Any = None) -> None:
    """Write the network of a run as one file.

    Parameters
    ----------
    run : Run
        A finished run whose model is one network.
    output : Path
        The file, ``.onnx`` or ``.pt2`` (`torch.export`). It maps samples to probabilities, and
        holds the names of the classes. Samples are a table of float32, or uint8 pictures of exactly
        the size that the network sees (after the recipe's centre crop), of shape
        ``(n, height, width)`` if grey and ``(n, height, width, 3)`` in colour.
    module : callable or nn.Module, optional
        The network of the user's own, if the run used one.

    Raises
    ------
    InputError
        If the run holds no such network, or the format lacks one of its operators.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output} ends in neither .onnx nor .pt2: name a file of such a format.")
    classifier = run.read_model(module)
    network = _only_network(classifier, run)
    with torch_extra():
        from pudistill.learners.networks.exported import as_onnx, as_torch_export
    export: Callable[..., None] = as_onnx if output.suffix == ".onnx" else as_torch_export
    about = {"classes": json.dumps(classifier.classes_.tolist())}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / output.name
        export(network, path, about)
        write_atomic(output, path.read_bytes())


def _only_network(classifier: Any, run: Run) -> Any:
    """Return the network of a classifier; raise `InputError` if it is anything else."""
    model = classifier.fitted_model
    if isinstance(model, Mixture):
        raise InputError(
            f"The model of {run.path} is a mixture of calibrated models: fit with --single-model "
            "to get one network."
        )
    if not is_network(model):
        raise InputError(
            f"The model of {run.path} is {type(model).__name__}, which is no network: fit with "
            "--learner mlp for tables, or small_cnn or another network for pictures."
        )
    if classifier.encoder_ is not None:
        raise InputError(
            f"The run in {run.path} encodes words before its network, which no exported file can "
            "do: use `pudistill predict`."
        )
    return model
