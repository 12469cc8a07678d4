"""Corrected labels from predictions that are there already: no model is trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from pandas.api.types import is_integer_dtype

from pudistill.data.columns import is_whole
from pudistill.data.frames import as_column, as_frame
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.distillation.certified_labels import CertifiedLabels, certify
from pudistill.distillation.class_accuracy import accuracy_by_class, warn_of_harm
from pudistill.distillation.comparison import LabelAccuracy
from pudistill.distillation.held_out_labels import HeldOutLabels, judge_all
from pudistill.distillation.learning import find_originals
from pudistill.distillation.noise_estimate import NOTHING, NoiseEstimate, estimate_noise
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.random_sample import doubt_of_own_predictions
from pudistill.distillation.readout import Readout
from pudistill.distillation.sentences import label_accuracy_sentence, noise_sentence
from pudistill.distillation.shipping import CHECK_ORDER, informed_predictions, kept_labels
from pudistill.distillation.student import TransitionEstimator
from pudistill.distillation.transition import fit_transition_matrix
from pudistill.distillation.views import (
    View,
    fit_for_each_view,
    held_out_truth,
    held_out_weight,
    whole_view,
)
from pudistill.distillation.views import held_out_proba as collect_held_out
from pudistill.estimates.shares import LEVEL
from pudistill.exceptions import DataNotice, DataWarning, InputError, TrustedWarning, warn_user
from pudistill.labels.alignment import aligned, index_of
from pudistill.labels.annotations import (
    NO_NOISE_GROUPS,
    check_annotations,
    has_several_sources,
)
from pudistill.labels.checks import MISSING, Labels, check_labels, with_draws
from pudistill.labels.groups import check_groups, check_noise_groups
from pudistill.labels.model_selection import deal_groups
from pudistill.labels.table import MODEL, LabelTable, Outliers, label_table
from pudistill.learners.calibration import Temperature
from pudistill.utils.arrays import rowwise, take_rows
from pudistill.utils.notebook import ShownAsText
from pudistill.utils.shown import listed, shown

# Folds of verified samples, each of which is judged by what the others tell; two if predictions are
# as many as this, because each fold needs a calibrated copy of them.
N_FOLDS, MANY_PREDICTIONS = 5, 2e7

# Largest difference from 1 of the sum of a sample's probabilities.
ROUNDING = 1e-2


@dataclass(frozen=True, repr=False)
class CorrectedLabels(ShownAsText):
    """Result of `correct_labels`.

    Attributes
    ----------
    label_arrays : LabelTable
        The label table as arrays.
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of the true class of each sample, by prediction, given and verified label;
        those of `label_arrays.names`, samples that are verified to be of no class left out.
    noise : NoiseEstimate
        Noise in the given labels of samples that nobody verified.
    label_accuracy : LabelAccuracy or None
        Share of the corrected labels of samples that nobody verified that are right; None without
        verified labels.
    held_out_labels : HeldOutLabels
        What certificates rest on.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> corrected = correct_labels(given, proba, verified)
    >>> corrected.label_table["changed"].mean().round(1), corrected.proba.shape
    (np.float64(0.2), (1000, 2))
    """

    label_arrays: LabelTable
    proba: np.ndarray
    noise: NoiseEstimate
    label_accuracy: LabelAccuracy | None
    held_out_labels: HeldOutLabels

    def _sentences(self) -> list[Markup]:
        sentences = [noise_sentence(self.noise.to_dict())]
        if self.label_accuracy is not None:
            expected = asdict(self.label_accuracy)
            sentences.append(label_accuracy_sentence(expected, self.noise.basis))
        return [*sentences, *map(Markup.escape, self.noise.warnings)]

    def _table(self) -> Markup:
        return self.noise._table()

    @property
    def label_table(self) -> pd.DataFrame:
        """A row for each sample, with the columns of `PUDistillClassifier.label_table_`."""
        return self.label_arrays.frame()

    def certify(self, max_error: float = 0.01, confidence: float = LEVEL) -> CertifiedLabels:
        """Accept as many labels as possible, see `PUDistillClassifier.certify`."""
        table = self.label_arrays
        return certify(
            table.names, table.label, table.trusted, self.held_out_labels, max_error, confidence
        )


def correct_labels(
    labels: Any,
    pred_probs: Any,
    trusted: Any = None,
    groups: Any = None,
    *,
    noise_groups: Any = None,
    classes: Any = None,
    held_out_proba: Sequence[np.ndarray] | None = None,
    folds: Any = None,
    calibrate: bool = True,
    no_class_label: Any = NO_CLASS_LABEL,
    random_state: int = 0,
    draw_weight: Any = None,
) -> CorrectedLabels:
    """Correct labels by predictions of any model; nothing is trained.

    Labels and predictions are combined by Bayes' rule, as at the end of the default method (see
    docs/explanation/method.md): verified labels calibrate the predictions, and show how often which
    class gets which label.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_sources), or Annotations
        Given labels, or those of several sources, as for `PUDistillClassifier.fit`.
    pred_probs : array-like or DataFrame of shape (n_samples, n_classes)
        Probability of each class, by models that have not learned from the sample itself: for
        example cross-validated predictions, or those of a language model. The columns of a frame
        are named by the classes; its index, if it is no count, is matched to that of `labels`.
    trusted : array-like of shape (n_samples,), Series or dict, default=None
        Mask or verified labels, as for `PUDistillClassifier.fit`. ``None``: nothing is verified,
        nothing can be promised, and predictions are taken at their word, see the notes.
    groups, noise_groups : array-like of shape (n_samples,), default=None
        As for `PUDistillClassifier.fit`.
    classes : array-like of shape (n_classes,), default=None
        Class of each column of an array; by default all labels, sorted, or ``0, 1, ...``. Labels
        that are whole numbers written as text, such as "2" and "10", are sorted as numbers.
        scikit-learn sorts them as text: pass ``classes=model.classes_`` with its predictions.
    held_out_proba : sequence of ndarray of shape (n_samples, n_classes), default=None
        For each fold of `folds`, predictions by models that have not learned the verified labels of
        that fold, such as `PUDistillClassifier.held_out_proba_`. By default, `pred_probs`.
    folds : array-like of shape (n_samples,), int, default=None
        With `held_out_proba`: the fold in which each verified sample is held out, -1 for none.
    calibrate : bool, default=True
        Whether to calibrate predictions on verified labels.
    no_class_label : str or int, default="none of these"
        As for `PUDistillClassifier`.
    random_state : int, default=0
        Deals verified samples to folds.
    draw_weight : array-like of shape (n_samples,), Series or dict, default=None
        How verified samples were drawn, as for `PUDistillClassifier.fit`.

    Returns
    -------
    corrected : CorrectedLabels
        Label table, noise estimate, accuracy of the corrected labels, certificates.

    Raises
    ------
    InputError
        If labels, predictions or verified labels do not fit together, or predictions are no
        probabilities.

    Notes
    -----
    For those who come from cleanlab: arguments are those of ``find_label_issues``, in its order.
    With verified labels, the column ``changed`` of the label table tells which labels are wrong;
    ``given_quality`` is the label quality score.

    Without verified labels, use the order of ``given_quality`` and not ``changed``: a model that
    was cross-validated on the given labels predicts these, so that it explains them without any
    mistake (docs/guides/predictions.md has figures).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=1000)
    >>> pred_probs = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    >>> labels, checked = np.where(rng.random(1000) < 0.2, 1 - y, y), rng.random(1000) < 0.1
    >>> corrected = correct_labels(labels, pred_probs, np.where(checked, y, np.nan))
    >>> bool((corrected.label_table["label"] == y).mean() > 0.95), round(corrected.noise.rate, 1)
    (True, 0.2)
    """
    index = index_of(labels)
    proba, of_all = _read(labels, pred_probs, trusted, classes, no_class_label)
    n = len(of_all.given)
    if folds is not None and held_out_proba is None:
        raise InputError("folds belong to held_out_proba: pass both, or leave folds out.")
    if groups is not None:
        of_all = replace(of_all, groups=check_groups(aligned("groups", groups, index, n), n))
    if noise_groups is not None and of_all.sources is not None:
        raise InputError(NO_NOISE_GROUPS)
    if noise_groups is not None:
        of_all = replace(of_all, noise_groups=check_noise_groups(noise_groups, n, index))
    of_all = with_draws(of_all, draw_weight, index)
    # Samples that are of no class teach nothing here.
    rows = np.flatnonzero(~of_all.no_class)
    of_classes, proba = of_all.take(rows), take_rows(proba, rows)
    if held_out_proba is None:
        folds = _deal(of_classes, 2 if proba.size > MANY_PREDICTIONS else N_FOLDS, random_state)
        of_folds = [proba] * (folds.max(initial=MISSING) + 1)
    else:
        names = _columns(pred_probs, classes) or None
        of_folds = [
            _matched(part, of_all, index, _columns(part, None) or names, f"held_out_proba[{i}]")[0]
            for i, part in enumerate(held_out_proba)
        ]
        folds = _checked_folds(folds, len(of_folds), n)
        of_folds = [take_rows(of_fold, rows) for of_fold in of_folds]
        folds = np.where(of_classes.drawn, folds[rows], MISSING)
    whole = whole_view(of_classes)
    originals, note = find_originals(of_classes, whole, proba)
    given = None if originals is None else of_classes.given
    held_out = [np.flatnonzero(folds == fold) for fold in range(len(of_folds))]
    views = [whole, *(whole.holding_out(of_fold, given) for of_fold in held_out)]
    probas = [proba, *of_folds]
    if calibrate:
        probas = _calibrated(probas, views, of_classes.drawn_weight())
    # From here on as at the end of `learn_and_ship`.
    start = None
    if held_out_proba is None and len(whole.labelled):
        # All views have about the same matrix, which knows no verified label.
        T = fit_transition_matrix(take_rows(proba, whole.labelled), whole.given[whole.labelled])
        start = [NoiseModel(T)] * len(views)
    transition = TransitionEstimator.of(of_classes, originals)
    by_view = list(map(Predictions, views, probas, transition.estimate_all(views, probas, start)))
    held_out_probas = collect_held_out(probas, views)
    by_view, is_known = informed_predictions(
        by_view, held_out_probas, of_classes, originals, CHECK_ORDER
    )
    readout = Readout.fit(by_view[1:], originals)
    targets = readout.labels(by_view[0]) if is_known else kept_labels(of_classes, probas[0])
    noise = estimate_noise(
        of_classes, by_view, originals, is_known=is_known, notes=[] if note is None else [note]
    )
    doubt = doubt_of_own_predictions(of_classes, proba, originals)
    judged, accuracy = judge_all(of_classes, by_view[1:], originals, targets, random_state, doubt)
    if (harm := _harm(of_classes, judged)) is not None:
        warn_user(harm, TrustedWarning)
        targets, accuracy = kept_labels(of_classes, probas[0]), _of_kept_labels(noise, accuracy)
    table = label_table(
        of_classes,
        targets,
        np.broadcast_to(np.int16(-1), targets.shape),  # nobody voted
        Outliers.unknown(len(targets)),
        is_known=noise.basis != NOTHING,
        of_changes=MODEL,
    ).with_no_class(of_all, no_class_label)
    table, judged = replace(table, index=index), judged.with_no_class(of_all)
    if harm is None:
        warn_of_harm(accuracy_by_class(table, judged))
    return CorrectedLabels(table, targets, noise, accuracy, judged)


def _harm(labels: Labels, judged: HeldOutLabels) -> str | None:
    """Return why corrected labels are worse than given ones, if verified samples show that."""
    rows = labels.drawn & (judged.label != MISSING) & (labels.given != MISSING)
    before = labels.given[rows] == labels.verified[rows]
    after = judged.label[rows] == labels.verified[rows]
    loss = before.astype(float) - after
    if (weight := labels.drawn_weight()) is not None:
        loss *= weight[rows]
    if labels.from_mask or loss.sum() <= 2 * np.sqrt((loss**2).sum()):
        return None
    return (
        f"Of {len(loss):,} verified samples, {before.sum():,} had the right label before the "
        f"correction and {after.sum():,} after it, so labels were kept. {CHECK_ORDER}."
    )


def _of_kept_labels(noise: NoiseEstimate, accuracy: LabelAccuracy | None) -> LabelAccuracy | None:
    """Return the share of right labels if none was changed."""
    if accuracy is None:
        return None
    low, high = noise.rate_interval
    return replace(accuracy, value=1 - noise.rate, interval=(1 - high, 1 - low))


def _read(
    labels: Any, pred_probs: Any, trusted: Any, classes: Any, no_class_label: Any
) -> tuple[np.ndarray, Labels]:
    """Check labels and predictions; return both for the same samples and classes."""
    index = index_of(labels)
    if has_several_sources(labels):
        found = check_annotations(labels, trusted, index=index, no_class_label=no_class_label)
    elif trusted is None:
        values = pd.Series(np.asarray(as_column(labels), dtype=object))
        no_labels = {-1, no_class_label} - {*_columns(pred_probs, classes)}
        has_label = ~(values.isna() | values.isin(no_labels)).to_numpy()
        found = check_labels(labels, has_label, for_fit=False, no_class_label=no_class_label)
        nothing = np.zeros(len(found.given), dtype=bool)
        found = replace(found, trusted=nothing, verified=np.full(len(nothing), MISSING))
    else:
        found = check_labels(labels, trusted, for_fit=False, no_class_label=no_class_label)
    return _matched(pred_probs, found, index, classes)


def predictions_for(
    labels: Labels, pred_probs: Any, index: pd.Index | None, method: str
) -> np.ndarray | None:
    """Check predictions of the classes of `labels`, for samples with an index or without one.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes) or None
        The predictions, in the order of samples and classes; None if `pred_probs` is None.
    """
    if pred_probs is None:
        return None
    if method != "default":
        raise InputError('pred_probs is for method="default": leave it out.')
    proba, matched = _matched(pred_probs, labels, index, None)
    if matched.n_classes > labels.n_classes:
        names = np.setdiff1d(matched.classes, labels.classes)
        raise InputError(
            f"pred_probs has columns of {listed(names)}, of which no sample is labelled: leave "
            "them out."
        )
    return proba


def _columns(pred_probs: Any, classes: Any) -> list:
    """Return the classes of the columns, as far as they are named."""
    if classes is not None:
        if isinstance(classes, str | set | frozenset):
            raise InputError(f"classes is {classes!r}: pass a list, one class for each column.")
        return list(classes)
    return list(pred_probs.columns) if hasattr(pred_probs, "columns") else []


def _matched(
    pred_probs: Any,
    labels: Labels,
    index: pd.Index | None,
    classes: Any,
    name: str = "pred_probs",
) -> tuple[np.ndarray, Labels]:
    """Return checked predictions, and labels as codes of their columns; errors have the `name`."""
    pred_probs = as_frame(pred_probs)
    n = len(labels.given)
    names = _columns(pred_probs, classes)
    if isinstance(pred_probs, pd.DataFrame):
        own = pred_probs.index
        if index is None and not (is_integer_dtype(own) and own.is_monotonic_increasing):
            warn_user(
                f"{name} has an index and the labels have none: rows are taken in their order. If "
                "that is wrong, pass the labels as a Series.",
                DataWarning,
            )
        pred_probs = aligned(name, pred_probs, index, n)
    proba = _probabilities(pred_probs, n, name)
    return _in_order(proba, labels, np.array(names) if names else None, name)


def _probabilities(values: Any, n_samples: int, name: str) -> np.ndarray:
    """Return predictions whose rows sum to 1."""
    try:
        proba = np.asarray(values, dtype=None if hasattr(values, "dtype") else float)
    except (TypeError, ValueError):
        proba = np.asarray(values, dtype=object)
    if proba.ndim != 2 or proba.shape[1] < 2 or len(proba) != n_samples:
        raise InputError(
            f"{name} has shape {proba.shape}: pass a row for each of the {n_samples:,} labels, and "
            "a column for each class."
        )
    if proba.dtype.kind not in "fiub":
        raise InputError(f"{name} holds {proba.dtype} in place of numbers: pass probabilities.")
    if proba.dtype.kind != "f":
        proba = proba.astype(float)
    total = rowwise(lambda block: block.sum(axis=1, dtype=float), proba)
    low = rowwise(lambda block: block.min(axis=1), proba)
    is_right = (low >= 0) & (np.abs(total - 1) <= ROUNDING)
    if not is_right.all():
        row = int(np.flatnonzero(~is_right)[0])
        values_of_row = ", ".join(f"{value:.3g}" for value in proba[row, :5])
        raise InputError(
            f"Row {row} of {name} ({values_of_row}{', ...' if proba.shape[1] > 5 else ''}) is "
            "no distribution: probabilities are at least 0 and sum to 1. Of logits, pass the "
            "softmax."
        )
    return rowwise(lambda block, sums: block / sums[:, None].astype(block.dtype), proba, total)


def _in_order(
    proba: np.ndarray, labels: Labels, classes: np.ndarray | None, name: str
) -> tuple[np.ndarray, Labels]:
    """Return predictions with sorted classes, and labels as codes of these classes."""
    n_columns, found = proba.shape[1], labels.classes
    if classes is None and len(found) < n_columns and set(found.tolist()) <= {*range(n_columns)}:
        classes = np.arange(n_columns)
    if classes is None:
        # As texts, whole numbers are sorted by their value.
        are_whole = all(isinstance(name, str) and is_whole(name) for name in found.tolist())
        classes = found[np.argsort(found.astype(int), kind="stable")] if are_whole else found
        if classes.tolist() != found.tolist() and len(found) == n_columns:
            warn_user(
                f"The columns of {name} are taken in the numeric order of the classes, "
                f"{listed(classes)}. scikit-learn's order is that of texts, {listed(found)}: if it "
                "is that of your predictions, pass the classes, or a frame with named columns.",
                DataNotice,
            )
    elif classes.dtype.kind in "OU" and found.dtype.kind in "iuf":
        numbers = pd.to_numeric(pd.Series(classes), errors="coerce")
        classes = classes if numbers.isna().any() else numbers.to_numpy()  # names of columns
    names = classes.tolist()
    if len(names) != n_columns:
        raise InputError(
            f"{name} has {n_columns} columns, but there are {len(names)} classes, "
            f"{listed(classes)}: name the class of each column as `classes`."
        )
    if len({*names}) < len(names):
        raise InputError(f"Two columns of {name} are of one class: {listed(classes)}.")
    if unknown := [name for name in found.tolist() if name not in names]:
        raise InputError(
            f"No column of {name} is of the class {shown(unknown[0])}, which occurs among the "
            f"labels: its columns are {listed(classes)}. Name them as `classes`."
        )
    order = np.argsort(classes, kind="stable")
    classes = classes[order]
    codes = np.append([classes.tolist().index(name) for name in found.tolist()], MISSING)
    if not np.array_equal(order, np.arange(n_columns)):
        proba = rowwise(lambda block: block[:, order], proba)
    labels = replace(
        labels,
        classes=classes if len(classes) > len(found) else found,
        given=codes[labels.given],
        verified=codes[labels.verified],
    )
    if labels.sources is not None:
        labels = replace(labels, sources=labels.sources.recoded(codes, labels.n_classes))
    return proba, labels


def _checked_folds(folds: Any, n_folds: int, n_samples: int) -> np.ndarray:
    folds = np.asarray(folds)
    is_fold = folds.shape == (n_samples,) and folds.dtype.kind in "iu"
    if not is_fold or folds.min() < MISSING or folds.max() >= n_folds:
        raise InputError(
            f"folds must hold a whole number from -1 to {n_folds - 1} for each of the "
            f"{n_samples:,} samples, one for each of the predictions in held_out_proba."
        )
    return folds


def _deal(labels: Labels, n_folds: int, seed: int) -> np.ndarray:
    """Deal the samples that were drawn to be verified to folds; -1 for all others."""
    dealt = np.where(labels.drawn, 0, MISSING)
    n_folds = min(n_folds, int(labels.drawn.sum()))
    if labels.groups is not None and n_folds > 1:
        folds = deal_groups(dealt, n_folds, seed, labels.groups, n_outside=1)[labels.groups]
        return np.where(labels.drawn, folds, MISSING)
    folds, rows = np.full(len(dealt), MISSING), np.flatnonzero(labels.drawn)
    if n_folds:
        folds[np.random.default_rng(seed).permutation(rows)] = np.arange(len(rows)) % n_folds
    return folds


def _calibrated(
    probas: list[np.ndarray], views: list[View], weight: np.ndarray | None
) -> list[np.ndarray]:
    """Calibrate the predictions of each view on the samples that the other views hold out."""
    truth, held_out = held_out_truth(views, probas[0].shape[1]), collect_held_out(probas, views)
    weight = held_out_weight(weight, views)
    temperatures = fit_for_each_view(
        lambda rows: Temperature.fit(
            held_out[rows], truth[rows], None if weight is None else weight[rows]
        ),
        views,
    )
    parts = zip(temperatures, probas, strict=True)
    return [rowwise(temperature.apply, proba) for temperature, proba in parts]
