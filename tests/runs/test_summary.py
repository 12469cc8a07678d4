"""The samples that the report shows."""

import numpy as np

from pudistill import load_dataset
from pudistill.data.dataset import TrustedDataset
from pudistill.labels.checks import check_labels
from pudistill.labels.table import Outliers, model_label_table
from pudistill.runs.summary import LONGEST_EXCERPT, gallery


def test_the_gallery_holds_the_beginnings_of_changed_texts():
    texts = ["verified", "a\nshort  one", "long " * LONGEST_EXCERPT, "not changed"]
    n = len(texts)
    dataset = TrustedDataset(
        X=np.array(texts, dtype=object),
        y=np.array(["cat"] * n, dtype=object),
        ids=np.array(list("abcd"), dtype=object),
        trusted=np.zeros(n, dtype=bool),
        verified=np.full(n, None),
        name="pets",
    )
    labels = check_labels(dataset.y, ["dog", None, None, None], for_fit=False)
    proba = np.array([[0.1, 0.9]] * 3 + [[0.9, 0.1]])
    table = model_label_table(labels, proba, Outliers.unknown(n))
    shown = gallery(dataset, table)
    assert shown["ids"].tolist() == ["b", "c"]
    assert shown["texts"][0] == "a short one"
    assert len(shown["texts"][1]) == LONGEST_EXCERPT


def test_missing_values_of_a_row_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text(
        "id,income,job,label\n1,20.5,cook,dog\n2,,nurse,cat\n3,30.5,,cat\n"
    )
    dataset = load_dataset(tmp_path / "t.csv")
    labels = check_labels(dataset.y, ["dog", None, None], for_fit=False)
    proba = np.array([[0.1, 0.9]] * 3)  # a dog
    table = model_label_table(labels, proba, Outliers.unknown(3))
    shown = gallery(dataset, table)["texts"].tolist()
    assert sorted(shown) == ["income: 30.5", "job: nurse"]
