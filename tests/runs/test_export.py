"""`pudistill export`: one network in a file that needs no pudistill."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pudistill import TorchClassifier
from pudistill.exceptions import DataWarning, InputError
from pudistill.learners.networks.exported import as_onnx, as_torch_export
from pudistill.learners.networks.recipes import Recipe
from tests.helpers.pictures import digit_pictures


@pytest.fixture(scope="module")
def pictures():
    X, y = digit_pictures(120)
    return X, y % 3


@pytest.fixture(scope="module")
def network(pictures):
    return TorchClassifier("small_cnn", epochs=2, random_state=0).fit(*pictures)


@pytest.mark.slow
def test_an_exported_program_gives_the_same_probabilities(network, pictures, tmp_path):
    X, _ = pictures
    as_torch_export(network, tmp_path / "model.pt2", {"classes": "[0, 1, 2]"})
    extra = {"classes": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    for n in (1, 7, 120):
        found = program(torch.from_numpy(X[:n])).numpy(force=True)
        np.testing.assert_allclose(found, network.predict_proba(X[:n]), atol=2e-2)
    assert json.loads(extra["classes"]) == [0, 1, 2]


def test_a_table(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    table = TorchClassifier("mlp", epochs=2, random_state=0).fit(X, y)
    as_torch_export(table, tmp_path / "table.pt2", {})
    program = torch.export.load(tmp_path / "table.pt2").module()
    found = program(torch.tensor(X, dtype=torch.float32)).numpy(force=True)
    np.testing.assert_allclose(found, table.predict_proba(X), atol=1e-5)


def test_a_feature_that_single_precision_loses_is_named(tmp_path):
    X = np.random.default_rng(0).normal((0, 1.7e9), 1, (60, 2))
    network = TorchClassifier(epochs=1, random_state=0).fit(X, np.arange(60) % 2)
    with pytest.warns(DataWarning, match="Feature number 1 varies so little"):
        as_torch_export(network, tmp_path / "model.pt2", {})


def test_the_file_takes_pictures_as_the_network_sees_them(pictures, tmp_path):
    X, y = pictures
    recipe = Recipe(epochs=1, learning_rate=0.1, centre_crop=6)
    cropped = TorchClassifier(recipe=recipe, random_state=0).fit(X, y)
    as_torch_export(cropped, tmp_path / "cropped.pt2", {})
    program = torch.export.load(tmp_path / "cropped.pt2").module()
    found = program(torch.tensor(X[:, 1:7, 1:7])).numpy(force=True)
    np.testing.assert_allclose(found, cropped.predict_proba(X), atol=0.02)


LOADER = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
classes = np.array(json.loads(session.get_modelmeta().custom_metadata_map["classes"]))
(probabilities,) = session.run(None, {"samples": np.load("samples.npy")})
np.save("found.npy", classes[probabilities.argmax(axis=1)])
assert not any(name in sys.modules for name in ("pudistill", "torch"))
"""


@pytest.mark.slow  # the exporter loads packages for seconds
def test_onnxruntime_predicts_the_same_classes_without_pudistill(
    network, pictures, tmp_path, monkeypatch
):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    X, _ = pictures
    as_onnx(network, tmp_path / "model.onnx", {"classes": "[0, 1, 2]"})
    np.save(tmp_path / "samples.npy", X)
    subprocess.run([sys.executable, "-c", LOADER], cwd=tmp_path, check=True)
    same = np.load(tmp_path / "found.npy") == network.predict(X)
    assert same.mean() > 0.98


class Bessel(nn.Module):
    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.last = nn.Linear(int(np.prod(in_shape)), n_classes)

    def forward(self, x):
        return self.last(torch.special.i0e(x.flatten(1)))


@pytest.mark.slow
def test_an_operator_that_onnx_lacks_is_named(pictures, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    own = TorchClassifier(Bessel, epochs=1, random_state=0).fit(*pictures)
    with pytest.raises(InputError, match=r"Bessel .* lacks the operator prims\.bessel_i0e"):
        as_onnx(own, tmp_path / "model.onnx", {})


class DependsOnValues(nn.Module):
    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.last = nn.Linear(int(np.prod(in_shape)), n_classes)

    def forward(self, x):
        return self.last(x.flatten(1)) * (2 if float(x.sum()) > 0 else 1)


def test_a_network_that_cannot_be_exported_is_named(pictures, tmp_path):
    own = TorchClassifier(DependsOnValues, epochs=1, random_state=0).fit(*pictures)
    problem = r"DependsOnValues cannot be exported by PyTorch .*, and remove branches that depend"
    with pytest.raises(InputError, match=problem):
        as_torch_export(own, tmp_path / "model.pt2", {})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_not_the_fault_of_the_network(tmp_path, monkeypatch):
    table = TorchClassifier("mlp", epochs=1, random_state=0).fit(np.eye(4), [0, 1, 0, 1])

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        as_torch_export(table, tmp_path / "model.pt2", {})


@pytest.mark.slow  # PyTorch's exporter loads packages for seconds
@pytest.mark.filterwarnings("ignore")
def test_the_command_exports_a_run_of_one_network(pictures, command, tmp_path):
    X, y = pictures
    np.savez(tmp_path / "data.npz", X=X, y=y, trusted=np.arange(120) % 3 == 0)
    quick = ("--epochs", 1, "--n-members", 2, "--max-iter", 1, "--device", "cpu")
    code, _, err = command(
        "fit", "data.npz", "--single-model", *quick, "--learner", "mlp", "--output", "run"
    )
    assert code == 0, err
    assert len(list((tmp_path / "run" / "model").glob("learner-*"))) == 1
    code, _, err = command("export", "run", "--to", "model.pt2")
    assert code == 0, err
    assert (tmp_path / "model.pt2").is_file()
    for to, problem in (("model.pt2", "already exists"), ("model.txt", "neither .onnx nor .pt2")):
        code, _, err = command("export", "run", "--to", to)
        assert code == 2
        assert problem in err.replace("\n", " ")


def test_a_mixture_becomes_one_model_that_predicts_alike(pictures):
    from pudistill.distillation.problem import Problem
    from pudistill.distillation.shipping import distilled
    from pudistill.labels.checks import check_labels
    from pudistill.learners.calibration import Temperature
    from pudistill.learners.defaults import default_learner
    from pudistill.learners.scoring import Mixture

    X, y = pictures[0].reshape(120, -1).astype(float), pictures[1]
    members = [default_learner(X).fit(X[part::2], y[part::2]) for part in range(2)]
    mixture = Mixture(members, [0.5, 0.5], [Temperature()] * 2, 3)
    labels = check_labels(y, np.arange(120) % 4 == 0)
    model, note = distilled(Problem(X, labels, default_learner(X), None, 0), mixture)
    same = (model.predict_proba(X).argmax(axis=1) == mixture.predict_proba(X).argmax(axis=1)).mean()
    assert same > 0.95
    assert f"{same:.1%} of the samples" in note
