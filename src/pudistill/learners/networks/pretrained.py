"""Networks with pretrained weights, from Hugging Face's `transformers`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pudistill.exceptions import InputError


class PretrainedNetwork(nn.Module):
    """An image classifier of `transformers` as a module that returns logits.

    Parameters
    ----------
    model : PreTrainedModel
        A model for image classification.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def architecture(self) -> dict[str, Any]:
        """The configuration, as JSON, from which `build_untrained` builds the network."""
        return self.model.config.to_diff_dict() | {"num_labels": self.model.config.num_labels}

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, channels, H, W)`` to logits ``(n, n_classes)``."""
        n_channels = getattr(self.model.config, "num_channels", x.shape[1])
        if x.shape[1] == 1 and n_channels > 1:  # grey pictures; the network expects colour
            x = x.expand(-1, n_channels, -1, -1)
        return self.model(pixel_values=x).logits


class Pretrained:
    """A factory of networks with pretrained weights and a new last layer for the classes.

    Parameters
    ----------
    name : str
        A model for image classification: its name on the hub, such as ``microsoft/resnet-50``, or
        a folder that holds it.

    Examples
    --------
    A network with random weights, stored as on the hub:

    >>> import tempfile
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from pudistill.learners.networks.pretrained import Pretrained
    >>> folder = tempfile.mkdtemp()
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    >>> ResNetForImageClassification(config).save_pretrained(folder)
    >>> network = Pretrained(folder)((3, 32, 32), n_classes=5)
    >>> network.architecture["num_labels"]
    5
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, in_shape: tuple[int, ...], n_classes: int) -> PretrainedNetwork:
        """Load the network; see the class."""
        if len(in_shape) != 3:
            raise InputError(
                f"{self.name} needs pictures, but the samples have the shape {in_shape}: choose a "
                "network for tables, such as mlp."
            )
        remedy = "name a model for image classification on the hub, or a folder that holds one"
        with loading_model(self.name, remedy) as transformers:
            model = transformers.AutoModelForImageClassification.from_pretrained(
                self.name,
                num_labels=n_classes,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
            )
        return PretrainedNetwork(model)


def build_untrained(architecture: dict[str, Any]) -> PretrainedNetwork:
    """Build a network from `PretrainedNetwork.architecture`, without its weights."""
    with _transformers() as transformers:
        config = transformers.AutoConfig.for_model(**architecture)
        return PretrainedNetwork(transformers.AutoModelForImageClassification.from_config(config))


@contextmanager
def loading_model(name: str, remedy: str) -> Iterator[Any]:
    """Import `transformers` to load a model; if that fails, raise an error that names a remedy.

    Parameters
    ----------
    name : str
        The model, for the message.
    remedy : str
        Advice, for the message.

    Yields
    ------
    transformers : module
        The library, with its log messages and progress bars switched off.

    Raises
    ------
    InputError
        If the model cannot be loaded.
    """
    with _transformers() as transformers:
        try:
            yield transformers
        except InputError:
            raise
        except Exception as error:  # damaged or foreign files make readers raise anything
            raise InputError(f"{name} cannot be loaded ({reason_of(error)}): {remedy}.") from error


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


@contextmanager
def _transformers() -> Iterator[Any]:
    """Import `transformers`; silence its warnings about layers that we replace on purpose."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"Networks from the hub need {error.name}, which is not installed: pip install "
            "'pudistill[hub]'."
        ) from error
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
