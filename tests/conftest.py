"""Fixtures shared by all tests."""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from joblib import parallel_config
from PIL import Image
from sklearn.datasets import load_sample_image

from pudistill import cli

# Time is not what these tests measure: a first call into PyTorch may take a second, and seconds
# where the machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

DATA = Path(os.environ.get("PUDISTILL_DATA", Path(__file__).parents[2] / "shared" / "data"))


# Packages of extras, whose tests are skipped where they are not installed.
OPTIONAL = {
    *("torch", "accelerate", "safetensors", "ray", "datasets", "transformers", "peft", "onnx"),
    *("onnxscript", "onnxruntime", "starlette", "uvicorn", "tensorboard", "distributed", "httpx"),
    *("imblearn", "jupytext", "nbclient", "numpydoc", "playwright", "polars", "cleanlab", "dask"),
}
MISSING = re.compile(r"No module named '(\w+)|needs? (\w+), which is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Skip the tests of a file that needs a package of an extra that is not installed."""
    return _skipped_without_packages((yield), collector.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip a test that needs a package of an extra that is not installed."""
    return _skipped_without_packages((yield), item.path)


def _skipped_without_packages(report, path):
    if report.outcome == "failed":
        names = {name for match in MISSING.findall(report.longreprtext) for name in match if name}
        missing = sorted(name for name in names & OPTIONAL if find_spec(name) is None)
        if missing:
            report.outcome = "skipped"
            report.longrepr = (str(path), 0, f"Skipped: {', '.join(missing)} is not installed")
    return report


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium of this machine; tests are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def without_workers_of_joblib():
    """Train in this process, unless a test is about workers: results are the same bits."""
    with parallel_config("sequential"):
        yield


@pytest.fixture(autouse=True)
def workers_at_once(request, monkeypatch):
    """In a test about workers, start them even if there is little to do."""
    if not request.node.get_closest_marker("workers"):
        yield
        return
    monkeypatch.setattr("pudistill.learners.parallel.PATIENCE", 0)
    with parallel_config("loky"):
        yield


@pytest.fixture(scope="session")
def real_data():
    """Path of a file of the real data sets: ``real_data("fashion-mnist")``; skips without it."""

    def find(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no {name} under {DATA}: set PUDISTILL_DATA to the folder that has it")
        return path

    return find


@pytest.fixture
def brief_training(monkeypatch):
    """Let networks learn for few epochs, where it does not matter what they know in the end."""
    recipes = pytest.importorskip("pudistill.learners.networks.recipes").RECIPES
    for recipe in recipes.values():
        for role, of_role in recipe.items():
            monkeypatch.setitem(recipe, role, of_role.changed(epochs=3))
    with parallel_config("sequential"):  # other processes would know nothing of it
        yield


@pytest.fixture
def clothing(tmp_path):
    """Make a folder in the format of Clothing1M: crops of two photographs and of their mixture."""
    root = tmp_path / "clothing1m"
    photographs = [load_sample_image(name).astype(float) for name in ("china.jpg", "flower.jpg")]
    photographs.append(np.mean(photographs, axis=0))
    rng = np.random.default_rng(0)
    lists = {"noisy_train": 24, "clean_train": 12, "clean_val": 9, "clean_test": 12}
    labels: dict[str, list[str]] = {"noisy": [], "clean": []}
    for part, n_pictures in lists.items():
        keys = []
        for n in range(n_pictures):
            code = n % 3  # T-Shirt, Shirt, Knitwear
            key = f"images/{n % 2}/{part}-{n}.jpg"
            top, left = rng.integers(0, 427 - 64), rng.integers(0, 640 - 48)
            crop = photographs[code][top : top + 64, left : left + 48]
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop.astype(np.uint8)).save(root / key)
            keys.append(key)
            if part != "noisy_train":
                labels["clean"].append(f"{key} {code}")
            if part.endswith("train"):
                labels["noisy"].append(f"{key} {code if n % 4 else (code + 1) % 3}")
        (root / f"{part}_key_list.txt").write_text("\n".join(keys) + "\n")
    for kind, lines in labels.items():
        (root / f"{kind}_label_kv.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def tiny_resnet(tmp_path_factory):
    """Store a small ResNet of random weights, always the same, as the hub stores one."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("hub") / "resnet-50"
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a command as a user would: ``command("fit", ...)`` gives exit code, stdout, stderr.

    Learners are trained in this process: starting workers takes longer than these small trainings.
    """
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["pudistill", *map(str, args)])
        with pytest.raises(SystemExit) as end, parallel_config("sequential"):
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run
