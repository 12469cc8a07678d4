"""The layers of the package: each imports only from lower layers, and never in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pudistill

ROOT = Path(pudistill.__file__).parent
# From the top layer down.
LAYERS = (
    "cli",
    "experiments",
    "runs",
    "methods",
    "classifier",
    "distillation",
    "pu_filter",
    "learners",
    "labels",
    "data",
    "utils",
    "exceptions",
)
# Users import these modules; they load the rest lazily, by name.
ENTRANCES = ("pudistill", "pudistill.__main__")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(source: str) -> set[str]:
    """Names of the package's modules that a source imports, lazily or not, except for types."""
    tree = ast.parse(source)
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Imports are absolute."
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return names & set(MODULES)


def layer_of(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


def upward_imports(module: str, source: str) -> list[str]:
    """Imports of a module from a layer above its own."""
    return [
        f"{module} imports {imported}, which is above it"
        for imported in sorted(imports_of(source) - set(ENTRANCES))
        if layer_of(imported) < layer_of(module)
    ]


def test_the_top_of_the_package_holds_its_layers_and_nothing_else():
    entries = {path.stem for path in ROOT.iterdir() if path.name not in ("__pycache__", "py.typed")}
    assert entries == {*LAYERS, "__init__", "__main__"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(ENTRANCES)))
def test_a_module_imports_only_from_below(module):
    assert upward_imports(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_an_upward_import_is_found():
    source = "def fit():\n    from pudistill.runs.fit import fit_run\n"
    assert upward_imports("pudistill.utils.files", source) == [
        "pudistill.utils.files imports pudistill.runs.fit, which is above it"
    ]


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: imports_of(path.read_text(encoding="utf-8")) - {module, *ENTRANCES}
        for module, path in MODULES.items()
        if module not in ENTRANCES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize(
    "path", [path for path in MODULES.values() if path.name == "__init__.py"], ids=module_name
)
def test_an_init_file_has_no_logic(path):
    if path.parent in (ROOT, ROOT / "methods"):  # they import lazily
        return
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    assert all(isinstance(statement, kinds) for statement in statements)
