"""The data sets that come with scikit-learn, named in `readers.BUNDLED`."""

import numpy as np
from sklearn import datasets

from pudistill.data.columns import no_labels, object_array, row_numbers
from pudistill.data.dataset import TrustedDataset


def read(name: str) -> TrustedDataset:
    """Return a data set by name. Its given labels are the true labels; no sample is trusted."""
    bunch = getattr(datasets, f"load_{name}")()
    n_samples = len(bunch.target)
    labels = object_array(str(bunch.target_names[target]) for target in bunch.target)
    return TrustedDataset(
        X=bunch.data,
        y=labels,
        trusted=np.zeros(n_samples, dtype=bool),
        verified=no_labels(n_samples),
        ids=row_numbers(n_samples),
        true_labels=labels.copy(),
        feature_names=tuple(map(str, bunch.feature_names)),
        name=name,
    )
