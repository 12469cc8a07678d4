"""Execute the tutorials: `python docs/tutorials/execute.py [NAME ...]`, or `make tutorials`.

NAME.md is the source, as a MyST notebook of jupytext; NAME.ipynb beside it is the same with the
outputs that a reader sees.
"""

import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent
NAMES = (
    *("table", "pictures", "llm_labels", "annotators"),
    *("own_predictions", "own_network", "cluster", "how_sure"),
)
STYLE = re.compile(r"\x1b\[[0-9;]*m")  # bold, dim and colours of a terminal
MAX_BYTES = 400_000

# What differs from machine to machine, or would fill a page with the same line again and again.
ENVIRONMENT = {
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MPLCONFIGDIR": tempfile.gettempdir(),
}


# How far a command is and how long it takes: different each time.
PROGRESS = re.compile(r"^(This fit trains .*|.*, \d+% done(, about .* left)?)\n", re.M)


def source_of(name: str) -> nbformat.NotebookNode:
    """Read NAME.md as a notebook without outputs, whose cells are numbered."""
    notebook = jupytext.read(TUTORIALS / f"{name}.md", fmt="md:myst")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number}"
    return notebook


def executed(name: str) -> nbformat.NotebookNode:
    """Execute NAME.md in an empty folder, and return the notebook with its outputs."""
    notebook = source_of(name)
    # Programs of this Python, such as `pudistill`, come first.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute(env={**os.environ, **ENVIRONMENT, "PATH": path})
        private = (folder, str(Path.home()), str(TUTORIALS.parents[1]), socket.gethostname())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "text" in output:
                plain = STYLE.sub("", output["text"]).replace("\r\n", "\n")
                output["text"] = PROGRESS.sub("", plain).lstrip("\n")
    check(notebook, private)
    return notebook


def check(notebook: nbformat.NotebookNode, private: tuple[str, ...] = ()) -> None:
    """Raise ValueError where an output holds what no reader should see."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            shown = output.get("text", "")
            data = output.get("data", {})
            shown += "".join(str(data[kind]) for kind in data if not kind.startswith("image/"))
            unwanted = (*private, "/tmp/", "Traceback", "\x1b")
            found = [text for text in unwanted if text in shown]
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"an error or warning: {shown}")
            found += re.findall(r"\w+Warning\b", shown)
            if found:
                raise ValueError(f"After {cell.source!r} the output holds {found}: {shown[:500]!r}")


def main() -> None:
    """Execute the tutorials that are named, or all."""
    for name in sys.argv[1:] or NAMES:
        start = time.monotonic()
        notebook = executed(name)
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"{name}.ipynb would have {len(text):,} bytes, above {MAX_BYTES:,}.")
        (TUTORIALS / f"{name}.ipynb").write_text(text, encoding="utf-8")
        print(f"{name}: {time.monotonic() - start:.0f} s, {len(text) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
