"""The seam to "any classifier": one way to train a learner on targets, one way to score samples.

Inside the package classes are codes 0 … C - 1 and labels are *targets*, rows that sum to 1. A
learner that takes soft targets (``accepts_soft_targets``, as `TorchClassifier`) gets them as they
are; any other classifier gets weighted copies, which minimise the same cross-entropy. Logistic
regression on many samples is fitted here, without copies; see `linear`.
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
from pudistill.exceptions import (
    DivergedError,
    InputError,
    RecoveredWarning,
    torch_extra,
    warn_user,
)
from pudistill.learners.linear import fit_in_blocks, learns_in_blocks
from pudistill.learners.recipes import learning_at, share_of_rate
from pudistill.model_selection import deal_folds
from pudistill.progress import has_epoch_callback
from pudistill.units import (
    NOWHERE,
    Checkpoint,
    StageFile,
    caching_in_worker,
    current_cache,
    kept,
    saving_to,
)
from pudistill.validation import is_pictures
from pudistill.workers import end_with_parent, one_thread

PRETRAINED = "transformers:"  # prefix of the name of a network with published weights


def is_own(module: Any) -> bool:
    """Whether a network is one of the package's, which draw no random numbers while they train."""
    return isinstance(module, str) and not module.startswith(PRETRAINED)


def final_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, also of a nested one; of any other learner, itself."""
    return final_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def continues_training(estimator: Any) -> bool:
    """Whether a learner is a network, which trains on from its weights when fitted again."""
    return getattr(final_step(estimator), "continues_training", False)


def has_trunk(estimator: Any) -> bool:
    """Whether a learner is a network with a last linear layer, whose other layers can be shared."""
    final = final_step(estimator)
    return hasattr(final, "embed") and isinstance(final.module, str)


def needs_calibration(estimator: Any) -> bool:
    """Whether a learner has a ``decision_function``, but no ``predict_proba``."""
    return not hasattr(estimator, "predict_proba") and hasattr(estimator, "decision_function")


def takes_weights(learner: Any) -> bool:
    """Whether ``fit`` takes sample weights, as its own parameter or for a search's estimator."""
    if has_fit_parameter(learner, "sample_weight"):
        return True
    inner = getattr(learner, "estimator", None)
    return inner is not None and has_fit_parameter(inner, "sample_weight")


def check_gives_scores(learner: Any, method: str) -> None:
    """Raise an `InputError` if a learner lacks the method that its scores come from."""
    if not hasattr(learner, method):
        raise InputError(
            f"{type(learner).__name__} has neither predict_proba nor decision_function: use a "
            "classifier that gives scores."
        )


ENOUGH_TO_SCALE = 10_000  # samples from which features' means and scales are estimated


def default_learner(X: Any) -> BaseEstimator:
    """Choose a learner for the data: logistic regression, or a small network for pictures."""
    if is_pictures(X):
        with torch_extra():
            from pudistill.learners.torch_classifier import TorchClassifier

        return TorchClassifier()
    scaler = StandardScaler(with_mean=not issparse(X))  # centring would fill a sparse matrix
    return make_pipeline(scaler, LogisticRegression(max_iter=1000))


def normalised(estimator: Any, X: Any) -> Any:
    """Fix a network's scaling of its inputs to that of all samples, however few it learns from.

    A member learns from a handful. Features that hardly differ among these would be scaled up
    without bounds, in the other samples too.

    Parameters
    ----------
    estimator : classifier
        A template.
    X : samples
        All samples.

    Returns
    -------
    estimator : classifier
        A copy with a `normalisation`, if the template is a network for tables that has none. Of
        pictures a few are enough to scale the channels: their networks come back as they are.
    """
    params = estimator.get_params(deep=False)
    if "normalisation" not in params or params["normalisation"] is not None or is_pictures(X):
        return estimator
    from pudistill.learners.training import Normalisation

    step = -(-_num_samples(X) // ENOUGH_TO_SCALE)
    sample = np.asarray(_safe_indexing(X, slice(None, None, step)))
    if sample.dtype.kind not in "fiub":  # the network itself will refuse it
        return estimator
    return clone(estimator).set_params(normalisation=Normalisation.of(sample, np.ones(len(sample))))


def take(X: Any, rows: Any) -> Any:
    """Take samples in the form in which a learner can compute with them.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    rows : slice or ndarray of int
        Rows to take.

    Returns
    -------
    block : array, sparse matrix or data frame
        Pictures on disk are decoded if they are few; others are left to the learner. float16,
        which is for storing and not for computing, becomes float32.
    """
    return widened(decoded_if_few(_safe_indexing(X, rows)))


def widened(block: Any) -> Any:
    """Return samples of float16 as float32, all others as they are."""
    is_half = isinstance(block, np.ndarray) and block.dtype == np.float16
    return block.astype(np.float32) if is_half else block


def predict_proba(learner: Any, X: Any, n_classes: int, rows: np.ndarray | None = None) -> Any:
    """Predict the probabilities of samples, in blocks.

    Parameters
    ----------
    learner : fitted estimator
        As returned by `train`.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    n_classes : int
        Number of classes; one that the learner never saw gets probability 0.
    rows : ndarray of shape (n_rows,), int, default=None
        Samples to predict; all by default.

    Returns
    -------
    proba : ndarray of shape (n_rows, n_classes)
        Probabilities.
    """

    def predict(block: slice) -> np.ndarray:
        found = learner.predict_proba(take(X, block if rows is None else rows[block]))
        proba = np.zeros((len(found), n_classes))
        proba[:, learner.classes_] = found
        return proba

    n_rows = _num_samples(X) if rows is None else len(rows)
    return rowwise.computed(predict, n_rows) if n_rows else np.zeros((0, n_classes))


def embed(learner: Any, X: Any) -> np.ndarray:
    """Embed samples, in blocks, by a network, which may be the last step of a pipeline.

    Parameters
    ----------
    learner : fitted estimator
        One that `has_trunk`.
    X : array-like of shape (n_samples, ...)
        Samples.

    Returns
    -------
    embedding : ndarray of shape (n_samples, n_hidden), float32
        Inputs of the network's last layer.
    """

    def embed_block(block: slice) -> np.ndarray:
        samples, network = take(X, block), learner
        while isinstance(network, Pipeline):
            if len(network) > 1:
                samples = network[:-1].transform(samples)
            network = network.steps[-1][1]
        return network.embed(samples)

    return rowwise.computed(embed_block, _num_samples(X))


class Mixture:
    """Fitted learners that predict as one: a weighted mean of their calibrated probabilities.

    Parameters
    ----------
    members : list of fitted estimators
        Learners for classes 0 … C - 1.
    weights : list of float
        Their weights, which sum to 1.
    temperatures : list of Temperature
        Calibration of each of them.
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


# A copy with less than this share of the weight of the sample's heaviest one is left out: it costs
# a row in the learner's fit and hardly changes the sample's cross-entropy.
SMALLEST_COPY = 1e-3


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
        Sample and class of each copy.
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
    shares = np.where(targets >= SMALLEST_COPY * heaviest, targets, 0.0)
    shares /= shares.sum(axis=1, keepdims=True)
    if sample_weight is not None:
        shares *= sample_weight[:, None]
    rows, labels = np.nonzero(shares)
    return rows, labels, shares[rows, labels]


def draw_labels(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one label per sample from its target, for a learner that takes no weights."""
    cumulated = targets.cumsum(axis=1)
    drawn = (rng.random(len(targets))[:, None] * cumulated[:, -1:] >= cumulated).sum(axis=1)
    return np.minimum(drawn, targets.shape[1] - 1)


CALIBRATION_FOLDS = 3


def with_probabilities(learner: Any, rows: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Calibrate a classifier that has only a ``decision_function`` by cross-validation.

    Parameters
    ----------
    learner : estimator
        Any, not fitted yet.
    rows : ndarray of shape (n_copies,), int
        The sample that each row of the learner's training set is a copy of.
    labels : ndarray of shape (n_samples,), int
        The most probable class of each sample.
    seed : int
        Decides the folds.

    Returns
    -------
    learner : estimator
        With ``predict_proba``, if `learner` needed calibration; else `learner`.
    """
    if isinstance(learner, Pipeline):
        name, final = learner.steps[-1]
        final = with_probabilities(final, rows, labels, seed)
        return Pipeline([*learner.steps[:-1], (name, final)], memory=learner.memory)
    if not needs_calibration(learner):
        return learner
    samples = np.unique(rows)
    folds = calibration_folds(learner, labels[samples], seed)
    # Copies of one sample stay in one fold, or the learner would be judged on samples it has seen.
    held_out = np.empty(rows.max() + 1, dtype=int)
    for fold, (_, test) in enumerate(folds.split(samples, labels[samples])):
        held_out[samples[test]] = fold
    splits = [
        (np.flatnonzero(held_out[rows] != fold), np.flatnonzero(held_out[rows] == fold))
        for fold in range(folds.n_splits)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def calibration_folds(learner: Any, labels: np.ndarray, seed: int) -> StratifiedKFold:
    """Return the folds on whose held-out decisions a learner is calibrated.

    Raises
    ------
    InputError
        If a class has one sample only.
    """
    counts = np.bincount(labels)
    fewest = counts[counts > 0].min()
    if fewest < 2:
        raise InputError(
            f"{type(learner).__name__} gives no probabilities, and a class has one sample only, "
            "too few to calibrate on: verify one more of it, or use a learner with predict_proba."
        )
    return StratifiedKFold(min(CALIBRATION_FOLDS, fewest), shuffle=True, random_state=seed)


MAX_KILLED_IN_A_ROW = 3  # workers, until the tasks themselves must be what kills them


def in_order(tasks: Iterable[tuple], n_jobs: int | None, *, alone: bool = False) -> Iterator[Any]:
    """Run tasks in parallel and yield their results in order.

    Warnings of workers are issued in this process, where the user's filters are. Tasks that were
    lost with a worker's process are run again.

    Parameters
    ----------
    tasks : iterable of tasks as from `joblib.delayed`
        Drawn from lazily: only the tasks that the workers need next are in memory.
    n_jobs : int or None
        Number of tasks at a time, as in joblib.
    alone : bool, default=False
        Whether each task has the processor for itself. All others compute on one thread, so that
        results do not depend on `n_jobs`.

    Yields
    ------
    result : object
        The return value of each task.
    """
    # Asked here: joblib draws some tasks in a thread that has no context variables of ours.
    cache, elsewhere = current_cache(), is_elsewhere()
    wanted = map(_unless_cached, tasks) if elsewhere else tasks
    recorded = (delayed(_run_recorded)(cache, alone, *task) for task in wanted)
    for result, caught, files in _run_surviving(recorded, n_jobs):
        for warning in caught:
            warnings.warn_explicit(*warning)
        if files:
            cache.store(files)
        yield result


def _unless_cached(task: tuple) -> tuple:
    """Replace a task by its cached result, as the nodes of a cluster may not see the cache."""
    call, args, kwargs = task
    result = call.lookup(*args, **kwargs) if hasattr(call, "lookup") else None
    return task if result is None else (_identity, (result,), {})


def _identity(result: Any) -> Any:
    return result


def _run_recorded(
    cache: Any, alone: bool, call: Callable, args: tuple, kwargs: dict
) -> tuple[Any, list[tuple], list[StageFile]]:
    """Run a task in a worker; return its result, its warnings and its stages to be stored."""
    with caching_in_worker(cache) as files, nullcontext() if alone else one_thread():
        # Warning filters are those of the whole process, so that a thread cannot record.
        if threading.current_thread() is not threading.main_thread():
            return call(*args, **kwargs), [], files
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = call(*args, **kwargs)
    recorded = [
        (record.message, record.category, record.filename, record.lineno) for record in caught
    ]
    return result, recorded, files


def _run_surviving(tasks: Iterator[tuple], n_jobs: int | None) -> Iterator[Any]:
    """Yield the results of tasks in order, and run those again whose worker was killed."""
    pending: deque[tuple] = deque()  # drawn, but without a result yet

    def draw() -> Iterator[tuple]:
        yield from list(pending)
        for task in tasks:
            pending.append(task)
            yield task

    generator = get_active_backend()[0].supports_return_generator
    parallel = Parallel(
        n_jobs=n_jobs,
        return_as="generator" if generator else "list",
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    n_killed = 0
    while True:
        try:
            for result in parallel(draw()):
                n_killed = 0
                pending.popleft()
                yield result
            return
        except TerminatedWorkerError as error:
            n_killed += 1
            if n_killed > MAX_KILLED_IN_A_ROW:
                raise InputError(
                    f"Workers were killed {n_killed} times in a row, which the system does when "
                    "memory is short: let fewer work at the same time, by n_jobs."
                ) from error
            lost = "1 task that was" if len(pending) == 1 else f"{len(pending)} tasks that were"
            warn_user(f"A worker was killed, and {lost} under way are run again.", RecoveredWarning)


def rows_in_order(tasks: Sequence[tuple], n_jobs: int | None, shape: tuple) -> Iterator[np.ndarray]:
    """Run tasks as `in_order` whose results are arrays of one shape, with a row for each sample.

    Workers on this machine write large results to a file, instead of sending them.
    """
    outputs: list[Any] = [None if is_elsewhere() else rowwise.in_file(shape) for _ in tasks]
    filling = (delayed(_fill)(output, *task) for output, task in zip(outputs, tasks, strict=True))
    for output, result in zip(outputs, in_order(filling, n_jobs), strict=True):
        yield output if result is None else result


def _fill(output: Any, call: Callable, args: tuple, kwargs: dict) -> np.ndarray | None:
    """Write a result into `output`, and return None; return it if `output` is in no file here."""
    result = call(*args, **kwargs)
    if output is None or not rowwise.is_in_file(output):  # or it is a copy that was sent here
        return result
    output[:] = result
    return None


# Samples from which on logistic regression learns block by block.
MIN_SAMPLES_FOR_BLOCKS = 16_384
# Bytes of samples that it learns at once: as many as fit into a processor's cache.
BLOCK_BYTES = 2**21
STACK_SIZE = 20  # networks that train as one: the paper's members of a class
# Parameters of networks that a task sets even where the user has set them.
PARAMETERS_OF_TASK = ("warm_start", "loss", "mixup")


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
        Recipe that a network trains with.
    seed : int
        Decides everything random in the training.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights.
    rows : ndarray of shape (n_samples,), int, default=None
        Rows of `X` to learn from; all by default. So nothing is copied before it is needed, nor
        all at once if the learner takes block by block.
    params : dict, default=None
        Further parameters to set if the learner has them.
    continued : bool, default=False
        Train on from the weights of `estimator`.
    expendable : bool, default=False
        Whether a training that diverges is no reason to stop, as the learner is one of many.
    share_of_rate : float
        Share of its learning rate at which a network learns; by default that of `learning_at`.
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
        """Samples to learn from."""
        return self.X if self.rows is None else _safe_indexing(self.X, self.rows)

    def blocks(self) -> Iterator[tuple[Any, slice]]:
        """Yield the samples to learn from block by block, each with its place in `targets`."""
        size = max(1, BLOCK_BYTES // (self.X.shape[1] * self.X.itemsize))
        for start in range(0, len(self.targets), size):
            part = slice(start, min(start + size, len(self.targets)))
            yield take(self.X, part if self.rows is None else self.rows[part]), part


class TrainedLearner(NamedTuple):
    """The learner of a `Training`, as a cached stage returns it."""

    learner: Any


class Silent:
    """A learner whose training diverged: it knows nothing of any sample.

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


def train(task: Training) -> Any:
    """Train one learner.

    Parameters
    ----------
    task : Training
        Learner, samples, targets and role.

    Returns
    -------
    learner : fitted estimator
        Its classes are codes, and it has ``predict_proba``: a learner with only a
        ``decision_function`` comes back calibrated, except a member. A learner that takes no
        sample weights learns one label per sample, drawn from its target. An expendable learner
        whose training diverged, at a smaller rate too, is `Silent`.
    """
    if task.expendable:
        with suppress(DivergedError):
            return _train(task)
        return Silent(task.targets.shape[1])
    # Other learners, and the thousands of members, are trained sooner than stored.
    if task.role == "member" or not continues_training(task.estimator) or has_epoch_callback():
        return _train(task)
    return kept(_train_network, ["checkpoint"])(task).learner


def _train_network(task: Training, checkpoint: Checkpoint = NOWHERE) -> TrainedLearner:
    with saving_to(checkpoint):
        return TrainedLearner(_train(task))


def _train(task: Training) -> Any:
    with learning_at(task.share_of_rate):
        return _fit_on_targets(task)


def _fit_on_targets(task: Training) -> Any:
    learner = unfitted_learner(task)
    final = final_step(learner)
    # A network takes soft targets as they are.
    if getattr(final, "accepts_soft_targets", False):
        return _fit(learner, task.samples, task.targets, _fit_params(learner, task.sample_weight))
    # Logistic regression on many samples takes them block by block.
    if len(task.targets) >= MIN_SAMPLES_FOR_BLOCKS and learns_in_blocks(learner, task.X):
        return fit_in_blocks(learner, task.blocks, task.targets, task.sample_weight)

    # Any other learner gets weighted copies of the samples, or labels drawn from their targets.
    n_samples = len(task.targets)
    rows, labels, weights = weighted_copies(task.targets, task.sample_weight)
    uniform = (weights == weights[0]).all()
    if not uniform and not takes_weights(final):
        rows = np.arange(n_samples)
        labels = draw_labels(task.targets, np.random.default_rng(task.seed))
        uniform = True
    # Members are calibrated together, see `calibrate_together`.
    if task.role != "member":
        learner = with_probabilities(learner, rows, task.targets.argmax(axis=1), task.seed)
    if np.array_equal(rows, np.arange(n_samples)):
        X = task.samples
    else:
        X = _safe_indexing(task.X, rows if task.rows is None else task.rows[rows])
    learner = _fit(learner, X, labels, {} if uniform else _fit_params(learner, weights))
    if task.role != "member":
        check_gives_scores(learner, "predict_proba")
    return learner


def unfitted_learner(task: Training) -> Any:
    """Return the learner of a task before its fit, with the task's seed and parameters."""
    learner = task.estimator if task.continued else clone(task.estimator)
    random_states = (name for name in learner.get_params() if name.endswith("random_state"))
    learner.set_params(**dict.fromkeys(random_states, task.seed))
    final = final_step(learner)
    wanted = {"role": task.role} | (task.params or {})
    if continues_training(final):
        wanted["warm_start"] = task.continued
    # The user's own settings stay, except those without which the task could not be done.
    free = {
        name
        for name, value in final.get_params(deep=False).items()
        if value is None or name in PARAMETERS_OF_TASK
    }
    final.set_params(**{name: value for name, value in wanted.items() if name in free})
    return learner


def _fit_params(learner: Any, sample_weight: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the parameters by which ``fit`` passes weights to the last step of a pipeline."""
    if sample_weight is None or not takes_weights(final_step(learner)):
        return {}
    prefix = ""
    while isinstance(learner, Pipeline):
        name, learner = learner.steps[-1]
        prefix += f"{name}__"
    return {f"{prefix}sample_weight": sample_weight}


def _fit(learner: Any, X: Any, y: np.ndarray, fit_params: dict[str, np.ndarray]) -> Any:
    # A user's metadata routing is about calls to our ``fit``, not about how we call a learner.
    with config_context(enable_metadata_routing=False):
        return learner.fit(widened(X), y, **fit_params)


def train_all(tasks: Iterable[Training], n_jobs: int | None) -> Iterator[Any]:
    """Train independent learners, in parallel as joblib is configured, and yield them in order.

    Networks on an accelerator train as stacks where that is faster.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    tasks = chain(first, tasks)
    if len(first) == 1 or (first and _is_shared(first[0])):  # such a learner may use all threads
        yield from map(train, tasks)
    elif first and _can_be_stacked(first[0]):
        while stack := list(islice(tasks, STACK_SIZE)):
            yield from _train_stack(stack)
    else:
        yield from in_order((delayed(train)(task) for task in tasks), n_jobs)


def _is_shared(task: Training) -> bool:
    """Whether all processes of a launcher train this one: a network that is no member."""
    if task.role == "member" or not continues_training(task.estimator):
        return False
    from pudistill.learners.team import current_team

    return current_team().size > 1


def _can_be_stacked(task: Training) -> bool:
    """Whether several such networks may train as one: members, off the CPU, on this machine."""
    is_own_member = task.role == "member" and is_own(getattr(task.estimator, "module", None))
    if is_elsewhere() or not is_own_member:
        return False
    from pudistill.learners.torch_classifier import TorchClassifier
    from pudistill.learners.training import choose_hardware

    network = task.estimator
    if not isinstance(network, TorchClassifier):
        return False
    return choose_hardware(network.device, "fp32", pictures=True).device.type != "cpu"


def _train_stack(tasks: list[Training]) -> list:
    """Train networks as a stack."""
    from pudistill.learners.torch_classifier import fit_together

    networks = [unfitted_learner(task) for task in tasks]
    try:
        fit_together(networks, [(task.samples, task.targets, task.sample_weight) for task in tasks])
    except DivergedError:
        if not all(task.expendable for task in tasks):
            raise
    return [
        network if network.n_iter_ else Silent(task.targets.shape[1])
        for network, task in zip(networks, tasks, strict=True)
    ]


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


def calibrate_together(members: list, tasks: Iterable[Training]) -> list:
    """Give members that have only a ``decision_function`` one sigmoid (Platt, 1999).

    It is fitted on held-out decisions of copies trained on a few of the members' own training
    sets: much cheaper than calibrating each member, and with more samples to fit it on.

    Parameters
    ----------
    members : list of fitted estimators
        Binary classifiers, trained alike.
    tasks : iterable of Training
        Trainings of some of them.

    Returns
    -------
    members : list of fitted estimators
        With ``predict_proba``.
    """
    if hasattr(members[0], "predict_proba"):
        return members
    check_gives_scores(members[0], "decision_function")
    decisions, labels = [], []
    for task in tasks:
        y = task.targets.argmax(axis=1)
        folds = calibration_folds(members[0], y, task.seed)
        decisions.append(
            cross_val_predict(
                unfitted_learner(task), task.samples, y, cv=folds, method="decision_function"
            )
        )
        labels.append(y)
    y = np.concatenate(labels)
    # Platt's targets: as if one more sample of each kind had been seen.
    counts = np.bincount(y)
    positive = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    rows, codes, weights = weighted_copies(np.column_stack([1 - positive, positive]))
    decision = np.concatenate(decisions)[:, None]
    sigmoid = LogisticRegression(C=np.inf).fit(decision[rows], codes, sample_weight=weights)
    return [SharedSigmoid(member, sigmoid) for member in members]


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
        A template. A learner with only a ``decision_function`` is calibrated once, on the held-out
        decisions for all samples, instead of once per fold.
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
        Probabilities. A sample of a class with two samples at most is in no fold, as training
        cannot do without it: its probabilities are the same for all classes.
    """
    # 1. Train a learner without each fold, and let it score the samples of the fold.
    n_classes = targets.shape[1]
    folds = deal_folds(targets.argmax(axis=1), n_folds, seed)
    fold_rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    tasks = (
        Training(
            estimator, X, rowwise.take_rows(targets, seen), rows=seen, role="member", seed=seed
        )
        for seen in (np.flatnonzero(folds != fold) for fold in range(len(fold_rows)))
    )
    proba = rowwise.empty(targets.shape)
    proba[:] = 1 / n_classes
    decision = None
    for learner, held_out in zip(train_all(tasks, n_jobs), fold_rows, strict=True):
        if hasattr(learner, "predict_proba"):
            proba[held_out] = predict_proba(learner, X, n_classes, held_out)
        else:
            check_gives_scores(learner, "decision_function")
            decision = np.zeros(targets.shape) if decision is None else decision
            decision[held_out] = _decisions(learner, X, held_out, n_classes)
    # 2. Calibrate decisions, those of all folds together.
    if decision is not None:
        in_a_fold = folds != -1
        proba[in_a_fold] = _fit_sigmoid(decision[in_a_fold], targets[in_a_fold])
    return proba


def _decisions(learner: Any, X: Any, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Score classes; one that the learner never saw scores as low as the lowest."""
    found = learner.decision_function(take(X, rows))
    if found.ndim == 1:  # of two classes, the score of the second
        found = np.column_stack([-found, found])
    scores = np.full((len(rows), n_classes), found.min())
    scores[:, learner.classes_] = found
    return scores


def _fit_sigmoid(decision: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Turn held-out decisions into probabilities by a multinomial sigmoid."""
    rows, labels, weights = weighted_copies(targets)
    scores = StandardScaler().fit_transform(decision)
    sigmoid = LogisticRegression(max_iter=300).fit(scores[rows], labels, sample_weight=weights)
    proba = np.zeros_like(targets)
    proba[:, sigmoid.classes_] = sigmoid.predict_proba(scores)
    return proba
