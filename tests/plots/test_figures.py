"""The public figures draw on the axis they get, and state the numbers and intervals of a fit."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator

from pudistill import InputError, PUDistillClassifier, plots
from pudistill.distillation.certified_labels import held_out_shares
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.distillation.noise_estimate import NoiseEstimate
from pudistill.estimates.shares import exact_interval
from pudistill.labels.table import LabelTable


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    X, trusted = 3 * y[:, None] + rng.normal(size=(300, 2)), np.arange(300) % 5 == 0
    given = np.where(rng.random(300) > 0.3, y, 1 - y)
    names = np.array(["cat", "$x dog"], dtype=object)
    verified = np.where(trusted, names[y], None)
    return PUDistillClassifier(random_state=0).fit(X, names[given], trusted=verified)


class Fitted(BaseEstimator):
    def __init__(self, **learned):
        vars(self).update(learned)

    def fit(self):
        raise NotImplementedError


def axis(size=(5, 5)):
    return Figure(size).add_subplot()


def words(ax):
    return [text.get_text() for text in ax.texts]


def judged(score, right, n_rest=10, **changes):
    """A classifier whose samples are all verified and held out, except the last `n_rest`."""
    n = len(score)
    trusted = np.arange(n + n_rest) < n
    label = np.zeros(n + n_rest, dtype=int)
    held_out = np.where(np.append(right, np.ones(n_rest, bool)), 0, 1)
    scores = np.append(score, np.full(n_rest, 0.9))
    nothing = np.zeros(n + n_rest)
    table = LabelTable(
        np.array(["a", "b"]), label, trusted, label, *[nothing] * 5, nothing, nothing > 0
    )
    labels = HeldOutLabels(held_out, scores, **{"worth": 1.0, "doubt": None} | changes)
    return Fitted(label_arrays_=table, held_out_labels_=labels)


def estimate(T, **changes):
    T, C = np.array(T, dtype=float), len(T)
    found = {
        "classes": np.array([f"c{n}" for n in range(C)]),
        "basis": "verified originals",
        "transition_matrix": T,
        "transition_interval": np.array([0.5 * T, np.minimum(1, 1.5 * T)]),
        "rate": 0.2,
        "rate_interval": (0.1, 0.3),
        "class_rate": 1 - T.diagonal(),
        "class_rate_interval": np.tile([0.0, 1.0], (C, 1)),
        "class_prior": np.full(C, 1 / C),
        "warnings": [],
    }
    return NoiseEstimate(**found | changes)


def test_the_matrix_writes_each_share_with_its_interval_where_there_is_room():
    noise = estimate([[0.8, 0.2], [0.0, 1.0]])
    ax = plots.transition_matrix(noise, ax=axis())
    assert [text for text in words(ax) if text] == [
        "80 %\n(40 to 100)",
        "20 %\n(10 to 30)",
        "100 %\n(50 to 100)",
    ]
    small = plots.transition_matrix(noise, ax=axis((1, 1)))
    assert [text for text in words(small) if text] == ["80", "20", "100"]


def test_of_many_classes_those_with_most_confusions_are_drawn():
    T = np.eye(60)
    T[58:, 58:] = 0.5
    ax = plots.transition_matrix(estimate(T), ax=axis())
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == 50
    assert names[-2:] == ["c58", "c59"]


@pytest.mark.parametrize(
    "draw",
    [plots.transition_matrix, plots.clean_set_growth, plots.accepted_share, plots.calibration],
)
def test_figures_draw_on_the_axis_they_get_in_the_style_of_the_user(fitted, draw):
    ax = axis()
    with mpl.rc_context({"axes.prop_cycle": mpl.cycler(color=["#123456", "#654321"])}):
        assert draw(fitted, ax=ax) is ax
        before = dict(mpl.rcParams)
        draw(fitted, ax=axis())
        assert dict(mpl.rcParams) == before
    drawn = {mpl.colors.to_hex(line.get_color()) for line in ax.lines}
    assert draw is plots.transition_matrix or "#123456" in drawn
    ax.figure.savefig("/dev/null", format="png")
    with pytest.raises(InputError, match=r"fit|No label can be certified"):
        draw(Fitted(noise_=None, label_arrays_=1, held_out_labels_=None), ax=axis())


def test_calibration_counts_held_out_verified_samples_only():
    score = np.repeat([0.6, 0.9], 40)
    right = np.arange(80) % 4 > 0  # three quarters
    bins = held_out_shares(judged(score, right))
    assert bins["n"].tolist() == [40, 40]
    assert bins["probability"].tolist() == pytest.approx([0.6, 0.9])
    assert bins["right"].tolist() == [0.75, 0.75]
    assert bins[["low", "high"]].iloc[0].tolist() == pytest.approx(exact_interval(0.75, 40))
    in_groups = held_out_shares(judged(score, right, worth=0.5))
    assert in_groups[["low", "high"]].iloc[0].tolist() == pytest.approx(exact_interval(0.75, 20))


def test_calibration_weighs_samples_that_were_not_drawn_uniformly():
    right, n = np.arange(100) < 50, 100
    weight = np.append(np.where(right, 1.5, 0.5), np.full(5000, np.nan))
    order = np.append(np.random.default_rng(0).permutation(n), np.full(5000, -1))
    drawn = {"draw_weight": weight, "draw_order": order}
    bins = held_out_shares(judged(np.full(n, 0.8), right, 5000, **drawn))
    assert bins["right"].iloc[0] == pytest.approx(0.75, abs=0.01)
    assert bins["low"].iloc[0] < bins["right"].iloc[0] < bins["high"].iloc[0]


def test_where_verified_samples_are_no_random_sample_nothing_is_drawn():
    doubtful = judged(np.full(40, 0.8), np.ones(40, bool), doubt="They were picked.")
    for draw in (plots.calibration, plots.accepted_share):
        with pytest.raises(InputError, match="They were picked"):
            draw(doubtful, ax=axis())


def test_the_accuracy_curve_has_exact_intervals_if_it_knows_the_test_samples():
    rows = [(level, "pudistill", 0.9) for level in (0.2, 0.4)]
    results = pd.DataFrame(rows, columns=["overall_level", "method", "accuracy"])
    ax = plots.accuracy_curve(results, n_test=50, ax=axis(), names={"pudistill": "ours"})
    (ends,) = ax.collections
    low, high = ends.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx(exact_interval(0.9, 50))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours"]
    assert not plots.accuracy_curve(results, ax=axis()).collections
    # A training that diverged is left out; of several seeds, the mean has the interval.
    seeds = pd.concat([results, results.assign(accuracy=[0.7, np.nan])])
    (ends,) = plots.accuracy_curve(seeds, n_test=50, ax=axis()).collections
    drawn = [segment[:, 1] for segment in ends.get_segments()]
    np.testing.assert_allclose(drawn, [exact_interval(0.8, 50), exact_interval(0.9, 50)])
    with pytest.raises(InputError, match="every training diverged"):
        plots.accuracy_curve(results.assign(accuracy=np.nan))
    with pytest.raises(InputError, match="lack the columns accuracy"):
        plots.accuracy_curve(results.drop(columns="accuracy"))
    both = pd.concat([results.assign(noise="pair"), results.assign(noise="symmetric")])
    with pytest.raises(InputError, match="2 kinds of noise, pair, symmetric"):
        plots.accuracy_curve(both)
    for wrong in (0, -3, 1.5, True):
        with pytest.raises(InputError, match="n_test is"):
            plots.accuracy_curve(results, n_test=wrong)
    with pytest.raises(InputError, match="accuracy must hold shares from 0 to 1"):
        plots.accuracy_curve(results.assign(accuracy=95.0))
    with pytest.raises(InputError, match="of type dict: pass a DataFrame"):
        plots.accuracy_curve(dict(results))


def test_the_whole_band_is_seen():
    ax = plots.accepted_share(judged(np.linspace(0.5, 1, 40), np.arange(40) > 2), ax=axis())
    highest = ax.collections[0].get_paths()[0].vertices[:, 1].max()
    assert 0.1 < highest <= ax.get_ylim()[1]


def test_any_name_can_be_drawn(tmp_path):
    names = ["$\\frac{$", "_hidden", "", "a\nb"]
    sizes = [(name, n, 5 * n) for name in names for n in (1, 2)]
    history = pd.DataFrame(sizes, columns=["class_name", "iteration", "n_clean"])
    growth = plots.clean_set_growth(Fitted(history_=history), ax=axis())
    named = [text.get_text().strip() for text in growth.get_legend().get_texts()]
    assert named == ["$\\frac{$", "_hidden", "(empty)", "a b"]
    matrix = plots.transition_matrix(estimate(np.eye(4), classes=np.array(names)), ax=axis())
    rows = [(0.2, name, 0.9) for name in names]
    results = pd.DataFrame(rows, columns=["overall_level", "method", "accuracy"])
    curve = plots.accuracy_curve(results, ax=axis())
    assert len(curve.get_legend().get_texts()) == 4
    for number, ax in enumerate([growth, matrix, curve]):
        ax.figure.savefig(tmp_path / f"{number}.png")


@pytest.mark.parametrize("wrong", [Figure(), np.array([axis()]), "axis"])
def test_what_is_no_axis_is_refused(fitted, wrong):
    with pytest.raises(InputError, match="pass one axis"):
        plots.calibration(fitted, ax=wrong)
