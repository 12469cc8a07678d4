"""How quick the report's table of changed samples is in Chromium.

``python -m benchmarks.report_table`` writes a report with 100,000 changed texts and drives Chromium
with Playwright: the time until the table stands, and that of each filter, search and sort until the
rows are drawn. Needs the packages playwright and Debian's chromium.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.facts import facts
from pudistill.runs.report.changes import Changes
from pudistill.runs.report.counts import count_labels
from pudistill.runs.report.html import RunSummary, render

CHROMIUM = "/usr/bin/chromium"
OPEN, FILTER = 2000, 200  # ms
# Seconds of the browser from an input until the next frame is drawn.
TIMED = """async ([name, value]) => {
    const field = document.getElementById('changes-' + name);
    const begin = performance.now();
    field.value = value;
    field.dispatchEvent(new Event('input', {bubbles: true}));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - begin;
}"""
SORTED = """async (name) => {
    const begin = performance.now();
    document.querySelector(`button[data-sort=${name}]`).click();
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - begin;
}"""


def report_of(n_rows: int, n_classes: int = 20) -> str:
    """Return a report with changed texts of 240 characters."""
    rng = np.random.default_rng(0)
    given = rng.integers(n_classes, size=n_rows)
    label = (given + rng.integers(1, n_classes, size=n_rows)) % n_classes
    classes = [f"class {code}" for code in range(n_classes)]
    ids = [f"folder/sample-{row:06}.txt" for row in range(n_rows)]
    table = pd.DataFrame(
        {
            "id": ids,
            "given": np.array(classes, object)[given],
            "label": np.array(classes, object)[label],
            "trusted": False,
            "changed": True,
            "source": np.where(rng.random(n_rows) < 0.5, "student", "filter"),
            "confidence": rng.random(n_rows),
        }
    )
    words = np.array([f"word{number}" for number in range(5000)], object)
    texts = {name: " ".join(words[rng.integers(5000, size=30)])[:240] for name in ids}
    changes = Changes(rng.integers(0, 5, n_rows).astype(np.uint8), (0.01, 0.02, 0.05, 0.1))
    labels = count_labels(changes.watch([table]))
    settings = {"no_class_label": "none of these"}
    return render(
        RunSummary(
            "report", labels, pd.DataFrame(), {}, settings, classes, {}, [], texts, changes=changes
        )
    )


def measure(path: Path) -> dict[str, float]:
    """Return milliseconds of each action."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("button.open")
        page.wait_for_timeout(1000)  # a reader looks first
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        found = {"open": page.evaluate(timing)}
        steps = [("given", "3"), ("label", "5"), ("label", ""), ("given", ""), ("least", "90")]
        steps += [("least", ""), ("accepted", "0"), ("accepted", ""), ("search", "word4321")]
        steps += [("search", "word43219"), ("search", "sample-099"), ("search", "")]
        for name, value in steps:
            found[f"{name}={value}"] = page.evaluate(TIMED, [name, value])
        for name in ("id", "change", "source", "accepted", "confidence"):
            found[f"sort by {name}"] = page.evaluate(SORTED, name)
        browser.close()
    return found


def main() -> None:
    """Measure, print and optionally write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(report_of(options.rows), encoding="utf-8")
        size = path.stat().st_size
        found = measure(path)
    slowest = max(
        ms for name, ms in found.items() if name != "open" and not name.startswith("sort")
    )
    print(f"{options.rows:,} rows, {size / 1e6:.1f} MB")
    for name, ms in found.items():
        print(f"{name:20} {ms:7.0f} ms")
    print(
        f"opens in {found['open']:.0f} ms (goal {OPEN}), slowest filter {slowest:.0f} ms ({FILTER})"
    )
    if options.output is not None:
        result = {"rows": options.rows, "bytes": size, "ms": found} | facts()
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
