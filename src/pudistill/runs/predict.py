"""`pudistill predict` without its command line: predictions of a run for new samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.learners.networks.features import feature_blocks, with_own_features
from pudistill.runs.classifiers import own_network
from pudistill.runs.folder import Run
from pudistill.runs.inputs import (
    as_raw,
    like_training_data,
    load_embedder,
    with_words,
)
from pudistill.runs.settings import Settings
from pudistill.utils.warning_log import each_once


@each_once()  # each network of a mixture warns of the same samples
def predict_run(
    run: Run,
    source: str,
    *,
    features: str | None = None,
    skip_bad: bool = False,
    learner: str | None = None,
) -> pd.DataFrame:
    """Predict the classes of new samples with the model of a run.

    Parameters
    ----------
    run : Run
        A finished run.
    source : str
        Samples in any form that `load_dataset` reads; labels are not needed. If the run was fitted
        on the features of a model, that model computes the features of these samples, too.
    features : str, optional
        File of the samples' features, if the run was fitted on the user's own features; see
        `with_own_features`.
    skip_bad : bool, default=False
        Whether to leave out unreadable pictures.
    learner : str, optional
        The learner of the run, if it is a network of the user's own: it is imported and run.

    Returns
    -------
    predictions : DataFrame
        Columns ``id``, ``label`` and ``confidence``.

    Raises
    ------
    InputError
        If shape, features or classes are not those of the run's training data.
    """
    # A classifier that `save` has written does not know the data that it was fitted on.
    settings = Settings.read({"data": source} | run.read_config())
    _check_own_features(settings, features)
    classifier = run.read_model(None if learner is None else own_network(learner))
    options = settings.read_options() | {"skip_bad": skip_bad, "lazy": False}
    dataset = load_dataset(
        source,
        samples_required=features is None,
        labels_required=False,
        columns_required=False,
        **options,
    )
    # Labels are not read: folders of new pictures can be months or cameras.
    dataset = replace(dataset, y=np.full(len(dataset), None, dtype=object))
    if features is not None:
        dataset = with_own_features(dataset, Path(features))
    embedder = load_embedder(settings, dataset)
    if embedder is None:
        with _of_run(run):
            proba = _predict_proba(classifier, dataset)
    else:
        _check_same_model(run, embedder)
        with _of_run(run):
            proba = np.concatenate(list(_predict_blocks(classifier, embedder, dataset.X)))
    if proba.shape != (len(dataset), len(classifier.classes_)):
        raise InputError(f"The model in {run.path} does not predict its classes: restore a copy.")
    return pd.DataFrame(
        {
            "id": dataset.ids,
            "label": classifier.classes_[proba.argmax(axis=1)],
            "confidence": proba.max(axis=1),
        }
    )


def _predict_blocks(classifier: Any, embedder: Any, X: Any) -> Iterator[np.ndarray]:
    """Predict samples by the features of a model, beside their words if the run used them."""
    start = 0
    for features in feature_blocks(embedder, X):
        texts = X[start : start + len(features)]
        start += len(features)
        is_encoded = classifier.encoder_ is not None
        yield classifier.predict_proba(with_words(texts, features) if is_encoded else features)


@contextmanager
def _of_run(run: Run) -> Iterator[None]:
    """Name the run if its model fails: somebody else's files can describe a senseless one."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any kind
        raise InputError(
            f"The model in {run.path} cannot predict these samples ({type(error).__name__}: "
            f"{error}): restore a copy of it, or give samples like those of its training."
        ) from error


def _predict_proba(classifier: Any, dataset: TrustedDataset) -> np.ndarray:
    """Predict probabilities; if the run was fitted on colour pictures, convert grey ones.

    A classifier that encodes words and texts itself also finds and checks the columns.
    """
    if classifier.encoder_ is not None:
        return classifier.predict_proba(as_raw(dataset))
    shape = classifier.picture_shape_
    if shape is None and not hasattr(classifier, "n_features_in_"):  # it has learned from texts
        if not dataset.is_text:
            raise InputError(
                f"{dataset.name} holds no texts, which the run was fitted on: name their column "
                "with --text-column of `pudistill fit`, or give texts."
            )
        return classifier.predict_proba(dataset.X)
    if shape is not None and len(shape) == 3 and dataset.X.ndim == 3:
        dataset = replace(dataset, X=dataset.X[..., None][..., [0] * shape[2]])
    dataset = like_training_data(
        dataset,
        shape or (classifier.n_features_in_,),
        getattr(classifier, "feature_names_in_", None),
        classifier.classes_,
        gaps_allowed=True,
    )
    X: Any = dataset.X
    if hasattr(classifier, "feature_names_in_") and dataset.feature_names is not None:
        X = pd.DataFrame(X, columns=list(dataset.feature_names))
    return classifier.predict_proba(X)


def _check_own_features(settings: Settings, features: str | None) -> None:
    """Raise `InputError` unless both or neither of run and new samples have the user's features."""
    if settings.own_features is not None and features is None:
        raise InputError(
            f"The run was fitted on your own features, {settings.features}: give those of the new "
            "samples with --features."
        )
    if settings.own_features is None and features is not None:
        raise InputError(
            "The run was not fitted on your own features: leave --features out. "
            + (
                "It needs the samples only."
                if settings.features is None
                else f"The model {settings.features} computes the features of new samples."
            )
        )


def _check_same_model(run: Run, embedder: Any) -> None:
    """Raise `InputError` if the model that computes features has changed since the run."""
    try:
        about = dict(run.read_json("metrics.json")["features"])
        about["made_of"], about["checksum"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.path / 'metrics.json'} does not describe the run's features: restore a copy."
        ) from error
    if about["made_of"] != embedder.kind:
        raise InputError(
            f"The run in {run.path} was fitted on {about['made_of']}, and the new samples are "
            f"{embedder.kind}: give samples of the same kind."
        )
    if about["checksum"] != embedder.checksum:
        raise InputError(
            f"The model {embedder.name} has changed since {run.path} was fitted with it: restore "
            "the old version, or fit again."
        )
