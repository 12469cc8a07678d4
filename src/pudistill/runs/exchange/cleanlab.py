"""Given labels and cross-fitted probabilities, as the functions of cleanlab take them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.labels.groups import check_groups
from pudistill.learners.cross_fitting import cross_fit_proba
from pudistill.learners.defaults import default_learner
from pudistill.learners.networks.features import with_model_features
from pudistill.learners.scoring import take
from pudistill.runs.classifiers import build_classifier, own_network
from pudistill.runs.exchange.samples import Samples
from pudistill.runs.folder import Run, to_csv
from pudistill.runs.inputs import features_folder, load_data, load_embedder
from pudistill.runs.settings import Settings
from pudistill.utils.files import to_npz, write_atomic

N_FOLDS = 5


def write(run: Run, samples: Samples, output: Path, learner: str | None = None) -> str:
    """Train the learner of the run on the given labels of all but a fifth, and predict that fifth.

    No part splits a group. `learner` is the run's own network, which is imported only if it is
    named here, too.

    An ``.npz`` file holds ``labels`` (int), ``pred_probs`` of shape (n_samples, n_classes),
    ``classes`` and ``ids``; a ``.csv`` file the columns ``id``, ``label`` (int) and one for each
    class.
    """
    ids, codes, classes, proba = cross_fitted(run, set(samples.table["id"]), learner)
    if output.suffix.lower() == ".npz":
        arrays = {"labels": codes, "pred_probs": proba}
        arrays |= {"classes": classes.astype(str), "ids": ids.astype(str)}
        write_atomic(output, to_npz(arrays))
    else:
        table = pd.DataFrame(proba, columns=list(classes))
        table.insert(0, "label", codes)
        table.insert(0, "id", ids)
        write_atomic(output, to_csv(table).encode())
    return (
        f"Each of the {len(ids):,} samples was predicted by models that have not seen it; "
        "cleanlab.filter.find_label_issues(labels, pred_probs) takes both."
    )


def cross_fitted(
    run: Run, wanted: set[str], learner: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predict samples that have a given label by models that have not seen them.

    Parameters
    ----------
    run : Run
        A finished run.
    wanted : set of str
        Ids of the samples to return; the models learn from all samples of the run.
    learner : str, default=None
        The learner of the run, repeated by the user if a module has to be imported for it.

    Returns
    -------
    ids : ndarray of shape (n_samples,)
    labels : ndarray of shape (n_samples,), int
        Codes of the given labels.
    classes : ndarray of shape (n_classes,)
    proba : ndarray of shape (n_samples, n_classes)
    """
    given_learner = {} if learner is None else {"learner": learner}
    # Nothing is written but the file, and nothing is tracked.
    config = {n: v for n, v in run.read_config().items() if n not in ("features_cache", "tracker")}
    config |= given_learner
    Settings.check_trust(config, given_learner, f"pudistill export {run.path} --to cleanlab")
    settings = Settings.read(config)
    dataset, _ = load_data(settings)
    embedder = load_embedder(settings, dataset)
    if embedder is not None:
        dataset = with_model_features(dataset, embedder, features_folder(settings, run))
    labels = run.read_table("labels").set_index("id")["given"]
    given = labels.reindex(np.asarray(dataset.ids, dtype=object))
    classes = np.array(sorted({*given.dropna()} & {*dataset.classes}), dtype=object)
    codes = pd.Categorical(given, categories=classes).codes.astype(int)
    X, encoder = dataset.X, None
    if embedder is None:
        module = None if learner is None else own_network(learner)
        encoder = run.read_model(module).encoder_
    if encoder is not None:
        X = encoder.transform(X)
    estimator = build_classifier(settings, dataset.X).estimator
    if estimator is None:
        estimator = default_learner(X, encoded=encoder is not None)
    known = np.flatnonzero(codes >= 0)
    targets = np.eye(len(classes))[codes[known]]
    options: dict[str, Any] = {"n_folds": N_FOLDS, "n_jobs": settings.n_jobs, "seed": settings.seed}
    if dataset.groups is not None:
        options["groups"] = check_groups(dataset.groups, len(dataset))[known]
    proba = cross_fit_proba(estimator, take(X, known), targets, **options)
    ids = np.asarray(dataset.ids, dtype=object)[known]
    chosen = np.array([name in wanted for name in ids])
    return ids[chosen], codes[known][chosen], classes, proba[chosen]
