"""CROWDLAB's formulas."""

import numpy as np
import pytest

from pudistill.labels.annotations import check_annotations
from pudistill.labels.sources import Sources
from pudistill.methods.crowdlab import weighted_consensus


def test_numbers_are_those_of_cleanlab():
    said = np.array(
        [[0, 0, 0, 1, 1, 2, 2, 2, 1], [0, 0, 1, 1, -1, 2, 2, 0, 1], [1, -1, 0, 1, 1, 1, 2, 2, 0]]
    ).T
    predicted = np.array(
        [[7, 6, 5, 2, 3, 1, 1, 5, 1], [2, 3, 3, 7, 6, 2, 1, 2, 5], [1, 1, 2, 1, 1, 7, 8, 3, 4]]
    ).T
    consensus = np.array([0, 0, 0, 1, 1, 2, 2, 2, 1])
    proba, source_weight, model_weight = weighted_consensus(
        check_annotations(said).sources, predicted / 10, consensus
    )
    # cleanlab 2.9.0, get_label_quality_multiannotator(consensus_method="majority_vote")
    quality = [0.68924, 0.68043, 0.54462, 0.748924, 0.674091, 0.68924, 0.806313, 0.429842, 0.574462]
    np.testing.assert_allclose(proba[np.arange(9), consensus], quality, atol=1e-6)
    np.testing.assert_allclose(source_weight, [0.53125, 0.3, 0.2])
    assert model_weight == pytest.approx(25 / 18)


def test_one_source_and_a_classifier_are_averaged():
    sources = Sources.of_one(np.array([0, 1, 0, -1]), 2)
    predicted = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    proba, source_weight, model_weight = weighted_consensus(sources, predicted, np.zeros(4, int))
    assert source_weight == [1.0]  # it has nobody to disagree with
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(proba[3], predicted[3])  # a silent source has no weight
    assert np.isfinite(model_weight)
