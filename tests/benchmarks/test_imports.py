"""Benchmarks are not run by the tests, but the names that they use exist."""

import ast
import importlib
from pathlib import Path

import pytest

import benchmarks
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


@pytest.mark.parametrize(
    "switch",
    [
        ablation.once,
        ablation.always_to_the_end,
        ablation.student_alone,
        ablation.given_labels_out,
        ablation.calibration_off,
    ],
)
def test_parts_that_the_ablation_switches_off_exist(switch):
    with switch():
        pass
