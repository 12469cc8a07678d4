"""The page of `pudistill review` in a real browser, and its command."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager

import pandas as pd
import pytest

pytest.importorskip("starlette", reason="the page is an extra: pip install 'pudistill[review]'")

from pudistill.cli import review_commands
from pudistill.review.decisions import Decision, Decisions
from pudistill.review.queue import Entry
from pudistill.review.samples import open_samples
from pudistill.review.server import ReviewServer
from pudistill.review.session import Options, ReviewSession
from tests.review.conftest import CLASSES, write_queue, write_run

NARROW = {"width": 400, "height": 800}


@pytest.fixture
def run(tmp_path):
    """A run on texts with names that would be dangerous if they were not escaped."""
    ids = [f"<b id=x{n}>" for n in range(40)]
    texts = [f"<img src=x onerror=document.title='bad'> {n}" for n in range(40)]
    texts[5] = "word " * 20_000
    given = [CLASSES[n % 3] for n in range(40)]
    table = pd.DataFrame({"id": ids, "text": texts, "label": given})
    table["trusted"] = [n < 3 for n in range(40)]
    table.to_csv(tmp_path / "texts.csv", index=False)
    run = write_run(tmp_path / "run", tmp_path / "texts.csv", ids, given)
    rows = [5, 8, 6, 7, 11, 14, 17]
    parts = ["chosen", "chosen", "random", "random", "chosen", "chosen", "chosen"]
    write_queue(run, [Entry(row, 1.0, part, "why") for row, part in zip(rows, parts, strict=True)])
    return run


@contextmanager
def serving(run, who="Ann"):
    server = ReviewServer(lambda: ReviewSession(run, Options(who=who), open_samples))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@contextmanager
def opened(browser, server, **options):
    context = browser.new_context(**options)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))  # what the policy forbids
    page.goto(server.url)
    page.wait_for_selector("#answers:not([hidden])")
    yield page
    context.close()
    assert [text for text in problems if "net::ERR_FAILED" not in text] == []


def shows(page, n):
    """Wait until the page shows a sample."""
    has_text(page, ".id", f"<b id=x{n}>")


def has_text(page, selector, text):
    """Wait until an element holds a text."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text)


def has_cards(page, n):
    """Wait until the grid shows some samples."""
    from playwright.sync_api import expect

    expect(page.locator(".cards li")).to_have_count(n)


def decided(server):
    table = server.session.decisions.current()
    return dict(zip(table["id"].str.extract(r"(\d+)")[0].astype(int), table["label"], strict=True))


def test_a_review_with_the_keyboard_alone(browser, run):
    with serving(run) as server, opened(browser, server) as page:
        shows(page, 5)
        assert "token" not in page.url
        assert "100,000 characters" in page.inner_text("#sample button")
        page.click("#sample button")
        has_text(page, ".text", "word " * 20_000)
        page.click("text=Keys")  # with the mouse: Enter still decides
        # The suggestion is shown by a key, and taken by the same key.
        assert "cat" not in page.inner_text("#suggested")
        page.keyboard.press("s")
        has_text(page, "#suggested b", "cat")
        page.keyboard.press("s")
        shows(page, 8)
        page.keyboard.press("Enter")
        shows(page, 6)
        page.keyboard.press("s")  # drawn at random: nothing is told
        page.wait_for_selector("#message:not([hidden])")
        assert page.is_disabled("#suggested")
        page.keyboard.press("2")
        shows(page, 7)
        page.keyboard.press("k")
        shows(page, 11)
        page.keyboard.press("n")
        shows(page, 14)
        page.keyboard.press("/")
        page.keyboard.type("emu & co")
        page.get_by_role("button", name="New class emu & co").click()
        shows(page, 17)
        page.keyboard.press("Backspace")
        shows(page, 14)
        page.keyboard.press("/")
        page.keyboard.type("ow")
        page.keyboard.press("Enter")
        shows(page, 17)
        # A reload shows the same sample, and still takes back the last decision.
        page.reload()
        shows(page, 17)
        page.keyboard.press("u")
        shows(page, 14)
        page.keyboard.press("3")
        shows(page, 17)
        page.keyboard.press("1")
        page.wait_for_selector("text=This queue is done")
        assert decided(server) == {
            5: "cat", 8: "owl", 6: "dog", 11: "none of these", 14: "owl", 17: "cat",
        }  # fmt: skip
        assert page.inner_text("#count") == "7 of 7"
        assert page.title() == "7 of 7 · Review"


def test_many_at_once_with_a_filter(browser, run):
    with serving(run) as server, opened(browser, server) as page:
        page.click("#filters summary")
        page.select_option("[name=scope]", "all")
        page.select_option("[name=pair]", label="\u2068owl\u2069 → \u2068cat\u2069 (12)")
        page.click("#filter button:not([type=reset])")
        page.click("#view-grid")
        has_cards(page, 12)
        boxes = page.locator(".cards input")
        boxes.nth(0).click()
        boxes.nth(2).click(modifiers=["Shift"])
        page.select_option("#grid-label", value="cat")
        page.click("#grid-give")
        has_cards(page, 9)
        assert list(decided(server).values()) == ["cat"] * 3
        page.select_option("[name=scope]", "decided")
        page.click("#filter button:not([type=reset])")
        has_cards(page, 3)
        assert "✓ cat" in page.inner_text(".cards")


def test_classes_of_one_letter_have_their_own_key(browser, tmp_path):
    names = ["0", "1", "b", "cat"]
    given = [names[n % 4] for n in range(8)]
    table = pd.DataFrame({"id": [f"r{n}" for n in range(8)], "x": range(8), "label": given})
    table.assign(trusted=[n < 4 for n in range(8)]).to_csv(tmp_path / "rows.csv", index=False)
    run = write_run(tmp_path / "run", tmp_path / "rows.csv", table["id"], given, names)
    with serving(run) as server, opened(browser, server) as page:
        assert page.locator("#classes").inner_text().split() == [
            "0",
            "0",
            "1",
            "1",
            "b",
            "b",
            "2",
            "cat",
        ]
        for n, key in enumerate("0b2", start=1):
            page.keyboard.press(key)
            has_text(page, "#count", f"{n} of 5")
        assert sorted(server.session.decisions.current()["label"]) == ["0", "b", "cat"]


def test_two_reviewers_at_once(browser, run):
    with serving(run) as server, opened(browser, server) as ann, opened(browser, server) as bob:
        shows(ann, 5)
        shows(bob, 8)
        bob.fill("#who", "Bob")
        bob.click("#about")
        bob.keyboard.press("1")
        shows(bob, 6)
        ann.keyboard.press("1")
        shows(ann, 7)
        who = server.session.decisions.current().set_index("id")["who"]
        assert who.to_dict() == {"<b id=x5>": "Ann", "<b id=x8>": "Bob"}


def test_a_decision_waits_for_a_server_that_comes_back(browser, run):
    with serving(run) as server, opened(browser, server) as page:
        shows(page, 5)
        page.route("**/api/decide", lambda route: route.abort(), times=1)
        page.keyboard.press("1")
        page.wait_for_selector("text=The server does not answer")
        shows(page, 8)
        assert decided(server) == {5: "cat"}


def test_another_browser_is_refused(browser, run):
    with serving(run) as server:
        page = browser.new_context().new_page()
        assert page.goto(f"{server.address}?token=another").status == 403
        has_text(page, "h1", "Not this browser")
        page.context.close()


@pytest.mark.parametrize("options", [{"viewport": NARROW}, {"color_scheme": "dark"}])
def test_nothing_is_wider_than_the_window_and_everything_has_a_name(browser, run, options):
    with serving(run) as server, opened(browser, server, **options) as page:
        for view in ("#view-one", "#view-grid"):
            page.click(view)
            page.wait_for_timeout(100)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= page.viewport_size["width"]
            nameless = page.evaluate(
                """[...document.querySelectorAll('button, input, select, img, [role=region]')]
                .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.alt))
                .map((e) => e.outerHTML)"""
            )
            assert nameless == []
        assert page.get_attribute("#live", "aria-live") == "polite"
        if "color_scheme" in options:
            assert (
                page.evaluate("getComputedStyle(document.body).backgroundColor")
                == "rgb(21, 23, 26)"
            )


def test_the_command_ends_with_what_to_do_next(run):
    command = [sys.executable, "-m", "pudistill", "review", str(run.path), "--no-open"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    url = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S{40,}", process.stderr.readline())[0]
    cookie = urllib.request.urlopen(url).headers["Set-Cookie"].split(";")[0]
    about = urllib.request.Request(f"{url.split('?')[0]}api/about", headers={"Cookie": cookie})
    assert json.load(urllib.request.urlopen(about))["run"] == "run"  # it waits for the run
    Decisions(run.path).append(Decision("<b id=x5>", "label", "cat", who="Bob"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "1 sample is verified, 1 of them now" in said
    assert f"pudistill update {run.path}" in said
    assert "cat" in (run.path / "review" / "trusted.csv").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing"], "nothing holds no run"),
        (["run", "--host", "0.0.0.0"], "give it a password"),
        (["run", "--password-file", "nothing.txt"], "the password cannot be read"),
    ],
)
def test_wrong_options_are_sentences(command, run, options, words):
    code, _, err = command("review", *options, "--no-open")
    assert (code, words in err) == (2, True), err


def test_the_missing_extra_is_named(command, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pudistill.review.server", None)
    code, _, err = command("review", "run", "--no-open")
    assert code == 2
    assert 'pip install "pudistill[review]"' in err


def test_a_port_in_use_is_a_sentence(command, run):
    server = ReviewServer(lambda: None)
    code, _, err = command("review", "run", "--no-open", "--port", str(server.port))
    assert (code, f"Port {server.port} is in use" in err) == (2, True)


def test_a_password_can_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(review_commands.PASSWORD, "from outside")
    assert review_commands._password(False, None) == "from outside"
    (tmp_path / "password").write_text("of a file\n")
    assert review_commands._password(False, tmp_path / "password") == "of a file"
