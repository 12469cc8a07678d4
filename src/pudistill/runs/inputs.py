"""The inputs of a run: data, trusted labels, artificial noise, features."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.batches import with_batch
from pudistill.data.columns import object_array, sort_names
from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions
from pudistill.exceptions import InputError, TrustedWarning, warn_user
from pudistill.labels.corruption import corrupt_labels, simulate_sources
from pudistill.learners.networks.features import open_embedder, with_own_features
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from pudistill.utils.shown import first_few, listed


def with_columns(settings: Settings) -> Settings:
    """Return settings that name the columns of ids and labels that the trusted file shows.

    They are stored with the run, so that test data and new samples are read in the same way.
    """
    if settings.trusted is None:
        return settings
    from pudistill.data.trusted_files import with_shared_columns  # loads pyarrow, which is slow

    options = ReadOptions.read(settings.read_options())
    found = with_shared_columns(Path(settings.data), Path(settings.trusted), options)
    return settings.model_copy(update=found.read_options())


# The default learner gets the words of this many texts beside the features of a model. Those of
# more would take more memory than the features themselves.
MOST_TEXTS_WITH_WORDS = 50_000


def load_data(settings: Settings) -> tuple[TrustedDataset, TrustedDataset | None]:
    """Return training and test data; label noise is added if the settings ask for it."""
    own = settings.own_features
    options = settings.read_options() | {"samples_required": own is None}
    dataset = load_dataset(
        settings.data, trusted=settings.trusted, annotations=settings.annotations, **options
    )
    if own is not None:
        dataset = with_own_features(dataset, own)
    test = None
    if settings.test_data is not None:
        test = load_dataset(settings.test_data, columns_required=False, **options)
        if settings.test_features is not None:
            test = with_own_features(test, Path(settings.test_features))
    elif settings.test_fraction is not None:
        if dataset.annotations is not None and not dataset.trusted.any():
            raise InputError(
                "test_fraction holds out verified samples, because only these have right labels, "
                "and nothing is verified: leave it out, or verify some samples."
            )
        dataset, test = dataset.holdout(settings.test_fraction, settings.seed)
    if settings.noise is not None:
        dataset = with_noise(
            dataset, settings.noise, settings.level, settings.trusted_fraction, settings.seed
        )
    if settings.added and own is not None:
        raise InputError(
            f"{settings.added[0]} cannot be added to your own features: save those of all samples "
            "in one file, and run `pudistill fit` anew."
        )
    for path in settings.added:
        # A batch can be of one class, or have no labels yet.
        batch = load_dataset(path, **options | {"labels_required": False})
        dataset = with_batch(dataset, batch)
    if settings.more_trusted:
        from pudistill.data.trusted_files import read_trusted  # loads pyarrow, which is slow
    for path in settings.more_trusted:
        trusted = read_trusted(Path(path), dataset, ReadOptions.read(settings.read_options()))
        dataset = dataset.with_trusted(*trusted)
    new_names = names_after_merging(settings.merge)
    if new_names:
        dataset = _merged(dataset, new_names)
        test = None if test is None else _merged(test, new_names)
    if settings.unverified_classes == "leave out":
        dataset = _without_unverified_classes(dataset)
    elif dataset.annotations is None or dataset.trusted.any() or settings.needs_trusted:
        dataset.require_trusted(every_class=settings.needs_every_class)
    if test is not None:
        test = _labelled(test)
        if dataset.is_frame or dataset.is_text:
            check_classes(test, dataset.classes)
            _check_same_kind(test, dataset)
            test = replace(test, X=as_raw(test))
        else:
            test = like_training_data(
                test, dataset.X.shape[1:], dataset.feature_names, dataset.classes
            )
    return dataset, test


def names_after_merging(merge: Sequence[str]) -> dict[str, str]:
    """Return the new name of each class that is merged into another, from texts ``OLD=NEW``."""
    names: dict[str, str] = {}
    for text in merge:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new) or old == new:
            raise InputError(f"The merge {text!r} is not clear: write it as OLD=NEW.")
        # Classes that were merged into the old one go on to the new one.
        names = {name: new if known == old else known for name, known in names.items()} | {old: new}
    return names


def _merged(dataset: TrustedDataset, new_names: Mapping[str, str]) -> TrustedDataset:
    """Count given, verified and true labels of merged classes as those of the new class."""
    if dataset.annotations is not None:
        raise InputError("Classes of labels of several sources cannot be merged: rename them.")

    def renamed(labels: np.ndarray | None) -> np.ndarray | None:
        if labels is None:
            return None
        return object_array([new_names.get(label, label) for label in labels])

    columns: dict[str, Any] = {
        name: renamed(getattr(dataset, name)) for name in ("y", "verified", "true_labels")
    }
    known = {*dataset.y, *dataset.verified}
    for old in new_names:
        if old not in known:
            raise InputError(
                f"There is no class {old!r} to merge: choose among {listed(dataset.classes)}."
            )
    return replace(dataset, **columns)


def _without_unverified_classes(dataset: TrustedDataset) -> TrustedDataset:
    """Leave out the given labels of classes of which no sample is verified, if any is."""
    missing = sort_names({*dataset.y} - {*dataset.verified, None, dataset.no_class_label})
    if not dataset.trusted.any() or not missing:
        return dataset
    is_missing = np.isin(dataset.y.astype(str), missing)
    warn_user(
        f"No sample of class {listed(missing)} is verified: its {int(is_missing.sum()):,} given "
        "labels are left out.",
        TrustedWarning,
    )
    y = dataset.y.copy()
    y[is_missing] = None
    return replace(dataset, y=y)


def _check_same_kind(test: TrustedDataset, dataset: TrustedDataset) -> None:
    if test.is_pictures or test.is_text != dataset.is_text:
        kinds = [
            "texts" if part.is_text else "pictures" if part.is_pictures else "columns of features"
            for part in (test, dataset)
        ]
        raise InputError(
            f"{test.name} holds {kinds[0]}, but the training data are {kinds[1]}: give samples of "
            "the same kind, or name the column of texts with --text-column."
        )


def _labelled(test: TrustedDataset) -> TrustedDataset:
    """Return the test samples that have a label: the verified label or else the given one."""
    test = replace(test, y=np.where(test.trusted, test.verified, test.y))
    return test.take(np.array([label not in (None, test.no_class_label) for label in test.y]))


def load_embedder(settings: Settings, dataset: TrustedDataset) -> Any:
    """Return the model that computes features; None if the run needs no such model."""
    if settings.features is None or settings.own_features is not None:
        return None
    return open_embedder(settings.features, dataset)


def features_folder(settings: Settings, run: Run) -> Path:
    """Return the folder that caches the features of a model."""
    if settings.features_cache is None:
        return run.units.folder
    return Path(settings.features_cache)


def with_noise(
    dataset: TrustedDataset,
    kind: Any,
    level: float,
    trusted_fraction: float,
    seed: int,
    *,
    class_map: Mapping[Any, Any] | None = None,
) -> TrustedDataset:
    """Corrupt the labels of a correctly labelled data set, and draw trusted samples from it.

    A trusted sample gets a noisy given label too, beside its verified label, as if somebody had
    verified a part of a noisy data set.
    """
    if kind == "instance" and dataset.is_text:
        raise InputError(
            f"Noise of kind instance depends on numeric features, and {dataset.name} holds texts: "
            "choose another kind."
        )
    right = dataset.y if dataset.true_labels is None else dataset.true_labels
    rng = np.random.default_rng([seed, 0])
    trusted = np.zeros(len(dataset), dtype=bool)
    for name in dataset.classes:
        rows = np.flatnonzero(right == name)
        if len(rows) == 0:  # no sample is truly of it
            continue
        n_trusted = max(1, round(trusted_fraction * len(rows)))
        trusted[rng.choice(rows, n_trusted, replace=False)] = True
    # Rounding makes the share of trusted samples differ slightly from `trusted_fraction`. Compute
    # with `trusted_fraction`, or 90 % noise beside 10 % trusted samples would be impossible.
    possible = level + trusted_fraction <= 1 + 1e-9
    corrupted = corrupt_labels(
        right,
        kind,
        min(1, level / (1 - trusted_fraction)) if possible else level,
        share_of="noisy" if possible else "all",
        trusted=trusted,
        X=dataset.X if kind == "instance" else None,
        class_map=class_map if kind == "asymmetric" else None,
        random_state=seed,
    )
    verified = np.full(len(dataset), None, dtype=object)
    verified[trusted] = right[trusted]
    return replace(
        dataset,
        y=corrupted.would_be,
        trusted=trusted,
        verified=verified,
        true_labels=right,
        marked=None,
        annotations=None,
        draws=None,
    )


def with_sources(dataset: TrustedDataset, kind: Any, seed: int, **options: Any) -> TrustedDataset:
    """Add what simulated sources say of each sample to a table, a column for each source.

    Parameters
    ----------
    dataset : TrustedDataset
        Correctly labelled data; given labels do not matter if there are true ones.
    kind : str
        Kind of noise.
    seed : int
        Seed of all random draws.
    **options
        Of `simulate_sources`.

    Returns
    -------
    dataset : TrustedDataset
        The data set; its first features are ``source_1``, ``source_2``, ...
    """
    if dataset.is_pictures:
        raise InputError(
            f"{dataset.name} holds pictures, which have no columns: simulate sources in Python, "
            "with pudistill.simulate_sources."
        )
    right = dataset.y if dataset.true_labels is None else dataset.true_labels
    X = dataset.X if kind == "instance" else None
    sources = simulate_sources(right, kind=kind, X=X, random_state=seed, **options)
    sources.index = pd.Index(dataset.ids, dtype=object)
    if dataset.is_text:
        features = pd.DataFrame({"text": dataset.X}, index=sources.index)
    elif dataset.is_frame:
        features = dataset.X
    else:
        names = dataset.feature_names or [f"x{n}" for n in range(dataset.X.shape[1])]
        features = pd.DataFrame(dataset.X, index=sources.index, columns=list(names))
    if taken := [name for name in sources if name in features]:
        raise InputError(f"{dataset.name} has a column {taken[0]} already: rename it first.")
    X = pd.concat([sources, features], axis=1)
    return replace(dataset, X=X, feature_names=tuple(map(str, X)))


def with_words(texts: np.ndarray, features: np.ndarray) -> pd.DataFrame:
    """Return texts beside the features that a model computed from them, for a `TableEncoder`.

    The words of short texts tell what the model does not: both together are more accurate.
    """
    return pd.DataFrame({"text": texts, "features": list(features)})


def about_features(embedder: Any, dataset: TrustedDataset) -> dict[str, Any]:
    """Describe the features and the model that computed them, for ``metrics.json``."""
    return {
        "model": embedder.name,
        "checksum": embedder.checksum,
        "made_of": embedder.kind,
        "n_features": dataset.X.shape[1],
    }


def as_raw(dataset: TrustedDataset) -> Any:
    """Return samples as a classifier takes them that encodes words and texts itself.

    Returns
    -------
    X : DataFrame, indexed by the ids, or ndarray of texts
        Columns that the training data lack are ignored by the classifier.
    """
    if dataset.is_text or dataset.is_frame or dataset.feature_names is None:
        return dataset.X
    index = pd.Index(dataset.ids, dtype=object)
    return pd.DataFrame(dataset.X, index=index, columns=list(dataset.feature_names))


def check_classes(dataset: TrustedDataset, classes: Any) -> None:
    """Raise `InputError` if samples have labels of classes that the training data lack."""
    unknown = sorted(set(dataset.classes) - set(map(str, classes)))
    if unknown:
        raise InputError(
            f"{dataset.name} has labels of class {listed(unknown)}, which the training data do not "
            "have: correct or remove them."
        )


def like_training_data(
    dataset: TrustedDataset,
    shape: Sequence[int],
    names: Sequence[str] | None,
    classes: Any,
    *,
    gaps_allowed: bool = False,
) -> TrustedDataset:
    """Return samples with their columns in the order of the training data, which are an array.

    Parameters
    ----------
    dataset : TrustedDataset
        Samples to test on, or to predict. Columns that the training data lack are left out.
    shape : sequence of int
        Shape of a training sample.
    names : sequence of str, or None
        Columns of the training data; None if they have no names.
    classes : sequence of str
        Classes of the training data.
    gaps_allowed : bool, default=False
        Whether numbers may be missing, because the classifier checks that itself.

    Returns
    -------
    dataset : TrustedDataset
        The same samples.

    Raises
    ------
    InputError
        If columns, shape or classes are not those of the training data; the message names all
        columns.
    """
    if names is not None and dataset.feature_names is not None:
        missing = [name for name in names if name not in dataset.feature_names]
        if missing:
            raise InputError(
                f"{dataset.name} lacks columns of the training data: add {listed(missing)}."
            )
        order = [dataset.feature_names.index(name) for name in names]
        X = dataset.X.iloc[:, order] if dataset.is_frame else dataset.X[:, order]
        dataset = replace(dataset, X=X, feature_names=tuple(names))
    if dataset.is_frame:
        dataset = replace(dataset, X=_as_numbers(dataset, gaps_allowed=gaps_allowed))
    if dataset.X.shape[1:] != tuple(shape):
        raise InputError(
            f"Each sample of {dataset.name} has shape {dataset.X.shape[1:]}, but those of the "
            f"training data have {tuple(shape)}: give samples of the same kind."
        )
    check_classes(dataset, classes)
    return dataset


def _as_numbers(dataset: TrustedDataset, *, gaps_allowed: bool) -> np.ndarray:
    """Return a data frame as an array; an `InputError` names the first entry that is no number."""
    wrong = []
    for name in dataset.X:
        column = dataset.X[name]
        is_number = column.dtype.kind in "fb"
        if is_number and (gaps_allowed or not column.isna().any()):
            continue
        row = int(column.isna().argmax()) if is_number else int(column.notna().argmax())
        value = "no value" if is_number else repr(column.iloc[row])
        wrong.append(f"column {name!r} holds {value} in the row with id {dataset.ids[row]!r}")
    if wrong:
        raise InputError(
            f"{dataset.name}: the training data hold numbers without gaps, but "
            f"{first_few(wrong)}: give numbers."
        )
    is_single = (dataset.X.dtypes == np.float32).all()
    return dataset.X.to_numpy(dtype=np.float32 if is_single else np.float64)
