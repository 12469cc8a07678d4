"""Noise models, which turn right labels into wrong labels to test methods.

There are four kinds of noise, each with a level and a seed: symmetric, asymmetric (any class map),
pair flips, and instance-dependent. The level is defined as in section IV-A1 of the paper. Several
sources can label the same samples, each with noise of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from scipy.stats import truncnorm
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from pudistill.exceptions import InputError
from pudistill.utils.shown import listed, shown

Kind = Literal["symmetric", "asymmetric", "pair", "instance"]
ShareOf = Literal["all", "noisy"]

CIFAR10_MAP = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}
"""The wrong class of each true class of CIFAR-10, from section IV-A1 of the paper."""

FASHION_MNIST_MAP = {
    "T-shirt/top": "Shirt",
    "Shirt": "T-shirt/top",
    "Pullover": "Coat",
    "Sneaker": "Ankle boot",
    "Dress": "Trouser",
}
"""The wrong class of each true class of Fashion-MNIST: a similar one, as in `CIFAR10_MAP`."""

CIFAR10_CLASSES = sorted({*CIFAR10_MAP, *CIFAR10_MAP.values(), "frog", "ship"})

FLIP_RATE_STD = 0.1
"""Standard deviation of the flip rates of instance-dependent noise, as in Xia et al., and of the
noise levels of simulated sources."""

ADVERSARY_LIES = 0.9
"""Share of the samples to which an adversarial source gives the next class."""

BLOCK_VALUES = 2**22
"""Feature values held in memory at once: 32 MiB of float64."""


@dataclass(frozen=True)
class CorruptedLabels:
    """Labels with added noise, returned by :func:`corrupt_labels`.

    Attributes
    ----------
    y : ndarray of shape (n,)
        Labels after corruption; the labels of trusted samples are right.
    would_be : ndarray of shape (n,)
        For a trusted sample, the label that the same noise *would* have given it; elsewhere `y`.
    transition_matrix : ndarray of shape (C, C)
        Realised P(given = j | true = c) over the noisy samples. The row of a class without
        noisy samples is NaN.
    classes : ndarray of shape (C,)
        Sorted classes, the order of the matrix's rows and columns.
    true : ndarray of shape (n,)
        The right labels, unchanged.
    trusted : ndarray of shape (n,), bool
        Whether a sample is trusted.
    """

    y: np.ndarray
    would_be: np.ndarray
    transition_matrix: np.ndarray
    classes: np.ndarray
    true: np.ndarray
    trusted: np.ndarray

    @property
    def noise_rate(self) -> float:
        """Share of the noisy samples whose label is wrong, in [0, 1]; 0 if all are trusted."""
        noisy = ~self.trusted
        return float(np.mean(self.y[noisy] != self.true[noisy])) if noisy.any() else 0.0


def corrupt_labels(
    y: npt.ArrayLike,
    kind: Kind = "symmetric",
    level: float = 0.5,
    *,
    trusted: npt.ArrayLike | None = None,
    share_of: ShareOf = "all",
    class_map: Mapping[Any, Any] | None = None,
    X: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> CorruptedLabels:
    """Add label noise; trusted samples keep their right label.

    Parameters
    ----------
    y : array-like of shape (n,)
        Right labels: strings, integers or booleans, of at least two classes.
    kind : {"symmetric", "asymmetric", "pair", "instance"}, default="symmetric"
        - ``"symmetric"``: the chosen samples get a label drawn uniformly from all C classes, the
          right one included, so that (C - 1) / C of them end up wrong [1]_.
        - ``"asymmetric"``: in every class that `class_map` names, the same share of samples gets
          the wrong class of the map [1]_ [2]_.
        - ``"pair"``: asymmetric; each class becomes the next class in sorted order, and the last
          class becomes the first.
        - ``"instance"``: the flip rate and the wrong class depend on the sample's features [3]_.
          Flip rates vary around the fraction r / (1 - π) of `level`, which is met on average, not
          exactly.
    level : float in [0, 1], default=0.5
        Noise level r. By default it is a share of the whole data set: with a trusted share π, a
        fraction r / (1 - π) of the noisy samples is chosen, which needs r + π <= 1. For
        ``"asymmetric"`` it is the level within the classes that the map names: on CIFAR-10, with
        five of ten classes in the map, r / 2 of all labels end up wrong.
    trusted : array-like of shape (n,), bool, default=None
        Samples whose labels are known to be right. None: no sample.
    share_of : {"all", "noisy"}, default="all"
        Whether `level` is a share of all samples, or of the samples that are not trusted.
    class_map : mapping of class to class, default=None
        For ``"asymmetric"``: true class to wrong class. A class that it does not name keeps its
        labels. None: :data:`CIFAR10_MAP` if the classes have CIFAR-10's names, in upper or lower
        case; otherwise :func:`cyclic_map`.
    X : array-like or sparse matrix of shape (n, ...), default=None
        Features or pictures, for ``"instance"`` only. Read in blocks, so it can be a memory map.
    random_state : int, RandomState or None, default=None
        Seed of all random draws.

    Returns
    -------
    CorruptedLabels
        The labels, the labels that trusted samples would have got, and the realised noise.

    Raises
    ------
    InputError
        If labels, mask, class map or features do not match, or the level is out of reach.

    Notes
    -----
    The numbers of chosen samples are exact (to rounding), as in [1]_. The label that a trusted
    sample would have got is drawn independently for each of them, with the same probability:
    trusted samples are a random sample of the data, and their noise rate varies as in any random
    sample.

    For instance-dependent noise [3]_ draws flip rates from a normal distribution with the same
    fraction as mean before truncation, and standard deviation 0.1, truncated to [0, 1]. Truncation
    moves the mean towards 1/2; here the rates are scaled back, so that a fraction of 0 changes no
    label and one of 1 all of them.

    References
    ----------
    .. [1] J. Xu, T. Q. S. Quek, K. F. E. Chong, "Training Classifiers that are Universally Robust
       to All Label Noise Levels", section IV-A1.
    .. [2] G. Patrini et al., "Making deep neural networks robust to label noise: A loss correction
       approach", CVPR 2017.
    .. [3] X. Xia et al., "Part-dependent Label Noise: Towards Instance-dependent Label Noise",
       NeurIPS 2020, algorithm 2 (supplement).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.corruption import corrupt_labels
    >>> y = np.repeat(["cat", "dog"], 100)
    >>> trusted = np.arange(200) % 10 == 0
    >>> noisy = corrupt_labels(y, "pair", level=0.27, trusted=trusted, random_state=0)
    >>> noisy.transition_matrix
    array([[0.7, 0.3],
           [0.3, 0.7]])
    >>> (noisy.y == y)[trusted].all()
    np.True_
    """
    true = np.asarray(y)
    classes, codes = _encode(true)
    is_trusted = _trusted_mask(trusted, len(codes))
    fraction = _chosen_fraction(level, share_of, is_trusted)
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    if class_map is not None and kind != "asymmetric":
        raise InputError(f"class_map belongs to asymmetric noise: leave it out for kind={kind!r}.")

    # The label of each sample if it is chosen, and the groups: the same fraction of each is chosen.
    if kind == "symmetric":
        noise, strata = rng.integers(len(classes), size=len(codes)), np.zeros_like(codes)
    elif kind in ("asymmetric", "pair"):
        mapping = cyclic_map(classes) if kind == "pair" else _map_for(class_map, classes)
        noise, strata = _mapped_codes(mapping, classes)[codes], codes
    elif kind == "instance":
        noisy = _instance_noise(X, codes, len(classes), fraction, rng)
        return _corrupted(true, classes, codes, noisy, is_trusted)
    else:
        raise InputError(
            f"kind={kind!r} is not a noise model: use symmetric, asymmetric, pair or instance."
        )

    chosen = rng.random(len(codes)) < fraction  # this draw counts for trusted samples only
    for stratum in np.unique(strata):
        rows = np.flatnonzero(~is_trusted & (strata == stratum))
        chosen[rows] = False
        chosen[rng.permutation(rows)[: round(fraction * len(rows))]] = True
    return _corrupted(true, classes, codes, np.where(chosen, noise, codes), is_trusted)


def simulate_sources(
    y: npt.ArrayLike,
    n_sources: int = 5,
    kind: Kind = "symmetric",
    *,
    level: float = 0.5,
    abstain: float = 0.0,
    copies: int = 0,
    adversarial: int = 0,
    class_map: Mapping[Any, Any] | None = None,
    X: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Let several sources label the same samples, each with noise of its own.

    Parameters
    ----------
    y : array-like of shape (n,)
        Right labels, without missing values.
    n_sources : int, default=5
        Number of sources, with copies and adversaries.
    kind : {"symmetric", "asymmetric", "pair", "instance"}, default="symmetric"
        Kind of noise, as for :func:`corrupt_labels`.
    level : float in [0, 1], default=0.5
        Mean noise level of the sources; that of each is drawn around it, as flip rates of
        instance-dependent noise are.
    abstain : float in [0, 1), default=0.0
        Probability that a source says nothing of a sample.
    copies : int, default=0
        Number of sources that are silent and speak exactly as the first one does.
    adversarial : int, default=0
        Number of sources that name the next class in sorted order nine times in ten.
    class_map : mapping of class to class, default=None
        As for :func:`corrupt_labels`.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        As for :func:`corrupt_labels`.
    random_state : int, RandomState or None, default=None
        Seed of all random draws.

    Returns
    -------
    sources : DataFrame of shape (n, n_sources)
        Columns ``source_1``, ``source_2``, ...: ordinary sources, then copies, then adversaries.
        None where a source is silent.

    Raises
    ------
    InputError
        If there are too few sources for the copies and adversaries, or `abstain` is no probability
        below 1; or as for :func:`corrupt_labels`.

    Examples
    --------
    >>> from pudistill.labels.corruption import simulate_sources
    >>> sources = simulate_sources(["cat", "dog"] * 50, 3, level=0.2, copies=1, random_state=0)
    >>> list(sources), (sources["source_1"] == sources["source_3"]).all()
    (['source_1', 'source_2', 'source_3'], np.True_)
    """
    y = np.asarray(y)
    _check_sources(n_sources, copies, adversarial, abstain)
    _chosen_fraction(level, "noisy", np.zeros(len(y), dtype=bool))  # is it a share?
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    n_own = n_sources - copies - adversarial
    noises = [(kind, rate, class_map) for rate in _flip_rates(level, n_own, rng)]
    noises += [("pair", ADVERSARY_LIES, None)] * adversarial
    columns = []
    for of_source, rate, its_map in noises:
        noisy = corrupt_labels(
            y,
            of_source,
            float(rate),
            share_of="noisy",
            class_map=its_map,
            X=X if of_source == "instance" else None,
            random_state=int(rng.integers(2**31)),
        )
        said = noisy.y.astype(object)
        said[rng.random(len(y)) < abstain] = None
        columns.append(said)
    columns[n_own:n_own] = [columns[0]] * copies
    return pd.DataFrame({f"source_{n}": said for n, said in enumerate(columns, 1)}, dtype=object)


def _check_sources(n_sources: int, copies: int, adversarial: int, abstain: float) -> None:
    if min(copies, adversarial) < 0 or n_sources < 1 + copies + adversarial:
        raise InputError(
            f"{n_sources} sources cannot hold one to be copied, {copies} copies and {adversarial} "
            "adversaries: the number of sources includes all of them."
        )
    if not 0 <= abstain < 1:
        raise InputError(
            f"Sources that abstain with probability {abstain:g} are impossible: use a number from "
            "0 to below 1."
        )


def cyclic_map(classes: Iterable[Any]) -> dict[Any, Any]:
    """Map each class to the next class in sorted order, and the last class to the first.

    Parameters
    ----------
    classes : iterable
        Class names or numbers; duplicates count once.

    Returns
    -------
    dict
        True class to wrong class, for ``corrupt_labels(..., class_map=...)``.

    Examples
    --------
    >>> from pudistill.labels.corruption import cyclic_map
    >>> cyclic_map(["ship", "cat", "dog"])
    {'cat': 'dog', 'dog': 'ship', 'ship': 'cat'}
    """
    ordered = np.unique(np.asarray(list(classes))).tolist()
    return dict(zip(ordered, ordered[1:] + ordered[:1], strict=True))


def transition_matrix(
    true: npt.ArrayLike, given: npt.ArrayLike, classes: npt.ArrayLike
) -> np.ndarray:
    """Return the share of each true class that was given each label.

    Parameters
    ----------
    true, given : array-like of shape (n,)
        Right labels, and the labels that the same samples were given.
    classes : array-like of shape (C,)
        All classes, in the order of rows and columns.

    Returns
    -------
    ndarray of shape (C, C), float64
        Row c, column j: P(given = j | true = c). The row of a class without samples is NaN.

    Raises
    ------
    InputError
        If the lengths differ, a class is repeated, or a label is not in `classes`.

    Examples
    --------
    >>> from pudistill.labels.corruption import transition_matrix
    >>> transition_matrix(["cat", "cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog", "eel"])
    array([[0.5, 0.5, 0. ],
           [0. , 1. , 0. ],
           [nan, nan, nan]])
    """
    true, given = np.asarray(true), np.asarray(given)
    if true.shape != given.shape:
        raise InputError(
            f"{true.size} true labels, but {given.size} given labels: pass one of each per sample."
        )
    position = {name: index for index, name in enumerate(np.asarray(classes).tolist())}
    n_classes = np.asarray(classes).size
    if len(position) < n_classes:
        raise InputError("A class is listed twice in `classes`: list each class once.")
    true_codes, given_codes = (
        np.array([_position(position, name, "is a label") for name in labels.tolist()], dtype=int)
        for labels in (true, given)
    )
    return _transition_matrix(true_codes, given_codes, n_classes)


def _transition_matrix(true: np.ndarray, given: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(true * n_classes + given, minlength=n_classes**2)
    counts = counts.reshape(n_classes, n_classes)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def _corrupted(
    true: np.ndarray,
    classes: np.ndarray,
    codes: np.ndarray,
    noisy_codes: np.ndarray,
    trusted: np.ndarray,
) -> CorruptedLabels:
    given = np.where(trusted, codes, noisy_codes)
    return CorruptedLabels(
        y=classes[given],
        would_be=classes[noisy_codes],
        transition_matrix=_transition_matrix(codes[~trusted], given[~trusted], len(classes)),
        classes=classes,
        true=true,
        trusted=trusted,
    )


def _encode(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes, and the position of each label among them."""
    if y.ndim != 1:
        raise InputError(f"Labels must be a vector, not of shape {y.shape}.")
    missing = np.flatnonzero(pd.isna(y))
    if missing.size:
        raise InputError(f"The label in row {missing[0]} is missing: noise needs the right labels.")
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError:
        raise InputError("Labels mix types, such as text and numbers: use one type.") from None
    if len(classes) < 2:
        raise InputError(f"Noise needs at least two classes, and the labels have {len(classes)}.")
    return classes, codes


def _trusted_mask(trusted: npt.ArrayLike | None, n_samples: int) -> np.ndarray:
    if trusted is None:
        return np.zeros(n_samples, dtype=bool)
    mask = np.asarray(trusted)
    if mask.dtype != bool or mask.shape != (n_samples,):
        raise InputError(
            f"trusted must be a boolean mask with one entry for each of the {n_samples} labels, "
            f"not {mask.dtype} of shape {mask.shape}."
        )
    return mask


def _chosen_fraction(level: float, share_of: ShareOf, trusted: np.ndarray) -> float:
    """Return the fraction of noisy samples that the noise acts on: r / (1 - π), or r itself."""
    if not 0 <= level <= 1:
        raise InputError(f"Noise level {level} is not a share: use a number from 0 to 1.")
    if share_of == "noisy" or level == 0:
        return float(level)
    if share_of != "all":
        raise InputError(f"share_of={share_of!r} is unknown: use 'all' or 'noisy'.")
    n_noisy = np.count_nonzero(~trusted)
    if round(level * trusted.size) > n_noisy:
        # Round down, so that the level in the message is possible.
        largest = np.floor(1e4 * n_noisy / trusted.size) / 1e4
        raise InputError(
            f"Noise level {level:g} of the whole data set is out of reach with "
            f"{trusted.mean():.4g} of it trusted: the largest possible is {largest:g}."
        )
    return min(1.0, level * trusted.size / n_noisy) if n_noisy else 0.0


def _map_for(class_map: Mapping[Any, Any] | None, classes: np.ndarray) -> Mapping[Any, Any]:
    """Return the map passed; by default CIFAR-10's map if the classes match, else a cyclic map."""
    if class_map is not None:
        return class_map
    by_lower_name = {str(name).lower(): name for name in classes.tolist()}
    if sorted(by_lower_name) == CIFAR10_CLASSES and len(classes) == len(CIFAR10_CLASSES):
        return {by_lower_name[name]: by_lower_name[wrong] for name, wrong in CIFAR10_MAP.items()}
    return cyclic_map(classes)


def _mapped_codes(class_map: Mapping[Any, Any], classes: np.ndarray) -> np.ndarray:
    """Return the position of each class's wrong class, or of the class itself if it has none."""
    position = {name: index for index, name in enumerate(classes.tolist())}
    target = np.arange(len(classes))
    for name, wrong in class_map.items():
        source = _position(position, name, "is in the class map")
        target[source] = _position(position, wrong, "is in the class map")
    return target


def _position(position: Mapping[Any, int], name: Any, where: str) -> int:
    try:
        return position[name]
    except (KeyError, TypeError):
        known = listed(position)
        raise InputError(f"{shown(name)} {where} but not a class: use one of {known}.") from None


def _instance_noise(
    X: Any, codes: np.ndarray, n_classes: int, level: float, rng: np.random.Generator
) -> np.ndarray:
    """Return noisy codes that depend on the features (Xia et al. 2020, algorithm 2)."""
    read = _row_reader(X, len(codes))
    n_features = read(slice(0, 1)).shape[1]
    block_size = max(1, BLOCK_VALUES // max(n_features, n_classes))
    scaler = StandardScaler()
    for rows in _blocks(np.arange(len(codes)), block_size):
        scaler.partial_fit(read(slice(rows[0], rows[-1] + 1)))

    flips = rng.random(len(codes)) < _flip_rates(level, len(codes), rng)
    noisy = codes.copy()
    for true_class in range(n_classes):
        # One class at a time: all C projections together would take C * C * n_features values.
        projection = rng.standard_normal((n_features, n_classes))
        for rows in _blocks(np.flatnonzero(flips & (codes == true_class)), block_size):
            scores = scaler.transform(read(rows)) @ projection
            scores[:, true_class] = -np.inf
            cumulative = softmax(scores, axis=1).cumsum(axis=1)
            # Scaled by the last column: the rounded sum of a row can be less than one.
            drawn = rng.random((len(rows), 1)) * cumulative[:, -1:]
            noisy[rows] = np.argmax(cumulative > drawn, axis=1)
    return noisy


def _flip_rates(level: float, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the probability that each label flips: truncated normal, scaled to mean `level`."""
    if level > 0.5:
        return 1 - _flip_rates(1 - level, n_samples, rng)
    rates = truncnorm(-level / FLIP_RATE_STD, (1 - level) / FLIP_RATE_STD, level, FLIP_RATE_STD)
    return rates.rvs(n_samples, random_state=rng) * (level / rates.mean())


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _row_reader(X: Any, n_samples: int) -> Callable[[slice | np.ndarray], np.ndarray]:
    """Return a function that reads rows of X as a finite matrix, (n_rows, n_features)."""
    if X is None:
        raise InputError("Instance-dependent noise is made from the features: pass them as X.")
    if hasattr(X, "iloc"):
        X = X.iloc
        shape = X.obj.shape
    else:
        X = X.tocsr() if hasattr(X, "tocsr") else X if hasattr(X, "shape") else np.asarray(X)
        shape = X.shape
    if shape[0] != n_samples:
        raise InputError(f"X has {shape[0]} rows, but there are {n_samples} labels.")

    def read(rows: slice | np.ndarray) -> np.ndarray:
        block = X[rows]
        block = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
        try:
            block = block.reshape(len(block), -1).astype(np.float64)
        except (TypeError, ValueError):
            raise InputError("X must be numbers: encode text and categories first.") from None
        # All rows are read once in slices, before some are read again.
        if isinstance(rows, slice) and not np.isfinite(block).all():
            row = rows.start + np.flatnonzero(~np.isfinite(block).all(axis=1))[0]
            raise InputError(
                f"X has NaN or infinite values, first in row {row}: fill or drop them."
            )
        return block

    return read
