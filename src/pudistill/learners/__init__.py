"""The seam to "any classifier": one way to train a learner on targets, one way to score samples.

Inside the package classes are codes 0 … C - 1 and labels are *targets*, rows that sum to 1. A
learner that knows soft targets (``accepts_soft_targets``, as `TorchClassifier`) gets them as they
are; any other classifier gets weighted copies, which is the same cross-entropy. Logistic regression
on many samples is fitted here, without copies; see `linear`.
"""

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, has_fit_parameter

from pudistill import rowwise
from pudistill.calibration import Temperature
from pudistill.cluster import is_elsewhere
from pudistill.data.lazy_pictures import decoded_if_few
from pudistill.exceptions import DivergedError, InputError, RecoveredWarning
from pudistill.learners.linear import fit_in_blocks, learns_in_blocks
from pudistill.learners.recipes import learning_at, share_of_rate
from pudistill.model_selection import deal_folds
from pudistill.progress import is_watched
from pudistill.units import (
    NOWHERE,
    Checkpoint,
    bring_home,
    collecting,
    keeping,
    kept,
    place,
    saving_to,
)
from pudistill.validation import is_pictures
from pudistill.workers import end_with_parent, one_thread

# A copy with less than this share of the weight of the sample's heaviest one is left out: it costs
# a row in the learner's fit and hardly changes the sample's cross-entropy.
SMALLEST_SHARE = 1e-3
# Samples from which on logistic regressions learn block by block.
MANY = 16_384
# Bytes that are learned at once: what a processor keeps close by.
LEARNED_AT_ONCE = 2**21
CALIBRATION_FOLDS = 3
ENOUGH_TO_SCALE = 10_000  # samples that tell features' means and scales
PRETRAINED = "transformers:"  # before the name of a network that others have trained
STACK_SIZE = 20  # networks that train as one: the paper's members of a class
MAX_LOSSES = 3  # in a row, of workers that were killed
TASK_DECIDES = ("warm_start", "loss", "mixup")
_DECISION = "decision_function"


@dataclass(frozen=True)
class Training:
    """One learner to be trained.

    Attributes
    ----------
    estimator : estimator
        A template, which is cloned; or a network to be trained further if `continued`.
    X : array-like, sparse matrix or data frame
        Samples.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    role : {"member", "teacher", "student", "noise_aware"}
        Which recipe a network trains with.
    seed : int
        Decides everything random in the training.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights.
    rows : ndarray of shape (n_samples,), int, default=None
        Which of `X` to learn from; all by default. So nothing is copied before it is needed, nor
        all at once where a learner takes block by block.
    params : dict, default=None
        Further parameters to set where the learner has them.
    continued : bool, default=False
        Train on from the weights of `estimator`.
    expendable : bool, default=False
        One of many, so that it is no reason to stop if its training diverges.
    share_of_rate : float
        Share of its learning rate at which a network learns; that of `learning_at`.
    """

    estimator: Any
    X: Any
    targets: np.ndarray
    role: str
    seed: int
    sample_weight: np.ndarray | None = None
    rows: np.ndarray | None = None
    params: dict[str, Any] | None = None
    continued: bool = False
    expendable: bool = False
    share_of_rate: float = field(default_factory=share_of_rate)

    @property
    def samples(self) -> Any:
        """What to learn from."""
        return self.X if self.rows is None else _safe_indexing(self.X, self.rows)

    def blocks(self) -> Iterator[tuple[Any, slice]]:
        """Yield what to learn from part by part, and where each part is."""
        size = max(1, LEARNED_AT_ONCE // (self.X.shape[1] * self.X.itemsize))
        for start in range(0, len(self.targets), size):
            part = slice(start, min(start + size, len(self.targets)))
            yield take(self.X, part if self.rows is None else self.rows[part]), part


def default_learner(X: Any) -> BaseEstimator:
    """Choose a learner for the data: logistic regression, or a small network for pictures."""
    if is_pictures(X):
        from pudistill import TorchClassifier

        return TorchClassifier()
    scaler = StandardScaler(with_mean=not issparse(X))  # centring would fill a sparse matrix
    return make_pipeline(scaler, LogisticRegression(max_iter=1000))


def normalised(estimator: Any, X: Any) -> Any:
    """Let a network scale its inputs by all samples, however few of them it will learn from.

    A member learns from a handful. Features that hardly differ among these would be scaled up
    without bounds, and the other samples with them.

    Parameters
    ----------
    estimator : classifier
        A template.
    X : samples
        All samples. The channels of pictures are well known from a few, so that nothing is done.

    Returns
    -------
    estimator : classifier
        A copy, where the template is a network for tables that has no scale of its own.
    """
    params = estimator.get_params(deep=False)
    if "normalisation" not in params or params["normalisation"] is not None or is_pictures(X):
        return estimator
    from pudistill.learners.training import Normalisation

    every = -(-_num_samples(X) // ENOUGH_TO_SCALE)
    some = np.asarray(_safe_indexing(X, slice(None, None, every)))
    if some.dtype.kind not in "fiub":  # which the network itself will refuse
        return estimator
    return clone(estimator).set_params(normalisation=Normalisation.of(some, np.ones(len(some))))


def take(X: Any, rows: Any) -> Any:
    """Take some samples as a learner can work with them.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    rows : slice or ndarray of int
        Which.

    Returns
    -------
    block : array, sparse matrix or data frame
        Pictures on disk are decoded if they are few; others are left to the learner. float16,
        which is for storing and not for computing, becomes float32.
    """
    return _widened(decoded_if_few(_safe_indexing(X, rows)))


def _widened(block: Any) -> Any:
    is_half = isinstance(block, np.ndarray) and block.dtype == np.float16
    return block.astype(np.float32) if is_half else block


def train(task: Training) -> Any:
    """Train one learner.

    Parameters
    ----------
    task : Training
        What to train, on what, as what.

    Returns
    -------
    learner : fitted estimator
        Its classes are codes, and it has ``predict_proba``: one that has only a
        ``decision_function`` comes back calibrated, members excepted. One that takes no sample
        weights learns one label a sample, drawn from its target. An expendable one whose training
        diverged, at a smaller rate, too, is `Silent`.
    """
    if task.expendable:
        with suppress(DivergedError):
            return _train(task)
        return Silent(task.targets.shape[1])
    # Others, and the thousands of members, are trained sooner than stored.
    if task.role == "member" or not continues_training(task.estimator) or is_watched():
        return _train(task)
    return kept(_train_network, ["checkpoint"])(task).learner


def _train(task: Training) -> Any:
    with learning_at(task.share_of_rate):
        return _train_at_rate(task)


def _train_at_rate(task: Training) -> Any:
    learner = _prepared(task)
    final = _final_step(learner)
    if getattr(final, "accepts_soft_targets", False):
        return _fit(learner, task.samples, task.targets, _fit_params(learner, task.sample_weight))
    if len(task.targets) >= MANY and learns_in_blocks(learner, task.X):
        return fit_in_blocks(learner, task.blocks, task.targets, task.sample_weight)

    rows, labels, weights = weighted_copies(task.targets, task.sample_weight)
    uniform = (weights == weights[0]).all()
    if not uniform and not _takes_weights(final):
        rows, labels = _draw_labels(task.targets, np.random.default_rng(task.seed))
        uniform = True
    if task.role != "member":  # members share a calibration, see `calibrate_together`
        learner = _with_probabilities(learner, rows, task.targets.argmax(axis=1), task.seed)
    unchanged = np.array_equal(rows, np.arange(len(task.targets)))
    if unchanged:
        X = task.samples
    else:
        X = _safe_indexing(task.X, rows if task.rows is None else task.rows[rows])
    learner = _fit(learner, X, labels, {} if uniform else _fit_params(learner, weights))
    if task.role != "member":
        _require(learner, "predict_proba")
    return learner


class Silent:
    """What became of a learner whose training diverged: it knows nothing of any sample.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return NaN, of shape (n_samples, n_classes)."""
        return np.full((_num_samples(X), len(self.classes_)), np.nan)


class Trained(NamedTuple):
    """What `Training` leads to, as it is kept."""

    learner: Any


def _train_network(task: Training, checkpoint: Checkpoint = NOWHERE) -> Trained:
    with saving_to(checkpoint):
        return Trained(_train(task))


def train_all(tasks: Iterable[Training], n_jobs: int | None) -> Iterator[Any]:
    """Train independent learners, in parallel where joblib's configuration says so, in order.

    Networks on an accelerator train as stacks where that is faster.
    """
    tasks = iter(tasks)
    some = list(islice(tasks, 2))
    if len(some) == 1 or (some and _is_shared(some[0])):  # which may have all threads
        yield from map(train, chain(some, tasks))
        return
    if not (some and _can_be_stacked(some[0])):
        yield from in_order((delayed(train)(task) for task in chain(some, tasks)), n_jobs)
        return
    while some := some + list(islice(tasks, STACK_SIZE - len(some))):
        yield from _train_together(some)
        some = []


def _is_shared(task: Training) -> bool:
    """Whether all processes of a launcher train this one: a network that is no member."""
    if task.role == "member" or not continues_training(task.estimator):
        return False
    from pudistill.learners.team import current_team

    return current_team().size > 1


def _can_be_stacked(task: Training) -> bool:
    """Whether several such networks may train as one: members, off the CPU, on this machine."""
    if (
        is_elsewhere()
        or task.role != "member"
        or not is_own(getattr(task.estimator, "module", None))
    ):
        return False
    from pudistill.learners.torch_classifier import TorchClassifier
    from pudistill.learners.training import choose_hardware

    learner = task.estimator
    if not isinstance(learner, TorchClassifier):
        return False
    return choose_hardware(learner.device, "fp32", pictures=True).device.type != "cpu"


def _train_together(tasks: Sequence[Training]) -> list:
    """Train networks as a stack."""
    from pudistill.learners.torch_classifier import fit_together

    networks = [_prepared(task) for task in tasks]
    try:
        fit_together(networks, [(task.samples, task.targets, task.sample_weight) for task in tasks])
    except DivergedError:
        if not all(task.expendable for task in tasks):
            raise
    return [
        network if network.n_iter_ else Silent(task.targets.shape[1])
        for network, task in zip(networks, tasks, strict=True)
    ]


def _prepared(task: Training) -> Any:
    """Make the learner of a task, not fitted yet."""
    learner = task.estimator if task.continued else clone(task.estimator)
    _set_params(learner, _final_step(learner), task)
    return learner


def in_order(tasks: Iterable[tuple], n_jobs: int | None, *, alone: bool = False) -> Iterator[Any]:
    """Call what `joblib.delayed` has put off, several at a time, and yield the results in order.

    `tasks` is drawn from lazily: only what the workers need next is alive. Warnings of workers are
    given here, where the user's filters are. Each computes on one thread, so that results do not
    depend on `n_jobs`; unless each is `alone`, and has the processor for itself. Tasks that were
    lost with a worker's process are run again.
    """
    # Asked here: joblib draws some of the tasks in a thread that knows of neither.
    memory, elsewhere = place(), is_elsewhere()
    wanted = map(_unless_known, tasks) if elsewhere else tasks
    recorded = (delayed(_recording)(memory, alone, *task) for task in wanted)
    for result, caught, files in _surviving(recorded, n_jobs):
        for warning in caught:
            warnings.warn_explicit(*warning)
        bring_home(files)
        yield result


def _surviving(tasks: Iterator[tuple], n_jobs: int | None) -> Iterator[Any]:
    """Yield the results of tasks in order, whatever becomes of the processes of workers."""
    drawn: deque[tuple] = deque()  # whose results have not been seen

    def draw() -> Iterator[tuple]:
        yield from list(drawn)
        for task in tasks:
            drawn.append(task)
            yield task

    generator = get_active_backend()[0].supports_return_generator
    parallel = Parallel(
        n_jobs=n_jobs,
        return_as="generator" if generator else "list",
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    n_losses = 0
    while True:
        try:
            for result in parallel(draw()):
                n_losses = 0
                drawn.popleft()
                yield result
            return
        except TerminatedWorkerError as error:
            n_losses += 1
            if n_losses > MAX_LOSSES:
                raise InputError(
                    f"Workers were killed {n_losses} times in a row, as the system does where "
                    "memory is short: let fewer work at the same time, by n_jobs."
                ) from error
            lost = "1 task that was" if len(drawn) == 1 else f"{len(drawn)} tasks that were"
            warnings.warn(
                f"A worker was killed, and {lost} under way are run again.",
                RecoveredWarning,
                stacklevel=3,
            )


def rows_in_order(tasks: Sequence[tuple], n_jobs: int | None, shape: tuple) -> Iterator[np.ndarray]:
    """As `in_order`, for tasks whose results have a row a sample, all of them of that shape.

    Workers on this machine leave large ones in a file, instead of sending them.
    """
    rooms: list[Any] = [None if is_elsewhere() else rowwise.in_file(shape) for _ in tasks]
    filling = (delayed(_fill)(room, *task) for room, task in zip(rooms, tasks, strict=True))
    for room, result in zip(rooms, in_order(filling, n_jobs), strict=True):
        yield room if result is None else result


def _fill(room: Any, call: Callable, args: tuple, kwargs: dict) -> np.ndarray | None:
    result = call(*args, **kwargs)
    if room is None or not rowwise.is_in_file(room):  # or it is a copy, of a back end that sends it
        return result
    room[:] = result
    return None


def _unless_known(task: tuple) -> tuple:
    """Leave alone what has been kept here: the nodes of a cluster may not see it."""
    call, args, kwargs = task
    result = call.known(*args, **kwargs) if hasattr(call, "known") else None
    return task if result is None else (_same, (result,), {})


def _same(result: Any) -> Any:
    return result


def _recording(
    memory: Any, alone: bool, call: Callable, args: tuple, kwargs: dict
) -> tuple[Any, list[tuple], list[tuple]]:
    """Call, and take down warnings; but not in a thread, as filters are those of the process."""
    with keeping(memory), nullcontext() if alone else one_thread(), collecting() as files:
        if threading.current_thread() is not threading.main_thread():
            return call(*args, **kwargs), [], files
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = call(*args, **kwargs)
    told = [(one.message, one.category, one.filename, one.lineno) for one in caught]
    return result, told, files


def calibrate_together(members: list, tasks: Iterable[Training]) -> list:
    """Give members that have only a ``decision_function`` one sigmoid (Platt, 1999).

    It is fitted on held-out decisions of copies trained on a few of the members' own training
    sets: much cheaper than calibrating each member, and with more samples to fit it on.

    Parameters
    ----------
    members : list of fitted estimators
        Binary classifiers, trained alike.
    tasks : iterable of Training
        What some of them were trained on.

    Returns
    -------
    members : list of fitted estimators
        With ``predict_proba``.
    """
    if hasattr(members[0], "predict_proba"):
        return members
    _require(members[0], _DECISION)
    decisions, labels = [], []
    for task in tasks:
        y = task.targets.argmax(axis=1)
        folds = StratifiedKFold(
            min(CALIBRATION_FOLDS, _fewest(members[0], y)), shuffle=True, random_state=task.seed
        )
        learner = _prepared(task)
        decisions.append(cross_val_predict(learner, task.samples, y, cv=folds, method=_DECISION))
        labels.append(y)
    y = np.concatenate(labels)
    # Platt's targets: as if one more sample of each kind had been seen.
    counts = np.bincount(y)
    positive = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    rows, codes, weights = weighted_copies(np.column_stack([1 - positive, positive]))
    decision = np.concatenate(decisions)[:, None]
    sigmoid = LogisticRegression(C=np.inf).fit(decision[rows], codes, sample_weight=weights)
    return [SharedSigmoid(member, sigmoid) for member in members]


@dataclass(frozen=True)
class SharedSigmoid:
    """A binary classifier whose decisions a sigmoid turns into probabilities."""

    member: Any
    sigmoid: LogisticRegression

    @property
    def classes_(self) -> np.ndarray:
        """Classes of the member."""
        return self.member.classes_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of shape (n_samples, 2)."""
        return self.sigmoid.predict_proba(self.member.decision_function(X)[:, None])


def cross_fit_proba(
    estimator: Any,
    X: Any,
    targets: np.ndarray,
    *,
    n_folds: int,
    n_jobs: int | None = None,
    seed: int,
) -> np.ndarray:
    """Predict each sample by a learner that has not seen its target.

    Parameters
    ----------
    estimator : classifier
        A template. One that has only a ``decision_function`` is calibrated once, on the held-out
        decisions for all samples, instead of once a fold.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    n_folds : int
        Number of folds, which have equal shares of each class.
    n_jobs : int, default=None
        Learners trained at the same time.
    seed : int
        Decides the folds and the training.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities; the same for all classes where a sample is one of two of its class at most,
        which no fold can do without.
    """
    n_classes = targets.shape[1]
    folds = deal_folds(targets.argmax(axis=1), n_folds, seed)
    splits = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    tasks = (
        Training(
            estimator, X, rowwise.take_rows(targets, seen), rows=seen, role="member", seed=seed
        )
        for seen in (np.flatnonzero(folds != fold) for fold in range(len(splits)))
    )
    proba = rowwise.empty(targets.shape)
    proba[:] = 1 / n_classes
    decision = None
    for learner, left_out in zip(train_all(tasks, n_jobs), splits, strict=True):
        if not hasattr(learner, "predict_proba"):
            _require(learner, _DECISION)
            decision = np.zeros(targets.shape) if decision is None else decision
            decision[left_out] = _decisions(learner, X, left_out, n_classes)
        else:
            proba[left_out] = predict_proba(learner, X, n_classes, left_out)
    if decision is not None:
        held_out = folds != -1
        proba[held_out] = _calibrate(decision[held_out], targets[held_out])
    return proba


def _decisions(learner: Any, X: Any, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Score classes; one that the learner never saw scores as low as the lowest."""
    found = learner.decision_function(take(X, rows))
    if found.ndim == 1:  # of two classes, the score of the second
        found = np.column_stack([-found, found])
    scores = np.full((len(rows), n_classes), found.min())
    scores[:, learner.classes_] = found
    return scores


def _calibrate(decision: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Turn held-out decisions into probabilities by a multinomial sigmoid."""
    rows, labels, weights = weighted_copies(targets)
    scores = StandardScaler().fit_transform(decision)
    sigmoid = LogisticRegression(max_iter=300).fit(scores[rows], labels, sample_weight=weights)
    proba = np.zeros_like(targets)
    proba[:, sigmoid.classes_] = sigmoid.predict_proba(scores)
    return proba


class Mixture:
    """Fitted learners that predict as one: a weighted mean of their calibrated probabilities.

    Parameters
    ----------
    members : list of fitted estimators
        Learners for classes 0 … C - 1.
    weights : list of float
        Their shares, which sum to 1.
    temperatures : list of Temperature
        What calibrates each of them.
    n_classes : int
        Number of classes.
    """

    def __init__(
        self,
        members: list,
        weights: list[float],
        temperatures: list[Temperature],
        n_classes: int,
    ) -> None:
        self.members = members
        self.weights = weights
        self.temperatures = temperatures
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of shape (n_samples, n_classes)."""
        parts = [
            weight * temperature.apply(predict_proba(member, X, len(self.classes_)))
            for member, weight, temperature in zip(
                self.members, self.weights, self.temperatures, strict=True
            )
        ]
        return np.sum(parts, axis=0)


def continues_training(estimator: Any) -> bool:
    """Whether a learner is a network, which trains on from its weights when fitted again."""
    return getattr(_final_step(estimator), "continues_training", False)


def has_trunk(estimator: Any) -> bool:
    """Whether a learner is a network with a last linear layer, whose other layers can be shared."""
    final = _final_step(estimator)
    return hasattr(final, "embed") and isinstance(final.module, str)


def is_own(module: Any) -> bool:
    """Whether a network is one of the project's, which draw nothing while they train."""
    return isinstance(module, str) and not module.startswith(PRETRAINED)


def embed(learner: Any, X: Any) -> np.ndarray:
    """Embed samples, in blocks, by a network, which may be the end of a pipeline.

    Parameters
    ----------
    learner : fitted estimator
        One that `has_trunk`.
    X : array-like of shape (n_samples, ...)
        Samples.

    Returns
    -------
    embedding : ndarray of shape (n_samples, n_hidden), float32
        What the network's last layer is given.
    """

    def of(block: slice) -> np.ndarray:
        part, network = take(X, block), learner
        while isinstance(network, Pipeline):
            if len(network) > 1:
                part = network[:-1].transform(part)
            network = network.steps[-1][1]
        return network.embed(part)

    return rowwise.computed(of, _num_samples(X))


def needs_calibration(estimator: Any) -> bool:
    """Whether a learner has scores, but no probabilities."""
    return not hasattr(estimator, "predict_proba") and hasattr(estimator, _DECISION)


def predict_proba(learner: Any, X: Any, n_classes: int, rows: np.ndarray | None = None) -> Any:
    """Score samples in blocks.

    Parameters
    ----------
    learner : fitted estimator
        As returned by `train`.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    n_classes : int
        Number of classes; one that the learner never saw gets probability 0.
    rows : ndarray of shape (n_rows,), int, default=None
        Which samples to score; all by default.

    Returns
    -------
    proba : ndarray of shape (n_rows, n_classes)
        Probabilities.
    """

    def of(block: slice) -> np.ndarray:
        found = learner.predict_proba(take(X, block if rows is None else rows[block]))
        proba = np.zeros((len(found), n_classes))
        proba[:, learner.classes_] = found
        return proba

    n_rows = _num_samples(X) if rows is None else len(rows)
    return rowwise.computed(of, n_rows) if n_rows else np.zeros((0, n_classes))


def weighted_copies(
    targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write soft targets as weighted samples with hard labels.

    Parameters
    ----------
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples.

    Returns
    -------
    rows, labels : ndarrays of shape (n_copies,), int
        Which sample and which class each copy stands for.
    weights : ndarray of shape (n_copies,)
        Weights; those of one sample's copies add up to the sample's.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners import weighted_copies
    >>> rows, labels, weights = weighted_copies(np.array([[0.0, 1.0], [0.75, 0.25]]))
    >>> rows.tolist(), labels.tolist(), weights.tolist()
    ([0, 1, 1], [1, 0, 1], [1.0, 0.75, 0.25])
    """
    heaviest = targets.max(axis=1, keepdims=True)
    kept = np.where(targets >= SMALLEST_SHARE * heaviest, targets, 0.0)
    kept /= kept.sum(axis=1, keepdims=True)
    if sample_weight is not None:
        kept *= sample_weight[:, None]
    rows, labels = np.nonzero(kept)
    return rows, labels, kept[rows, labels]


def _draw_labels(targets: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For a learner that takes no weights: one label a sample, drawn from its target."""
    cumulated = targets.cumsum(axis=1)
    drawn = (rng.random(len(targets))[:, None] * cumulated[:, -1:] >= cumulated).sum(axis=1)
    return np.arange(len(targets)), np.minimum(drawn, targets.shape[1] - 1)


def _final_step(estimator: Any) -> Any:
    return _final_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def _set_params(learner: Any, final: Any, task: Training) -> None:
    """Seed every random part of the learner, and tell a network which recipe to follow."""
    random_states = (name for name in learner.get_params() if name.endswith("random_state"))
    learner.set_params(**dict.fromkeys(random_states, task.seed))
    wanted = {"role": task.role} | (task.params or {})
    if continues_training(final):
        wanted["warm_start"] = task.continued
    params = final.get_params(deep=False)
    # The user's own settings stay, but for what the task could not be done with.
    ours = {name for name, value in params.items() if value is None or name in TASK_DECIDES}
    final.set_params(**{name: value for name, value in wanted.items() if name in ours})


def _with_probabilities(learner: Any, rows: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Calibrate a classifier that has only a ``decision_function`` by cross-validation.

    `rows` says which sample each row to be fitted is a copy of, `labels` the samples' main class.
    """
    if isinstance(learner, Pipeline):
        name, final = learner.steps[-1]
        final = _with_probabilities(final, rows, labels, seed)
        return Pipeline([*learner.steps[:-1], (name, final)], memory=learner.memory)
    if not needs_calibration(learner):
        return learner
    samples = np.unique(rows)
    n_folds = min(CALIBRATION_FOLDS, _fewest(learner, labels[samples]))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    # Copies of one sample stay in one fold, or the learner would be judged on what it has seen.
    held_out = np.empty(rows.max() + 1, dtype=int)
    for fold, (_, test) in enumerate(folds.split(samples, labels[samples])):
        held_out[samples[test]] = fold
    splits = [
        (np.flatnonzero(held_out[rows] != fold), np.flatnonzero(held_out[rows] == fold))
        for fold in range(folds.n_splits)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def _require(learner: Any, method: str) -> None:
    if not hasattr(learner, method):
        raise InputError(
            f"{type(learner).__name__} has neither predict_proba nor decision_function: use a "
            "classifier that gives scores."
        )


def _takes_weights(learner: Any) -> bool:
    """Whether ``fit`` takes sample weights, itself or for the learner that it searches over."""
    if has_fit_parameter(learner, "sample_weight"):
        return True
    inner = getattr(learner, "estimator", None)
    return inner is not None and has_fit_parameter(inner, "sample_weight")


def _fewest(learner: Any, labels: np.ndarray) -> int:
    """Count the samples of the rarest class, which calibration needs two of."""
    counts = np.bincount(labels)
    fewest = counts[counts > 0].min()
    if fewest < 2:
        raise InputError(
            f"{type(learner).__name__} gives no probabilities, and a class has one sample only, "
            "too few to calibrate on: verify one more of it, or use a learner with predict_proba."
        )
    return fewest


def _fit_params(learner: Any, sample_weight: np.ndarray | None) -> dict[str, np.ndarray]:
    if sample_weight is None or not _takes_weights(_final_step(learner)):
        return {}
    prefix = ""
    while isinstance(learner, Pipeline):
        name, learner = learner.steps[-1]
        prefix += f"{name}__"
    return {f"{prefix}sample_weight": sample_weight}


def _fit(learner: Any, X: Any, y: np.ndarray, fit_params: dict[str, np.ndarray]) -> Any:
    # A user's metadata routing is about calls to our ``fit``, not about how we call a learner.
    with config_context(enable_metadata_routing=False):
        return learner.fit(_widened(X), y, **fit_params)
