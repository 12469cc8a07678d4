"""The report's table of changed samples: its data, and what it does in a browser."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from html_page import Page

from pudistill.data.loading import load_dataset
from pudistill.distillation.certified_labels import certify
from pudistill.runs.certificates import MAX_ERRORS, accepted_in
from pudistill.runs.folder import Run
from pudistill.runs.report import changes as module
from pudistill.runs.report.changes import Changes, as_json
from pudistill.runs.report.counts import count_labels
from pudistill.runs.report.html import RunSummary, render
from tests.helpers.runs import label_rows

NASTY = '</script><script>alert("1")</script><!--'


def label_table(n=120):
    """Two classes; every third label changed, and every sixth of these verified."""
    rows = np.arange(n)
    given = np.where(rows % 2, "cat", "dog")
    label = np.where(rows % 3 == 0, np.where(rows % 2, "dog", "eel"), given)
    ids, source = [f"s{row:03}" for row in rows], np.where(rows % 4, "student", "filter")
    sure = (rows + 1) / n
    return label_rows(ids, given, label, trusted=rows % 18 == 0, source=source, confidence=sure)


def report_of(table, accepted=None, **contents):
    changes = Changes(accepted, MAX_ERRORS)
    labels = count_labels(changes.watch([table.iloc[:50], table.iloc[50:]]))
    settings = {"no_class_label": "none of these"}
    classes = ["cat", "dog", "eel"]
    summary = RunSummary("pets", labels, pd.DataFrame(), {}, settings, classes, {}, [])
    return render(vars_of(summary, changes=changes, **contents))


def vars_of(summary, **contents):
    return RunSummary(**(vars(summary) | contents))


def data_of(page):
    found = re.search(r'<script type="application/json" id="changes-data">(.*?)</script>', page)
    return json.loads(found[1])


def test_the_data_hold_all_changes_that_nobody_verified_the_surest_first():
    table = label_table()
    expected = table[table["changed"] & ~table["trusted"]].iloc[::-1]
    data = data_of(report_of(table, np.arange(120).astype(np.uint8) % 5))
    assert data["ids"] == expected["id"].tolist()
    for name in ("given", "label"):
        assert [data["names"][code] for code in data[name]] == expected[name].tolist()
    assert [data["sources"][code] for code in data["source"]] == expected["source"].tolist()
    assert data["accepted"] == (expected.index % 5).tolist()
    assert data["changed"] == len(expected)
    np.testing.assert_allclose(
        np.array(data["confidence"]) / 1000, expected["confidence"], atol=1.1e-3
    )


def test_only_the_surest_of_very_many_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    changes, table = Changes(), label_table()
    parts = [table.iloc[start : start + 7] for start in range(0, 120, 7)]
    assert len(list(changes.watch(parts))) == len(parts)
    wanted = table[table["changed"] & ~table["trusted"]]
    assert changes.rows()["id"].tolist() == wanted["id"].tolist()[::-1][:5]
    assert changes.n_changed == len(wanted)


def test_names_and_texts_cannot_end_the_script():
    table = label_table()
    table.loc[table["label"] == "eel", "label"] = NASTY
    table["id"] = table["id"] + NASTY
    texts = dict.fromkeys(table["id"], NASTY + "&lt;")
    page = report_of(table, texts=texts)
    read = Page(page)
    assert read.tags.count("script") == 2
    data = data_of(page)
    assert NASTY in data["names"]
    assert data["texts"][0] == NASTY + "&lt;"


def test_the_page_allows_its_own_script_and_nothing_else():
    page = report_of(label_table())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 1
    assert not re.search(r"https?://", page.replace("http://www.w3.org/", ""))


def test_without_a_script_the_surest_changes_are_read():
    page = Page(report_of(label_table()))
    assert "s117" in page.text
    assert ("div", "hidden", "") in page.attributes  # the table, until its script has run


def test_a_label_is_accepted_in_the_smallest_error_that_certifies_it(tmp_path):
    rng = np.random.default_rng(0)
    n = 4000
    truth, trusted = rng.integers(0, 2, n), np.arange(n) % 2 == 0
    score = rng.random(n).astype(np.float32)
    predicted = np.where(rng.random(n) < 0.5 * (1 - score) ** 2, 1 - truth, truth)
    label = np.where(trusted, truth, np.where(np.arange(n) % 7 == 0, 1 - predicted, predicted))
    names = np.array(["cat", "dog"], dtype=object)
    run = Run.create(tmp_path / "run", {"data": "x"})
    run.write_table("labels", pd.DataFrame({"label": names[label], "trusted": trusted}))
    held_out = {"label": predicted, "score": score, "worth": np.array(1.0), "doubt": np.array("")}
    run.write_arrays("held_out_labels.npz", held_out | {"names": names.astype(str)})
    run.finish({})
    found = accepted_in(run)
    from pudistill.distillation.held_out_labels import HeldOutLabels

    judged = HeldOutLabels(predicted, score, 1.0, None)
    for position, max_error in enumerate(MAX_ERRORS):
        certified = certify(names, label, trusted, judged, max_error)
        accepted = certified.accepted & (certified.labels == names[label]) & ~trusted
        np.testing.assert_array_equal((found <= position)[~trusted], accepted[~trusted])
    assert len({*found[~trusted]}) > 2


def test_what_corrections_name_is_not_shortened():
    table = label_table()
    eel, folder = "eel" + 400 * "x", 400 * "y" + "/"
    table["label"] = table["label"].replace("eel", eel)
    table["id"] = folder + table["id"]
    texts = {name: f"text of {name[-4:]}" for name in table["id"]}
    pictures = dict.fromkeys(table["id"], np.zeros((2, 2), np.uint8))
    page = report_of(table, classes=["cat", "dog", eel], texts=texts)
    data = data_of(page)
    assert data["names"][: data["classes"]] == ["cat", "dog", eel] == data["names"]
    assert data["ids"][0] == f"{folder}s117"
    assert data["texts"][0] == "text of s117"
    assert page.count("text of s117") == 2, "also among the surest changes"
    page = report_of(table, classes=["cat", "dog", eel], pictures=pictures)
    assert len(data_of(page)["pictures"]) == len(data["ids"])


def test_json_is_compact():
    changes = Changes()
    list(changes.watch([label_table()]))
    text = as_json(changes, changes.rows(), ["cat", "dog", "eel"], {}, {}, None)
    assert len(text) < 1500


# In a browser


@pytest.fixture
def opened(browser, tmp_path):
    """Open a report in a new tab; its errors fail the test."""
    path, errors, contexts = tmp_path / "report.html", [], []

    def read(page, **options):
        path.write_text(page, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        tab = contexts[-1].new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda said: errors.append(said.text))
        tab.goto(path.as_uri())
        return tab

    yield read
    for context in contexts:
        context.close()
    assert errors == []


def ids(tab):
    return tab.locator("#changes button.open").all_inner_texts()


def test_it_sorts_filters_searches_and_pages(opened):
    table = label_table(600)
    wanted = table[table["changed"] & ~table["trusted"]]
    texts = {name: f"text of {name}" for name in table["id"]}
    tab = opened(report_of(table, (np.arange(600) % 5).astype(np.uint8), texts=texts))
    assert not tab.locator("#changes-still").is_visible()
    assert ids(tab) == wanted["id"].tolist()[::-1][:50]
    tab.click("#changes-next")
    assert ids(tab) == wanted["id"].tolist()[::-1][50:100]
    tab.click("button[data-sort=id]")
    assert ids(tab) == wanted["id"].tolist()[:50]
    tab.select_option("#changes-given", label=f"cat ({(wanted['given'] == 'cat').sum()})")
    assert ids(tab) == wanted[wanted["given"] == "cat"]["id"].tolist()[:50]
    tab.select_option("#changes-given", "")
    tab.fill("#changes-least", "90")
    sure = wanted[(1000 * wanted["confidence"]).round() >= 900]
    assert ids(tab) == sure["id"].tolist()
    tab.select_option("#changes-accepted", label="at most 2 % wrong")
    assert ids(tab) == sure[sure.index % 5 <= 1]["id"].tolist()
    tab.select_option("#changes-accepted", "")
    tab.fill("#changes-search", "TEXT OF " + sure["id"].iloc[3])
    assert ids(tab) == [sure["id"].iloc[3]]
    assert tab.inner_text("#changes-count") == f"1 to 1 of 1 (of {len(wanted)} in all)"
    tab.fill("#changes-search", "nothing like it")
    assert tab.inner_text("#changes-count") == "No sample matches."


def test_corrections_survive_a_reload_and_become_a_trusted_table(opened, tmp_path):
    table = label_table()
    table["id"] = [f'=s "{row}", x' for row in range(120)]
    wanted = table[table["changed"] & ~table["trusted"]].iloc[::-1]
    tab = opened(report_of(table))
    tab.fill("#changes-who", "Ada")
    tab.locator("button.open").first.click()
    for key in "gsn":  # each opens the next sample
        tab.keyboard.press(key)
    tab.locator(".opened select").select_option(label="cat")
    tab.reload()
    tab.locator("button.open").nth(1).click()
    tab.keyboard.press("u")
    with tab.expect_download() as download:
        tab.click("#changes-download")
    path = tmp_path / "corrections.csv"
    download.value.save_as(path)
    found = pd.read_csv(path, dtype=str)
    rows = wanted.iloc[[0, 2, 3]]
    assert found["id"].tolist() == rows["id"].tolist()
    assert found["label"].tolist() == [rows["given"].iloc[0], "none of these", "cat"]
    assert {*found["weight"]} == {"0"}
    assert {*found["who"]} == {"Ada"}
    assert found["when"].str.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    data = table[["id", "given"]].rename(columns={"given": "label"}).assign(x=1.0)
    data.to_csv(tmp_path / "data.csv", index=False)
    dataset = load_dataset(tmp_path / "data.csv", trusted=path)
    assert dataset.trusted.sum() == 3


def test_pictures_have_words_and_the_page_fits_a_phone(opened):
    table = label_table()
    table["id"] = "a-folder-with-a-long-name/" + table["id"] + ".png"
    picture = np.zeros((300, 200, 3), np.uint8)
    pictures = dict.fromkeys(table["id"], picture)
    phone = {"width": 400, "height": 800}
    page = report_of(table, np.zeros(120, np.uint8), pictures=pictures)
    tab = opened(page, viewport=phone, color_scheme="dark")
    tab.locator("button.open").first.click()
    alt = tab.get_attribute(".opened img", "alt")
    assert re.fullmatch(r"Sample a-folder.*\.png, given as cat, suggested dog", alt)
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    for button in tab.locator(".opened button").all():
        assert button.bounding_box()["x"] + button.bounding_box()["width"] <= 400


def test_a_reader_without_a_script_sees_the_surest_changes(opened):
    tab = opened(report_of(label_table()), java_script_enabled=False)
    assert tab.locator("#changes-still").is_visible()
    assert not tab.locator("#changes").is_visible()
    assert "s117" in tab.inner_text("#changes-still")
