"""A neural network that behaves like any scikit-learn classifier."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from pudistill.data.column_values import as_texts
from pudistill.data.lazy_pictures import is_lazy
from pudistill.exceptions import InputError, as_input_error
from pudistill.learners.networks.architectures import NetworkFactory, find_factory
from pudistill.learners.networks.fitting import fit_with_retry
from pudistill.learners.networks.hardware import Hardware, Precision, choose_hardware, seeded
from pudistill.learners.networks.input_checks import (
    are_pictures,
    are_texts,
    are_tokens,
    as_pictures,
    as_targets,
    check_weights,
    network_shape,
    shape_of,
)
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.names import PRETRAINED
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.own import check_own, needs_contiguous
from pudistill.learners.networks.prediction import compute_embeddings, predict_probabilities
from pudistill.learners.networks.recipes import (
    CONTINUED,
    Recipe,
    Role,
    find_recipe,
    learning_rate_scale,
)
from pudistill.learners.networks.registry import OBJECTIVES
from pudistill.learners.networks.state import (
    check_storable,
    params_from_json,
    restore_state,
    state_of,
)
from pudistill.learners.networks.texts import (
    StoredTokenizer,
    merged,
    open_tokenizer,
    tokenise,
    train_head,
    with_lora,
)

LORA_FACTOR = 10.0  # of the learning rate: few weights are trained, which start at zero


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A neural network that behaves like any scikit-learn classifier.

    It takes feature tables, pictures and texts, hard labels and soft targets, and trains by a
    recipe.

    Parameters
    ----------
    module : str or callable, default="auto"
        The network: a name in :data:`pudistill.learners.networks.architectures.NETWORKS`,
        ``"transformers:NAME"`` for a model of pictures or texts with trained weights from the
        Hugging Face hub or from a folder (see :mod:`pudistill.learners.networks.pretrained` and
        :mod:`pudistill.learners.networks.texts`), a callable
        ``module(in_shape, n_classes)`` that returns an ``nn.Module`` giving logits of shape
        ``(n, n_classes)``, where `in_shape` is ``(channels, height, width)`` or ``(n_features,)``,
        or ``"auto"``: ``"small_cnn"`` for pictures, ``"mlp"`` for feature tables. A callable that
        names only ``n_classes`` or ``num_classes`` is called with that alone. A network itself, an
        ``nn.Module``, is copied: its weights are those that every training starts from.
    recipe : str or Recipe, default="fast"
        A name in :data:`pudistill.learners.networks.recipes.RECIPES`, or a recipe.
    role : {"member", "teacher", "student", "noise_aware", "cross_fit", "reference", \
            "semi_supervised", "continued", "continued_cross_fit"} or None, default=None
        Which of a named recipe's roles the network plays; None means ``"student"``.
        ``"noise_aware"`` goes with ``loss="likelihood"``. ``"cross_fit"``, with the same loss, and
        ``"reference"`` are for the networks that the default method trains beside the student:
        with ``recipe="fast"``, they make fewer steps on few samples. ``"semi_supervised"``, with
        the same loss, adds a consistency term, which learns from pictures without a label. It and
        the continued ones go with ``warm_start=True``: they make fewer steps, because the network
        is trained already.
    loss : str, default="cross_entropy"
        A name in :data:`pudistill.learners.networks.registry.OBJECTIVES`: the loss, and with it
        the meaning of `y`. ``"cross_entropy"``: labels or soft targets, and their cross-entropy.
        ``"likelihood"``: ``y[i, c]`` is the probability of the given label of sample i if its true
        class is c, and the loss is ``-log sum_c p(c | x) y[i, c]``, which learns even from wrong
        labels; see Notes. ``"backward_correction"``: rows of an inverse noise matrix, see Notes.
        The others take what cross-entropy takes and are more robust to wrong labels; see
        :mod:`pudistill.learners.networks.robust_losses`.
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
    augment : bool, {"flip", "crop", "shift"}, callable, tuple of these, or None
        Random changes of training pictures; True means flip and crop, False none, and None those of
        the recipe. A callable, such as a transform of torchvision, takes a picture as a tensor of
        shape ``(channels, height, width)`` and returns one of the same shape and type.
    balanced_bootstrap : bool or None, default=None
        Whether each epoch trains on as many samples of each class as the rarest class has, drawn
        anew; None means False. The class of a soft target is its most likely one.
    normalisation : Normalisation or None, default=None
        Mean and scale of each channel or feature; None: those of the samples of the first `fit`.
    warm_start : bool, default=False
        Whether a second `fit` continues from the weights of the first, with a new optimiser and
        schedule. Classes and shape of the samples must be the same.
    device : str or torch.device, default="auto"
        Where to compute; with ``"auto"``, `accelerate` chooses.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Arithmetic; see :func:`pudistill.learners.networks.hardware.choose_hardware`.
    lora_rank : int >= 1 or None, default=None
        For text models: freeze the encoder and train low-rank matrices beside its linear layers, at
        ten times the recipe's learning rate (LoRA; needs the package peft). Storing the network
        adds them to the encoder's weights. None: train all weights.
    random_state : int, RandomState or None, default=None
        Seeds initial weights, dropout, order of the samples, augmentation and mixup. On a CPU the
        same state gives the same network. PyTorch's global random state does not change.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; ``arange(n_classes)`` for soft targets and likelihoods.
    n_features_in_ : int
        Number of features. Only for feature tables.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns. Only for feature tables whose columns all have string names.
    in_shape_ : tuple of int
        Shape of a sample: ``(channels, height, width)``, ``(n_features,)``, or ``()`` for texts.
    module_ : nn.Module
        The network.
    tokenizer_ : StoredTokenizer
        Turns texts into the network's inputs. Only for texts.
    normalisation_ : Normalisation
        Mean and scale of each channel or feature; 0 and 1 for texts.
    recipe_ : Recipe
        The recipe that was carried out, with all changes.
    loss_curve_ : list of float
        Mean training loss of each epoch of the last `fit`.
    n_iter_ : int
        Epochs of the last `fit`.

    Notes
    -----
    Samples of weight zero, and those whose row of likelihoods says nothing, are left out; the
    weights of the others multiply their part of the loss.
    With ``module="mlp"`` on a CPU and no more samples than `batch_size`, a weight of 2 gives the
    same network as two copies.

    With ``loss="likelihood"`` and a noise matrix T, ``T[c, j] = P(given label j | class c)``, the
    row of `y` is ``T[:, j]`` for a sample whose given label j can be wrong, a one-hot row for a
    sample whose label is verified, and a row of ones if nothing is known. Multiplying a row by a
    number does not change the training. Mixup cannot be used, nor can the balanced bootstrap unless
    all rows are one-hot: before training, the classes to mix or to count are unknown.

    With ``loss="backward_correction"``, the row of `y` for a sample whose given label is j is row j
    of ``numpy.linalg.inv(T)``: rows sum to 1, but can hold negative numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from pudistill.learners.networks.classifier import TorchClassifier
    >>> digits = load_digits()
    >>> network = TorchClassifier(recipe="fast", random_state=0)
    >>> bool(network.fit(digits.data, digits.target).score(digits.data, digits.target) > 0.95)
    True
    """

    accepts_soft_targets: ClassVar[bool] = True
    continues_training: ClassVar[bool] = True

    def __init__(
        self,
        module: str | NetworkFactory | nn.Module = "auto",
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
        augment: bool | str | Callable | tuple[str | Callable, ...] | None = None,
        balanced_bootstrap: bool | None = None,
        normalisation: Normalisation | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        lora_rank: int | None = None,
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
        self.lora_rank = lora_rank
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or \
                (n, height, width, channels), or sequence of n str
            A feature table; pictures: uint8, or of any numeric dtype; or texts.
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
            If data or settings are unusable, or the training diverges, even when it is repeated at
            a tenth of the learning rate.

        Warns
        -----
        RecoveredWarning
            If the training diverged (its loss was not finite) and is repeated.
        """
        fit_with_retry(self, self.make_job(X, y, sample_weight))
        return self

    def make_job(self, X: Any, y: Any, sample_weight: Any = None) -> Job:
        """Check the data and build the network; only a text model's new last layer is trained.

        `fit_objective` trains the job that is returned, even after its objective was replaced.

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
        recipe = self._find_recipe(X)
        if are_texts(X) and not continues:
            self.tokenizer_ = self._open_tokenizer()
        inputs = self._check_inputs(X, recipe, fitted=continues)
        weights = check_weights(sample_weight, inputs)
        objective, balanced = self._find_objective(), bool(self.balanced_bootstrap)
        y = objective.check_targets(y, inputs, recipe, balanced=balanced)
        used = weights > 0
        used[used] = objective.informative_rows(y[used], recipe)
        if not used.all():
            inputs, y, weights = inputs[used], y[used], weights[used]
        classes, targets = as_targets(y)

        # 2. Build the network, or keep that of the last fit.
        hardware = self._hardware_for(inputs)
        inputs = hardware.supported(inputs)
        rng = check_random_state(self.random_state)
        seed = rng.randint(2**31 - 1)
        if continues:
            self._check_continuation(classes)
        self.n_iter_ = 0  # until it is trained, the estimator counts as not fitted
        if not continues:
            self.classes_ = classes
            self.in_shape_ = () if are_tokens(inputs) else network_shape(inputs)
            self.normalisation_ = self._normalisation_of(inputs, weights)
            with seeded(seed, hardware.device):
                factory = find_factory(self.module, self.in_shape_)
                self.module_ = factory(self.in_shape_, len(classes))
                if callable(self.module):
                    check_own(self.module_, self.in_shape_, len(classes))
        if self.lora_rank is not None:  # new matrices, as a stored network has none
            with seeded(seed, hardware.device):
                self.module_ = with_lora(merged(self.module_), self.lora_rank)

        # 3. Make the job.
        self.recipe_ = recipe.for_n_samples(self._samples_per_epoch(targets))
        job = Job(
            self._module_on(hardware),
            inputs,
            targets,
            self.normalisation_,
            self.recipe_,
            hardware,
            rng,
            weights=weights / weights.mean(),
            objective=objective,
            balanced=balanced,
            seed=seed,
        )
        train_head(job)
        return job

    def record_epochs(self, losses: Sequence[float]) -> Self:
        """Mark the estimator as fitted; record the mean loss of each epoch."""
        self.loss_curve_, self.n_iter_ = list(losses), len(losses)
        self.module_.eval()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities, in evaluation mode and without augmentation.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or \
                (n, height, width, channels), or sequence of n str
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
        X : array-like of shape (n, ...) or sequence of n str
            As for `predict_proba`.

        Returns
        -------
        labels : ndarray of shape (n,)
            Values of `classes_`.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def embed(self, X: Any) -> np.ndarray:
        """Compute the inputs of the network's last linear layer.

        Parameters
        ----------
        X : array-like of shape (n, n_features), (n, height, width) or \
                (n, height, width, channels), or sequence of n str
            Samples of the kind and shape that the network was trained on.

        Returns
        -------
        embedding : ndarray of shape (n, n_hidden), float32
            One row per sample.
        """
        return self._apply(compute_embeddings, X)

    def _apply(self, function: Callable[..., np.ndarray], X: Any) -> np.ndarray:
        """Call a function with the network, the inputs, the normalisation and the hardware."""
        check_is_fitted(self)
        inputs = self._check_inputs(X, self.recipe_, fitted=True)
        hardware = self._hardware_for(inputs)
        inputs = hardware.supported(inputs)
        return function(self._module_on(hardware), inputs, self.normalisation_, hardware)

    def _hardware_for(self, inputs: np.ndarray) -> Hardware:
        is_table = inputs.ndim == 2 and not are_tokens(inputs)
        hardware = choose_hardware(self.device, self.precision, is_table=is_table)
        # A network of the user's own can make tensors of PyTorch's default type.
        return replace(hardware, dtype=torch.float32) if callable(self.module) else hardware

    def _open_tokenizer(self) -> StoredTokenizer:
        if not (isinstance(self.module, str) and self.module.startswith(PRETRAINED)):
            raise InputError(
                f"module={self.module!r} cannot read texts: name a text model, as in "
                f"module='{PRETRAINED}NAME'."
            )
        return open_tokenizer(self.module.removeprefix(PRETRAINED))

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
            As from :meth:`to_state`; it can have been stored as JSON.
        module : callable, nn.Module or None, default=None
            The network or callable that was passed as `module`, if it was not a name: objects that
            a file names are never imported.

        Returns
        -------
        estimator : TorchClassifier
            Fitted.
        """
        estimator = cls(**params_from_json(meta["params"], module))
        restore_state(estimator, arrays, meta)
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = str(self.module).startswith(PRETRAINED)
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "n_iter_", 0) > 0

    @property
    def fingerprint(self) -> tuple:
        """Everything that a prediction or a further training depends on."""
        about = (type(self).__name__, self.get_params(deep=False))
        if not self.__sklearn_is_fitted__():
            return about
        weights = merged(self.module_).state_dict().items()
        arrays = {name: np.ascontiguousarray(w.numpy(force=True)) for name, w in weights}
        return *about, self.classes_.tolist(), self.normalisation_, arrays

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        module = state.get("module_")
        if module is not None and any(p.device.type != "cpu" for p in module.parameters()):
            # A network that was trained on a GPU can then be unpickled without one.
            state["module_"] = copy.deepcopy(module).cpu()
        return state

    def _find_recipe(self, X: Any) -> Recipe:
        """Return the recipe, changed by the estimator's own settings."""
        pictures, texts = are_pictures(X), are_texts(X)
        for name in ("augment", "consistency_weight"):
            value = getattr(self, name)
            if value and not pictures:
                raise InputError(
                    f"{name}={value!r} is for pictures, but X holds none: leave it out."
                )
        augment = self.augment
        if isinstance(augment, bool):
            augment = ("flip", "crop") if augment else ()
        elif not isinstance(augment, list | tuple | None):
            augment = (augment,)  # a name, a callable, or an error
        recipe = find_recipe(self.recipe, self.role, pictures=pictures, texts=texts)
        if self.lora_rank is not None:
            recipe = replace(recipe, learning_rate=LORA_FACTOR * recipe.learning_rate)
        recipe = recipe.changed(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            mixup=self.mixup,
            entropy_weight=self.entropy_weight,
            consistency_weight=self.consistency_weight,
            augment=None if augment is None else tuple(augment),
        )
        if recipe.mixup and texts:
            raise InputError(f"mixup={recipe.mixup:g} cannot mix texts: set mixup=0.")
        if self.role in CONTINUED:
            recipe = recipe.continued(CONTINUED[self.role])
        return replace(recipe, learning_rate=recipe.learning_rate * learning_rate_scale())

    def _check_inputs(self, X: Any, recipe: Recipe, *, fitted: bool) -> np.ndarray:
        """Return X as ``(n, n_features)``, ``(n, height, width, channels)``, or tokens."""
        if are_texts(X):
            if fitted and self.in_shape_:
                raise InputError(
                    f"X holds texts, but this {type(self).__name__} was trained on samples of the "
                    f"shape {self.in_shape_}: pass such samples."
                )
            return tokenise(self.tokenizer_, as_texts(X).tolist())
        if fitted and not self.in_shape_:
            raise InputError(
                f"This {type(self).__name__} was trained on texts: pass a sequence of str."
            )
        if fitted and are_pictures(X) != (len(self.in_shape_) == 3):
            known = "pictures" if len(self.in_shape_) == 3 else "a feature table"
            raise InputError(
                f"X has the shape {shape_of(X)}, but this {type(self).__name__} was trained on "
                f"{known}. Reshape your data to samples of the shape {self.in_shape_}."
            )
        if issparse(X):
            raise InputError(
                "X is a sparse matrix, which networks cannot read: pass X.toarray(). For texts, "
                "use a text model (transformers:NAME), or features that a model computes."
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
            if not is_lazy(X):  # lazy pictures are known to be bytes
                pictures = check_array(X, allow_nd=True, estimator=self, input_name="X")
        pictures = as_pictures(pictures, recipe.centre_crop)
        if fitted and network_shape(pictures) != self.in_shape_:
            raise InputError(
                f"The pictures have the shape {network_shape(pictures)} (channels, height, width), "
                f"but the network was trained on {self.in_shape_}: resize or convert them."
            )
        return pictures

    def _find_objective(self) -> Objective:
        if not (isinstance(self.loss, str) and self.loss in OBJECTIVES):
            raise InputError(f"loss={self.loss!r} is unknown: choose one of {tuple(OBJECTIVES)}.")
        return OBJECTIVES[self.loss]()

    def _normalisation_of(self, inputs: np.ndarray, weights: np.ndarray) -> Normalisation:
        """Return the normalisation that was passed, or that of the samples."""
        given = self.normalisation
        if are_tokens(inputs):
            return Normalisation(np.zeros(()), np.ones(()))
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
        if len(self.in_shape_) == 3 and not needs_contiguous(self.module_):
            self.module_.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.module_
