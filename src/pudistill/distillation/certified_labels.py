"""Certified labels: those of which, with confidence, at most a given share is wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from sklearn.utils.validation import check_is_fitted

from pudistill.distillation.class_accuracy import accuracy_by_class
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.estimates.certificates import Curve, accept
from pudistill.estimates.shares import LEVEL, mean_interval, weighted_mean
from pudistill.exceptions import InputError
from pudistill.labels.table import LabelTable
from pudistill.utils.notebook import ShownAsText

SAMPLES_PER_BIN, MOST_BINS = 20, 10  # of the shares by score


@dataclass(frozen=True, repr=False)
class CertifiedLabels(ShownAsText):
    """Labels that can be used as they are.

    Attributes
    ----------
    max_error : float in (0, 1)
        Largest share of wrong labels among the accepted ones that nobody verified.
    confidence : float in (0, 1)
        Probability, over the choice of the verified samples, that the promise holds. It holds
        whatever the model and the noise, as long as verified samples are a random sample, or the
        weights of their draws are known.
    accepted : ndarray of shape (n_samples,), bool
        Whether the label is accepted; verified labels always are.
    labels : ndarray of shape (n_samples,)
        Accepted labels by models that have not seen the verified labels that they are judged by,
        which rarely differ from the corrected labels; all others are the corrected labels.
    n_accepted : int
        Number of accepted samples that nobody verified.
    n_samples : int
        Number of samples that nobody verified.
    n_verified, n_wrong : int
        Held-out verified samples that would have been accepted, and the wrong labels among them;
        with groups or weights, the numbers of independent samples, drawn uniformly, that these are
        worth.
    curve : DataFrame
        Columns ``share`` (of the samples that nobody verified), ``error`` (share of wrong labels
        among held-out verified samples), ``low`` and ``high`` (its 95 % interval at this row).
    more_verified : list of tuple of int and float
        Numbers of further verified samples, chosen at random, and the share that could be accepted
        with them, if labels are as often wrong as until now.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> certified = correct_labels(given, proba, verified).certify(max_error=0.05)
    >>> certified.n_accepted, certified.n_samples, certified.n_wrong
    (774, 774, 0)
    """

    max_error: float
    confidence: float
    accepted: np.ndarray
    labels: np.ndarray
    n_accepted: int
    n_samples: int
    n_verified: int
    n_wrong: int
    curve: pd.DataFrame
    more_verified: list[tuple[int, float]]

    def _sentences(self) -> list[Markup]:
        return [Markup.escape(str(self))]

    def __str__(self) -> str:
        """Return the result in sentences."""
        sure, most = f"{100 * self.confidence:.4g}%", f"{100 * self.max_error:.3g}%"
        if self.n_accepted:
            text = (
                f"{self.n_accepted:,} of {self.n_samples:,} labels that nobody verified are "
                f"accepted: with {sure} confidence, at most {most} of them are wrong. This holds "
                "for any noise and any model, as long as the verified samples were drawn at "
                "random, or by `pudistill next`."
            )
        else:
            text = (
                f"No label can be accepted yet: the held-out verified samples do not show with "
                f"{sure} confidence that at most {most} of any set of labels are wrong."
            )
            if not self.more_verified:
                text += " Verify more samples, or allow a larger share of wrong labels."
        if self.more_verified and (self.n_accepted < self.n_samples):
            brings = ", ".join(
                f"{more:,} more for {share:.0%} of the labels"
                for more, share in self.more_verified[:3]
            )
            text += (
                f" Verify further samples, chosen at random: about {brings}. Or let `pudistill "
                "next` choose those that bring most."
            )
        return text


def check_share(name: str, value: Any) -> None:
    """Raise `InputError` unless a value is a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value < 1:
        raise InputError(f"{name} is {value!r}: it must be a number between 0 and 1.")


def certify(
    names: np.ndarray,
    label: np.ndarray,
    trusted: np.ndarray,
    held_out: HeldOutLabels,
    max_error: float,
    confidence: float = LEVEL,
) -> CertifiedLabels:
    """Accept as many labels as possible of which, with confidence, at most `max_error` is wrong.

    Parameters
    ----------
    names : ndarray
        Names of the labels.
    label : ndarray of shape (n_samples,), int
        Verified and corrected labels, as positions in `names`.
    trusted : ndarray of shape (n_samples,), bool
        Whether each label is verified.
    held_out : HeldOutLabels
        Labels of the same samples by models that have not seen their verified labels.
    max_error, confidence : float in (0, 1)
        See `CertifiedLabels`.

    Raises
    ------
    InputError
        If a number is out of range, or there is nothing that a promise could rest on.
    """
    check_share("max_error", max_error)
    check_share("confidence", confidence)
    curve = judged_curve(label, trusted, held_out)
    found = accept(curve, max_error, confidence)
    is_new = ~trusted & (held_out.score >= found.threshold)
    return CertifiedLabels(
        max_error=max_error,
        confidence=confidence,
        accepted=trusted | is_new,
        labels=names[np.where(is_new, held_out.label, label)],
        n_accepted=found.n_accepted,
        n_samples=curve.n_samples,
        n_verified=found.n_verified,
        n_wrong=found.n_wrong,
        curve=curve.frame(),
        more_verified=found.more_verified,
    )


def judged_curve(label: np.ndarray, trusted: np.ndarray, held_out: HeldOutLabels) -> Curve:
    """Count accepted and wrong labels at each threshold; for the parameters see `certify`.

    Raises
    ------
    InputError
        If there is nothing that a promise could rest on.
    """
    if held_out.doubt is not None:
        raise InputError(f"No label can be certified. {held_out.doubt}")
    is_judged = trusted & ~np.isnan(held_out.score)
    if not is_judged.any():
        raise InputError(
            "No label can be certified: no verified sample was held out to judge by. Verify at "
            "least three samples of each class, chosen at random, and fit again, without "
            "--no-compare (compare=False) and --time-limit."
        )
    rest, weight = held_out.score[~trusted], None
    if held_out.draw_weight is not None and held_out.draw_order is not None:
        # All draws count, in their order.
        drawn = np.flatnonzero(~np.isnan(held_out.draw_weight))
        is_judged = drawn[np.argsort(held_out.draw_order[drawn], kind="stable")]
        weight = held_out.draw_weight[is_judged]
    is_wrong = held_out.label[is_judged] != label[is_judged]
    scores = held_out.score[is_judged]
    return Curve.of(scores, is_wrong, rest[~np.isnan(rest)], held_out.worth, weight)


def held_out_of(classifier: Any) -> HeldOutLabels:
    """Return the held-out labels of a fitted classifier; `InputError` if it has none."""
    check_is_fitted(classifier, "label_arrays_")
    if getattr(classifier, "held_out_labels_", None) is None:
        raise InputError(
            'No label can be certified: fit with method="default", and not with verified '
            "labels for all samples."
        )
    return classifier.held_out_labels_


def accepted_curve(classifier: Any) -> Curve:
    """Return what each threshold accepts of a fitted classifier's labels, see `judged_curve`."""
    held_out, table = held_out_of(classifier), classifier.label_arrays_
    return judged_curve(table.label, table.trusted, held_out)


def held_out_shares(classifier: Any) -> pd.DataFrame:
    """Return how often labels are right by how sure held-out models are of them.

    Returns
    -------
    bins : DataFrame
        A row for each bin of about as many held-out verified samples, at least 20 where there are
        as many: ``n``, ``probability`` (mean of the scores), ``right`` (share of right labels),
        ``low`` and ``high`` (its 95 % interval). Samples of no class are left out.

    Raises
    ------
    InputError
        As `judged_curve`.
    """
    held_out, table = held_out_of(classifier), classifier.label_arrays_
    judged_curve(table.label, table.trusted, held_out)  # its errors are those of this function
    rows, weight = held_out.counted(table.trusted)
    score, is_right = held_out.score[rows], held_out.label[rows] == table.label[rows]
    n_bins = int(np.clip(len(rows) // SAMPLES_PER_BIN, 1, MOST_BINS))
    edges = np.unique(np.quantile(score, np.linspace(0, 1, n_bins + 1)[1:-1]))
    bin_of, bins = np.searchsorted(edges, score, side="right"), []
    for number in np.unique(bin_of):
        among = bin_of == number
        of_bin = None if weight is None else weight[among]
        share = float(np.clip(weighted_mean(is_right[among], of_bin), 0, 1))
        interval = mean_interval(is_right[among], of_bin, np.inf, worth=held_out.worth)
        mean = weighted_mean(score[among].astype(float), of_bin)
        bins.append((int(among.sum()), float(np.clip(mean, 0, 1)), share, *interval))
    return pd.DataFrame(bins, columns=["n", "probability", "right", "low", "high"])


class JudgesLabels:
    """How a classifier with ``label_arrays_`` and ``held_out_labels_`` judges its labels."""

    label_arrays_: LabelTable
    held_out_labels_: HeldOutLabels | None

    @property
    def class_accuracy_(self) -> pd.DataFrame | None:
        """How the correction serves each class, see `accuracy_by_class`."""
        check_is_fitted(self, "label_arrays_")
        held_out = self.held_out_labels_
        return None if held_out is None else accuracy_by_class(self.label_arrays_, held_out)

    def certify(self: Any, max_error: float = 0.01, confidence: float = LEVEL) -> CertifiedLabels:
        """Accept as many labels as possible of which, with confidence, at most a share is wrong.

        Parameters
        ----------
        max_error : float in (0, 1), default=0.01
            Largest share of wrong labels among the accepted ones that nobody verified. Choose it
            before you look at results: the confidence is that of one choice.
        confidence : float in (0, 1), default=0.95
            Probability, over the choice of the verified samples, that the promise holds.

        Returns
        -------
        certified : CertifiedLabels
            ``accepted``, ``labels``, and how many more verified samples would bring how much. The
            promise holds whatever the model and the noise, if verified samples are a random sample.

        Raises
        ------
        InputError
            If a number is out of range, no verified sample was held out, or the verified samples
            are visibly no random sample.

        References
        ----------
        Learn then Test (Angelopoulos and others 2021), with exact tests.

        Examples
        --------
        >>> import numpy as np
        >>> from pudistill import PUDistillClassifier, corrupt_labels
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000)
        >>> X, trusted = 4 * y[:, None] + rng.normal(size=(1000, 2)), np.arange(1000) % 5 == 0
        >>> given = corrupt_labels(y, "symmetric", 0.3, trusted=trusted, random_state=0).y
        >>> classifier = PUDistillClassifier(random_state=0).fit(X, given, trusted=trusted)
        >>> certified = classifier.certify(max_error=0.05)
        >>> bool(certified.accepted[~trusted].mean() > 0.5)
        True
        >>> bool((certified.labels != y)[certified.accepted].mean() <= 0.05)
        True
        """
        held_out, table = held_out_of(self), self.label_arrays_
        return certify(table.names, table.label, table.trusted, held_out, max_error, confidence)
