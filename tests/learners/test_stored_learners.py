"""Files of learners that were tampered with: refused, or they predict; the process never ends."""

import io
import json
import random
import subprocess
import sys
import warnings
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from pudistill.learners.skops_files import SKOPS_SCHEMA
from pudistill.learners.storage import Stored, dump, restore, unknown_types

X, y = load_iris(return_X_y=True)
X, y = X[::3], y[::3]
TEXTS = np.array(["one two three", "two four", "three one five", "six"] * 12)
CATEGORIES = X.round().astype(int).astype(str)
LEARNERS = {
    "tree": (DecisionTreeClassifier(), X),
    "forest": (RandomForestClassifier(3), X),
    "extra trees": (ExtraTreesClassifier(3), X),
    "boosting": (GradientBoostingClassifier(n_estimators=2), X),
    "histograms": (HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=3), X),
    "categories": (
        HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=3),
        X.round(),
    ),
    "neighbours": (KNeighborsClassifier(), X),
    "neighbours by sight": (KNeighborsClassifier(algorithm="brute"), X),
    "sparse neighbours": (KNeighborsClassifier(), sparse.csr_matrix(X)),
    "radius": (RadiusNeighborsClassifier(2.0), X),
    "svm": (SVC(), X),
    "svm with probabilities": (SVC(probability=True), X),
    "sparse svm": (SVC(), sparse.csr_matrix(X)),
    "mlp": (MLPClassifier((4,), max_iter=5), X),
    "logistic regression": (make_pipeline(StandardScaler(), LogisticRegression()), X),
    "bayes": (GaussianNB(), X),
    "calibrated": (CalibratedClassifierCV(LogisticRegression()), X),
    "isotonic": (CalibratedClassifierCV(DecisionTreeClassifier(), method="isotonic"), X),
    "bagging": (BaggingClassifier(n_estimators=3), X),
    "adaboost": (AdaBoostClassifier(n_estimators=3), X),
    "words": (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS),
    "one hot": (
        make_pipeline(
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5),
            LogisticRegression(),
        ),
        CATEGORIES,
    ),
}
NUMBERS = (0, -1, 1, 2, 7, 2**31 - 1, 2**40, -(2**62), 1e300, None, True, "x", [], [9, 9])
CASES = 100


def fitted(name):
    learner, samples = LEARNERS[name]
    # The same file in each process, so that a case can be run again by its number.
    seeds = [key for key in learner.get_params() if key.endswith("random_state")]
    learner = clone(learner).set_params(**dict.fromkeys(seeds, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return learner.fit(samples, y[: samples.shape[0]]), samples


def parts_of(content):
    with ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts, method=0):
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, part in parts.items():
            archive.writestr(ZipInfo(name), part, method)
    return buffer.getvalue()


def as_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def replaced(content, is_wanted, change):
    """Return a file whose wanted arrays are changed."""
    parts = parts_of(content)
    for name, part in parts.items():
        if name.endswith(".npy") and is_wanted(array := np.load(io.BytesIO(part))):
            parts[name] = as_npy(change(array.copy()))
    return packed(parts)


def tampered(content, rng):
    """Change arrays, numbers and sizes of a file of a learner at random."""
    parts = parts_of(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        arrays = [name for name in parts if name != SKOPS_SCHEMA]
        if arrays and rng.random() < 0.7:
            name = rng.choice(arrays)
            parts[name] = (
                other_archive(parts[name], rng)
                if name.endswith(".npz")
                else other_array(parts[name], rng)
            )
        else:
            parts[SKOPS_SCHEMA] = other_schema(parts[SKOPS_SCHEMA], rng)
    return packed(parts)


def other_archive(content, rng):
    parts = parts_of(content)
    name = rng.choice([*parts])
    return packed(parts | {name: other_array(parts[name], rng)})


def other_array(content, rng):
    array = np.load(io.BytesIO(content))
    kind = rng.randrange(5)
    if kind == 0:  # another length
        array = array[: rng.randrange(len(array))] if array.ndim and len(array) else array
    elif kind == 1 and array.ndim:
        array = np.concatenate([array, array[:1]])
    elif kind == 2 and array.dtype.names is None:
        array = array.astype(rng.choice(["f8", "i8", "i4", "f4", "U3"]))
    elif array.size:
        array = array.copy()
        target = array if array.dtype.names is None else array[rng.choice(array.dtype.names)]
        flat = target.reshape(-1)
        chosen = [rng.randrange(flat.size) for _ in range(rng.choice([1, flat.size]))]
        with np.errstate(all="ignore"):
            value = rng.choice([0, -1, 1, 5, len(flat), 2**31 - 1, 2**40, np.nan, 1e300])
            flat[chosen] = np.array(value).astype(flat.dtype)
        if target.base is None or not np.shares_memory(flat, array):
            target[...] = flat.reshape(target.shape)
    return as_npy(array)


def other_schema(content, rng):
    schema = json.loads(content)
    nodes, waiting = [], [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            nodes.append(node)
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    values = [node for node in nodes if node.get("__loader__") == "JsonNode"]
    files = [node for node in nodes if "file" in node]
    if files and rng.random() < 0.3:
        rng.choice(files)["file"] = rng.choice(files)["file"]
    elif rng.random() < 0.1:
        rng.choice(nodes)["__id__"] = rng.choice(nodes).get("__id__", 1)
    else:
        rng.choice(values)["content"] = json.dumps(rng.choice(NUMBERS))
    return json.dumps(schema).encode()


def try_all(name, n_cases):
    """Restore tampered files and predict, in this process; print the number of each case."""
    learner, samples = fitted(name)
    content = dump(learner).content
    assert restore(Stored(content, None)) is not None
    warnings.simplefilter("ignore")
    for n in range(n_cases):
        print(n, flush=True)
        try:
            restored = restore(Stored(tampered(content, random.Random(f"{name} {n}")), None))
            restored.predict_proba(samples) if hasattr(
                restored, "predict_proba"
            ) else restored.decision_function(samples)
        except Exception as error:
            print(f"{type(error).__name__}: {error}"[:150])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.slow
def test_no_tampered_file_ends_the_process(name):
    code = f"import test_stored_learners as t; t.try_all({name!r}, {CASES})"
    limits = "ulimit -v 12000000; exec"
    done = subprocess.run(
        ["bash", "-c", f'{limits} "$0" "$@"', sys.executable, "-c", code],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-1500:])


def refused(content, message):
    with pytest.raises(Exception, match=message):
        restore(Stored(content, None))


def test_children_of_a_tree_come_after_their_parents():
    learner, _ = fitted("tree")
    for child in (2**40, -5, 0):

        def change(nodes, child=child):
            nodes["left_child"][0] = nodes["right_child"][0] = child
            return nodes

        content = dump(learner).content
        refused(
            replaced(content, lambda array: "left_child" in (array.dtype.names or ()), change),
            "tree",
        )


def test_features_of_a_tree_are_those_of_the_samples():
    learner, _ = fitted("tree")

    def change(nodes):
        nodes["feature"] = 4
        return nodes

    content = dump(learner).content
    refused(
        replaced(content, lambda array: "feature" in (array.dtype.names or ()), change), "features"
    )


def test_children_of_a_histogram_tree_come_after_their_parents():
    learner, _ = fitted("histograms")

    def change(nodes):
        nodes["left"][0] = 0
        return nodes

    content = dump(learner).content
    refused(
        replaced(content, lambda array: "bitset_idx" in (array.dtype.names or ()), change),
        "histogram",
    )


def test_rows_of_a_search_tree_are_rows_of_its_samples():
    learner, samples = fitted("neighbours")

    def change(rows):
        return rows + 1

    def is_order(array):
        return (
            array.dtype == np.intp and len(array) == len(samples) and len(set(array)) == len(array)
        )

    refused(replaced(dump(learner).content, is_order, change), "search tree")


def test_support_vectors_are_counted_by_class():
    learner, _ = fitted("svm")

    def is_count(array):
        return array.shape == (3,) and array.dtype == np.int32

    refused(replaced(dump(learner).content, is_count, lambda counts: counts + 1), "support vectors")


def test_words_have_columns():
    learner, _ = fitted("words")
    parts = parts_of(dump(learner).content)
    schema = parts[SKOPS_SCHEMA].decode().replace('"content": "5"', '"content": "555555"')
    refused(packed(parts | {SKOPS_SCHEMA: schema.encode()}), "vocabulary")


def test_a_header_has_the_size_of_its_array():
    learner, _ = fitted("bayes")
    parts = parts_of(dump(learner).content)
    name = next(name for name, part in parts.items() if b"(3, 4)" in part)
    parts[name] = parts[name].replace(b"(3, 4)", b"(3,10)")
    refused(packed(parts), "claims the shape")


def test_a_compressed_file_is_refused():
    learner, _ = fitted("bayes")
    refused(packed(parts_of(dump(learner).content), ZIP_DEFLATED), "uncompressed")


def test_learners_whose_compiled_code_is_not_checked_are_not_stored():
    learner = make_pipeline(KMeans(2), LogisticRegression()).fit(X, y)
    assert unknown_types(dump(learner).content) == ["sklearn.cluster._kmeans.KMeans"]


@pytest.mark.parametrize(
    "name", ["sparse neighbours", "sparse svm", "words", "one hot", "boosting"]
)
def test_what_is_stored_predicts_the_same(name):
    learner, samples = fitted(name)
    again = restore(dump(learner))
    np.testing.assert_array_equal(again.predict(samples), learner.predict(samples))
