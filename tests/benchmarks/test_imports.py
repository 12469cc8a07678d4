"""Benchmarks are not run by the tests, but the names that they use exist."""

import ast
import importlib
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks
from benchmarks.common.problems import PROBLEMS, Group, Noise
from benchmarks.robustness import ablation

ROOT = Path(benchmarks.__file__).parent
PATHS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("name", PATHS)
def test_imports_from_the_package_exist(name):
    for node in ast.walk(ast.parse(PATHS[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "pudistill":
            module = importlib.import_module(node.module)
            for imported in node.names:
                if not hasattr(module, imported.name):
                    importlib.import_module(f"{node.module}.{imported.name}")


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    problem = next(problem for problem in PROBLEMS if problem.name == "breast_cancer")
    small = replace(problem, filter={"n_members": 3, "max_iter": 1})
    return Group(small, 0, Path("nowhere"), tmp_path_factory.mktemp("filters"))


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_variant_of_the_ablation_runs(group, name):
    noise = Noise("symmetric", 0.3)
    result = ablation.VARIANTS[name].result(group, noise, group.corrupt(noise))
    assert result["test_accuracy"] > 0.5
