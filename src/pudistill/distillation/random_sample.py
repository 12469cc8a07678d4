"""A test that verified samples can be a random sample, which all estimates rest on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import hypergeom

from pudistill.distillation.transition import Originals
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import likeliest
from pudistill.utils.shown import shown

# Chance that verified samples which are a random sample are doubted, and the number of tests that
# share it.
FALSE_ALARM, N_TESTS = 1e-3, 5

UNCHECKED = (
    "Verified samples came as a mask, so it cannot be checked that your predictions have not "
    "learned their labels. Pass verified labels beside the given ones."
)

# Equal parts into which scores and the order of the samples are cut.
N_PARTS = 10


class _Test(NamedTuple):
    """A partition of the samples, of which random draws take about the same share everywhere."""

    is_verified: np.ndarray  # (n,), bool
    cell: np.ndarray  # (n,), int: from 0
    reason: Any  # of (cell, its share of the verified samples, its share of all): a text


def doubt_of_random_sample(labels: Labels, label: np.ndarray, score: np.ndarray) -> str | None:
    """Return why verified samples can be no random sample, if they differ too much from others.

    Parameters
    ----------
    labels : Labels
        Labels; those verified themselves are tested, exact copies of them are not. Where draws have
        weights, those that were uniform are tested: the others are not meant to be like all.
    label : ndarray of shape (n_samples,), int
        Labels by models that have not seen the sample's verified label; -1 where there is none.
    score : ndarray of shape (n_samples,)
        Probability of these labels according to the models.

    Returns
    -------
    doubt : str or None
        A sentence. Of random samples, at most 1 in 1,000 gets one: each test is exact.
    """
    found = _first_failure(_tests(labels, label, score))
    if found is None:
        return None
    return (
        f"The verified samples are not like a random sample: {found}. Estimates and their "
        "intervals can be wrong. Choose the samples to verify at random."
    )


def doubt_of_own_predictions(
    labels: Labels, proba: np.ndarray, originals: Originals | None
) -> str | None:
    """Return why the user's predictions cannot judge verified samples; warn if they must not.

    Predictions that have not learned from the samples themselves agree with the given labels of
    verified samples as often as with those of others, and are as sure of them. If the given labels
    of verified samples are unknown, nobody can tell.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    proba : ndarray of shape (n_samples, n_classes)
        Predictions by models that should not have seen the sample.
    originals : Originals or None
        Verified samples with the labels that they were given.

    Returns
    -------
    doubt : str or None
        A sentence; if originals are known, false in at most 1 of 1,000 cases.
    """
    if not labels.trusted.any():
        return None
    found = _first_failure(_tests_of_predictions(labels, proba, originals))
    if found is None:
        return UNCHECKED if originals is None else None
    doubt = (
        f"The predictions treat verified samples unlike others: {found}. Either they have learned "
        "from the labels of these samples, or the verified samples are no random sample: estimates "
        "and their intervals can be wrong. Pass predictions by models that were trained without "
        "the sample, such as cross-validated ones."
    )
    warn_user(doubt, TrustedWarning)
    return doubt


def _first_failure(tests: Iterator[_Test]) -> str | None:
    """Return what the first test found that verified samples fail."""
    for test in tests:
        n_all, n_verified = len(test.cell), int(test.is_verified.sum())
        if not 0 < n_verified < n_all:
            continue
        sizes = np.bincount(test.cell)
        counts = np.bincount(test.cell[test.is_verified], minlength=len(sizes))
        fewer = hypergeom.cdf(counts, n_all, sizes, n_verified)
        more = hypergeom.sf(counts - 1, n_all, sizes, n_verified)
        chance = np.minimum(fewer, more)
        n_cells = np.count_nonzero(sizes)
        if 2 * n_cells * chance.min() < FALSE_ALARM / N_TESTS:
            cell = int(chance.argmin())
            return test.reason(cell, counts[cell] / n_verified, sizes[cell] / n_all)
    return None


def _tests_of_predictions(
    labels: Labels, proba: np.ndarray, originals: Originals | None
) -> Iterator[_Test]:
    code, sure = likeliest(proba)
    units, drawn = _units(labels), _uniformly_drawn(labels)
    if originals is not None:
        labelled = units[labels.given[units] != MISSING]
        yield _Test(
            drawn[labelled],
            (code[labelled] == labels.given[labelled]).astype(int),
            lambda cell, share, of_all: (
                f"they agree with {share if cell else 1 - share:.0%} of their given labels, and "
                f"with {of_all if cell else 1 - of_all:.0%} of all given labels"
            ),
        )
    yield _Test(
        drawn[units],
        _parts(sure[units]),
        lambda cell, share, of_all: (
            f"{share:.0%} of them are among the {of_all:.0%} of which they are {_how_sure(cell)}"
        ),
    )


def _tests(labels: Labels, label: np.ndarray, score: np.ndarray) -> Iterator[_Test]:
    drawn = _uniformly_drawn(labels)
    if labels.groups is not None:
        units = np.flatnonzero(labels.drawn | ~labels.trusted)
        groups = np.unique(labels.groups[units], return_inverse=True)[1]
        if len(np.unique(groups[drawn[units]])) == 1:
            yield _Test(drawn[units], groups, lambda *_: "all of them are in one group")
    units = _units(labels)
    if labels.noise_groups is not None:  # such as a batch that was added, and is not verified
        yield _Test(
            drawn[units],
            labels.noise_groups[units],
            lambda _, share, of_all: (
                f"{share:.0%} of them are in a batch or noise group that has {of_all:.0%} of all "
                "samples"
            ),
        )
    judged = units[label[units] != MISSING]
    yield _Test(
        drawn[judged],
        label[judged],
        lambda cell, share, of_all: (
            f"models hold {share:.0%} of them to be of class {shown(labels.classes[cell])}, and "
            f"{of_all:.0%} of all samples"
        ),
    )
    yield _Test(
        drawn[judged],
        _parts(score[judged]),
        lambda cell, share, of_all: (
            f"{share:.0%} of them are among the {of_all:.0%} of which models are {_how_sure(cell)}"
        ),
    )
    yield _Test(
        drawn[units],
        N_PARTS * np.arange(len(units)) // max(len(units), 1),
        lambda cell, share, _: (
            f"{share:.0%} of them are in {_ordinal(cell)} tenth of the data. If the order of your "
            "data means nothing, shuffle it and fit again"
        ),
    )


def _uniformly_drawn(labels: Labels) -> np.ndarray:
    """Return whether each sample was drawn uniformly to be verified: (n_samples,), bool."""
    return labels.drawn if labels.draws is None else labels.drawn & (labels.draws.weight == 1)


def _units(labels: Labels) -> np.ndarray:
    """Return the rows that count; of samples of a group, verified together, only one does."""
    units = np.flatnonzero(labels.drawn | ~labels.trusted)
    if labels.groups is None:
        return units
    return units[np.unique(labels.groups[units], return_index=True)[1]]


def _parts(values: np.ndarray) -> np.ndarray:
    """Cut values into parts of about equal size; equal values stay together."""
    if len(values) == 0:
        return np.zeros(0, dtype=int)
    ends = np.quantile(values, np.arange(1, N_PARTS) / N_PARTS)
    return np.searchsorted(ends, values, side="left")


def _how_sure(cell: int) -> str:
    return "least sure" if cell == 0 else "surest" if cell == N_PARTS - 1 else "about equally sure"


def _ordinal(cell: int) -> str:
    return ("the first", "the second", "the third")[cell] if cell < 3 else f"the {cell + 1}th"
