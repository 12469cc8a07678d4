"""Training recipes: the paper's, and fast recipes for a CPU."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

from pudistill.exceptions import InputError
from pudistill.utils.context import installed

Role = Literal[
    "member",
    "teacher",
    "student",
    "noise_aware",
    "cross_fit",
    "reference",
    "semi_supervised",
    "continued",
    "continued_cross_fit",
]
Schedule = Literal["step", "one_cycle"]
AUGMENTATIONS = ("flip", "crop", "shift")
TRUSTED_SHARE = 0.25  # of each batch, where few samples are trusted
# Shares of the steps of roles whose networks are trained already: the semi-supervised one starts
# from a network of the trusted samples, and the others from the semi-supervised one.
CONTINUED: dict[Role | None, float] = {
    "semi_supervised": 0.5,
    "continued": 0.5,
    "continued_cross_fit": 0.3,
}
RETRY_FACTOR = 0.1  # factor of the learning rate when a training that diverged is repeated
# A context variable, because the rate is lowered for whole methods, which train several networks
# deep inside calls (also of the user's estimators) that have no argument for it.
_learning_rate_scale: ContextVar[float] = ContextVar("pudistill_learning_rate_scale", default=1.0)


@contextmanager
def scaled_learning_rate(scale: float) -> Iterator[None]:
    """Multiply the learning rate of all networks inside the ``with`` block by `scale`."""
    with installed(_learning_rate_scale, scale):
        yield


def learning_rate_scale() -> float:
    """Return the factor of the learning rate that applies here."""
    return _learning_rate_scale.get()


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral)


# What each number in a recipe must be.
_COUNT = (lambda value: _is_whole(value) and value >= 1, "a whole number of at least 1")
_AT_LEAST_0 = (lambda value: value >= 0, "a number of at least 0")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "centre_crop": (_COUNT[0], f"{_COUNT[1]}, or None"),
    "min_steps": (
        lambda value: _is_whole(value) and value >= 0,
        "a whole number of at least 0",
    ),
    "learning_rate": (lambda value: value > 0, "a positive number"),
    "factor": (lambda value: 0 < value <= 1, "in (0, 1]"),
    "momentum": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "weight_decay": _AT_LEAST_0,
    "mixup": _AT_LEAST_0,
    "entropy_weight": _AT_LEAST_0,
    "consistency_weight": _AT_LEAST_0,
    "consistency_threshold": (lambda value: 0 < value <= 1, "in (0, 1], or None"),
    "warm_up": (lambda value: 0 < value < 1, "in (0, 1)"),
    "trusted_share": (lambda value: 0 <= value < 1, "in [0, 1)"),
}
_OPTIONAL = ("centre_crop", "consistency_threshold")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training: everything except the network, the data and the loss.

    Parameters
    ----------
    epochs : int
        Passes over the training data, at least 1.
    learning_rate : float
        Largest learning rate of the schedule, positive.
    schedule : {"step", "one_cycle"}, default="step"
        ``"step"`` multiplies the rate by `factor` at every milestone; ``"one_cycle"`` rises
        linearly from zero over the first `warm_up` of all steps, so that the first step has a rate
        of 0, and falls linearly to zero over the rest.
    milestones : tuple of float, default=()
        Epochs after which the step schedule lowers the rate.
    factor : float, default=0.1
        Factor of the rate at a milestone.
    warm_up : float, default=0.25
        Share of the steps, in (0, 1), in which the one-cycle schedule rises.
    batch_size : int, default=128
        Largest number of samples in a step; see
        :func:`pudistill.learners.networks.batches.split_batches`.
    momentum, weight_decay, nesterov : float, float and bool, default=0.9, 1e-4, False
        As in :class:`torch.optim.SGD`.
    optimiser : {"sgd", "adamw"}, default="sgd"
        Stochastic gradient descent with momentum, or AdamW, which pretrained text models need.
    mixup : float, default=0.0
        The paper's μ: pairs are mixed by β ~ Beta(μ, μ), section II-B. 0 switches mixup off.
    entropy_weight : float, default=0.0
        Weight of the entropy regularisation, equation (2). 0 switches it off.
    augment : tuple of {"flip", "crop", "shift"} or callables, default=()
        Random changes of training pictures: horizontal flip, crop after padding, a smaller shift,
        or transforms; see
        :func:`pudistill.learners.networks.augmentation.augmented`.
    consistency_weight : float, default=0.0
        Weight of the consistency term on pictures: if the class of a picture is clear from the
        network and the given label, the network is trained to predict that class for a strongly
        augmented view of the picture too. 0 switches it off. See
        :func:`pudistill.learners.networks.losses.consistency_loss`.
    consistency_threshold : float or None, default=None
        Smallest probability, in (0, 1], of a class that counts as clear; None: pictures are
        weighted by how sure the network is of them beside others, see
        :func:`pudistill.learners.networks.losses.confidence_weights`, and predictions are aligned
        with the class frequencies of certain labels.
    trusted_share : float, default=0.0
        Share of every batch, in [0, 1), that is drawn from samples whose class is certain: their
        target or likelihood is positive for one class only. It has no effect if they already make
        up that share of the data. See
        :func:`pudistill.learners.networks.batches.shared_batches`.
    centre_crop : int or None, default=None
        Side in pixels of the centred square to which larger pictures are cut, in training and in
        prediction.
    min_steps : int, default=0
        Smallest number of steps: on small data sets, `epochs` is raised until it is reached.

    Examples
    --------
    >>> from pudistill.learners.networks.recipes import RECIPES
    >>> member = RECIPES["paper"]["member"]
    >>> member.rate(19), round(member.rate(20), 6)
    (0.01, 0.001)
    """

    epochs: int
    learning_rate: float
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = ()
    factor: float = 0.1
    warm_up: float = 0.25
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    optimiser: Literal["sgd", "adamw"] = "sgd"
    mixup: float = 0.0
    entropy_weight: float = 0.0
    augment: tuple[str | Callable, ...] = ()
    consistency_weight: float = 0.0
    consistency_threshold: float | None = None
    trusted_share: float = 0.0
    centre_crop: int | None = None
    min_steps: int = 0

    def __post_init__(self) -> None:
        for name, (holds, rule) in _RULES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not (isinstance(value, Real) and math.isfinite(value) and holds(value)):
                raise InputError(f"{name}={value!r} must be {rule}.")
        if self.nesterov and not self.momentum:
            raise InputError("nesterov=True needs a momentum: set momentum=0.9, or nesterov=False.")
        milestones = self.milestones
        if not (isinstance(milestones, tuple) and all(isinstance(m, Real) for m in milestones)):
            raise InputError(f"milestones={milestones!r} must be a tuple of numbers of epochs.")
        if self.schedule not in get_args(Schedule):
            raise InputError(
                f"schedule={self.schedule!r} is unknown: choose one of {get_args(Schedule)}."
            )
        if self.optimiser not in ("sgd", "adamw"):
            raise InputError(f'optimiser={self.optimiser!r} must be "sgd" or "adamw".')
        for change in self.augment:
            if change not in AUGMENTATIONS and not callable(change):
                raise InputError(
                    f"augment={change!r} is unknown: choose from {AUGMENTATIONS}, or pass a "
                    "callable."
                )

    @property
    def has_transforms(self) -> bool:
        """Whether pictures are changed by callables, which draw from PyTorch's global generator."""
        return any(map(callable, self.augment))

    def rate(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs, which can be a fraction."""
        if self.schedule == "step":
            passed = sum(epoch >= milestone for milestone in self.milestones)
            return self.learning_rate * self.factor**passed
        progress = epoch / self.epochs
        return self.learning_rate * min(
            progress / self.warm_up, (1 - progress) / (1 - self.warm_up)
        )

    def with_epochs(self, epochs: int) -> "Recipe":
        """Return the recipe with another number of epochs; scale the milestones with it."""
        stretch = epochs / self.epochs
        milestones = tuple(milestone * stretch for milestone in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones, min_steps=0)

    def continued(self, share: float) -> "Recipe":
        """Return the recipe for a network that is trained already: a share of the steps, slower.

        The learning rate is halved, because a large one undoes what the network has learned.
        """
        epochs, steps = (math.ceil(share * number) for number in (self.epochs, self.min_steps))
        slower = replace(self, learning_rate=self.learning_rate / 2)
        return replace(slower.with_epochs(epochs), min_steps=steps)

    def for_n_samples(self, n_samples: int) -> "Recipe":
        """Return the recipe with enough epochs for `min_steps` on `n_samples` an epoch."""
        steps_per_epoch = math.ceil(n_samples / self.batch_size)
        return self.with_epochs(max(self.epochs, math.ceil(self.min_steps / steps_per_epoch)))

    def changed(self, *, epochs: int | None = None, **changes: Any) -> "Recipe":
        """Return the recipe with every change that is not None; `epochs` scales the milestones."""
        recipe = replace(
            self, **{name: value for name, value in changes.items() if value is not None}
        )
        # `replace` checks the number of epochs before `with_epochs` divides by it.
        return recipe if epochs is None else recipe.with_epochs(replace(self, epochs=epochs).epochs)


# The paper's settings, section IV-A3. Teachers and student also use mixup and entropy
# regularisation (IV-B); the paper gives μ = 2 and no entropy weight: 0.8 is from the authors' code.
_paper_member = Recipe(
    epochs=30,
    learning_rate=0.01,
    milestones=(20,),
    batch_size=128,
    augment=("flip", "crop"),
)
_paper_distillation = replace(
    _paper_member,
    epochs=100,
    learning_rate=0.05,
    milestones=(30, 50, 80),
    mixup=2.0,
    entropy_weight=0.8,
)
_clothing1m_member = Recipe(
    epochs=20,
    learning_rate=0.03,
    milestones=(10, 15),
    batch_size=32,
    augment=("flip",),
    centre_crop=224,
)
_clothing1m_distillation = replace(
    _clothing1m_member,
    epochs=5,
    learning_rate=0.001,
    milestones=(3,),
    mixup=2.0,
    entropy_weight=0.8,
)
# For `small_cnn` on a CPU. Without mixup: with few epochs and a small network it cost 3 points of
# test accuracy on Fashion-MNIST (20,000 pictures, 15 epochs: 90.0 without, 87.4 with; half of the
# labels replaced at random: 86.1, 82.8; 2,000 pictures, 25 epochs: 83.6, 80.2; one run each).
_fast_member = Recipe(
    epochs=10,
    learning_rate=0.1,
    schedule="one_cycle",
    batch_size=32,
    augment=("flip", "crop"),
    min_steps=150,
)
_fast_distillation = replace(
    _fast_member,
    epochs=20,
    batch_size=64,
    entropy_weight=0.8,
    min_steps=800,
)
# The default method trains many networks on few samples, which they learn long before 800 steps:
# with 120 pictures of Fashion-MNIST of half the side, 800 end at 69.2 % and a log-loss of 2.7, 200
# at 69.2 % and 1.9, 120 at 68.4 % and 1.5 (means of two seeds).
_fast_reference = replace(_fast_distillation, min_steps=150)
# For `slim_airbench` on a CPU.
_slim_distillation = Recipe(
    epochs=10,
    learning_rate=0.2,
    schedule="one_cycle",
    batch_size=128,
    weight_decay=5e-4,
    nesterov=True,
    augment=("flip", "shift"),
    min_steps=600,
)
# For `mlp`. Tables are small: an epoch can be a single step.
_fast_table = Recipe(
    epochs=20,
    learning_rate=0.1,
    schedule="one_cycle",
    batch_size=128,
    weight_decay=5e-3,
    min_steps=100,
)
# For text models of `transformers`, whose last layer has learned already.
_fast_text = Recipe(
    epochs=3,
    learning_rate=5e-5,
    schedule="one_cycle",
    warm_up=0.1,
    batch_size=32,
    optimiser="adamw",
    weight_decay=0.01,
    min_steps=100,
)
# For that last layer, on standardised features.
HEAD = Recipe(
    epochs=5,
    learning_rate=0.01,
    schedule="one_cycle",
    batch_size=128,
    optimiser="adamw",
    weight_decay=0.1,
    min_steps=100,
)


def _noise_aware(student: Recipe) -> Recipe:
    """Return a student's recipe for training on likelihoods."""
    return replace(student, mixup=0.0, entropy_weight=0.0, trusted_share=TRUSTED_SHARE)


def _recipes(
    member: Recipe,
    teacher: Recipe,
    *,
    reference: Recipe | None = None,
    cross_fit: Recipe | None = None,
) -> dict[Role, Recipe]:
    """Return the recipes of all roles; by default, those of teachers are for others, too."""
    noise_aware = _noise_aware(teacher)
    cross_fit = noise_aware if cross_fit is None else _noise_aware(cross_fit)
    return {
        "member": member,
        "teacher": teacher,
        "student": teacher,
        "noise_aware": noise_aware,
        "cross_fit": cross_fit,
        "reference": teacher if reference is None else reference,
        "semi_supervised": _semi_supervised(noise_aware),
        "continued": noise_aware,
        "continued_cross_fit": cross_fit,
    }


def _semi_supervised(recipe: Recipe) -> Recipe:
    """Return a recipe that learns pictures without a label, too."""
    return replace(
        recipe,
        trusted_share=recipe.trusted_share or TRUSTED_SHARE,
        consistency_weight=recipe.consistency_weight or 1.0,
    )


RECIPES: dict[str, dict[Role, Recipe]] = {
    "paper": _recipes(_paper_member, _paper_distillation),
    "clothing1m": _recipes(_clothing1m_member, _clothing1m_distillation),
    "fast": _recipes(
        _fast_member,
        _fast_distillation,
        reference=_fast_reference,
        cross_fit=replace(_fast_distillation, min_steps=300),
    ),
    "slim": _recipes(_fast_member, _slim_distillation),
    "fast_table": _recipes(_fast_table, _fast_table),
    "fast_text": _recipes(_fast_text, _fast_text, cross_fit=replace(_fast_text, epochs=2)),
}


def find_recipe(
    recipe: str | Recipe, role: Role | None, *, pictures: bool, texts: bool = False
) -> Recipe:
    """Look up a recipe by name and role.

    Parameters
    ----------
    recipe : str or Recipe
        A name in `RECIPES`, or the recipe itself. For feature tables, ``"fast"`` means
        ``"fast_table"``; for texts, ``"fast_text"``.
    role : one of `Role`, or None
        The network's role; None means ``"student"``. ``"noise_aware"`` is a student trained on
        likelihoods; ``"cross_fit"`` is one that has not read some given labels, to predict these
        samples; ``"reference"`` is another model that the default method trains beside the student;
        ``"semi_supervised"`` is one of trusted and unlabelled pictures. It and the ``"continued"``
        ones start from a trained network, see `CONTINUED`.
    pictures : bool
        Whether the samples are pictures. Feature tables are neither cropped nor augmented, and have
        no consistency term.
    texts : bool, default=False
        Whether the samples are texts.

    Returns
    -------
    recipe : Recipe
    """
    if isinstance(recipe, Recipe):
        found = _semi_supervised(recipe) if role == "semi_supervised" else recipe
    else:
        if not (isinstance(recipe, str) and recipe in RECIPES):
            raise InputError(f"recipe={recipe!r} is unknown: choose one of {sorted(RECIPES)}.")
        if role is not None and role not in get_args(Role):
            raise InputError(f"role={role!r} is unknown: choose one of {get_args(Role)}.")
        name = recipe
        if recipe == "fast" and not pictures:
            name = "fast_text" if texts else "fast_table"
        if texts and name != "fast_text":
            raise InputError(f"recipe={recipe!r} is not for texts: leave it out.")
        found = RECIPES[name][role or "student"]
    if pictures:
        return found
    return replace(found, augment=(), centre_crop=None, consistency_weight=0.0)
