"""Checks of a learner that was just built from a file; `skops_files` checks the file itself.

Compiled code of scikit-learn trusts the indices and the shapes in a fitted learner: wrong ones read
foreign memory, or end the process. Every check here names what predictions rely on.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from joblib import cpu_count
from scipy import sparse
from sklearn.ensemble._forest import BaseForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.neighbors._ball_tree import BallTree
from sklearn.neighbors._base import NeighborsBase
from sklearn.neighbors._kd_tree import KDTree
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm._base import BaseLibSVM
from sklearn.tree import BaseDecisionTree
from sklearn.tree._tree import TREE_LEAF, Tree

# A regular expression from a file can be one that takes for ever.
TOKEN_PATTERNS = (None, r"(?u)\b\w\w+\b", r"(?u)\b\w+\b")
MOST_HASHED = 2**24  # features
LONGEST_NGRAM = 16


def check_learner(learner: Any) -> None:
    """Check the parts of a learner from a file.

    Parameters
    ----------
    learner : fitted estimator
        A learner of scikit-learn, just built from a file. An `n_jobs` above the number of cores is
        lowered to it.

    Raises
    ------
    ValueError
        If an index, a shape or a number is impossible.
    """
    for part in _parts(learner):
        for kind, (attribute, check) in CHECKS.items():
            # Ensembles keep the unfitted learner that they copied.
            if isinstance(part, kind) and hasattr(part, attribute):
                check(part)
        if isinstance(getattr(part, "n_jobs", None), int):
            part.n_jobs = min(part.n_jobs, cpu_count())


def _parts(learner: Any) -> Iterator[Any]:
    """Yield a learner and everything in it."""
    waiting, seen = [learner], {}
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, str | bytes | int | float | type):
            continue
        seen[id(part)] = part  # kept, so that no other object gets its id
        yield part
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple | set):
            waiting.extend(part)
        elif isinstance(part, np.ndarray):
            waiting.extend(part.ravel().tolist() if part.dtype == object else ())
        else:
            waiting.extend(getattr(part, "__dict__", {}).values())


def _require(is_right: Any, what: str) -> None:
    if not is_right:
        raise ValueError(f"its {what} cannot be right")


def _within(values: Any, low: int, high: int, what: str) -> None:
    """Require whole numbers from `low` to less than `high`."""
    values = np.asarray(values)
    _require(values.size == 0 or values.dtype.kind in "iub", what)
    _require(((values >= low) & (values < high)).all(), what)


def _check_children(children: list[np.ndarray], is_inner: np.ndarray, what: str) -> None:
    """Require that children come after their parents, so that every path ends."""
    for child in children:
        inner = np.flatnonzero(is_inner)
        _within(child[inner], 0, len(child), what)
        _require((child[inner] > inner).all(), what)


def _n_classes(learner: Any) -> int:
    classes = getattr(learner, "classes_", None)
    return len(classes) if isinstance(classes, np.ndarray) and classes.ndim == 1 else -1


def _check_tree(tree: Tree) -> None:
    # Its state reads `node_count` nodes, whatever there is.
    _require(1 <= tree.node_count <= tree.capacity, "number of a tree's nodes")
    nodes = tree.__getstate__()["nodes"]
    is_inner = nodes["left_child"] != TREE_LEAF
    _check_children([nodes["left_child"], nodes["right_child"]], is_inner, "tree")
    _within(nodes["feature"][is_inner], 0, tree.n_features, "tree's features")


def _check_decision_tree(learner: BaseDecisionTree) -> None:
    _require(isinstance(learner.tree_, Tree), "tree")
    _require(learner.tree_.n_features == learner.n_features_in_, "number of features")
    _require(learner.n_outputs_ == 1, "number of outputs")
    if hasattr(learner, "predict_proba"):
        _check_n_classes(learner)
        _require(learner.tree_.max_n_classes == learner.n_classes_, "number of classes")
    else:
        _require(learner.tree_.max_n_classes == 1, "number of values")


def _check_n_classes(learner: Any) -> None:
    _require(np.ndim(learner.n_classes_) == 0, "number of classes")
    _require(learner.n_classes_ == _n_classes(learner), "number of classes")


def _check_trees(learner: Any, trees: list[Any]) -> None:
    """Require trees for the features of their ensemble, which passes samples to them unchecked."""
    _require(all(isinstance(tree, BaseDecisionTree) for tree in trees), "trees")
    _require(all(tree.n_features_in_ == learner.n_features_in_ for tree in trees), "trees")


def _check_forest(learner: BaseForest) -> None:
    _check_trees(learner, learner.estimators_)
    _require(learner.n_outputs_ == 1, "number of outputs")
    if hasattr(learner, "predict_proba"):
        _check_n_classes(learner)
        _require(
            all(tree.n_classes_ == learner.n_classes_ for tree in learner.estimators_), "trees"
        )


def _check_boosting(learner: BaseGradientBoosting) -> None:
    n_classes = _n_classes(learner)
    n_columns = 1 if n_classes == 2 else n_classes
    _require(learner.n_trees_per_iteration_ == n_columns, "number of trees")
    _require(learner.estimators_.shape[1:] == (n_columns,), "number of trees")
    _check_trees(learner, learner.estimators_.ravel().tolist())
    _require(all(tree.tree_.max_n_classes == 1 for tree in learner.estimators_.flat), "trees")
    if not isinstance(learner.init_, str):
        _require(_n_classes(learner.init_) == n_classes, "first guess")


def _check_histogram_boosting(learner: BaseHistGradientBoosting) -> None:
    n_classes, n_features = _n_classes(learner), learner.n_features_in_
    n_columns = 1 if n_classes == 2 else n_classes
    _require(learner.n_trees_per_iteration_ == n_columns, "number of trees")
    # With a preprocessor, nobody knows how many features the trees get.
    _require(learner._preprocessor is None, "preprocessor")
    is_categorical = np.asarray(learner._bin_mapper.is_categorical_)
    _require(is_categorical.shape == (n_features,), "categorical features")
    for trees in learner._predictors:
        _require(len(trees) == n_columns, "number of trees")
        for tree in trees:
            _check_histogram_tree(tree, is_categorical.astype(bool))


def _check_histogram_tree(tree: Any, is_categorical: np.ndarray) -> None:
    nodes, bitsets = tree.nodes, tree.raw_left_cat_bitsets
    _require(isinstance(nodes, np.ndarray) and nodes.ndim == 1 and len(nodes), "histogram tree")
    is_inner = nodes["is_leaf"] == 0
    _check_children([nodes["left"], nodes["right"]], is_inner, "histogram tree")
    inner = nodes[is_inner]
    _within(inner["feature_idx"], 0, len(is_categorical), "histogram tree's features")
    by_category = inner[inner["is_categorical"] != 0]
    _require(is_categorical[by_category["feature_idx"]].all(), "categorical features")
    _require(bitsets.ndim == 2 and bitsets.shape[1] == 8, "categories")
    _within(by_category["bitset_idx"], 0, len(bitsets), "categories")


def _check_space_tree(tree: KDTree | BallTree) -> None:
    """Check a KD-tree or a ball tree, whose node i has the children 2 i + 1 and 2 i + 2."""
    data, rows, nodes, bounds, leaf_size, n_levels, n_nodes, *_ = tree.__getstate__()
    data, rows, nodes, bounds = (np.asarray(part) for part in (data, rows, nodes, bounds))
    n_samples, n_features = data.shape
    _require(leaf_size >= 1 and n_samples >= 1, "search tree")
    _require(1 <= n_levels < 60 and n_nodes == len(nodes) == 2**n_levels - 1, "search tree")
    _require(bounds.shape == (2 - isinstance(tree, BallTree), n_nodes, n_features), "search tree")
    _require(rows.shape == (n_samples,), "search tree")
    _within(rows, 0, n_samples, "search tree")
    start, end, is_leaf = nodes["idx_start"], nodes["idx_end"], nodes["is_leaf"]
    _within(start, 0, n_samples + 1, "search tree")
    _within(end, 0, n_samples + 1, "search tree")
    _require((start <= end).all(), "search tree")
    _require(is_leaf[n_nodes // 2 :].all(), "search tree")


def _check_neighbours(learner: NeighborsBase) -> None:
    shape = (learner.n_samples_fit_, learner.n_features_in_)
    _require(learner._fit_X.shape == shape, "samples")
    tree = learner._tree
    _require(tree is None or isinstance(tree, KDTree | BallTree), "search tree")
    _require(tree is None or np.shape(tree.__getstate__()[0]) == shape, "search tree")
    for params in (learner.effective_metric_params_, learner.metric_params):
        numbers = all(isinstance(value, int | float) for value in (params or {}).values())
        _require(numbers, "metric")
    if hasattr(learner, "classes_"):
        _require(np.shape(learner._y) == shape[:1], "labels")
        _within(learner._y, 0, _n_classes(learner), "labels")


def _check_support_vectors(learner: BaseLibSVM) -> None:
    vectors, n_support = learner.support_vectors_, np.asarray(learner._n_support)
    n_vectors, n_classes = vectors.shape[0], _n_classes(learner)
    n_pairs = n_classes * (n_classes - 1) // 2
    _require(not callable(learner.kernel) and learner.kernel != "precomputed", "kernel")
    _require(sparse.issparse(vectors) == learner._sparse, "support vectors")
    _require(vectors.ndim == 2 and n_vectors > 0, "support vectors")
    _require(vectors.shape[1] == learner.n_features_in_, "support vectors")
    _require(n_classes >= 2 and n_support.shape == (n_classes,), "support vectors")
    _within(n_support, 0, n_vectors + 1, "support vectors")
    _require(n_support.sum() == n_vectors == len(learner.support_), "support vectors")
    _require(learner._dual_coef_.shape == (n_classes - 1, n_vectors), "coefficients")
    if learner._sparse:
        _require(learner._dual_coef_.nnz == (n_classes - 1) * n_vectors, "coefficients")
    _require(learner._intercept_.shape == (n_pairs,), "intercepts")
    for pairs in (learner._probA, learner._probB):
        _require(np.shape(pairs) in ((0,), (n_pairs,)), "probabilities")
    _require(learner._probA.shape == learner._probB.shape, "probabilities")
    _require(0 <= learner.degree <= 100, "degree")


def _check_vectorizer(learner: CountVectorizer | HashingVectorizer) -> None:
    # "filename" would read the files that texts name.
    _require(learner.input == "content", "kind of input")
    _require(learner.token_pattern in TOKEN_PATTERNS, "pattern of words")
    low, high = learner.ngram_range
    _require(1 <= low <= high <= LONGEST_NGRAM, "lengths of n-grams")
    if isinstance(learner, HashingVectorizer):
        _within(learner.n_features, 1, MOST_HASHED + 1, "number of features")
    else:
        words = getattr(learner, "vocabulary_", {})
        _within(list(words.values()), 0, len(words), "vocabulary")


def _check_one_hot(learner: OneHotEncoder) -> None:
    n_columns = []
    dropped = learner._drop_idx_after_grouping
    for n, values in enumerate(learner.categories_):
        found = len(values)
        mapping = (
            learner._default_to_infrequent_mappings[n] if learner._infrequent_enabled else None
        )
        if mapping is not None:
            _require(len(mapping) == found, "categories")
            _within(mapping, 0, found, "categories")
            found = int(max(mapping)) + 1
        if dropped is not None and dropped[n] is not None:
            _within(dropped[n], 0, found, "categories")
            found -= 1
        n_columns.append(found)
    _require(list(learner._n_features_outs) == n_columns, "categories")


def _check_sparse(matrix: Any) -> None:
    _require(matrix.format in ("csr", "csc"), "sparse matrix")
    matrix.check_format(full_check=True)


def _check_random_state(state: np.random.RandomState) -> None:
    about = state.get_state(legacy=False)
    _require(about["bit_generator"] == "MT19937", "random numbers")
    _within(about["state"]["pos"], 0, len(about["state"]["key"]) + 1, "random numbers")


CHECKS: dict[Any, tuple[str, Callable[[Any], None]]] = {
    Tree: ("node_count", _check_tree),
    BaseDecisionTree: ("tree_", _check_decision_tree),
    BaseForest: ("estimators_", _check_forest),
    BaseGradientBoosting: ("estimators_", _check_boosting),
    BaseHistGradientBoosting: ("_predictors", _check_histogram_boosting),
    KDTree | BallTree: ("data", _check_space_tree),
    NeighborsBase: ("_fit_X", _check_neighbours),
    BaseLibSVM: ("support_vectors_", _check_support_vectors),
    CountVectorizer | HashingVectorizer: ("input", _check_vectorizer),
    OneHotEncoder: ("categories_", _check_one_hot),
    sparse.spmatrix | sparse.sparray: ("format", _check_sparse),
    np.random.RandomState: ("get_state", _check_random_state),
}
"""By type: an attribute that predictions need, and the check of objects that have it."""
