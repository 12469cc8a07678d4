"""The report of a run: its text, safety and offline use, and unusual runs."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_page import Page

from pudistill.exceptions import InputError
from pudistill.runs.report import html
from pudistill.runs.report.counts import count_labels
from pudistill.runs.report.html import RunSummary, render
from tests.helpers.runs import label_rows

NASTY = "<script>alert(1)</script>"


def label_table(given, label, ids=None, **columns):
    ids = [f"{n}.png" for n in range(len(given))] if ids is None else ids
    columns = {"source": "filter", "confidence": 0.9, "votes": 20} | columns
    return label_rows(ids, given, label, **columns).drop(columns=["outlier_score", "outlier"])


def history_of(classes, n_iterations=3):
    return pd.DataFrame(
        [(name, k, 10 * k, 20 * k, 0.5) for name in classes for k in range(1, n_iterations + 1)],
        columns=["class_name", "iteration", "n_positives", "n_clean", "seconds"],
    )


def summary_of(labels, **changes):
    classes = sorted({str(name) for name in [*labels["given"], *labels["label"]]})
    shown = {*changes.get("pictures", ()), *changes.get("texts", ())}
    counts = count_labels([labels], shown)
    summary = RunSummary("pets", counts, history_of(classes), {}, {}, classes, {}, [])
    return dataclasses.replace(summary, **changes)


PETS = label_table(["cat"] * 6 + ["dog"] * 4, ["cat"] * 3 + ["dog"] * 3 + ["cat"] + ["dog"] * 3)


@pytest.fixture
def pets():
    return summary_of(
        PETS,
        metrics={
            "test_accuracy": {"given_labels": 0.5, "pudistill": 0.9, "true_labels": 0.95},
            "n_conflicts": 3,
            "versions": {"numpy": "2.4.6"},
        },
        settings={"threshold": 0.9, "min_votes": 0.95, "n_jobs": None, "filter": {"C": 3.0}},
        notes=["2 pictures were left out."],
    )


# Text


def test_headline_and_flips(pets):
    page = Page(render(pets))
    assert "4 of 10 given labels were changed (40 %)" in page.text.replace("\xa0", " ")
    assert "cat → dog 3 dog → cat 1" in page.text
    assert "2 pictures were left out." in page.text


def test_settings_measurements_and_versions(pets):
    text = Page(render(pets)).text
    for shown in ("threshold 0.9", "n_jobs none", "filter.C 3", "n_conflicts 3", "numpy 2.4.6"):
        assert shown in text


def test_metrics_with_a_section_are_not_listed_once_more(pets):
    sources = [path.read_text() for path in Path(html.__file__).parent.glob("*.py")]
    read = {name for text in sources for name in re.findall(r'metrics\.get\(\s*"(\w+)"', text)}
    assert {"noise", "class_accuracy", "adapted"} <= read <= html.IN_SECTIONS
    row = {"class_name": "cat", "n": 9, "before": 0.5, "after": 0.7, "low": 0.5, "high": 0.9}
    row |= {"lost": 1, "gained": 2, "is_harmed": False}
    expected = {"value": 0.9, "interval": [0.8, 0.95], "n": 60}
    pets.metrics.update(class_accuracy=[row], expected_accuracy=expected)
    page = render(pets)
    assert "50&nbsp;%" in page
    assert "{&#39;" not in page


def test_accuracy_is_compared_in_words_and_in_order(pets):
    text = Page(render(pets)).text.replace("\xa0", " ")
    assert (
        "pudistill is 40.0 points above one trained on the given labels "
        "and 5.0 points below one trained with all labels right." in text
    )
    assert text.index("50.0 %") < text.index("90.0 %") < text.index("95.0 %")


def test_accuracy_says_so_when_another_classifier_wins(pets):
    metrics = {"test_accuracy": {"trusted_only": 0.9, "pudistill": 0.8}}
    text = Page(render(dataclasses.replace(pets, metrics=metrics))).text
    assert "10.0 points below one trained on the trusted labels only" in text


@pytest.mark.parametrize(
    "test_accuracy", [None, {}, {"given_labels": 0.5}, {"pudistill": None, "true_labels": 0.9}]
)
def test_accuracy_of_any_subset(pets, test_accuracy):
    page = Page(render(dataclasses.replace(pets, metrics={"test_accuracy": test_accuracy})))
    assert "points" not in page.text


def test_surest_changes_come_first():
    labels = label_table(["cat"] * 3, ["dog"] * 3, confidence=[0.6, 0.99, 0.8])
    text = Page(render(summary_of(labels))).text
    assert text.index("1.png") < text.index("2.png") < text.index("0.png")


def test_only_samples_that_nobody_verified_are_to_be_checked():
    labels = label_table(["cat"] * 2, ["dog"] * 2, trusted=[True, False], ids=["seen", "unseen"])
    text = Page(render(summary_of(labels))).text
    assert "unseen" in text
    assert "seen cat" not in text.replace("unseen", "")


def test_changed_texts_can_be_read():
    labels = label_table(["cat"] * 2, ["dog"] * 2, ids=["1", "2"])
    labels["outlier_score"], labels["outlier"] = 0.9, False
    text = Page(render(summary_of(labels, texts={"1": NASTY, "2": "it barks"}))).text
    assert text.count("it barks") == text.count(NASTY) == 2
    assert "id text or values given" in text


def test_changed_rows_of_a_table_have_no_text():
    labels = label_table(["cat"] * 2, ["dog"] * 2, ids=["1", "2"])
    labels["outlier_score"], labels["outlier"] = 0.9, False
    text = Page(render(summary_of(labels))).text
    assert "id given" in text
    assert "id text" not in text
    assert "None" not in text


def test_numbers_near_the_ends_are_not_rounded_onto_them():
    labels = label_table(["cat"] * 10_000, ["dog"] + ["cat"] * 9_999, confidence=0.99999)
    text = Page(render(summary_of(labels))).text.replace("\xa0", " ")
    assert "1 of 10,000 given labels was changed (<0.1 %)" in text
    assert ">99.9 %" in text


def test_a_sample_that_came_without_a_label_did_not_change_one():
    labels = label_table(["cat", None, None], ["dog", "dog", "cat"])
    assert "1 of 1 given labels was changed" in Page(render(summary_of(labels))).text


def test_each_section_has_a_template():
    templates = Path(html.__file__).parent.glob("section_*.html")
    assert {path.stem.removeprefix("section_") for path in templates} == html.SECTIONS.keys()


def test_a_section_without_values_is_left_out(pets, monkeypatch):
    monkeypatch.setitem(html.SECTIONS, "columns", lambda _: None)
    assert "The columns of" not in Page(render(pets)).text


# Self-contained and safe


def test_nothing_is_loaded_from_anywhere():
    pictures = {"3.png": np.zeros((8, 8), dtype=np.uint8)}
    text = render(summary_of(PETS, pictures=pictures))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "#"))
        if not name.startswith("xmlns"):
            assert "http:" not in value
            assert "https:" not in value
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.tags.count("style") == 1  # matplotlib's own would style the whole page


def test_text_from_the_data_is_escaped_everywhere():
    other = '"><img src=x onerror=alert(1)>'
    labels = label_table([NASTY] * 3, [other, other, NASTY], ids=[NASTY, other, "a&b"])
    nasty = {
        "title": NASTY,
        "metrics": {
            NASTY: NASTY,
            "versions": {NASTY: other},
            "test_accuracy": {"pudistill": 1},
        },
        "settings": {NASTY: other, "nested": {other: [NASTY, NASTY]}},
        "notes": [NASTY, other],
    }
    for pictures in ({}, {other: np.zeros((4, 4, 3), dtype=np.uint8)}):
        page = Page(render(summary_of(labels, **nasty, pictures=pictures)))
        assert "script" not in page.tags
        assert page.tags.count("img") == len(pictures)
        assert NASTY in page.text
        assert other in page.text


def test_class_names_inside_figures_are_text():
    labels = label_table(["<b>x", "$x", "$x^{2$"], ["$x", "<b>x", "a\nb"])
    page = Page(render(summary_of(labels)))
    assert "b" in page.tags  # the page's own emphasis
    svg = re.findall(r"<svg.*?</svg>", render(summary_of(labels)), flags=re.DOTALL)
    assert len(svg) == 3
    for name in ("&lt;b&gt;x</text>", ">$x</text>", ">$x^{2$</text>", ">a b</text>"):
        assert name in svg[0]
    assert not any("<b" in figure for figure in svg)


def test_file_names_that_are_no_text_can_still_be_written(pets):
    summary = dataclasses.replace(pets, notes=["Skipped caf\udce9.png."])
    assert "caf?.png" in render(summary).encode("utf-8").decode()


def test_two_renderings_are_identical(pets):
    assert render(pets) == render(pets)


# Pictures


def test_gallery_shows_changed_samples_that_have_a_picture():
    grey, colour = np.zeros((28, 28), dtype=np.uint8), np.zeros((300, 200, 3), dtype=np.uint8)
    page = Page(render(summary_of(PETS, pictures={"3.png": grey, "6.png": colour})))
    assert page.tags.count("img") == 2
    assert page.attributes.count(("img", "class", "small")) == 1


def test_ids_that_are_numbers_find_their_pictures():
    labels = label_table(["cat", "cat"], ["dog", "cat"], ids=[7, 8])
    page = Page(render(summary_of(labels, pictures={"7": np.zeros((8, 8, 1), dtype=np.uint8)})))
    assert page.tags.count("img") == 1


@pytest.mark.parametrize(
    "picture", [np.zeros((8, 8)), np.zeros((8, 8, 4), dtype=np.uint8), np.zeros(8, dtype=np.uint8)]
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(InputError, match="A picture must be uint8"):
        render(summary_of(PETS, pictures={"3.png": picture}))


# Unusual runs


def test_nothing_changed(pets):
    labels = label_table(["cat", "dog"], ["cat", "dog"])
    page = Page(render(dataclasses.replace(pets, labels=count_labels([labels]))))
    assert "None of the 2 given labels was changed" in page.text
    assert "Which labels changed" not in page.text


def test_all_trusted():
    labels = label_table(["cat", "dog"], ["cat", "dog"], source="trusted", trusted=True)
    labels["votes"] = pd.array([pd.NA, pd.NA], dtype="Int64")
    page = Page(render(summary_of(labels, history=pd.DataFrame())))
    assert "2 of them were trusted" in page.text
    assert "How the clean set grew" not in page.text


@pytest.mark.parametrize("frame", [pd.DataFrame(), label_table([], [])])
def test_empty_frames(frame):
    page = Page(render(RunSummary("", count_labels([frame]), pd.DataFrame(), {}, {}, [], {}, [])))
    assert "There are no labels to report" in page.text


def test_missing_confidences():
    labels = label_table(["cat", "dog"], ["dog", "dog"], confidence=[np.nan, np.nan])
    assert "–" in Page(render(summary_of(labels))).text


@pytest.mark.parametrize("n_iterations", [1, 30])
def test_one_iteration_and_many(pets, n_iterations):
    Page(render(dataclasses.replace(pets, history=history_of(["cat", "dog"], n_iterations))))


@pytest.mark.filterwarnings("error")
def test_names_in_any_script():
    labels = label_table(["猫", "सिंह", "🐈", ""], ["🐈", "猫", "", "سمكة"])
    assert "सिंह" in Page(render(summary_of(labels))).text


@pytest.mark.filterwarnings("error")
def test_a_large_table_of_many_classes_stays_small():
    rng = np.random.default_rng(0)
    names = np.array([f"class {n}" for n in range(1000)], dtype=object)
    given, label = rng.integers(1000, size=(2, 100_000))
    labels = label_table(names[given], names[label], confidence=rng.random(100_000))
    summary = summary_of(labels, metrics={"slowest": list(names)})
    text = render(summary)
    assert len(text) < 2_000_000
    assert "Of 1,000 classes, only the 50 in the most frequent changes are drawn" in Page(text).text
    assert "(1,000 in all)" in text
