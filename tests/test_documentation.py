"""Every public name has a page of the reference, and its docstring says all that a user needs."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

import pudistill
import pudistill.methods
import pudistill.plots
from pudistill.exceptions import InputError
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.registry import OBJECTIVES

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
NAMES = re.findall(r"^   ~(pudistill\.\S+)$", REFERENCE.read_text("utf-8"), re.MULTILINE)
# Rules of numpydoc that do not hold here: where lines begin (GL01 to GL03), a third person in the
# first line (SS05), an extended summary (ES01), See Also (SA01) and names of results (RT02).
NOT_OURS = {"GL01", "GL02", "GL03", "SS05", "ES01", "SA01", "RT02"}
# A text, and a module whose functions have pages.
NO_PAGE = {"__version__", "plots"}
# What no paper describes.
OF_NO_PAPER = {
    *("CrossEntropy", "CrossEntropyClassifier", "MajorityVoteClassifier"),
    *("Objective", "RobustLoss", "TargetLoss"),
}


def find(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def docstring(thing):
    return get_doc_object(thing, config={"show_class_members": False})


def fields_of(thing):
    """Return the fields of a result, which its section Attributes documents; else nothing."""
    if hasattr(thing, "_fields"):
        return set(thing._fields)
    if not dataclasses.is_dataclass(thing) or docstring(thing)["Parameters"]:
        return set()
    return {field.name for field in dataclasses.fields(thing)}


def documented(entries):
    return {name for entry in entries for name in entry.name.split(", ")}


def test_every_public_name_has_a_page():
    public = [f"pudistill.{name}" for name in pudistill.__all__ if name not in NO_PAGE]
    public += [f"pudistill.plots.{name}" for name in pudistill.plots.__all__]
    public += [f"pudistill.methods.{name}" for name in pudistill.methods.__all__]
    public += [f"{loss.__module__}.{loss.__name__}" for loss in OBJECTIVES.values()]
    assert sorted(set(public) - set(NAMES)) == []
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_of_a_public_name_is_complete(name):
    thing = find(name)
    doc, fields = docstring(thing), fields_of(thing)
    wrong = [error for error in validate(name)["errors"] if error[0] not in NOT_OURS]
    if fields:
        wrong = [error for error in wrong if error[0] != "PR01"]
        assert fields <= documented(doc["Attributes"])
    if isinstance(thing, type) and issubclass(thing, InputError | Warning):
        wrong = [error for error in wrong if error[0] != "PR01"]
    assert wrong == []
    entries = doc["Parameters"] + doc["Attributes"]
    assert [entry.name for entry in entries if not entry.type] == []
    assert ">>>" in "\n".join(doc["Examples"])
    assert not re.search(r"^\s+raise ", raising_code(thing), re.MULTILINE) or doc["Raises"]


def raising_code(thing):
    return "" if isinstance(thing, type) else inspect.getsource(thing)


@pytest.mark.parametrize("name", NAMES)
def test_public_methods_have_docstrings(name):
    methods = inspect.getmembers(find(name), inspect.isfunction)
    public = {method: function for method, function in methods if not method.startswith("_")}
    ours = {m: f for m, f in public.items() if f.__module__.startswith("pudistill")}
    assert [method for method, function in ours.items() if not inspect.getdoc(function)] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_from_a_paper_names_it(name):
    thing = find(name)
    is_loss = isinstance(thing, type) and issubclass(thing, Objective)
    if (is_loss or ".methods." in name) and thing.__name__ not in OF_NO_PAPER:
        assert docstring(thing)["References"]
