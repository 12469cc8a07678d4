"""Sections of the report: noise, the filter's settings, expected accuracy, fitted quantities."""

import numpy as np
import pandas as pd
import pytest
from html_page import Page

from pudistill.distillation.sentences import most_involved
from pudistill.runs.report.counts import count_labels
from pudistill.runs.report.html import RunSummary, render
from pudistill.runs.report.sections import (
    certificates_section,
    expectation_section,
    filter_section,
    noise_section,
)

NASTY = "<script>alert(1)</script>"


def noise_of(matrix, *, rate=0.47, interval=(0.44, 0.5), **changes):
    matrix = np.asarray(matrix, dtype=float)
    rates = 1 - matrix.diagonal()
    return {
        "rate": rate,
        "rate_interval": list(interval),
        "class_rate": rates.tolist(),
        "class_rate_interval": np.clip([rates - 0.05, rates + 0.05], 0, 1).T.tolist(),
        "transition_matrix": matrix.tolist(),
        "transition_interval": np.clip([matrix - 0.05, matrix + 0.05], 0, 1).tolist(),
        "class_prior": [1 / len(matrix)] * len(matrix),
        "basis": "verified originals",
        "warnings": [],
    } | changes


def text_of(classes=("cat", "dog", "eel"), **metrics):
    """Visible text of the report of a run with these metrics."""
    page = Page(page_of(classes, **metrics))
    return page.text.replace("\xa0", " ")


def page_of(classes=("cat", "dog", "eel"), **metrics):
    return render(
        RunSummary("pets", count_labels([]), pd.DataFrame(), metrics, {}, list(classes), {}, [])
    )


CONFUSED = [[0.9, 0.08, 0.02], [0.03, 0.06, 0.91], [0.5, 0.05, 0.45]]
"""Of three classes: one mostly right, two mostly called another one."""


# Noise


def test_the_headline_names_the_noise_rate_and_the_largest_confusions():
    text = text_of(noise=noise_of(CONFUSED))
    assert (
        "About 47 % of the labels that nobody verified are wrong (95 % interval: 44 to 50 %). "
        "91 % of 'dog' are labelled 'eel' and 50 % of 'eel' are labelled 'cat'." in text
    )


def test_wrong_labels_that_are_evenly_spread_do_not_stand_out():
    even = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
    text = text_of(noise=noise_of(even))
    assert "are wrong (95 % interval: 44 to 50 %). " in text
    assert "are labelled" not in text.split("Each row")[0]


def test_three_confusions_are_named_at_most_the_largest_first():
    flips = np.eye(6) * 0.4
    for true, share in enumerate([0.6, 0.55, 0.5, 0.45, 0.4, 0.35]):
        flips[true, (true + 1) % 6] = share
    headline = noise_section(noise_of(flips), list("abcdef"))["headline"].unescape()
    assert headline.replace("\xa0", " ").endswith(
        "60 % of 'a' are labelled 'b', 55 % of 'b' are labelled 'c' and 50 % of 'c' are labelled "
        "'d'."
    )


def test_classes_that_are_numbers_are_called_classes():
    text = text_of(classes="012", noise=noise_of(CONFUSED))
    assert "91 % of class 1 are labelled class 2" in text


def test_each_class_has_its_rate_its_interval_and_what_it_is_called():
    text = text_of(noise=noise_of(CONFUSED))
    assert "dog 94 % 89 to 99 % eel 91 % (86 to 96 %)" in text
    assert "eel 55 % 50 to 60 % cat 50 % (45 to 55 %)" in text


def test_a_bound_is_called_one_and_says_what_would_tell_more():
    text = text_of(noise=noise_of(CONFUSED, basis="bound", interval=(0.2, 0.7)))
    assert "20 to 70 % are wrong, whatever the noise; about 47 % if it depends on the" in text
    assert "pass the verified ones beside them: that tells more." in text


def test_a_rate_that_cannot_be_told_is_not_stated():
    text = text_of(noise=noise_of(CONFUSED, rate=None, interval=(0, 1)))
    assert "How many of the labels that nobody verified are wrong cannot be told." in text


def test_runs_of_old_versions_have_no_basis():
    noise = noise_of(CONFUSED)
    del noise["basis"]
    assert "About 47 % of the labels" in text_of(noise=noise)


def test_warnings_about_the_noise_are_shown():
    assert "Few samples of cat." in text_of(
        noise=noise_of(CONFUSED, warnings=["Few samples of cat."])
    )


def test_a_narrow_interval_gets_a_decimal():
    text = text_of(noise=noise_of(CONFUSED, rate=0.031, interval=(0.026, 0.038)))
    assert "About 3.1 % of the labels" in text
    assert "(95 % interval: 2.6 to 3.8 %)" in text


def test_many_classes_remain_readable():
    rng = np.random.default_rng(0)
    matrix = 0.6 * np.eye(100) + 0.4 * rng.dirichlet(np.ones(100), size=100)
    names = [f"class {n}" for n in range(100)]
    section = noise_section(noise_of(matrix), names)
    assert section["n_drawn"] == 50
    rates = [row["rate"] for row in section["rows"]]
    assert rates == sorted(rates, reverse=True)
    text = text_of(classes=names, noise=noise_of(matrix))
    assert "Of 100 classes, only the 50 in the most frequent confusions are drawn." in text
    assert "The 20 classes with the most wrong labels" in text
    assert "The other classes" in text


def test_a_class_without_an_estimate():
    noise = noise_of(CONFUSED)
    noise["class_rate"][0] = noise["transition_matrix"][0][1] = None
    noise["class_rate_interval"][0] = [None, None]
    assert "cat – –" in text_of(noise=noise)


def test_two_classes():
    text = text_of(classes=["yes", "no"], noise=noise_of([[0.7, 0.3], [0.1, 0.9]]))
    assert "44 to 50 %). 30 % of 'yes' are labelled 'no'." in text


# The filter's settings


def setting(class_name, **changes):
    return {
        "class_name": class_name,
        "threshold": 0.85,
        "min_votes": 17,
        "n_members": 20,
        "precision": 0.96,
        "n_clean": 1234,
    } | changes


def test_settings_are_listed():
    text = text_of(filter_settings=[setting("cat"), setting("dog", precision=None)])
    assert "cat 0.85 17 20 96 % 1,234" in text
    assert "dog 0.85 17 20 – 1,234" in text
    assert "No setting was precise enough" not in text


def test_classes_with_an_empty_clean_set_are_named():
    refused = setting("cat", min_votes=21, precision=None, n_clean=0)
    in_vain = setting("eel", n_clean=0)
    text = text_of(filter_settings=[refused, setting("dog"), in_vain])
    assert "No setting was precise enough for 'cat'." in text
    assert "The filter found no sample of 'eel' besides the trusted samples. The teachers" in text


# What to expect

COMPARISON = {
    "shipped": "teacher",
    "why": "The teachers have the smallest log loss.",
    "target": "held-out trusted samples",
    "n": 69,
    "candidates": [
        {"name": "trusted_only", "accuracy": 0.838, "log_loss": 0.61},
        {"name": "teacher", "accuracy": 0.942, "log_loss": 0.24},
    ],
}
EXPECTED = {"value": 0.942, "interval": [0.9, 0.97], "n": 69}


def test_the_expected_accuracy_comes_with_its_interval():
    assert (
        "Expected accuracy on new samples: 94 % (95 % interval: 90 to 97 %), measured on 69 "
        "held-out trusted samples." in text_of(expected_accuracy=EXPECTED)
    )


def test_another_metric_is_named_and_shown_for_each_candidate():
    expected = {"value": -0.25, "interval": [-0.5, -0.125], "n": 69, "metric": "neg_log_loss"}
    text = text_of(expected_accuracy=expected, comparison=COMPARISON)
    assert "Expected log loss on new samples: 0.250 (95 % interval: 0.125 to 0.500)" in text
    candidates = [candidate | {"score": 0.5} for candidate in COMPARISON["candidates"]]
    text = text_of(
        expected_accuracy=EXPECTED | {"metric": "f1_macro"},
        comparison=COMPARISON | {"candidates": candidates},
    )
    assert "Expected macro F1 on new samples: 94 %" in text
    assert "macro F1 50.0%" in text


def test_candidates_are_compared_and_the_kept_one_is_marked():
    text = text_of(comparison=COMPARISON)
    assert "Accuracy of the candidates on 69 held-out trusted samples." in text
    assert "trained on the trusted labels only 83.8 % log loss 0.61" in text
    assert "the teachers 94.2 % kept log loss 0.24" in text
    assert text.count("kept") == 1
    assert "The teachers have the smallest log loss." in text


def test_a_candidate_without_a_log_loss():
    candidates = [{"name": "own model", "accuracy": 0.5}]
    text = text_of(comparison=COMPARISON | {"candidates": candidates})
    assert "own model 50.0 %" in text


# All sections


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_a_run_without_such_metrics_has_no_such_section(nothing):
    assert noise_section(nothing, []) is None
    assert filter_section(nothing) is None
    assert expectation_section({"expected_accuracy": nothing, "comparison": nothing}) is None
    text = text_of(
        noise=nothing, filter_settings=nothing, comparison=nothing, expected_accuracy=nothing
    )
    for heading in ("What to expect", "How many labels are wrong", "The filter's settings"):
        assert heading not in text


def test_nothing_is_listed_twice():
    text = text_of(
        noise=noise_of(CONFUSED),
        filter_settings=[setting("cat")],
        comparison=COMPARISON,
        expected_accuracy=EXPECTED,
    )
    for name in ("class_prior", "filter_settings", "comparison.", "expected_accuracy."):
        assert name not in text


def test_names_and_sentences_are_escaped():
    classes = [NASTY, '"><img src=x>', "a&b"]
    page = page_of(
        classes,
        noise=noise_of(CONFUSED, warnings=[NASTY], sources={NASTY: 1.0}),
        filter_settings=[setting(name, n_clean=0) for name in classes],
        comparison=COMPARISON
        | {
            "why": NASTY,
            "target": NASTY,
            "candidates": [{"name": NASTY, "accuracy": 0.5, "log_loss": None}],
        },
        expected_accuracy=EXPECTED,
    )
    read = Page(page)
    assert not {"script", "img"} & set(read.tags)
    assert NASTY in read.text
    assert "&amp;lt;" not in page  # nor twice


# What was fitted to the data

ADAPTED = {
    "rounds": 3,
    "student_share": 0.9,
    "given_labels_share": 0.0,
    "trusted_only_share_of_guess": 0.25,
    "teacher_share_of_guess": 0.75,
    "sharpness_of_student": 1.1,
    "sharpness_of_trusted_only": 0.5,
    "sharpness_of_teacher": 0.375,
    "held_out_trusted_samples": 1069,
}


def test_fitted_quantities_are_described():
    text = text_of(adapted=ADAPTED)
    assert "rounds of learning 3" in text
    assert "share of the student in the mixture 90 %" in text
    assert "trusted samples held out in turn 1,069" in text
    assert "the teachers 75 % 0.38" in text
    assert "adapted.rounds" not in text
    assert "What was fitted" not in text_of()


def test_of_many_classes_the_most_involved_are_drawn_in_their_order():
    names = [f"class {n}" for n in range(60)]
    pairs = np.array([names[59:57:-1], *np.reshape(names[:58], (29, 2))])
    assert most_involved(names, pairs) == [*names[:48], *names[58:]]
    assert most_involved(names[:50], pairs) == names[:50]


def test_the_labels_that_can_be_used_are_listed_by_their_largest_error():
    curve = {"share": [0.5, 1.0], "error": [0.0, 0.1], "low": [0.0, 0.05], "high": [0.02, 0.2]}
    rows = [
        {"max_error": 0.01, "n_accepted": 0, "n_verified": 0, "n_wrong": 0}
        | {"more_verified": [(300, 0.4), (900, 0.6)]},
        {"max_error": 0.1, "n_accepted": 1500, "n_verified": 120, "n_wrong": 7}
        | {"more_verified": []},
    ]
    section = certificates_section({"n_samples": 2000, "by_max_error": rows, "curve": curve})
    one, ten = section["rows"]
    assert one["judged_by"] == "–"
    assert one["more"].unescape().replace(chr(160), " ") == "300 more: 40 % and 900 more: 60 %"
    assert ten["judged_by"] == "120, of which 7 wrong"
    assert ten["share"].unescape().replace(chr(160), " ") == "75 %"
    assert section["curve"].startswith("<svg")


def test_why_no_label_can_be_used():
    assert certificates_section(None) is None
    assert certificates_section({"refused": NASTY})["refused"] == NASTY
