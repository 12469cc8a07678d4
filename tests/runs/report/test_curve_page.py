"""The page of a sweep shows the curve and every accuracy."""

import pandas as pd
import pytest
from html_page import Page

from pudistill.runs.report.curve_page import CurveSummary, render_curve

METRICS = {"n_samples": 1347, "n_trusted": 69, "n_classes": 10, "n_test": 450, "seconds": 12.5}


def results_of(accuracies, noise="symmetric"):
    return pd.DataFrame(
        [
            (noise, level, 0.9 * level, method, accuracy)
            for method, line in accuracies.items()
            for level, accuracy in zip((0.3, 0.6), line, strict=True)
        ],
        columns=["noise", "level", "overall_level", "method", "accuracy"],
    )


@pytest.fixture
def summary():
    accuracies = {"pudistill": [0.95, 0.94], "given_labels": [0.96, 0.5], "true_labels": [0.98] * 2}
    results = pd.concat([results_of(accuracies), results_of(accuracies, "asymmetric")])
    return CurveSummary("digits", results, METRICS, {"learner": "svm"}, ["0.97 was left out."])


def read(summary):
    page = Page(render_curve(summary))
    return page, page.text.replace("\xa0", " ")


def test_it_shows_accuracy_samples_and_settings(summary):
    _, text = read(summary)
    assert "94.0 to 95.0 % accuracy with 27 to 54 % of the labels wrong" in text
    assert "1,347 samples in 10 classes, 69 of them trusted; accuracy on 450 test samples" in text
    assert "0.97 was left out." in text
    assert "learner svm" in text
    assert "seconds 12.5" in text


def test_a_table_for_each_kind_of_noise(summary):
    page, text = read(summary)
    assert page.tags.count("svg") == 1
    for kind in ("Symmetric noise", "Asymmetric noise"):
        table = text.split(kind)[1]
        assert table.index("30 % 60 %") < table.index("27 % 54 %")
        rows = [
            "trained on the given labels 96.0 % 50.0 %",
            "pudistill 95.0 % 94.0 %",
            "trained with all labels right 98.0 % 98.0 %",
        ]
        places = [table.index(row) for row in rows]
        assert places == sorted(places)


def test_the_best_is_bold_but_the_ceiling_never_is(summary):
    text = render_curve(summary).replace("&nbsp;", " ")
    for best in ("<b>96.0 %</b>", "<b>94.0 %</b>"):
        assert text.count(best) == 2
    assert "<b>98.0 %</b>" not in text
    assert "<b>50.0 %</b>" not in text


def test_a_sweep_of_an_unregistered_method_without_pudistill():
    results = results_of({"my_own": [0.5, 0.4]})
    _, text = read(CurveSummary("digits", results, METRICS, {}, []))
    assert "Accuracy against noise level" in text
    assert "my own 50.0 % 40.0 %" in text


def test_nothing_is_loaded_and_all_is_escaped(summary):
    nasty = "<script>alert(1)</script>"
    changed = CurveSummary(
        nasty,
        summary.results.replace("given_labels", nasty),
        METRICS | {nasty: nasty, "versions": {nasty: nasty}},
        {nasty: nasty},
        [nasty],
    )
    page, text = read(changed)
    assert not {"script", "link", "img"} & set(page.tags)
    assert nasty in text
    for _, name, value in page.attributes:
        assert name.startswith("xmlns") or "http" not in value
