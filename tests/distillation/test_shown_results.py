"""Results show themselves as sentences with intervals; HTML is escaped, and text is short."""

from html.parser import HTMLParser

import numpy as np
import pytest
import sklearn

from pudistill import PUDistillClassifier, correct_labels
from pudistill.distillation.certified_labels import CertifiedLabels
from pudistill.distillation.comparison import Comparison, ExpectedAccuracy, LabelAccuracy
from pudistill.distillation.noise_estimate import NoiseEstimate

TAGS = ("div", "p", "table", "tr", "th", "td", "small", "br", "b", "code")
NASTY = "<script>alert(1)</script>\x1b[2J"


class Elements(HTMLParser):
    """The elements and the text of a piece of HTML; fails where they do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.open += [] if tag == "br" else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def estimate(n_classes, basis="verified originals", rate=0.37):
    T = np.full((n_classes, n_classes), 0.3 / (n_classes - 1))
    np.fill_diagonal(T, 0.7)
    return NoiseEstimate(
        classes=np.array([NASTY, *(f"c{n}" for n in range(1, n_classes))]),
        basis=basis,
        transition_matrix=T,
        transition_interval=np.array([0.8 * T, np.minimum(1.2 * T, 1)]),
        rate=rate,
        rate_interval=(0.35, 0.38),
        class_rate=np.full(n_classes, 0.3),
        class_rate_interval=np.tile([0.25, 0.35], (n_classes, 1)),
        class_prior=np.full(n_classes, 1 / n_classes),
        warnings=["<b>Few</b>"],
    )


COMPARISON = Comparison(
    "student",
    "The student is <best>.",
    [
        {"name": "student", "accuracy": 0.9, "log_loss": 0.3, "score": 0.9},
        {"name": "<teacher>", "accuracy": 0.8, "log_loss": 0.5, "score": 0.8},
    ],
    ExpectedAccuracy(0.9, (0.8, 0.95), 60),
)


@pytest.mark.parametrize(("n_classes", "n_cells"), [(2, 4), (12, 144), (100, 144)])
def test_the_matrix_is_a_table_that_is_cut_sensibly(n_classes, n_cells):
    shown = Elements(estimate(n_classes)._repr_html_())
    cells = [attributes for tag, attributes in shown.seen if tag == "td"]
    assert len(cells) == n_cells
    assert all("rgba(" in cell["style"] for cell in cells)
    assert "About 37\xa0% of the labels that nobody verified are wrong" in shown.text
    assert ("Of 100 classes, the 12" in shown.text) == (n_classes == 100)
    assert ("24 to 36\xa0%" in shown.text) == (n_classes == 2)  # in the cell where there is room
    if n_classes == 2:
        assert cells[1]["title"] == f"{NASTY}, given as c1: 30\xa0% (24 to 36\xa0%)"


@pytest.mark.parametrize(
    "result",
    [
        estimate(3),
        estimate(3, "bound"),
        estimate(3, "nothing", np.nan),
        COMPARISON,
        COMPARISON.expected_accuracy,
        ExpectedAccuracy(-0.3, (-0.4, -0.2), 50, "neg_log_loss"),
        Comparison("student", "No trusted sample could be held out to compare.", [], None),
    ],
)
def test_results_are_escaped_and_their_text_is_short(result):
    shown = Elements(result._repr_html_())
    assert {tag for tag, _ in shown.seen} <= {*TAGS}
    assert "<b>Few</b>" in shown.text or not isinstance(result, NoiseEstimate)
    text = repr(result)
    assert "\x1b" not in text
    assert "array(" not in text
    assert len(text.splitlines()) < 12


def test_text_has_the_sentences_of_the_report():
    assert repr(COMPARISON.expected_accuracy) == (
        "Expected accuracy on new samples: 90% (95% interval: 80 to 95%), measured on 60 held-out "
        "trusted samples."
    )
    assert repr(LabelAccuracy(0.9, (0.8, 0.95), 60)) == (
        "Right among the corrected labels that nobody verified: 90% (95% interval: 80 to 95%), "
        "measured on 60 held-out trusted samples."
    )
    lines = repr(estimate(2)).splitlines()
    assert lines[0] == (
        "About 37% of the labels that nobody verified are wrong (95% interval: 35 to 38%). 30% of "
        r"'<script>alert(1)</script>\x1b[2J' are labelled 'c1' and 30% of 'c1' are labelled "
        r"'<script>alert(1)</script>\x1b[2J'."
    )
    assert lines[-1].split() == ["'c1'", "30%", "25", "to", "35%"]


def test_a_classifier_shows_what_it_has_learned_below_the_diagram():
    unfitted = PUDistillClassifier(random_state=0)
    assert "wrong" not in unfitted._repr_mimebundle_()["text/html"].split("</style>")[-1]
    assert unfitted._learned_html() == ""
    X = np.repeat([[0.0], [1.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 1)) / 9
    y = np.repeat(["<b>", "no"], 30)
    verified = np.where(np.arange(60) % 3 == 0, y, None)
    fitted = PUDistillClassifier(random_state=0, n_members=2, max_iter=1).fit(X, y, verified)
    bundle = fitted._repr_mimebundle_()
    assert bundle["text/plain"].startswith("PUDistillClassifier(")
    assert fitted._repr_html_().startswith("<style>")
    for html in (bundle["text/html"], fitted._repr_html_()):
        assert "that nobody verified" in html
        assert "Expected accuracy on new samples" in html
        assert fitted.comparison_.why in html
    Elements(fitted._learned_html())
    with sklearn.config_context(display="text"):
        assert fitted._repr_mimebundle_().keys() == {"text/plain"}
    certified = fitted.certify(0.3)
    assert isinstance(certified, CertifiedLabels)
    assert repr(certified) == str(certified)
    assert "array" not in repr(fitted.label_arrays_) + repr(fitted.held_out_labels_)


def test_commands_in_sentences_are_code_and_no_backticks():
    y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    certified = correct_labels(y, np.eye(2)[y] * 0.8 + 0.1, verified).certify(0.05)
    assert "<code>pudistill next</code>" in certified._repr_html_()
    assert "`pudistill next`" in repr(certified)
