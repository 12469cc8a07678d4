"""Verified samples that are of other batches only are no random sample."""

from dataclasses import replace

import numpy as np

from pudistill.distillation.random_sample import doubt_of_random_sample
from pudistill.labels.checks import check_labels

N, N_FIRST = 400, 300
Y = np.arange(N) % 2
SCORE = np.random.default_rng(0).random(N)


def doubt(rows):
    labels = check_labels(np.array(["cat", "dog"])[Y], np.isin(np.arange(N), rows))
    return doubt_of_random_sample(
        replace(labels, noise_groups=(np.arange(N) >= N_FIRST).astype(int)), Y, SCORE
    )


def test_a_batch_of_which_nothing_is_verified_is_doubted():
    rows = np.random.default_rng(1).choice(N_FIRST, 80, replace=False)
    assert "batch" in doubt(rows)


def test_draws_from_all_batches_are_not_doubted():
    rows = np.random.default_rng(1).choice(N, 80, replace=False)
    assert doubt(rows) is None
