"""The structure of the package: each layer imports only from those below it, no module imports
another in a circle, and no module uses a private name of another.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pudistill

ROOT = Path(pudistill.__file__).parent
# From the top layer down.
LAYERS = (
    "cli",
    "experiments",
    "review",
    "runs",
    "plots",
    "methods",
    "classifier",
    "distillation",
    "pu_filter",
    "learners",
    "estimates",
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


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names_of_others(source: str) -> list[str]:
    """Private names that a source imports, or reads from an imported module of the package."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules, found = {}, []  # modules: local name -> full name
    for node in imports:
        for alias in node.names:
            if isinstance(node, ast.Import):
                full, local = alias.name, alias.asname or alias.name
            else:
                full, local = f"{node.module}.{alias.name}", alias.asname or alias.name
            if full.split(".")[0] != "pudistill":
                continue
            if any(map(is_private, full.split("."))):
                found.append(full)
            if full in MODULES:
                modules[local] = full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            module = modules.get(ast.unparse(node.value))
            if module is not None:
                found.append(f"{module}.{node.attr}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_uses_no_private_name_of_another(module):
    assert private_names_of_others(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from pudistill.utils.files import _sum",
        "import pudistill.utils.files\npudistill.utils.files._sum()",
        "import pudistill.utils.files as files\nfiles._sum()",
        "def f():\n    from pudistill.utils import files\n    files._sum()",
    ],
)
def test_a_private_name_of_another_module_is_found(source):
    assert private_names_of_others(source) == ["pudistill.utils.files._sum"]


def missing_names(text: str) -> list[str]:
    """Names of modules, or of what they hold, that a text mentions and the package lacks."""
    names = set(re.findall(r"\bpudistill(?:\.[a-z]\w*)+", text))
    for module, listed in re.findall(r"from (pudistill[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{name}" for name in re.findall(r"\w+", listed.split(" as ")[0])}
    missing = []
    for name in sorted(names):
        module, rest = name, []
        while module not in MODULES:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
        source = MODULES[module].read_text(encoding="utf-8")
        if rest and not re.search(rf"\b{rest[0]}\b", source):
            missing.append(name)
    return missing


# Tests and benchmarks also name modules in programs that they start, and in what they patch.
@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "docs"])
def test_every_name_of_the_package_that_a_file_mentions_exists(folder):
    files = [
        path
        for path in sorted((Path(__file__).parents[1] / folder).rglob("*"))
        if path.suffix in (".py", ".md")
        and path != Path(__file__)
        and "generated" not in path.parts  # copies that the site shows
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    found = {str(path): missing_names(text) for path, text in texts.items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from pudistill.utils import rowfile",
        "`pudistill.utils.rowfile.rows`",
        'code = "import pudistill.utils.rowfile"',
    ],
)
def test_a_name_that_the_package_lacks_is_found(text):
    assert missing_names(text)[0].startswith("pudistill.utils.rowfile")


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
