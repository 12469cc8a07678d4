"""The samples that the report shows."""

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
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
    table = pd.DataFrame({"given": "cat", "label": ["dog", "dog", "dog", "cat"], "confidence": 0.9})
    table["trusted"] = [True, False, False, False]
    table["changed"] = table["label"] == "dog"
    table["outlier_score"] = np.nan
    shown = gallery(dataset, table)
    assert shown["ids"].tolist() == ["b", "c"]
    assert shown["texts"][0] == "a short one"
    assert len(shown["texts"][1]) == LONGEST_EXCERPT
