"""Record the machine, versions, commit and duration of a benchmark, and store its results."""

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from pudistill import __version__
from pudistill.runs.environment import machine
from pudistill.utils.files import write_atomic

RESULTS = Path(__file__).parents[1] / "results"


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, the folder that holds the data sets."""
    default = Path(os.environ.get("PUDISTILL_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=default, help="default: $PUDISTILL_DATA or ../shared/data"
    )


def facts() -> dict[str, Any]:
    """Return the command that was typed, the machine, the commit and the versions."""
    command = shlex.join(["python", *sys.orig_argv[1:]])
    return {"command": command, **machine(), "commit": commit(), "versions": installed()}


def commit() -> str:
    """Return the checked-out commit; if files of the package differ, with a hash of the changes.

    Outside of a repository, as in a source distribution, return the version instead.
    """
    if not (RESULTS.parents[1] / ".git").exists():
        return __version__

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=RESULTS.parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    changes = git("status", "--porcelain", "--", "src") + git("diff", "HEAD", "--", "src")
    mark = f"+{hashlib.sha256(changes.encode()).hexdigest()[:7]}" if changes else ""
    return git("rev-parse", "--short", "HEAD") + mark


def log_run(folder: Path, about: dict[str, Any], seconds: float) -> None:
    """Append a command, as `facts` describes it, and its duration to the log beside the cells."""
    write_runs(folder, [*read_runs(folder), about | {"seconds": round(seconds)}])


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Read the log of commands."""
    path = folder / "runs.json"
    return json.loads(path.read_bytes()) if path.exists() else []


def write_runs(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Write the log of commands."""
    write_atomic(folder / "runs.json", json.dumps(runs, indent=1).encode())


def run_facts(folder: Path, rows: pd.DataFrame, command: str) -> dict[str, Any]:
    """Return machines, latest versions, commits and duration of all cells."""
    runs = read_runs(folder)
    here = {**machine(), "versions": installed()}  # for logs that do not say where they ran
    found = [here | run for run in runs] or [here]
    teachers = sum(float(per_group.sum()) for per_group in teacher_seconds(rows).values())
    return {
        "command": command,
        "device": ", ".join(dict.fromkeys(run["device"] for run in found)),
        "cores": found[-1]["cores"],
        "commits": sorted(rows["commit"].unique()),
        "wall_minutes": round(sum(run["seconds"] for run in runs) / 60),
        "core_minutes_of_cells": round((rows["seconds"].sum() + teachers) / 60),
        "versions": found[-1]["versions"],
        "runs": runs,
    }


def installed() -> dict[str, str]:
    """Return the versions of the libraries that decide results and speed."""
    found = {"python": platform.python_version()}
    for name in ("pudistill", "numpy", "scikit-learn", "cleanlab", "torch", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def teacher_seconds(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the seconds of filters and teachers, by problem and seed."""
    if "teacher_seconds" not in rows:
        return {}
    known = rows.dropna(subset="teacher_seconds")
    split = pd.DataFrame(known["teacher_seconds"].tolist(), index=known.index)
    by_group = split.groupby([known["problem"], known["seed"]]).max()
    return {str(name): by_group[name].dropna() for name in by_group}


def write_results(rows: pd.DataFrame, run: dict[str, Any], output: Path) -> None:
    """Write the results as JSON, one row per line."""
    lines = ",\n".join(json.dumps(_tidy(row)) for row in rows.to_dict("records"))
    text = f'{{"run": {json.dumps(run, indent=1)},\n"rows": [\n{lines}\n]}}\n'
    write_atomic(output, text.encode())


def markdown(table: pd.DataFrame) -> str:
    """Write a data frame as a Markdown table."""
    if table.empty:
        return "None.\n"
    lines = [[str(name) for name in table.columns], ["---"] * table.shape[1]]
    lines += [[str(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def described(run: dict[str, Any]) -> str:
    """Describe a run in a sentence, for the head of a table."""
    commits = run.get("commits") or [run["commit"]]
    return (
        f"`{run['command']}`, {run['device']}, {run['cores']} cores, commit "
        f"{', '.join(commits)}; {run['wall_minutes']} minutes in all runs together. "
        "Versions: " + ", ".join(f"{k} {v}" for k, v in run["versions"].items()) + ".\n"
    )


def _tidy(row: dict[str, Any]) -> dict[str, Any]:
    """Drop missing values from a row."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, list | dict) or not pd.isna(value)
    }
