"""Measure the page of `pudistill review`: how quick it is, and that no decision is ever lost.

    python -m benchmarks.scale.review
    python -m benchmarks.scale.review --only kills reviewers

`latency`: from a key to the next sample in a run of a million samples, over HTTP and in Chromium.
`kills`: the server is killed at random moments, while decisions are sent. `browser-kills`: the
browser is. `reviewers`: two reviewers of 500 decisions each at once, with one server and with two.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from benchmarks.common.facts import RESULTS, facts
from pudistill.review.decisions import Decisions
from pudistill.review.selection import write_queue
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from pudistill.utils.files import write_atomic

SECONDS_TO_LOOK = 0.5  # of a reviewer at a sample
CLASSES = [f"class {n}" for n in range(10)]


def write_run(folder: Path, n: int) -> Path:
    """Write a finished run on short texts, as `fit` would, without a fit."""
    rng = np.random.default_rng(0)
    given, label = rng.integers(0, 10, (2, n))
    label = np.where(rng.random(n) < 0.7, given, label)
    ids = [f"sample-{row:07}" for row in range(n)]
    trusted = np.arange(n) < 10
    given[:10] = label[:10] = range(10)
    names = np.array(CLASSES)
    data = {"id": ids, "text": [f"text {row}" for row in range(n)], "label": names[given]}
    data |= {"trusted": trusted}
    folder.mkdir(parents=True)
    pa.parquet.write_table(pa.table(data), folder / "texts.parquet")
    settings = Settings.read({"data": str(folder / "texts.parquet")})
    run = Run.create(folder / "run", settings.to_config())
    table = {"id": ids, "given": names[given], "trusted": trusted, "label": names[label]}
    table |= {"changed": given != label, "confidence": rng.random(n)}
    table |= {"given_quality": rng.random(n), "outlier": False}
    table |= {"source": np.select([trusted, given != label], ["trusted", "student"], "given")}
    run.write_table("labels", pd.DataFrame(table))
    run.write_arrays("gallery.npz", {})
    score = np.where(trusted, 0.9, rng.random(n)).astype(np.float32)
    held_out = {"label": label, "score": score, "worth": 1.0, "doubt": "", "names": names}
    run.write_arrays("held_out_labels.npz", {k: np.asarray(v) for k, v in held_out.items()})
    run.finish({"classes": CLASSES})
    return run.path


class Server:
    """The command in a process of its own."""

    def __init__(self, run: Path, *options: str) -> None:
        self.started = time.perf_counter()
        command = [sys.executable, "-m", "pudistill", "review", str(run), "--no-open", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        found = re.search(r"http://[^:]+:(\d+)/\S*", said)
        if found is None:
            raise SystemExit(said + self.process.stderr.read())
        self.url, self.port = found[0], int(found[1])
        self.seconds_to_address = time.perf_counter() - self.started

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


class Page:
    """What the script of the page does, without a browser."""

    def __init__(self, server: Server, who: str) -> None:
        self.who, self.page = who, f"page of {who}"
        self.host = f"127.0.0.1:{server.port}"
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.connection.request("GET", server.url[server.url.index("/?") :])
        answer = self.connection.getresponse()
        answer.read()
        self.cookie = answer.headers["Set-Cookie"].split(";")[0]

    def ask(self, path: str, **content: Any) -> dict[str, Any]:
        """Send a request, and return the answer."""
        headers = {"Cookie": self.cookie, "Origin": f"http://{self.host}"}
        common = {"session": self.who, "page": self.page, "who": self.who, "scope": "queue"}
        body = json.dumps(common | {"filter": {}} | content)
        self.connection.request("POST", f"/api/{path}", body, headers)
        answer = self.connection.getresponse()
        result = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(result)
        return result


def quantiles(seconds: list[float]) -> dict[str, float]:
    milliseconds = 1000 * np.array(seconds)
    found = np.quantile(milliseconds, [0.5, 0.95, 1])
    return dict(zip(("median_ms", "p95_ms", "max_ms"), map(float, found.round(1)), strict=True))


def measure_latency(scratch: Path, n_samples: int, n_keys: int) -> dict[str, Any]:
    run = write_run(scratch / "large", n_samples)
    start = time.perf_counter()
    write_queue(Run(run), 2 * n_keys + 10)
    seconds = {"draw_queue": time.perf_counter() - start}
    server = Server(run)
    page = Page(server, "Ann")
    seconds["address"] = server.seconds_to_address
    seconds["page_after_start"] = time.perf_counter() - server.started
    start = time.perf_counter()
    first = Page(server, "Ann")
    seconds["page_after_address"] = time.perf_counter() - start
    first.connection.close()
    sample = page.ask("next")["sample"]
    seconds["sample_after_start"] = time.perf_counter() - server.started
    results: dict[str, Any] = {"samples": n_samples, "keys": n_keys}
    wanted = {"given": CLASSES[0], "low": 0.5}
    for name, common in {
        "queue": {},
        "all_filtered": {"scope": "all", "filter": wanted},
    }.items():
        sample = page.ask("next", **common)["sample"]
        took = []
        for _ in range(n_keys):
            start = time.perf_counter()
            rows, label = [sample["row"]], random.choice(CLASSES)
            sample = page.ask("decide", rows=rows, action="label", label=label, **common)["sample"]
            took.append(time.perf_counter() - start)
        results[f"key_to_answer_{name}"] = quantiles(took)
    start = time.perf_counter()
    page.ask("next", scope="all", filter={"search": "text 77777"})
    results["search_ms"] = round(1000 * (time.perf_counter() - start), 1)
    results["key_to_next_in_chromium"] = in_chromium(server, n_keys)
    results["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    server.stop()
    return results


WATCH = """() => {
  window.took = [];
  document.addEventListener('keydown', () => { window.pressed = performance.now(); }, true);
  new MutationObserver(() => requestAnimationFrame(() =>
    window.took.push(performance.now() - window.pressed)
  )).observe(document.querySelector('#about'), {childList: true});
}"""


def chromium(playwright: Any, **options: Any) -> Any:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], **options)


def in_chromium(server: Server, n_keys: int) -> dict[str, float] | None:
    """Measure from a key to the frame that shows the next sample."""
    if shutil.which("chromium") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        page = chromium(playwright).new_page()
        page.goto(server.url)
        page.wait_for_selector("#answers:not([hidden])")
        page.evaluate(WATCH)
        for n in range(n_keys):
            page.keyboard.press("1")
            while page.evaluate("window.took.length") <= n:
                time.sleep(0.005)
            time.sleep(SECONDS_TO_LOOK)
        return quantiles([took / 1000 for took in page.evaluate("window.took")])


def count_lines(run: Path, acknowledged: Counter[str]) -> dict[str, Any]:
    """Compare the log with what the server has acknowledged."""
    decisions = Decisions(run)
    lines = [json.loads(line)["id"] for line in decisions.path.read_text().splitlines()]
    stored = {decision.id for decision in decisions.in_force()}
    return {
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": len(acknowledged.keys() - stored),
        "twice": len(lines) - len(set(lines)),
    }


def measure_kills(scratch: Path, n_kills: int) -> dict[str, Any]:
    """Kill the server while decisions are sent; unanswered ones are sent again."""
    run = write_run(scratch / "kills", 10_000)
    rng, acknowledged, unanswered = random.Random(0), Counter[str](), None
    for _ in range(n_kills):
        server = Server(run, "--budget", "9000")
        page = Page(server, "Ann")
        sample = page.ask("next")["sample"]
        killer = threading.Timer(rng.random(), server.kill)
        killer.start()
        with suppress(OSError, http.client.HTTPException):
            while True:
                sample, again = unanswered or sample, unanswered
                unanswered = sample
                answer = page.ask("decide", rows=[sample["row"]], action="label", label="class 1")
                acknowledged[sample["id"]] += 1
                unanswered = None
                sample = answer["sample"] if again is None else page.ask("next")["sample"]
        killer.join()
    server = Server(run)
    if unanswered is not None:
        page = Page(server, "Ann")
        page.ask("decide", rows=[unanswered["row"]], action="label", label="class 1")
        acknowledged[unanswered["id"]] += 1
    server.stop()
    return {"kills": n_kills} | count_lines(run, acknowledged)


def start_chromium(profile: str) -> tuple[subprocess.Popen, str]:
    """Start a browser that can be killed, and return where it listens."""
    options = ["--headless", "--no-sandbox", "--remote-debugging-port=0"]
    command = [str(shutil.which("chromium")), *options, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"ws://\S+", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[0]
    raise SystemExit("chromium did not start")


def measure_browser_kills(scratch: Path, n_kills: int) -> dict[str, Any]:
    """Kill the browser while keys are pressed."""
    from playwright.sync_api import Error, sync_playwright

    run = write_run(scratch / "browser", 10_000)
    rng, seen = random.Random(0), Counter[str]()
    server = Server(run, "--budget", "9000")
    for _ in range(n_kills):
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
            sync_playwright() as playwright,
        ):
            process, address = start_chromium(profile)
            page = playwright.chromium.connect_over_cdp(address).contexts[0].new_page()
            page.goto(server.url)
            page.wait_for_selector("#answers:not([hidden])")
            threading.Timer(rng.random(), process.kill).start()
            with suppress(Error):
                while True:
                    before = page.inner_text(".id")
                    page.keyboard.press("2")
                    while page.inner_text(".id") == before:
                        time.sleep(0.002)
                    seen[before] += 1  # the page shows the next one: it was written
            process.wait()
    server.stop()
    return {"kills": n_kills} | count_lines(run, seen)


def review_many(server: Server, who: str, n: int, shown: list[int]) -> None:
    page = Page(server, who)
    sample = page.ask("next")["sample"]
    for _ in range(n):
        shown.append(sample["row"])
        answer = page.ask("decide", rows=[sample["row"]], action="given")
        sample = answer["sample"]
    page.ask("keep", rows=[])


def measure_reviewers(scratch: Path, n_each: int) -> dict[str, Any]:
    """Let two reviewers decide at once, on one server and on two."""
    results = {}
    for n_servers in (1, 2):
        run = write_run(scratch / f"reviewers-{n_servers}", 10_000)
        servers = [Server(run, "--budget", "2000") for _ in range(n_servers)]
        shown: list[list[int]] = [[], []]
        start = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            reviews = [
                threads.submit(review_many, servers[n % n_servers], who, n_each, rows)
                for n, (who, rows) in enumerate(zip(("Ann", "Bob"), shown, strict=True))
            ]
        for review in reviews:
            review.result()
        seconds = time.perf_counter() - start
        for server in servers:
            server.stop()
        table = Decisions(run).current()
        results[f"{n_servers}_servers"] = {
            "decided": len(table),
            "by": table["who"].value_counts().to_dict(),
            "shown_to_both": len(set(shown[0]) & set(shown[1])),
            "decisions_a_second": round(2 * n_each / seconds),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ("latency", "kills", "browser-kills", "reviewers")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--decisions", type=int, default=500)
    parser.add_argument("--output", type=Path, default=RESULTS / "review.json")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for kind in options.only:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            if kind == "latency":
                found = measure_latency(scratch, options.samples, options.keys)
            elif kind == "kills":
                found = measure_kills(scratch, options.kills)
            elif kind == "browser-kills":
                found = measure_browser_kills(scratch, options.kills)
            else:
                found = measure_reviewers(scratch, options.decisions)
        results[kind] = found | {"machine": facts()}
        print(json.dumps({kind: found}, indent=1))
        write_atomic(options.output, json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
