"""A neural network that behaves like any scikit-learn classifier."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import nn

from pudistill.data.lazy_pictures import is_lazy
from pudistill.exceptions import (
    DivergedError,
    InputError,
    RecoveredWarning,
    as_input_error,
    warn_user,
)
from pudistill.learners import PRETRAINED, is_own
from pudistill.learners.lessons import LESSONS, Lesson, shape_of
from pudistill.learners.networks import NetworkFactory, find_factory
from pudistill.learners.pretrained import PretrainedNetwork, build_untrained
from pudistill.learners.recipes import (
    AUGMENTATIONS,
    SMALLER_RATE,
    Recipe,
    Role,
    find_recipe,
    share_of_rate,
)
from pudistill.learners.team import SINGLE_PROCESS, ProcessGroup, current_team
from pudistill.learners.training import (
    Hardware,
    Job,
    Normalisation,
    Precision,
    Trainer,
    choose_hardware,
    compute_embeddings,
    global_random_states,
    predict_probabilities,
    seeded,
    set_global_random_states,
    stacking_pays,
)
from pudistill.progress import epoch_ended, stage
from pudistill.units import NOWHERE, Checkpoint, current_checkpoint


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A neural network that behaves like any scikit-learn classifier.

    It takes feature tables and pictures, hard labels and soft targets, and trains by a recipe.

    Parameters
    ----------
    module : str or callable, default="auto"
        The network: a name in :data:`pudistill.learners.networks.NETWORKS`,
        ``"transformers:NAME"`` for an image classifier with trained weights from the Hugging Face
        hub or from a folder (see :mod:`pudistill.learners.pretrained`), a callable
        ``module(in_shape, n_classes)`` that returns an ``nn.Module`` giving logits of shape
        ``(n, n_classes)``, where `in_shape` is ``(channels, height, width)`` or ``(n_features,)``,
        or ``"auto"``: ``"small_cnn"`` for pictures, ``"mlp"`` for feature tables.
    recipe : str or Recipe, default="fast"
        A name in :data:`pudistill.learners.recipes.RECIPES`, or a recipe.
    role : {"member", "teacher", "student", "noise_aware"} or None, default=None
        Which of a named recipe's roles the network plays; None means ``"student"``.
        ``"noise_aware"`` goes with ``loss="likelihood"``.
    loss : str, default="cross_entropy"
        A name in :data:`pudistill.learners.lessons.LESSONS`: the loss, and with it the meaning of
        `y`. ``"cross_entropy"``: labels or soft targets, and the cross-entropy to them.
        ``"likelihood"``: ``y[i, c]`` is the probability of the given label of sample i if its true
        class is c, and the loss is ``-log sum_c p(c | x) y[i, c]``, which learns from wrong labels,
        too; see Notes.
    epochs : int or None, default=None
        Passes over the training data. For this and the next six, None means the recipe's value.
        The schedule's milestones are scaled with it.
    learning_rate : float or None, default=None
        Largest learning rate of the schedule.
    batch_size : int or None, default=None
        Largest number of samples in a step; an epoch is split into batches of equal size.
    mixup : float or None, default=None
        The paper's μ; 0 switches mixup off.
    entropy_weight : float or None, default=None
        Weight of the entropy regularisation, equation (2) of the paper; 0 switches it off.
    consistency_weight : float or None, default=None
        Weight of the consistency term on pictures: a class that is clear without strong
        augmentation is also the target with it. 0 switches it off.
    augment : bool, tuple of {"flip", "crop"} or None, default=None
        Random changes of training pictures; True means both.
    balanced_bootstrap : bool or None, default=None
        Whether each epoch trains on as many samples of each class as the rarest class has, drawn
        anew; None means False. The class of a soft target is its most likely one.
    normalisation : Normalisation or None, default=None
        Mean and scale of each channel or feature; None: those of the samples of the first `fit`.
    warm_start : bool, default=False
        Whether a second `fit` continues from the weights of the first, with a fresh optimiser and
        schedule. Classes and shape of the samples must be the same.
    device : str or torch.device, default="auto"
        Where to compute; with ``"auto"``, `accelerate` chooses.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Arithmetic; see :func:`pudistill.learners.training.choose_hardware`.
    random_state : int, RandomState or None, default=None
        Seeds initial weights, dropout, order of the samples, augmentation and mixup. On a CPU the
        same state gives the same network. PyTorch's global random state does not change.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; ``arange(n_classes)`` for soft targets and likelihoods.
    n_features_in_ : int
        Number of features. Only for feature tables.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns. Only for feature tables whose columns all have string names.
    in_shape_ : tuple of int
        Shape of a sample: ``(channels, height, width)`` or ``(n_features,)``.
    module_ : nn.Module
        The network.
    normalisation_ : Normalisation
        Mean and scale of each channel or feature.
    recipe_ : Recipe
        The recipe that was carried out, with all changes.
    loss_curve_ : list of float
        Mean training loss of each epoch of the last `fit`.
    n_iter_ : int
        Epochs of the last `fit`.

    Notes
    -----
    Samples of weight zero are left out; the weights of the others multiply their part of the loss.
    With ``module="mlp"`` on a CPU and no more samples than `batch_size`, a weight of 2 gives the
    same network as two copies.

    With ``loss="likelihood"`` and a noise matrix T, ``T[c, j] = P(given label j | class c)``, the
    row of `y` is ``T[:, j]`` for a sample whose given label j may be wrong, a one-hot row for a
    sample whose label is verified, and a row of ones if nothing is known. Multiplying a row by a
    number does not change the training. Mixup cannot be used, nor can the balanced bootstrap unless
    all rows are one-hot: before training, the classes to mix or to count are unknown.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from pudistill.learners.torch_classifier import TorchClassifier
    >>> digits = load_digits()
    >>> network = TorchClassifier(recipe="fast", random_state=0)
    >>> bool(network.fit(digits.data, digits.target).score(digits.data, digits.target) > 0.95)
    True
    """

    accepts_soft_targets: ClassVar[bool] = True
    continues_training: ClassVar[bool] = True

    def __init__(
        self,
        module: str | NetworkFactory = "auto",
        *,
        recipe: str | Recipe = "fast",
        role: Role | None = None,
        loss: str = "cross_entropy",
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        mixup: float | None = None,
        entropy_weight: float | None = None,
        consistency_weight: float | None = None,
        augment: bool | tuple[str, ...] | None = None,
        balanced_bootstrap: bool | None = None,
        normalisation: Normalisation | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.module = module
        self.recipe = recipe
        self.role = role
        self.loss = loss
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.mixup = mixup
        self.entropy_weight = entropy_weight
        self.consistency_weight = consistency_weight
        self.augment = augment
        self.balanced_bootstrap = balanced_bootstrap
        self.normalisation = normalisation
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or (n, height, width, channels)
            A feature table, or pictures: uint8, or of any numeric dtype.
        y : array-like of shape (n,), or of shape (n, n_classes) with n_classes >= 2
            Labels of any kind, or soft targets: floats whose rows sum to 1. With
            ``loss="likelihood"``, likelihoods of shape (n, n_classes): non-negative numbers, at
            least one positive number in a row.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weights.

        Returns
        -------
        self : TorchClassifier

        Raises
        ------
        InputError
            If data or settings are unusable, or the training diverges, also when it is repeated at
            a tenth of the learning rate.

        Warns
        -----
        RecoveredWarning
            If the training diverged (its loss was not finite) and is repeated.
        """
        fit_with_retry(self, self.start(X, y, sample_weight))
        return self

    def start(self, X: Any, y: Any, sample_weight: Any = None) -> Job:
        """Check the data and build the network, without training it.

        `fit_objective` trains the job that is returned, also after its objective was replaced.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `fit`.

        Returns
        -------
        job : Job
            The training of the estimator's network.
        """
        # 1. Check settings and data.
        continues = self.warm_start and self.__sklearn_is_fitted__()
        pictures = are_pictures(X)
        recipe = self._find_recipe(pictures)
        inputs = self._check_inputs(X, recipe, fitted=continues)
        weights = check_weights(sample_weight, inputs)
        objective, balanced = self._find_objective(), bool(self.balanced_bootstrap)
        y = objective.check_targets(y, inputs, recipe, balanced=balanced)
        used = weights > 0
        if not used.all():
            inputs, y, weights = inputs[used], y[used], weights[used]
        classes, targets = as_targets(y)

        # 2. Build the network, or keep that of the last fit.
        hardware = choose_hardware(self.device, self.precision, pictures=pictures)
        rng = check_random_state(self.random_state)
        seed = rng.randint(2**31 - 1)
        if continues:
            self._check_continuation(classes)
        else:
            self.classes_, self.in_shape_ = classes, network_shape(inputs)
            self.normalisation_ = self._normalisation_of(inputs, weights)
            with seeded(seed, hardware.device):
                factory = find_factory(self.module, self.in_shape_)
                self.module_ = factory(self.in_shape_, len(classes))

        # 3. Put together the job. Until it is done, the estimator counts as not fitted.
        self.n_iter_ = 0
        self.recipe_ = recipe.for_n_samples(self._samples_per_epoch(targets))
        return Job(
            self._module_on(hardware),
            inputs,
            targets,
            self.normalisation_,
            self.recipe_,
            hardware,
            rng,
            weights=weights / weights.mean(),
            lesson=objective,
            balanced=balanced,
            seed=seed,
        )

    def record_epochs(self, losses: Sequence[float]) -> Self:
        """Become fitted with the current weights, after epochs with these mean losses."""
        self.loss_curve_ = list(losses)
        self.n_iter_ = len(losses)
        self.module_.eval()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities, in evaluation mode and without augmentation.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or (n, height, width, channels)
            Samples of the kind and shape that the network was trained on.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes), float64
            Rows sum to 1; columns in the order of `classes_`.
        """
        return self._apply(predict_probabilities, X)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most likely class of each sample.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or (n, height, width, channels)
            Samples of the kind and shape that the network was trained on.

        Returns
        -------
        labels : ndarray of shape (n,)
            Values of `classes_`.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def embed(self, X: Any) -> np.ndarray:
        """Compute the inputs of the network's last linear layer.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or (n, height, width, channels)
            Samples of the kind and shape that the network was trained on.

        Returns
        -------
        embedding : ndarray of shape (n, n_hidden), float32
            One row a sample.
        """
        return self._apply(compute_embeddings, X)

    def _apply(self, function: Callable[..., np.ndarray], X: Any) -> np.ndarray:
        """Call a function of network, inputs, normalisation and hardware."""
        check_is_fitted(self)
        inputs = self._check_inputs(X, self.recipe_, fitted=True)
        hardware = choose_hardware(self.device, self.precision, pictures=inputs.ndim == 4)
        return function(self._module_on(hardware), inputs, self.normalisation_, hardware)

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the fitted estimator as arrays and JSON, for storage without pickle.

        Returns
        -------
        arrays : dict of str to ndarray
            Weights, buffers and normalisation.
        meta : dict
            Everything else, as values that JSON can store. A `random_state` that is not a number
            is stored as None.

        Raises
        ------
        InputError
            If the state could not name the network; see :func:`check_storable`.
        """
        check_is_fitted(self)
        check_storable(self)
        return state_of(self)

    @classmethod
    def from_state(
        cls,
        arrays: dict[str, np.ndarray],
        meta: dict[str, Any],
        *,
        module: NetworkFactory | None = None,
    ) -> Self:
        """Build a fitted estimator from its state.

        Parameters
        ----------
        arrays : dict of str to ndarray
            As from :meth:`to_state`.
        meta : dict
            As from :meth:`to_state`, or read back from JSON.
        module : callable or None, default=None
            The callable that was passed as `module`, if one was: an object that is named in a file
            is never imported.

        Returns
        -------
        estimator : TorchClassifier
            Fitted.
        """
        estimator = cls(**params_from_json(meta["params"], module))
        restore_state(estimator, arrays, meta)
        return estimator

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "n_iter_", 0) > 0

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        module = state.get("module_")
        if module is not None and any(p.device.type != "cpu" for p in module.parameters()):
            # A network that was trained on a GPU can then be unpickled without one.
            state["module_"] = copy.deepcopy(module).cpu()
        return state

    def _find_recipe(self, pictures: bool) -> Recipe:
        """Return the recipe, changed by the estimator's own settings."""
        if self.augment and not pictures:
            raise InputError(
                f"augment={self.augment!r} is for pictures, but X is a feature table: leave it out."
            )
        augment = self.augment
        if isinstance(augment, bool):
            augment = AUGMENTATIONS if augment else ()
        recipe = find_recipe(self.recipe, self.role, pictures=pictures).changed(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            mixup=self.mixup,
            entropy_weight=self.entropy_weight,
            consistency_weight=self.consistency_weight,
            augment=None if augment is None else tuple(augment),
        )
        return replace(recipe, learning_rate=recipe.learning_rate * share_of_rate())

    def _check_inputs(self, X: Any, recipe: Recipe, *, fitted: bool) -> np.ndarray:
        """Return X as ``(n, n_features)`` or ``(n, height, width, channels)``."""
        if fitted and are_pictures(X) != (len(self.in_shape_) == 3):
            known = "pictures" if len(self.in_shape_) == 3 else "a feature table"
            raise InputError(
                f"X has the shape {shape_of(X)}, but this {type(self).__name__} was trained on "
                f"{known}. Reshape your data to samples of the shape {self.in_shape_}."
            )
        with as_input_error():
            if not are_pictures(X):
                return validate_data(
                    self,
                    X,
                    dtype=[np.float64, np.float32],
                    reset=not fitted,
                    ensure_min_samples=1 if fitted else 2,
                )
            pictures = X
            if not is_lazy(X):  # those are known to be bytes
                pictures = check_array(X, allow_nd=True, estimator=self, input_name="X")
        pictures = as_pictures(pictures, recipe.centre_crop)
        if fitted and network_shape(pictures) != self.in_shape_:
            raise InputError(
                f"The pictures have the shape {network_shape(pictures)} (channels, height, width), "
                f"but the network was trained on {self.in_shape_}: resize or convert them."
            )
        return pictures

    def _find_objective(self) -> Lesson:
        if self.loss not in LESSONS:
            raise InputError(f"loss={self.loss!r} is unknown: choose one of {tuple(LESSONS)}.")
        return LESSONS[self.loss]()

    def _normalisation_of(self, inputs: np.ndarray, weights: np.ndarray) -> Normalisation:
        """Return the normalisation that was passed, or that of the samples."""
        given = self.normalisation
        if given is None:
            return Normalisation.of(inputs, weights)
        if not isinstance(given, Normalisation):
            raise InputError(f"normalisation={given!r} must be a Normalisation or None.")
        if len(given.mean) != inputs.shape[-1]:
            raise InputError(
                f"The normalisation has {len(given.mean)} features or channels, but X has "
                f"{inputs.shape[-1]}: pass a normalisation of samples like X."
            )
        return given

    def _check_continuation(self, classes: np.ndarray) -> None:
        if not np.array_equal(classes, self.classes_):
            raise InputError(
                f"warm_start=True needs the classes of the first fit, {self.classes_.tolist()}, "
                f"but y has {classes.tolist()}: pass the same classes, or set warm_start=False."
            )

    def _samples_per_epoch(self, targets: np.ndarray) -> int:
        if not self.balanced_bootstrap:
            return len(targets)
        sizes = np.unique(targets.argmax(axis=1), return_counts=True)[1]
        return len(sizes) * int(sizes.min())

    def _module_on(self, hardware: Hardware) -> nn.Module:
        """Move the network to the device, where it stays."""
        self.module_.to(device=hardware.device, dtype=hardware.dtype)
        if len(self.in_shape_) == 3:
            self.module_.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.module_


class TrainableNetwork(Protocol):
    """An estimator that holds a network, as `TorchClassifier`."""

    module: Any
    role: Any
    recipe_: Recipe
    n_iter_: int

    def start(self, X: Any, y: Any, sample_weight: Any = None) -> Job:
        """Check the data and build the network, without training it."""

    def record_epochs(self, losses: Sequence[float]) -> Any:
        """Become fitted with the current weights, after epochs with these mean losses."""


def teach(
    networks: Sequence[TrainableNetwork], jobs: Sequence[Job], seed: int | None = None
) -> None:
    """Train networks by jobs that take turns, one epoch each; then the networks are fitted.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        Their modules are trained by the jobs: each by one job, or several by one job.
    jobs : sequence of Job
        One or more with the same number of epochs.
    seed : int, default=None
        Seed of the modules' own randomness while they train; None: that of the first job.
    """
    first, job = networks[0], jobs[0]
    device, epochs = job.hardware.device, job.recipe.epochs
    # The project's own modules draw no random numbers while they train; others may have dropout.
    draws = not is_own(first.module)
    randomness = seeded(job.seed if seed is None else seed, device) if draws else nullcontext()
    try:
        with randomness, _epoch_bar(first, epochs) as advance:
            # 1. Choose the processes that train, and set up a trainer for each job.
            group = _process_group_for(first, jobs)
            trainers = [Trainer([job], group) for job in jobs]
            # 2. Continue from the checkpoint, if there is one.
            saves = len(trainers) == 1 and trainers[0].can_be_saved
            checkpoint = current_checkpoint() if saves else NOWHERE
            losses = _restore(checkpoint, trainers[0], draws)
            if losses:
                advance(len(losses))
            # 3. Train, one epoch of each job at a time.
            for epoch_losses in zip(*trainers, strict=True):
                losses.append(float(np.mean(epoch_losses)))
                for network in networks:
                    network.record_epochs(losses)
                advance(1, detail=f"loss {losses[-1]:.3f}")
                if first.role != "member":
                    epoch_ended(len(losses), networks)
                if checkpoint.is_due:
                    checkpoint.save(
                        **trainers[0].state(),
                        losses=np.array(losses),
                        learning_rate=np.array(job.recipe.learning_rate),
                        drawn=global_random_states(device),
                    )
    except BaseException:
        for network in networks:
            network.n_iter_ = 0  # not fitted
        raise


def _epoch_bar(network: TrainableNetwork, epochs: int) -> AbstractContextManager[Any]:
    """Show the epochs, except those of members: there are thousands, which the filter counts."""
    if network.role == "member":
        return nullcontext(lambda *_, **__: None)
    return stage(f"{network.role or 'network'} epochs", epochs)


def _process_group_for(network: TrainableNetwork, jobs: Sequence[Job]) -> ProcessGroup:
    """Choose the processes that train: all those of a launcher, or this one alone."""
    group = current_team()
    if group.size == 1 or network.role == "member":  # members are many, and small
        return SINGLE_PROCESS
    can_be_sent = (
        len(jobs) == 1 and not jobs[0].lesson.is_stateful and isinstance(network.module, str)
    )
    if can_be_sent and jobs[0].hardware.device == group.device:
        return group
    warn_user(
        f"One of {group.size} processes trains this network alone: the others cannot share a "
        "method's own loss, a network that a function builds, or another device.",
        UserWarning,
    )
    return SINGLE_PROCESS


def _restore(checkpoint: Checkpoint, trainer: Trainer, draws: bool) -> list[float]:
    """Continue from a checkpoint; return the losses of the epochs that are done."""
    job = trainer.jobs[0]
    done = checkpoint.load()
    # At another rate, this is a repetition of the training that the checkpoint is from.
    if done is None or done["learning_rate"] != job.recipe.learning_rate:
        return []
    trainer.restore(done)
    if draws:
        set_global_random_states(done["drawn"], job.hardware.device)
    return done["losses"].tolist()


def fit_with_retry(network: TrainableNetwork, job: Job) -> None:
    """Train a network; if it diverges, once more from the same weights, at a smaller rate."""
    weights = copy.deepcopy(job.module.state_dict())
    try:
        teach([network], [job])
    except DivergedError as error:
        rate = job.recipe.learning_rate * SMALLER_RATE
        warn_user(
            f"A network is trained once more, with learning_rate={rate:g}: {error}",
            RecoveredWarning,
        )
        current_checkpoint().remove()
        job.module.load_state_dict(weights)
        network.recipe_ = replace(job.recipe, learning_rate=rate)
        try:
            teach([network], [replace(job, recipe=network.recipe_)])
        except DivergedError:
            current_checkpoint().remove()
            raise


def fit_together(
    networks: Sequence[TrainableNetwork],
    samples: Sequence[tuple[Any, Any, Any]],
    *,
    stack: Callable[[Sequence[Job]], bool] = stacking_pays,
) -> None:
    """Fit networks, as stacks where that is faster: the same, within rounding, as one by one.

    If trainings diverge, the others are finished before the error is raised.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        Of the project's architectures: others may do operations that a stack cannot.
    samples : sequence of tuple of (X, y, sample_weight)
        The training data of each network.
    stack : callable, default=stacking_pays
        Decides whether jobs that can be a stack are trained as one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from pudistill.learners.torch_classifier import TorchClassifier, fit_together
    >>> X, y = load_iris(return_X_y=True)
    >>> networks = [TorchClassifier(random_state=seed) for seed in range(3)]
    >>> fit_together(networks, [(X, y, None)] * 3)
    >>> [network.n_iter_ for network in networks] == [networks[0].n_iter_] * 3
    True
    """
    waiting = [
        (network, network.start(*data)) for network, data in zip(networks, samples, strict=True)
    ]
    diverged: DivergedError | None = None
    while waiting:
        # 1. Take all jobs that can be a stack with the first one.
        first = waiting[0][1]
        fits = [job is first or job.can_stack_with(first) for _, job in waiting]
        group = [pair for pair, beside in zip(waiting, fits, strict=True) if beside]
        waiting = [pair for pair, beside in zip(waiting, fits, strict=True) if not beside]
        # 2. Train them as a stack, or one by one if that is slower or the stack diverges.
        jobs = [job for _, job in group]
        if len(jobs) > 1 and stack(jobs) and _fit_stack(group):
            continue
        for network, job in group:
            try:
                fit_with_retry(network, job)
            except DivergedError as error:
                diverged = error
    if diverged is not None:
        raise diverged


def _fit_stack(group: Sequence[tuple[TrainableNetwork, Job]]) -> bool:
    """Train networks as a stack; if one diverges, restore all weights and return False."""
    jobs = [job for _, job in group]
    weights = [copy.deepcopy(job.module.state_dict()) for job in jobs]
    try:
        epochs = list(Trainer(jobs))
    except DivergedError:
        for job, before in zip(jobs, weights, strict=True):
            job.module.load_state_dict(before)
        return False
    for (network, _), losses in zip(group, zip(*epochs, strict=True), strict=True):
        network.record_epochs(losses)
    return True


def state_of(estimator: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a fitted `TorchClassifier` as arrays and JSON; see its method ``to_state``."""
    arrays = {
        f"module.{name}": tensor.numpy(force=True).copy()
        for name, tensor in estimator.module_.state_dict().items()
    }
    arrays["normalisation.mean"] = estimator.normalisation_.mean
    arrays["normalisation.scale"] = estimator.normalisation_.scale
    params = {name: _as_json(value) for name, value in estimator.get_params(deep=False).items()}
    meta = {
        "params": params,
        "classes": {"dtype": estimator.classes_.dtype.str, "values": estimator.classes_.tolist()},
        "in_shape": list(estimator.in_shape_),
        "recipe": asdict(estimator.recipe_),
        "loss_curve": estimator.loss_curve_,
    }
    if isinstance(estimator.module_, PretrainedNetwork):
        meta["architecture"] = estimator.module_.architecture
    if hasattr(estimator, "feature_names_in_"):
        meta["feature_names_in"] = estimator.feature_names_in_.tolist()
    return arrays, meta


def params_from_json(params: dict[str, Any], module: NetworkFactory | None) -> dict[str, Any]:
    """Return the parameters of a `TorchClassifier` from its state."""
    params = dict(params)
    if isinstance(params["module"], dict):
        if module is None:
            raise InputError(
                f"The network was built by {params['module']['callable']}: pass that callable "
                "as module= to load it."
            )
        params["module"] = module
    if isinstance(params["recipe"], dict):
        params["recipe"] = _recipe_from_json(params["recipe"])
    if isinstance(params["augment"], list):
        params["augment"] = tuple(params["augment"])
    return params


def restore_state(estimator: Any, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Fit a `TorchClassifier` by its state instead of data; see its method ``from_state``."""
    estimator.classes_ = np.array(meta["classes"]["values"], np.dtype(meta["classes"]["dtype"]))
    estimator.in_shape_ = tuple(meta["in_shape"])
    estimator.recipe_ = _recipe_from_json(meta["recipe"])
    estimator.loss_curve_ = list(meta["loss_curve"])
    estimator.n_iter_ = len(estimator.loss_curve_)
    estimator.normalisation_ = Normalisation(
        arrays["normalisation.mean"], arrays["normalisation.scale"]
    )
    if len(estimator.in_shape_) == 1:
        estimator.n_features_in_ = estimator.in_shape_[0]
    if "feature_names_in" in meta:
        estimator.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)
    weights = {
        name.removeprefix("module."): torch.tensor(array)
        for name, array in arrays.items()
        if name.startswith("module.")
    }
    with seeded(0, torch.device("cpu")):
        if "architecture" in meta:
            network: nn.Module = build_untrained(meta["architecture"])
        elif str(estimator.module).startswith(PRETRAINED):
            raise InputError("The stored network does not describe its layers: train it again.")
        else:
            factory = find_factory(estimator.module, estimator.in_shape_)
            network = factory(estimator.in_shape_, len(estimator.classes_))
    try:
        # `assign` keeps the stored precision.
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"The stored weights do not fit the network {meta['params']['module']}: load them with "
            "the module they were trained with."
        ) from error
    estimator.module_ = network.eval()


def check_storable(estimator: Any) -> None:
    """Check that the state of a network can name the module that builds it.

    A network of the project is stored by name, a callable by its import path. The path is never
    imported: it tells the user which callable to pass to :meth:`TorchClassifier.from_state`.

    Parameters
    ----------
    estimator : TorchClassifier
        Fitted or not.

    Raises
    ------
    InputError
        If `module` is a callable without an import path, like a lambda, or an unknown name.

    Examples
    --------
    >>> from pudistill.learners.torch_classifier import TorchClassifier, check_storable
    >>> check_storable(TorchClassifier("small_cnn"))
    """
    if callable(estimator.module) and _import_path(estimator.module) is None:
        raise InputError(
            f"module={estimator.module!r} has no name by which it could be imported: define it "
            "with def or class at the top level of a module."
        )


def are_pictures(X: Any) -> bool:
    """Return whether samples are pictures and not a feature table."""
    return len(shape_of(X)) > 2


def as_pictures(X: np.ndarray, centre_crop: int | None) -> np.ndarray:
    """Return pictures as ``(n, height, width, channels)``, uint8 or float32."""
    if X.ndim == 3:
        X = X[..., None]
    if X.ndim != 4:
        raise InputError(
            f"X has the shape {X.shape}: pictures have the shape (n, height, width) or "
            "(n, height, width, channels)."
        )
    if X.shape[-1] > 4 and X.shape[1] <= 4:
        raise InputError(
            f"X has the shape {X.shape}, with the channels in front: move them to the end with "
            "numpy.moveaxis(X, 1, -1)."
        )
    if centre_crop is not None:
        top, left = (max(0, size - centre_crop) // 2 for size in X.shape[1:3])
        X = X[:, top : top + centre_crop, left : left + centre_crop]
    return X if X.dtype == np.uint8 else X.astype(np.float32, copy=False)


def network_shape(inputs: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a sample in the layout of networks, channels first."""
    return (inputs.shape[-1], *inputs.shape[1:-1])


def check_weights(sample_weight: Any, inputs: np.ndarray) -> np.ndarray:
    """Return sample weights of shape (n,), all 1 if none were passed."""
    with as_input_error():
        weights = _check_sample_weight(sample_weight, inputs, dtype=np.float64)
    if weights.min() < 0:
        raise InputError(
            f"sample_weight of sample {weights.argmin()} is {weights.min():g}: weights must not be "
            "negative."
        )
    if not weights.any():
        raise InputError("sample_weight is zero for every sample: give some a positive weight.")
    return weights


def as_targets(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, and labels as one-hot targets; targets stay as they are."""
    if y.ndim == 2:
        return np.arange(y.shape[1]), y
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {classes[0]!r}: a classifier needs samples of at least two."
        )
    return classes, np.eye(len(classes))[codes]


def _import_path(factory: Callable) -> str | None:
    """Return ``package.module:name``, or None if the callable cannot be imported by a name."""
    name, module = getattr(factory, "__qualname__", "<"), getattr(factory, "__module__", None)
    return None if "<" in name or module is None else f"{module}:{name}"


def _as_json(value: Any) -> Any:
    """Return a parameter as a value of JSON; the normalisation is stored in the arrays instead."""
    if isinstance(value, np.random.RandomState | Normalisation):
        return None
    if isinstance(value, Recipe):
        return asdict(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return {"callable": _import_path(value)} if callable(value) else value


def _recipe_from_json(fields: dict[str, Any]) -> Recipe:
    """Return a recipe whose tuples JSON has turned into lists."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Recipe(**values)
