"""Networks with pretrained weights, from Hugging Face's `transformers`."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pudistill.exceptions import InputError
from pudistill.learners.networks.own import reason_of

# Networks whose code is part of `transformers`. Others fetch layers or code from elsewhere.
IMAGE_MODEL_TYPES = frozenset(
    (
        *("beit", "bit", "clip", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit"),
        *("dinat", "dinov2", "dinov2_with_registers", "donut-swin", "efficientnet", "focalnet"),
        *("hgnet_v2", "hiera", "ijepa", "imagegpt", "levit", "metaclip_2", "mobilenet_v1"),
        *("mobilenet_v2", "mobilevit", "mobilevitv2", "perceiver", "poolformer", "pp_lcnet"),
        *("pvt", "pvt_v2", "regnet", "resnet", "segformer", "siglip", "siglip2", "swiftformer"),
        *("swin", "swinv2", "textnet", "vit", "vit_msn"),
    )
)
FETCHING_TYPES = ("timm_backbone", "timm_wrapper")  # their layers are named by the file
OWN_ATTENTION = (None, "eager", "sdpa")  # others can be fetched from the hub as compiled code
# Parts of a configuration that do not describe layers; some name code, and files.
NO_LAYERS = frozenset(
    (
        *("architectures", "attn_implementation", "auto_map", "backbone", "backbone_kwargs"),
        *("custom_pipelines", "experts_implementation", "id2label", "kernel_config", "label2id"),
        *("name_or_path", "num_labels", "quantization_config", "transformers_version"),
        *("use_kernels", "use_pretrained_backbone", "use_timm_backbone"),
    )
)
LARGEST_SIZES = 10**7  # sum of all whole numbers that describe the layers of a stored network


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
        return layers_of(self.model.config)

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
    >>> import torch
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from pudistill.learners.networks.pretrained import Pretrained
    >>> folder = tempfile.mkdtemp()
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    >>> ResNetForImageClassification(config).save_pretrained(folder)
    >>> network = Pretrained(folder)((3, 32, 32), n_classes=5)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
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
            model, info = transformers.AutoModelForImageClassification.from_pretrained(
                self.name,
                config=load_config(transformers, self.name, num_labels=n_classes),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
        untrained = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        # Only the last layer is new, which lies outside of the model that it was added to.
        inner = f"{model.base_model_prefix}."
        check_complete(self.name, {name for name in untrained if name.startswith(inner)})
        return PretrainedNetwork(model)


def check_complete(name: str, untrained: Collection[str]) -> None:
    """Raise `InputError` if a model lacks trained weights for more than its pooler.

    Parameters
    ----------
    name : str
        The model, for the message.
    untrained : collection of str
        Names of the weights that were not loaded, and are random.
    """
    missing = sorted(weight for weight in untrained if "pooler" not in weight)
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} of its weights, such as {missing[0]}, which would be "
            "random: name a complete model."
        )


def build_untrained(architecture: dict[str, Any], n_classes: int) -> PretrainedNetwork:
    """Build a network from `PretrainedNetwork.architecture`, without its weights.

    Parameters
    ----------
    architecture : dict
        A description that may come from somebody else: only what describes layers is used.
    n_classes : int
        Number of logits.

    Raises
    ------
    InputError
        If the network is not one of `IMAGE_MODEL_TYPES`, or its layers are absurd.
    """
    with config_of_layers(architecture, IMAGE_MODEL_TYPES) as (transformers, config):
        config.num_labels = n_classes
        model = transformers.AutoModelForImageClassification.from_config(
            config, trust_remote_code=False
        )
        return PretrainedNetwork(model)


def layers_of(config: Any) -> dict[str, Any]:
    """Return what describes the layers in a configuration, as JSON for `config_of_layers`."""
    return _layers_only(config.to_diff_dict())


@contextmanager
def config_of_layers(architecture: dict[str, Any], known_types: frozenset[str]) -> Iterator[Any]:
    """Make the configuration of a network that a file describes; only its layers are used.

    Parameters
    ----------
    architecture : dict
        From `layers_of`; it may come from somebody else.
    known_types : frozenset of str
        Types of networks that may be built.

    Yields
    ------
    transformers, config : module, PreTrainedConfig
        The library, and the configuration.

    Raises
    ------
    InputError
        If the network is of another type, or its layers are absurd.
    """
    kind = architecture.get("model_type")
    if kind not in known_types:
        raise InputError(f"The stored network is of the type {kind!r}, which is not known here.")
    with _transformers() as transformers:
        known = transformers.CONFIG_MAPPING[kind]().to_dict()
        layers = {
            name: value
            for name, value in _layers_only(architecture).items()
            if name in known and name != "model_type"
        }
        sizes = [value for value in _values(layers) if isinstance(value, int)]
        if sum(map(abs, sizes)) > LARGEST_SIZES:
            raise InputError("The stored network describes layers of an absurd size.")
        if any(isinstance(value, str) and "/" in value for value in _values(layers)):
            raise InputError("The stored network names a file where it should describe layers.")
        yield transformers, transformers.AutoConfig.for_model(kind, **layers)


def _layers_only(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration and those in it without paths, code and names of classes."""
    return {
        name: _layers_only(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in NO_LAYERS and not name.startswith("_")
    }


def _values(value: Any) -> Iterator[Any]:
    """Yield the texts and numbers in a JSON value."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _values(part)
    else:
        yield value


def load_config(transformers: Any, name: str, **options: Any) -> Any:
    """Load the configuration of a model whose code is part of `transformers`.

    Parameters
    ----------
    transformers : module
        The library.
    name : str
        The model: its name on the hub, or a folder.
    **options : Any
        Changes of the configuration.

    Returns
    -------
    config : PreTrainedConfig
        The configuration; nothing in it names code.

    Raises
    ------
    InputError
        If the model needs code that comes from elsewhere.
    """
    config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    parts = [config, *(getattr(config, part, None) for part in config.sub_configs)]
    for part in parts:
        kind = getattr(part, "model_type", None)
        fetches = kind in FETCHING_TYPES or getattr(part, "backbone", None) is not None
        if fetches or getattr(part, "_attn_implementation", None) not in OWN_ATTENTION:
            raise InputError(f"{name} {_FOREIGN_CODE}")
        if hasattr(part, "auto_map"):
            del part.auto_map
    return config


_FOREIGN_CODE = (
    "needs code that is not part of transformers, and no code that a model brings or names is run: "
    "name a model of a type that transformers knows."
)


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
            if "trust_remote_code" in str(error) or "custom code" in str(error):
                raise InputError(f"{name} {_FOREIGN_CODE}") from error
            raise InputError(f"{name} cannot be loaded ({reason_of(error)}): {remedy}.") from error


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
    remote_code = transformers.dynamic_module_utils
    seconds = remote_code.TIME_OUT_REMOTE_CODE
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    remote_code.TIME_OUT_REMOTE_CODE = 0  # seconds for an answer whether to run a model's own code
    try:
        yield transformers
    finally:
        remote_code.TIME_OUT_REMOTE_CODE = seconds
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
