"""The progress of a fit: shown where it is wanted, in the way of the place; no result changes."""

import ast
import io
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from pudistill import PUDistillClassifier
from pudistill.learners.networks.recipes import Role
from pudistill.runs.models import model_files
from pudistill.runs.settings import Settings
from pudistill.utils import displays
from pudistill.utils.displays import NotebookBars, showing
from pudistill.utils.progress import display, has_display, stage

X = np.repeat([[0.0], [1.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 1)) / 9
Y, TRUSTED = np.repeat([0, 1], 30), np.arange(60) % 3 == 0
QUICK = {"n_members": 2, "max_iter": 1, "random_state": 0}


@pytest.fixture
def notebook(monkeypatch):
    """Pretend to be the kernel of a notebook; returns what it has drawn."""
    drawn = []
    handle = SimpleNamespace(update=lambda shown: drawn.append(shown._repr_html_()))
    module = SimpleNamespace(display=lambda shown, display_id: handle)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return drawn


def test_a_fit_is_quiet_unless_it_is_verbose(capfd):
    PUDistillClassifier(**QUICK).fit(X, Y, trusted=TRUSTED)
    assert capfd.readouterr() == ("", "")


def test_elsewhere_there_is_a_line_for_each_finished_stage(capfd):
    quiet = PUDistillClassifier(**QUICK).fit(X, Y, trusted=TRUSTED)
    capfd.readouterr()
    verbose = PUDistillClassifier(**QUICK, verbose=True).fit(X, Y, trusted=TRUSTED)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("finding clean samples: ")
    assert lines[0].endswith(" s")
    assert len(lines) == len({line.split(":")[0] for line in lines})  # each stage once
    np.testing.assert_array_equal(verbose.targets_, quiet.targets_)
    assert model_files(verbose) == model_files(quiet)
    assert "verbose" not in Settings.model_fields


@pytest.mark.parametrize("verbose", [1, 0, np.True_])
def test_verbose_is_also_a_number(capfd, verbose):
    PUDistillClassifier(**QUICK, compare=False, verbose=verbose).fit(X, Y, trusted=TRUSTED)
    assert bool(capfd.readouterr().err) == bool(verbose)


class Full(io.StringIO):
    def write(self, _):
        raise OSError(28, "No space left on device")


class FullTerminal(Full):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [None, Full(), FullTerminal(), io.StringIO()])
def test_work_goes_on_if_its_progress_cannot_be_shown(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    if type(stream) is io.StringIO:
        stream.close()
    with showing(True), stage("filter", 2) as advance:
        advance(2)


def test_in_a_terminal_there_are_bars(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(displays, "Console", lambda **_: screen)
    with showing(True), stage("filter", 2) as advance:
        advance(2)
    assert "finding clean samples" in screen.file.getvalue()
    assert "100%" in screen.file.getvalue()


def test_a_notebook_draws_bars_that_stay(notebook):
    with showing(True):
        with stage("<filter>", 4) as advance:
            advance(1, detail="<b>class</b>")
        with suppress(ValueError), stage("student", 2) as advance:
            advance(1)
            raise ValueError("stopped")
    assert "&lt;filter&gt;" in notebook[-1]
    assert "<filter>" not in "".join(notebook)
    assert "<b>class" not in "".join(notebook)
    assert ["100%" in notebook[-1], "50%" in notebook[-1]] == [True, True]
    assert not has_display()


def test_many_steps_are_not_each_drawn(notebook):
    with showing(True), stage("filter", 10_000) as advance:
        for _ in range(10_000):
            advance()
    assert len(notebook) < 20


def test_nothing_is_shown_twice(capfd):
    with display(NotebookBars()) as _, showing(True), stage("filter", 1):
        pass
    assert capfd.readouterr() == ("", "")


def test_every_stage_has_a_plain_name():
    calls = [
        call
        for path in Path(displays.__file__).parents[1].rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "stage"
    ]
    names = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    names |= {f"{role} epochs" for role in {*get_args(Role), "network"} - {"member"}}
    assert names == {*displays.PLAIN_NAMES}
