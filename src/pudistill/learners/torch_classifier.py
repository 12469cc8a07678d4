"""A neural network that behaves like any scikit-learn classifier."""

import copy
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from pudistill.data.lazy_pictures import is_lazy
from pudistill.exceptions import DivergedError, InputError, RecoveredWarning, as_input_error
from pudistill.learners import PRETRAINED, is_own, pretrained
from pudistill.learners.lessons import LESSONS, Loss
from pudistill.learners.networks import NETWORKS, NetworkFactory
from pudistill.learners.pretrained import PretrainedNetwork
from pudistill.learners.recipes import (
    AUGMENTATIONS,
    SMALLER_RATE,
    Recipe,
    Role,
    find_recipe,
    share_of_rate,
)
from pudistill.learners.team import ALONE, Team, current_team
from pudistill.learners.training import (
    Hardware,
    Job,
    Normalisation,
    Precision,
    Trainer,
    are_certain,
    choose_hardware,
    drawn_so_far,
    embed,
    predict_probabilities,
    seeded,
    set_drawn,
    stacking_pays,
    train,
)
from pudistill.progress import epoch_ended, stage
from pudistill.units import NOWHERE, current_checkpoint


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
    loss : {"cross_entropy", "likelihood"}, default="cross_entropy"
        What `y` says and what is made small. ``"cross_entropy"``: labels or soft targets, and the
        cross-entropy to them. ``"likelihood"``: how likely is what is known of a sample's label if
        the sample is of class c, for every c, and ``-log sum_c p(c | x) y[i, c]``, which uses wrong
        labels by what they tell, see Notes.
    epochs : int or None, default=None
        Passes over the training data. For this and the next seven, None means the recipe's value.
        The schedule's milestones move with it.
    learning_rate : float or None, default=None
        Largest learning rate of the schedule.
    batch_size : int or None, default=None
        Largest number of samples in a step; an epoch is split into batches of equal size.
    mixup : float or None, default=None
        The paper's μ; 0 switches mixup off.
    entropy_weight : float or None, default=None
        Weight of the entropy regularisation, equation (2) of the paper; 0 switches it off.
    consistency_weight : float or None, default=None
        Weight of learning to see through strong augmentation what is clear without it, for
        pictures; 0 switches it off.
    augment : bool, tuple of {"flip", "crop"} or None, default=None
        Random changes of training pictures; True means both.
    balanced_bootstrap : bool or None, default=None
        Whether each epoch trains on as many samples of each class as the rarest has, drawn anew;
        None means False. The class of a soft target is its most likely one.
    normalisation : Normalisation or None, default=None
        Mean and scale of each channel or feature; None: those of the samples of the first `fit`.
    warm_start : bool, default=False
        Whether a second `fit` continues from the weights of the first, with a fresh optimiser and
        schedule. Classes and shape of the samples must be the same.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` leaves the choice to `accelerate`.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Arithmetic; see :func:`pudistill.learners.training.choose_hardware`.
    random_state : int, RandomState or None, default=None
        Decides initial weights, dropout, order of the samples, augmentation and mixup. On a CPU the
        same state gives the same network; PyTorch's own random state is left as it is.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; ``arange(n_classes)`` for soft targets and likelihoods.
    n_features_in_ : int
        Number of features. Only for feature tables.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns. Only for feature tables whose columns all have string names.
    in_shape_ : tuple of int
        What the network takes: ``(channels, height, width)`` or ``(n_features,)``.
    module_ : nn.Module
        The network.
    normalisation_ : Normalisation
        Mean and scale of each channel or feature.
    recipe_ : Recipe
        The recipe with all changes, as it was carried out.
    loss_curve_ : list of float
        Mean training loss of each epoch of the last `fit`.
    n_iter_ : int
        Epochs of the last `fit`.

    Notes
    -----
    Samples of weight zero are left out, the others' weights multiply their part of the loss. With
    ``module="mlp"`` on a CPU and no more samples than `batch_size`, a weight of 2 gives exactly
    what two copies give.

    With ``loss="likelihood"`` and a noise matrix T, ``T[c, j] = P(given label j | class c)``, the
    row of `y` is ``T[:, j]`` for a sample whose given label j may be wrong, a one-hot row for a
    sample whose label is verified, and a row of ones where nothing is known. Multiplying a row by a
    number changes nothing in the training. Neither mixup nor, unless all rows are one-hot, the
    balanced bootstrap can be used: before training, no one knows which class to mix or to count.

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
        loss: Loss = "cross_entropy",
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
            least one of a row positive.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weights.

        Returns
        -------
        self : TorchClassifier

        Raises
        ------
        InputError
            If data or settings are unusable, or the loss stops being finite even at a tenth of the
            learning rate, with which a training that diverged is repeated, with a warning.
        """
        job, seed = self._start(X, y, sample_weight)
        _teach_patiently(self, job, seed)
        return self

    def start(self, X: Any, targets: np.ndarray) -> Job:
        """Begin what `teach` ends: a training by another lesson than the estimator's own.

        Parameters
        ----------
        X, targets : array-like
            As `X` and `y` of `fit`.

        Returns
        -------
        job : Job
            The training of the estimator's network, whose lesson may be replaced.
        """
        return self._start(X, targets, None)[0]

    def _start(self, X: Any, y: Any, sample_weight: Any) -> tuple[Job, int]:
        """Check everything and build the network; return its training and the seed of dropout."""
        continues = self.warm_start and self.__sklearn_is_fitted__()
        pictures = _are_pictures(X)
        recipe = self._find_recipe(pictures)
        inputs = self._check_inputs(X, recipe, fitted=continues)
        weights = _check_weights(sample_weight, inputs)
        y = self._check_y(y, inputs, recipe)
        used = weights > 0
        if not used.all():
            inputs, y, weights = inputs[used], y[used], weights[used]
        classes, targets = _as_targets(y)

        in_shape = _in_shape(inputs)
        hardware = choose_hardware(self.device, self.precision, pictures=pictures)
        rng = check_random_state(self.random_state)
        seed = rng.randint(2**31 - 1)
        if continues:
            self._check_continuation(classes)
        else:
            self.classes_, self.in_shape_ = classes, in_shape
            self.normalisation_ = self._normalisation_of(inputs, weights)
            with seeded(seed, hardware.device):
                self.module_ = self._factory()(in_shape, len(classes))
        self.n_iter_ = 0  # not fitted, should the training fail
        self.recipe_ = recipe.fitted_to(self._samples_per_epoch(targets))
        job = Job(
            self._module_on(hardware),
            inputs,
            targets,
            self.normalisation_,
            self.recipe_,
            hardware,
            rng,
            weights=weights / weights.mean(),
            lesson=LESSONS[self.loss],
            balanced=bool(self.balanced_bootstrap),
        )
        return job, seed

    def _finish(self, losses: Sequence[float]) -> Self:
        """Become fitted, for now or for good."""
        self.loss_curve_ = list(losses)
        self.n_iter_ = len(losses)
        self.module_.eval()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, in evaluation mode and without augmentation.

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
        """Most likely class of each sample.

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
        """Take the activations that the last linear layer of the network is given.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or (n, height, width, channels)
            Samples of the kind and shape that the network was trained on.

        Returns
        -------
        embedding : ndarray of shape (n, n_hidden), float32
            One row a sample.
        """
        return self._apply(embed, X)

    def _apply(self, function: Callable[..., np.ndarray], X: Any) -> np.ndarray:
        """Call a function of network, inputs, normalisation and hardware."""
        check_is_fitted(self)
        inputs = self._check_inputs(X, self.recipe_, fitted=True)
        hardware = choose_hardware(self.device, self.precision, pictures=inputs.ndim == 4)
        return function(self._module_on(hardware), inputs, self.normalisation_, hardware)

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Take the fitted estimator apart, for storage without pickle.

        Returns
        -------
        arrays : dict of str to ndarray
            Weights, buffers and normalisation.
        meta : dict
            Everything else, fit for JSON. A `random_state` that is no number is stored as None.

        Raises
        ------
        InputError
            If the network could not be told to whoever loads it; see :func:`check_storable`.
        """
        check_is_fitted(self)
        check_storable(self)
        arrays = {
            f"module.{name}": tensor.numpy(force=True).copy()
            for name, tensor in self.module_.state_dict().items()
        }
        arrays["normalisation.mean"] = self.normalisation_.mean
        arrays["normalisation.scale"] = self.normalisation_.scale
        params = {name: _as_json(value) for name, value in self.get_params(deep=False).items()}
        meta = {
            "params": params,
            "classes": {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()},
            "in_shape": list(self.in_shape_),
            "recipe": asdict(self.recipe_),
            "loss_curve": self.loss_curve_,
        }
        if isinstance(self.module_, PretrainedNetwork):
            meta["architecture"] = self.module_.architecture
        if hasattr(self, "feature_names_in_"):
            meta["feature_names_in"] = self.feature_names_in_.tolist()
        return arrays, meta

    @classmethod
    def from_state(
        cls,
        arrays: dict[str, np.ndarray],
        meta: dict[str, Any],
        *,
        module: NetworkFactory | None = None,
    ) -> Self:
        """Put an estimator together that :meth:`to_state` took apart.

        Parameters
        ----------
        arrays : dict of str to ndarray
            As from :meth:`to_state`.
        meta : dict
            As from :meth:`to_state`, or read back from JSON.
        module : callable or None, default=None
            The callable that was passed as `module`, if it was one: nothing that a file names is
            ever imported.

        Returns
        -------
        estimator : TorchClassifier
            Fitted.
        """
        params = dict(meta["params"])
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
        estimator = cls(**params)
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
                network: nn.Module = pretrained.build(meta["architecture"])
            elif str(estimator.module).startswith(PRETRAINED):
                raise InputError("The stored network says nothing of its layers: train it anew.")
            else:
                network = estimator._factory()(estimator.in_shape_, len(estimator.classes_))
        try:
            # `assign` keeps the stored precision.
            network.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise InputError(
                f"The stored weights do not fit the network {params['module']}: load them with the "
                "module they were trained with."
            ) from error
        estimator.module_ = network.eval()
        return estimator

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "n_iter_", 0) > 0

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        module = state.get("module_")
        if module is not None and any(p.device.type != "cpu" for p in module.parameters()):
            # So that a network trained on a GPU can be unpickled without one.
            state["module_"] = copy.deepcopy(module).cpu()
        return state

    def _find_recipe(self, pictures: bool) -> Recipe:
        """Return the recipe with the estimator's own settings in it."""
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
        if fitted and _are_pictures(X) != (len(self.in_shape_) == 3):
            known = "pictures" if len(self.in_shape_) == 3 else "a feature table"
            raise InputError(
                f"X has the shape {_shape(X)}, but this {type(self).__name__} was trained on "
                f"{known}. Reshape your data to samples of the shape {self.in_shape_}."
            )
        with as_input_error():
            if not _are_pictures(X):
                return validate_data(
                    self,
                    X,
                    dtype=[np.float64, np.float32],
                    reset=not fitted,
                    ensure_min_samples=1 if fitted else 2,
                )
            pictures = X  # bytes that are known to be sound
            if not is_lazy(X):
                pictures = check_array(X, allow_nd=True, estimator=self, input_name="X")
        pictures = _as_pictures(pictures, recipe.centre_crop)
        if fitted and _in_shape(pictures) != self.in_shape_:
            raise InputError(
                f"The pictures have the shape {_in_shape(pictures)} (channels, height, width), but "
                f"the network was trained on {self.in_shape_}: resize or convert them."
            )
        return pictures

    def _check_y(self, y: Any, inputs: np.ndarray, recipe: Recipe) -> np.ndarray:
        """Return y as labels, soft targets or likelihoods, whichever `loss` is about."""
        if self.loss not in LESSONS:
            raise InputError(f"loss={self.loss!r} is unknown: choose one of {tuple(LESSONS)}.")
        if self.loss == "cross_entropy":
            return _check_target_values(y, inputs)
        if recipe.mixup:
            raise InputError(
                f'loss="likelihood" cannot be used with mixup={recipe.mixup:g}: set mixup=0, or '
                'role="noise_aware".'
            )
        likelihoods = _check_likelihoods(y, inputs)
        if self.balanced_bootstrap and not are_certain(likelihoods).all():
            row = (~are_certain(likelihoods)).argmax()
            raise InputError(
                "balanced_bootstrap=True needs to know every sample's class, but row "
                f"{row} of y allows several: set balanced_bootstrap=False."
            )
        return likelihoods

    def _normalisation_of(self, inputs: np.ndarray, weights: np.ndarray) -> Normalisation:
        """Return the scale that was given, or that of the samples."""
        given = self.normalisation
        if given is None:
            return Normalisation.of(inputs, weights)
        if not isinstance(given, Normalisation):
            raise InputError(f"normalisation={given!r} must be a Normalisation or None.")
        if len(given.mean) != inputs.shape[-1]:
            raise InputError(
                f"The normalisation is one of {len(given.mean)} features or channels, but X has "
                f"{inputs.shape[-1]}: pass one of such samples."
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

    def _factory(self) -> NetworkFactory:
        if callable(self.module):
            return self.module
        default = "small_cnn" if len(self.in_shape_) == 3 else "mlp"
        name = default if self.module == "auto" else self.module
        if isinstance(name, str) and name.startswith(PRETRAINED):
            return pretrained.Pretrained(name.removeprefix(PRETRAINED))
        if name not in NETWORKS:
            raise InputError(
                f"module={name!r} is unknown: choose one of {sorted(NETWORKS)}, "
                f"{PRETRAINED}NAME, or pass a callable."
            )
        return NETWORKS[name]

    def _module_on(self, hardware: Hardware) -> nn.Module:
        """Move the network to where it shall compute; it stays there."""
        self.module_.to(device=hardware.device, dtype=hardware.dtype)
        if len(self.in_shape_) == 3:
            self.module_.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.module_


def teach(networks: Sequence[TorchClassifier], jobs: Sequence[Job], seed: int) -> None:
    """Train networks by jobs that take turns, an epoch each; then the networks are fitted.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        Whose modules the jobs train, alone or several as one.
    jobs : sequence of Job
        One or more with the same number of epochs.
    seed : int
        Decides what modules of the user's draw while they train.
    """
    first = networks[0]
    # Others than the project's own may have dropout.
    randomness = nullcontext() if is_own(first.module) else seeded(seed, jobs[0].hardware.device)
    epochs = jobs[0].recipe.epochs
    progress = (
        stage(f"{first.role or 'network'} epochs", epochs)
        if first.role != "member"  # of which there are thousands: their owner shows progress
        else nullcontext(lambda *_, **__: None)
    )
    losses: list[float] = []
    try:
        with randomness, progress as advance:
            team = _team_for(first, jobs)
            trainers = [Trainer([job], team) for job in jobs]
            saves = len(trainers) == 1 and trainers[0].can_be_saved
            checkpoint = current_checkpoint() if saves else NOWHERE
            done = checkpoint.load()
            if done is not None and done["learning_rate"] == jobs[0].recipe.learning_rate:
                trainers[0].restore(done)
                losses = done["losses"].tolist()
                advance(len(losses))
                if not is_own(first.module):
                    set_drawn(done["drawn"], jobs[0].hardware.device)
            for of_jobs in zip(*trainers, strict=True):
                losses.append(float(np.mean(of_jobs)))
                for network in networks:
                    network._finish(losses)
                advance(1, detail=f"loss {losses[-1]:.3f}")
                if first.role != "member":
                    epoch_ended(len(losses), networks)
                if checkpoint.is_due:
                    checkpoint.save(
                        **trainers[0].state(),
                        losses=np.array(losses),
                        learning_rate=np.array(jobs[0].recipe.learning_rate),
                        drawn=drawn_so_far(jobs[0].hardware.device),
                    )
    except BaseException:
        for network in networks:
            network.n_iter_ = 0  # not fitted
        raise


def _team_for(network: TorchClassifier, jobs: Sequence[Job]) -> Team:
    """Choose who trains: all processes of a launcher together, or this one alone."""
    team = current_team()
    if team.size == 1 or network.role == "member":  # members are many, and small
        return ALONE
    can_be_told = len(jobs) == 1 and jobs[0].is_self_contained and isinstance(network.module, str)
    if can_be_told and jobs[0].hardware.device == team.device:
        return team
    warnings.warn(
        f"One of {team.size} processes trains this network: the others do not know the loss of "
        "its method or the function that builds it, or have another device.",
        stacklevel=4,
    )
    return ALONE


def _teach_patiently(network: TorchClassifier, job: Job, seed: int) -> None:
    """Train a network; if that diverges, once more from the same weights and at a smaller rate."""
    weights = copy.deepcopy(job.module.state_dict())
    try:
        teach([network], [job], seed)
    except DivergedError as error:
        rate = job.recipe.learning_rate * SMALLER_RATE
        warnings.warn(
            f"A network is trained once more, with learning_rate={rate:g}: {error}",
            RecoveredWarning,
            stacklevel=3,
        )
        current_checkpoint().remove()
        job.module.load_state_dict(weights)
        network.recipe_ = replace(job.recipe, learning_rate=rate)
        try:
            teach([network], [replace(job, recipe=network.recipe_)], seed)
        except DivergedError:
            current_checkpoint().remove()
            raise


def fit_together(
    networks: Sequence[TorchClassifier],
    samples: Sequence[tuple[Any, Any, Any]],
    *,
    stack: Callable[[Sequence[Job]], bool] = stacking_pays,
) -> None:
    """Fit networks, as stacks where that is faster: the same, within rounding, as one by one.

    If trainings diverge, the others end before the error is raised.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        Of the project's architectures: one of the user's may do what no stack can.
    samples : sequence of tuple of (X, y, sample_weight)
        What each is fitted on.
    stack : callable, default=stacking_pays
        Given jobs that could be one stack, says whether they shall.

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
    started = [(one, *one._start(*some)) for one, some in zip(networks, samples, strict=True)]
    diverged: DivergedError | None = None
    while started:
        first = started[0][1]
        fits = [job is first or job.fits_beside(first) for _, job, _ in started]
        group = [one for one, beside in zip(started, fits, strict=True) if beside]
        started = [one for one, beside in zip(started, fits, strict=True) if not beside]
        jobs = [job for _, job, _ in group]
        if len(jobs) > 1 and stack(jobs) and _teach_stack(group):
            continue
        for network, job, seed in group:
            try:
                _teach_patiently(network, job, seed)
            except DivergedError as error:
                diverged = error
    if diverged is not None:
        raise diverged


def _teach_stack(group: Sequence[tuple[TorchClassifier, Job, int]]) -> bool:
    """Train networks as one; if one diverges, return False, and leave all as they were."""
    jobs = [job for _, job, _ in group]
    weights = [copy.deepcopy(job.module.state_dict()) for job in jobs]
    try:
        epochs = list(train(jobs))
    except DivergedError:
        for job, before in zip(jobs, weights, strict=True):
            job.module.load_state_dict(before)
        return False
    for (network, *_), losses in zip(group, zip(*epochs, strict=True), strict=True):
        network._finish(losses)
    return True


def check_storable(estimator: TorchClassifier) -> None:
    """Make sure that a network can be stored by its state and named to whoever loads it.

    A network of the project is stored by name, a callable by its import path. Nothing imports that:
    it tells the reader which callable to pass to :meth:`TorchClassifier.from_state`.

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


def _shape(X: Any) -> tuple[int, ...]:
    """Return the shape of anything like an array, without copying what has one."""
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def _are_pictures(X: Any) -> bool:
    return len(_shape(X)) > 2


def _as_pictures(X: np.ndarray, centre_crop: int | None) -> np.ndarray:
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


def _in_shape(inputs: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a sample as networks know it, channels first."""
    return (inputs.shape[-1], *inputs.shape[1:-1])


def _check_weights(sample_weight: Any, inputs: np.ndarray) -> np.ndarray:
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


def _check_target_values(y: Any, inputs: np.ndarray) -> np.ndarray:
    """Return y as labels of shape (n,), or as soft targets of shape (n, n_classes)."""
    if y is None:
        raise InputError(
            "This TorchClassifier estimator requires y to be passed, but the target y is None."
        )
    if len(_shape(y)) != 2 or _shape(y)[1] < 2:
        with as_input_error():
            y = column_or_1d(y, warn=True)
            check_consistent_length(inputs, y)
            assert_all_finite(y, input_name="y")
            check_classification_targets(y)
        return y
    with as_input_error():
        check_consistent_length(inputs, y)
    targets = np.asarray(y)
    if targets.dtype.kind != "f":
        raise InputError(
            f"y has the shape {targets.shape} and the dtype {targets.dtype}: pass labels of shape "
            "(n,), or soft targets as floats."
        )
    wrong = ~((targets >= 0).all(axis=1) & np.isclose(targets.sum(axis=1), 1, rtol=0, atol=1e-4))
    if wrong.any():
        row = wrong.argmax()
        raise InputError(
            f"Soft targets must be non-negative and sum to 1, but row {row} of y is "
            f"{targets[row].tolist()}."
        )
    return targets.astype(np.float64)


def _check_likelihoods(y: Any, inputs: np.ndarray) -> np.ndarray:
    """Return y as likelihoods of shape (n, n_classes)."""
    shape = () if y is None else _shape(y)
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(
            f'loss="likelihood" takes y of shape (n, n_classes), but y has the shape {shape}: pass '
            "a row of likelihoods for each sample, one-hot where its label is certain."
        )
    with as_input_error():
        check_consistent_length(inputs, y)
        likelihoods = np.asarray(y).astype(np.float64)
    wrong = ~(np.isfinite(likelihoods) & (likelihoods >= 0)).all(axis=1)
    wrong |= ~(likelihoods > 0).any(axis=1)
    if wrong.any():
        row = wrong.argmax()
        raise InputError(
            "Likelihoods must be finite and non-negative, and positive for at least one class, but "
            f"row {row} of y is {likelihoods[row].tolist()}."
        )
    return likelihoods


def _as_targets(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and target probabilities."""
    if y.ndim == 2:
        return np.arange(y.shape[1]), y
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {classes[0]!r}: a classifier needs samples of at least two."
        )
    return classes, np.eye(len(classes))[codes]


def _import_path(factory: Callable) -> str | None:
    """Return ``package.module:name``, or None for what has no such name."""
    name, home = getattr(factory, "__qualname__", "<"), getattr(factory, "__module__", None)
    return None if "<" in name or home is None else f"{home}:{name}"


def _as_json(value: Any) -> Any:
    """Return a parameter as what JSON knows; what is used of a normalisation is stored apart."""
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
    """Return a recipe whose tuples JSON has turned to lists."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Recipe(**values)
