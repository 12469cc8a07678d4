"""Walk from no verified label to corrected data; the truth answers.

The walk of docs/guides/start_from_nothing.md:

    python -m benchmarks.walk photos --data ../shared/data --scratch /tmp/walk
    python -m benchmarks.walk texts --data ../shared/data --scratch /tmp/walk

It writes the data, runs ``pudistill start``, presses the keys of the page in Chromium until the
command ends or enough samples are verified, and says how many labels are right. Screenshots, and
what the command printed, stay beside the data.
"""

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.common.facts import add_data_option
from pudistill.labels.corruption import CIFAR10_CLASSES

N_PHOTOS, WRONG = 1500, 0.4
SIZE = {"width": 1000, "height": 760}
SECONDS_OF_A_FIT = 1800
OPTIONS = {
    "photos": ["photos", "--features", "features.npy", "--seed", "0"],
    "texts": ["texts.csv", "--budget", "100", "--until", "max-error 0.2", "--seed", "0"],
}


def write_photos(data: Path, folder: Path) -> dict[str, str]:
    """Write pictures of CIFAR-10 with wrong labels and their features; return the truth."""
    table = pd.read_parquet(data / "cifar10" / "train-00000-of-00001.parquet")
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(table), N_PHOTOS, replace=False))
    y = table["label"].to_numpy()[rows]
    wrong = np.where(rng.random(N_PHOTOS) < WRONG, rng.integers(1, 10, N_PHOTOS), 0)
    row_of, truth = {}, {}
    for n, (row, code, given) in enumerate(zip(rows, y, (y + wrong) % 10, strict=True)):
        name = f"{CIFAR10_CLASSES[given]}/{n:04}.png"
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(table["img"].iloc[row]["bytes"])).save(path)
        row_of[name], truth[name] = row, CIFAR10_CLASSES[code]
    with np.load(data / "cifar10-features" / "features.npz") as file:
        features = file["X"][[row_of[name] for name in sorted(row_of)]]
    np.save(folder / "features.npy", features.astype(np.float32))
    return truth


def write_texts(data: Path, folder: Path) -> dict[str, str]:
    """Copy the texts; return the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "texts" / "texts.csv", folder)
    table = pd.read_csv(data / "texts" / "truth.csv")
    return dict(zip(table["id"], table["true"], strict=True))


def answer(page: Any, truth: dict[str, str], folder: Path, most: int, is_over: Callable) -> None:
    """Press the right key for each sample."""
    n, begin = 0, time.monotonic()
    while not is_over():
        page.wait_for_selector(".end, .id")
        if page.locator(".end").count():
            page.screenshot(path=folder / f"learning-{n}.png")
            print(f"{time.monotonic() - begin:.0f} s, {n} verified", flush=True)
            while page.locator(".end").count() and not is_over():
                time.sleep(0.5)
            continue
        if n >= most:
            return
        name = page.inner_text(".id")
        if n % 10 in (2, 7):
            time.sleep(0.3)
            page.screenshot(path=folder / f"page-{n}.png")
        right = page.locator("#classes button").filter(
            has=page.locator(f"span:text-is('{truth[name]}')")
        )
        is_given = page.inner_text("#given b") == truth[name]
        page.keyboard.press("Enter" if is_given else right.locator("kbd").inner_text())
        n += 1
        while page.locator(".id").all_inner_texts() == [name]:
            time.sleep(0.01)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=OPTIONS)
    add_data_option(parser)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all that is written")
    parser.add_argument("--most", type=int, default=500, help="samples to verify at most")
    options = parser.parse_args()
    folder = options.scratch / options.kind
    write = {"photos": write_photos, "texts": write_texts}[options.kind]
    truth = write(options.data, folder)
    command = [sys.executable, "-m", "pudistill", "start", *OPTIONS[options.kind]]
    command += ["--output", "review", "--no-open"]
    log = folder / "printed.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, env=os.environ | {"COLUMNS": "100"}
        )
        while not (found := re.search(r"http://\S+token=\S+", log.read_text())):
            time.sleep(0.2)
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(1000 * SECONDS_OF_A_FIT)
            page.goto(found[0])
            answer(page, truth, folder, options.most, lambda: process.poll() is not None)
            time.sleep(3)
            page.screenshot(path=folder / "end.png")
            process.send_signal(signal.SIGINT)
            process.wait()
    print(log.read_text())
    last = max(int(path.name) for path in (folder / "review").iterdir() if path.name.isdigit())
    table = pd.read_csv(folder / "review" / str(last) / "labels.csv")
    true = table["id"].map(truth)
    for name in ("given", "label"):
        print(f"{name}: {(table[name] == true).mean():.1%} right")


if __name__ == "__main__":
    main()
