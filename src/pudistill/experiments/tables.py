"""Results as Markdown tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def as_markdown(title: str, about: str, cells: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Write the table of an experiment.

    Parameters
    ----------
    title, about : str
        Heading, and the line below it.
    cells : DataFrame
        Without a column ``noise``, the table itself. With one, a row per method, kind of noise and
        level; these become a table per kind with a column per level, and each cell holds our number
        and the paper's.
    titles : mapping of str to str
        Names of the methods in the table.

    Returns
    -------
    text : str
        Markdown.
    """
    parts = [f"# {title}", about]
    if "noise" not in cells:
        return "\n\n".join([*parts, _rows(cells)]) + "\n"
    reported = " [the paper's, best over epochs]" if cells["paper"].notna().any() else ""
    parts.append(f"Test accuracy in %: final (best over epochs){reported}.")
    for noise, block in cells.groupby("noise", sort=False):
        text = block.assign(
            shown=[_cell(row) for row in block.itertuples()],
            name=[titles.get(method, method) for method in block["method"]],
        )
        wide = text.pivot_table(
            index="name", columns="level", values="shown", aggfunc="first", sort=False
        )
        wide.columns = [f"{100 * level:.0f} %" for level in wide.columns]
        wide["seconds a cell"] = text.groupby("name")["seconds"].mean().round(1)
        parts += [f"## {noise} noise", _rows(wide.rename_axis("method").reset_index())]
    parts.append(
        "Seconds are those of a cell alone, beside others at the same time; the filter and the "
        "teachers, which all cells of PUDistill share, are not among them."
    )
    return "\n\n".join(parts) + "\n"


def _cell(row: Any) -> str:
    if pd.isna(row.final):
        return "diverged"
    spread = f" ± {row.final_std:.1f}" if pd.notna(row.final_std) else ""
    spread += f", {row.diverged} of {row.seeds} seeds diverged" if row.diverged else ""
    reported = f" [{row.paper:.1f}]" if pd.notna(row.paper) else ""
    return f"{row.final:.1f}{spread} ({row.best:.1f}){reported}"


def _rows(table: pd.DataFrame) -> str:
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    columns = [[_text(name, value) for value in table[name]] for name in table.columns]
    lines += [list(line) for line in zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(column: str, value: Any) -> str:
    """Write a value: counts without decimals, shares with two, percentages with one."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if column.endswith(("size", "seeds")):
        return f"{value:,.0f}"
    if column.endswith("precision"):
        return f"{value:.2f}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
