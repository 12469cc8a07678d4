"""The counts of the report do not depend on how the label table is cut."""

import numpy as np
import pandas as pd
import pytest

from pudistill.runs.report.counts import LEAST_SURE, MAX_UNLIKE, SUREST, LabelCounts, count_labels

N = 200


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    given, label = rng.choice(["cat", "dog", "eel"], (2, N)).astype(object)
    given[:20] = None
    trusted = rng.random(N) < 0.2
    return pd.DataFrame(
        {
            "id": [f"{n}.png" for n in range(N)],
            "given": given,
            "trusted": trusted,
            "label": label,
            "changed": (given != label) & pd.notna(given),
            "source": np.where(trusted, "trusted", "student"),
            "confidence": rng.random(N).round(1),  # with ties
            "votes": pd.array([None] * N, dtype="Int64"),
            "outlier_score": np.where(rng.random(N) < 0.1, np.nan, rng.random(N).round(1)),
            "outlier": rng.random(N) < 0.1,
        }
    )


@pytest.mark.parametrize("size", [40, 150])
def test_parts_are_counted_like_the_whole(table, size):
    whole = count_labels([table])
    parts = count_labels(table[start : start + size] for start in range(0, N, size))
    for name in LabelCounts._fields:
        ours, expected = getattr(parts, name), getattr(whole, name)
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(ours, expected, check_dtype=False)
        elif name == "confidence":
            assert {k: v.tolist() for k, v in ours.items()} == {
                k: v.tolist() for k, v in expected.items()
            }
        else:
            assert ours == expected


def test_the_rows_to_show_are_those_of_the_sorted_table(table):
    counts = count_labels([table[:150], table[150:]])
    noisy = table[~table["trusted"]]
    surest = noisy[noisy["changed"]].sort_values("confidence", ascending=False, kind="stable")
    unlike = noisy.sort_values("outlier_score", ascending=False, kind="stable")
    assert counts.surest["id"].tolist() == surest["id"].head(SUREST).tolist()
    assert counts.least_sure["id"].tolist() == surest["id"].tail(LEAST_SURE).tolist()
    assert counts.unlike["id"].tolist() == unlike["id"].head(MAX_UNLIKE).tolist()
    assert counts.n_changed == int(table["changed"].sum())
    assert sum(counts.pairs.values()) == N - 20


def test_only_samples_to_be_shown_are_kept(table):
    shown = set(table["id"][table["changed"] & ~table["trusted"]].tail(2))
    assert set(count_labels([table], shown).surest["id"]) == shown
