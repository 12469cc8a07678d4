"""Where, with what and how long a benchmark ran, and how its results are stored."""

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from pudistill.atomic import write_atomic
from pudistill.workflow import machine


def commit() -> str:
    """Name the commit that is checked out, and whether files of the package differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "src")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def log_run(units: Path, command: str, seconds: float, of_commit: str) -> None:
    """Remember how long a command took, beside the cells."""
    run = {"command": command, "seconds": round(seconds), "commit": of_commit}
    write_runs(units, [*read_runs(units), run])


def read_runs(units: Path) -> list[dict[str, Any]]:
    """Read what was logged."""
    path = units / "runs.json"
    return json.loads(path.read_bytes()) if path.exists() else []


def write_runs(units: Path, runs: list[dict[str, Any]]) -> None:
    """Write what was logged."""
    write_atomic(units / "runs.json", json.dumps(runs, indent=1).encode())


def run_facts(units: Path, rows: pd.DataFrame, command: str) -> dict[str, Any]:
    """Say where, with what and how long everything was computed."""
    runs = read_runs(units)
    teachers = sum(float(per_group.sum()) for per_group in teacher_seconds(rows).values())
    return {
        "command": command,
        **machine(),
        "commits": sorted(rows["commit"].unique()),
        "wall_minutes": round(sum(run["seconds"] for run in runs) / 60),
        "core_minutes_of_cells": round((rows["seconds"].sum() + teachers) / 60),
        "versions": installed(),
        "runs": runs,
    }


def installed() -> dict[str, str]:
    """Return versions of what decides results and speed."""
    found = {"python": platform.python_version()}
    for name in ("pudistill", "numpy", "scikit-learn", "cleanlab", "torch", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def teacher_seconds(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Seconds of filters and teachers, by problem and seed."""
    if "teacher_seconds" not in rows:
        return {}
    known = rows.dropna(subset="teacher_seconds")
    split = pd.DataFrame(known["teacher_seconds"].tolist(), index=known.index)
    by_group = split.groupby([known["problem"], known["seed"]]).max()
    return {str(name): by_group[name].dropna() for name in by_group}


def write_results(rows: pd.DataFrame, run: dict[str, Any], output: Path) -> None:
    """Write a row a line."""
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
    """Say it in a sentence, for the head of a table."""
    return (
        f"`{run['command']}`, {run['device']}, {run['cores']} cores, commit "
        f"{', '.join(run['commits'])}; {run['wall_minutes']} minutes in all runs together. "
        "Versions: " + ", ".join(f"{k} {v}" for k, v in run["versions"].items()) + ".\n"
    )


def _tidy(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a row does not have."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, list | dict) or not pd.isna(value)
    }
