"""What a run has learned: the file ``learned.npz``, from which an update starts, and results."""

import re
import shutil
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pudistill.classifier import OF_DEFAULT_METHOD, PUDistillClassifier
from pudistill.data.dataset import TrustedDataset
from pudistill.distillation.comparison import Comparison, ExpectedAccuracy, LabelAccuracy
from pudistill.distillation.noise_estimate import NoiseEstimate
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.labels.table import LabelTable
from pudistill.learners.base import NoisyLabelClassifier
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.runs.certificates import FILE as CERTIFIED_BY
from pudistill.runs.certificates import read_held_out_labels
from pudistill.runs.folder import Run
from pudistill.runs.stored_metrics import checked_noise, read_metrics
from pudistill.utils.arrays import rowwise
from pudistill.utils.shown import listed

Accuracy = TypeVar("Accuracy", bound=ExpectedAccuracy)
FILE = "learned.npz"
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
OF_FILTER = ("folds_", "clean_labels_", "team_labels_", "votes_", "n_iter_", "n_conflicts_")


def write_learned(run: Run, classifier: PUDistillClassifier) -> None:
    """Write what an update of the run starts from; nothing if the run was of another method."""
    if classifier.cross_fitted_proba_ is None:
        return
    arrays = {name: np.asarray(getattr(classifier.filter_, name)) for name in OF_FILTER}
    arrays["student_seed_"] = np.array(classifier.student_seed_)
    probas = [classifier.cross_fitted_proba_, *(classifier.held_out_proba_ or [])]
    for number, proba in enumerate(probas):
        # Half the memory of single precision; an update needs three digits.
        arrays[f"proba_{number}"] = rowwise(lambda block: block.astype(np.float16), proba)
    names = ("C_of_noise_free_models", "C_of_student")
    adapted = classifier.adapted_ or {}
    arrays |= {name: np.array(adapted[name]) for name in names if name in adapted}
    run.write_arrays(FILE, arrays)


def restore_learned(run: Run, classifier: PUDistillClassifier, module: Any = None) -> None:
    """Let a classifier with `warm_start` start from a finished run.

    Parameters
    ----------
    run : Run
        A run of `pudistill fit`.
    classifier : PUDistillClassifier
        The classifier, which gets the attributes that the fit of the run has set.
    module : callable or nn.Module, default=None
        See `pudistill.load`.

    Raises
    ------
    InputError
        If the run holds nothing to start from.
    """
    if not run.has(FILE):
        raise InputError(
            f"{run.path} cannot be updated: it has no {FILE}, which `pudistill fit` writes with "
            "--method default. Run `pudistill fit` with all verified labels instead."
        )
    before = run.read_model(module)
    classifier.student_ = before.fitted_model
    classifier.classes_, classifier.label_table_ = before.classes_, run.read_table("labels")
    _restore_predictions(run, classifier)


def restore_filter(run: Run) -> TieredPUFilter:
    """Return the filter of a run: its history and settings, and its clean sets if they are there.

    The members themselves are not stored.
    """
    found, metrics = TieredPUFilter(), read_metrics(run)
    found.history_ = run.read_table("history")
    found.settings_ = pd.DataFrame(metrics["filter_settings"])
    found.n_conflicts_ = int(metrics["n_conflicts"])
    if run.has(FILE):
        learned = run.read_arrays(FILE)
        for name in OF_FILTER:
            setattr(found, name, learned[name])
        found.n_conflicts_ = int(found.n_conflicts_)
    return found


def restore_results(run: Run, classifier: NoisyLabelClassifier) -> None:
    """Give a classifier that can predict what else its fit has learned.

    Parameters
    ----------
    run : Run
        A run of `pudistill fit`, or what `pudistill.save` has written.
    classifier : NoisyLabelClassifier
        Its classifier, which gets the label table, and the estimates of `PUDistillClassifier`.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    is_ours, metrics = isinstance(classifier, PUDistillClassifier), read_metrics(run)
    held_out, names = None, None
    if is_ours and run.has(CERTIFIED_BY):
        held_out, names = read_held_out_labels(run)
    if is_ours or run.has("labels.parquet"):
        table = run.read_table("labels")
        of_none = classifier.no_class_label
        arrays = LabelTable.of_frame(table, classifier.classes_, names, of_none)
        if held_out is not None and len(held_out.label) != len(table):
            raise ValueError(f"{CERTIFIED_BY} is not about the samples of labels.parquet")
        if "data" in run.read_config():
            classifier.label_table_, classifier.label_arrays_ = table, arrays
        else:  # the ids are the index of the samples in Python
            classifier.label_arrays_ = replace(arrays, ids=None, index=_index_of(table["id"]))
    if not isinstance(classifier, PUDistillClassifier):
        return
    classifier.__dict__.update(dict.fromkeys(OF_DEFAULT_METHOD))
    classifier.held_out_labels_ = held_out
    classifier.cut_short_ = metrics.get("cut_short", [])
    if found := metrics.get("noise") or metrics.get("unknown_noise"):
        noise = NoiseEstimate.from_dict(found, classifier.classes_)
        classifier.noise_ = None if noise is None else checked_noise(noise)
    classifier.expected_accuracy_ = _accuracy(ExpectedAccuracy, metrics.get("expected_accuracy"))
    of_labels = metrics.get("expected_label_accuracy")
    classifier.label_accuracy_ = _accuracy(LabelAccuracy, of_labels)
    classifier.adapted_ = metrics.get("adapted")
    if found := metrics.get("comparison"):
        classifier.shipped_ = found["shipped"]
        classifier.comparison_ = Comparison(
            found["shipped"], found["why"], found["candidates"], classifier.expected_accuracy_
        )
    if run.has(FILE):
        _restore_predictions(run, classifier)
    elif "filter_settings" in metrics:
        classifier.filter_ = restore_filter(run)
    if "filter_settings" in metrics:
        n_iter = classifier.filter_.history_.groupby("class_name").size()  # a row for each
        classifier.n_iter_ = int(max([1, *n_iter]))


def _accuracy(kind: type[Accuracy], found: dict[str, Any] | None) -> Accuracy | None:
    return None if found is None else kind(**found | {"interval": (*found["interval"],)})


def _index_of(ids: pd.Series) -> pd.Index:
    """Return the index that ids were written from: row numbers, other whole numbers or texts.

    Numbers that 64 bits cannot hold stay texts.
    """
    names = ids.to_numpy(dtype=object)
    if all(map(WHOLE_NUMBER.fullmatch, names)):
        numbers = pd.Index(names.astype(np.int64))
        return pd.RangeIndex(len(ids)) if numbers.equals(pd.RangeIndex(len(ids))) else numbers
    return pd.Index(names)


def _restore_predictions(run: Run, classifier: PUDistillClassifier) -> None:
    """Restore what a fit with `warm_start` starts from."""
    learned = run.read_arrays(FILE)
    n_views = sum(name.startswith("proba_") for name in learned)
    probas = [rowwise(_normalised, learned[f"proba_{number}"]) for number in range(n_views)]
    classifier.filter_ = restore_filter(run)
    classifier.cross_fitted_proba_, *classifier.held_out_proba_ = probas
    classifier.student_seed_ = int(learned["student_seed_"])
    classifier.adapted_ = (getattr(classifier, "adapted_", None) or {}) | {
        name: float(value) for name, value in learned.items() if name.startswith("C_of_")
    }


def _normalised(proba: np.ndarray) -> np.ndarray:
    return proba.astype(np.float32) / proba.sum(axis=1, keepdims=True, dtype=np.float32)


def link_features(before: Run, run: Run) -> None:
    """Let a run find the features that a model has computed for an earlier one."""
    run.units.folder.mkdir(exist_ok=True)
    for path in before.units.folder.glob("features-*"):
        target = run.units.folder / path.name
        if path.is_file() and not path.is_symlink() and not target.exists():
            try:
                target.hardlink_to(path)
            except OSError:  # another file system
                shutil.copyfile(path, target)


def check_same_data(run: Run, dataset: TrustedDataset) -> None:
    """Raise an `InputError` unless a data set begins with the samples of a run, as they were.

    Parameters
    ----------
    run : Run
        A finished run.
    dataset : TrustedDataset
        The data as they are now; samples may have been added at the end.
    """
    table = run.read_table("labels")
    n, path = len(table), run.path
    ids = np.asarray(dataset.ids[:n], dtype=object)
    if len(dataset) < n or not np.array_equal(ids, table["id"].to_numpy(dtype=object)):
        raise InputError(
            f"{dataset.name} no longer holds the samples of {path} in their order ({n:,} then, "
            f"{len(dataset):,} now): restore the data, or run `pudistill fit` anew."
        )
    before = table["given"].to_numpy(dtype=object)
    differs = np.array([a != b for a, b in zip(dataset.y[:n], before, strict=True)])
    differs &= ~dataset.trusted[:n] & ~pd.isna(before)
    if differs.any():
        row, n_other = int(np.flatnonzero(differs)[0]), int(differs.sum())
        labels, have = ("label", "has") if n_other == 1 else ("labels", "have")
        raise InputError(
            f"{n_other:,} given {labels} of {dataset.name} {have} changed since {path} was "
            f"fitted: that of {ids[row]!r} was {before[row]!r} and is {dataset.y[row]!r}. Restore "
            "what has changed, or run `pudistill fit` anew."
        )


def doubt_batches(classifier: PUDistillClassifier, dataset: TrustedDataset) -> None:
    """Let no promise rest on verified samples of other batches than those it would be about.

    Parameters
    ----------
    classifier : PUDistillClassifier
        A fitted classifier; its `held_out_labels_` get a doubt if a batch has no drawn sample.
    dataset : TrustedDataset
        The data, whose noise groups are the batches.
    """
    held_out, names = classifier.held_out_labels_, pd.Series(dataset.noise_groups, dtype=object)
    if held_out is None or held_out.doubt is not None:
        return
    is_drawn = dataset.trusted.copy()
    if dataset.draws is not None:
        is_drawn &= dataset.draws.weight != 0
    missing = [*dict.fromkeys(names[~names.isin(names[is_drawn])].dropna())]
    if missing:
        doubt = (
            f"No sample of {listed(missing)} was drawn to be verified: all estimates, except the "
            "noise of the batches, are for the other data only. Verify samples of it, which "
            "`pudistill next` draws."
        )
        warn_user(doubt, DataWarning)
        classifier.held_out_labels_ = replace(held_out, doubt=doubt)


def warn_of_noisy_batches(noise: NoiseEstimate | None, dataset: TrustedDataset) -> None:
    """Name batches whose labels are wrong more often than those of the first batch."""
    if noise is None or noise.group_rate is None or noise.group_rate_interval is None:
        return
    names = pd.unique(np.asarray(dataset.noise_groups, dtype=object))
    shown = [
        f"{r:.1%} (95 %: {low:.1%} to {high:.1%})"
        for r, (low, high) in zip(noise.group_rate, noise.group_rate_interval, strict=True)
    ]
    for g in np.flatnonzero(noise.group_rate_interval[:, 0] > noise.group_rate_interval[0, 1]):
        warn_user(
            f"The labels of {names[g]} are noisier than those of {names[0]}: {shown[g]} of them "
            f"are wrong, and {shown[0]} there.",
            DataWarning,
        )
