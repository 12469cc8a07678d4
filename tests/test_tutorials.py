"""The tutorials: each stored notebook is its source, executed from top to bottom without error."""

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")

SCRIPT = Path(__file__).parents[1] / "docs" / "tutorials" / "execute.py"
if not SCRIPT.exists():
    pytest.skip("a package without its docs", allow_module_level=True)
SPEC = importlib.util.spec_from_file_location("execute", SCRIPT)
assert SPEC
assert SPEC.loader
execute = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(execute)


def test_every_source_is_a_tutorial():
    assert {path.stem for path in SCRIPT.parent.glob("*.md")} == set(execute.NAMES)


@pytest.mark.parametrize("name", execute.NAMES)
def test_stored_notebook_is_the_executed_source(name):
    path = SCRIPT.with_name(f"{name}.ipynb")
    stored, source = nbformat.read(path, as_version=4), execute.source_of(name)

    def parts(notebook):
        return [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]

    assert parts(stored) == parts(source), f"run make tutorials NAMES={name}"
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size <= execute.MAX_BYTES
    execute.check(stored, private=(str(Path.home()), str(SCRIPT.parents[2])))


def test_unwanted_outputs_are_found():
    def notebook(**output):
        cell = nbformat.v4.new_code_cell("fit()", outputs=[nbformat.v4.new_output(**output)])
        return nbformat.v4.new_notebook(cells=[cell])

    execute.check(notebook(output_type="stream", name="stdout", text="About 19% are wrong."))
    for unwanted in (
        {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []},
        {"output_type": "stream", "name": "stderr", "text": "careful"},
        {"output_type": "stream", "name": "stdout", "text": "FutureWarning: x is deprecated"},
        {"output_type": "stream", "name": "stdout", "text": "Written to /tmp/run."},
        {"output_type": "display_data", "data": {"text/html": "<b>/tmp/run</b>"}},
    ):
        with pytest.raises(ValueError, match=r"After 'fit\(\)'"):
            execute.check(notebook(**unwanted))


@pytest.mark.slow
def test_tutorial_runs():
    pytest.importorskip("ipykernel")
    stored = nbformat.read(SCRIPT.with_name("own_predictions.ipynb"), as_version=4)
    assert len(execute.executed("own_predictions").cells) == len(stored.cells)
