"""`pudistill start` in a real browser: from no verified label to a fit."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("starlette", reason="the page is an extra: pip install 'pudistill[review]'")

SETTINGS = ["--n-members", "2", "--max-iter", "1", "--n-teachers", "1"]
LIGHT = [*SETTINGS, "--learner", "sklearn.naive_bayes:GaussianNB", "--seed", "0"]


def has_text(page, selector, text):
    """Wait until an element holds a text."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text, timeout=60_000)


def test_from_no_verified_label_to_a_fit(browser, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    given = np.where(rng.random(80) < 0.2, 1 - y, y)
    names = np.array(["ash", "elm"])
    ids = [f"t{n}" for n in range(80)]
    table = pd.DataFrame({"id": ids, "a": 6 * y + rng.normal(size=80), "label": names[given]})
    table.to_csv(tmp_path / "trees.csv", index=False)
    truth = dict(zip(ids, y, strict=True))
    command = [sys.executable, "-m", "pudistill", "start", "trees.csv", "--output", "review"]
    command += ["--budget", "8", "--no-open", *LIGHT]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    try:
        page = browser.new_page()
        found = (re.search(r"http://\S+token=\S+", line) for line in process.stderr)
        page.goto(next(filter(None, found))[0])
        page.wait_for_selector(".id")
        # Nothing is known yet, so nothing is suggested or promised.
        assert page.is_hidden("#suggested")
        page.wait_for_selector("text=Nothing is promised yet. The first fit follows")
        for n in range(1, 9):
            has_text(page, "#count", f"{n - 1} of 8")
            page.keyboard.press(str(1 + truth[page.inner_text(".id")]))
        page.wait_for_selector("text=Learning from your labels")
        assert "8 samples are verified" in page.inner_text(".end")
        # The page goes on by itself, with the next samples and what the fit promises.
        has_text(page, "#count", "0 of 8")
        page.wait_for_selector("text=Labels right after correction")
        assert page.inner_text("#run") == "review · 1"
        assert page.is_visible("#suggested")
        # Stopped while it learns, it says so, in the page and without a traceback.
        for n in range(8):
            has_text(page, "#count", f"{n} of 8")
            page.keyboard.press(str(1 + truth[page.inner_text(".id")]))
        page.wait_for_selector("text=Learning from your labels")
        process.send_signal(signal.SIGINT)
        page.wait_for_selector("text=The command has ended")
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "80 samples, 8 of them trusted" in out
    assert "Corrected labels: review/1/labels.csv" in out
    assert "8 samples verified:" in err
    labels = pd.read_csv(tmp_path / "review" / "1" / "labels.csv")
    assert (labels["label"] == names[y]).mean() > 0.9
