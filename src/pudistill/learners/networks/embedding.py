"""Features of pictures and texts by a pretrained model of `transformers` that is not trained."""

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor

from pudistill.exceptions import InputError
from pudistill.learners.networks.hardware import Precision, choose_hardware
from pudistill.learners.networks.own import reason_of
from pudistill.learners.networks.prediction import N_AHEAD, batches_by_length, prediction_values
from pudistill.learners.networks.pretrained import check_complete, load_config, loading_model
from pudistill.utils.threads import one_thread, prefetch

# Largest number of tokens of a text: the cost of attention grows with its square.
LONGEST_TEXT = 512
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Ways to pool tokens into one row, by their keys in the configuration of sentence encoders."""


class Embedder(ABC):
    """A pretrained model that maps samples to features; it is not trained further.

    Parameters
    ----------
    name : str
        The model's name on the hub, such as ``facebook/dinov2-small``, or a folder that holds it.
    device, precision : str
        See :func:`pudistill.learners.networks.hardware.choose_hardware`.

    Attributes
    ----------
    checksum : str
        Hash of the weights and of the files that configure the inputs and the pooling.

    Raises
    ------
    InputError
        If the model cannot be loaded, or lacks trained weights for some layers.
    """

    kind: ClassVar[str]  # of samples
    files: ClassVar[tuple[str, ...]]  # that configure its inputs and its pooling

    def __init__(self, name: str, device: str = "auto", precision: Precision = "auto") -> None:
        self.name = name
        self.hardware = choose_hardware(device, precision, is_table=False)
        remedy = f"name a model for {self.kind} on the hub, or a folder that holds one"
        with loading_model(name, remedy) as transformers:
            model, info = transformers.AutoModel.from_pretrained(
                name,
                config=load_config(transformers, name),
                output_loading_info=True,
                trust_remote_code=False,
            )
            self._prepare(transformers, model)
        self.model = model.float().eval()
        check_complete(name, info["missing_keys"])
        self._uses_pooler = not info["missing_keys"]
        self.checksum = self._compute_checksum(info["missing_keys"])
        self.model.to(self.hardware.device)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Embed samples.

        Parameters
        ----------
        X : ndarray of shape (n, height, width[, 3]), uint8, or of shape (n,) of str
            Pictures or texts, at least one.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            One row per sample.

        Raises
        ------
        InputError
            If the model cannot embed them, or a feature is NaN or infinite.
        """
        return next(self.stream([X]))

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the features of blocks of samples, while threads compute the next ones.

        Each batch is computed on one thread, so that the features do not depend on the number of
        cores. See `__call__` for the samples, the features and the errors.
        """
        n_batches: deque[int] = deque()  # of each block that is not complete

        def batches() -> Iterator[tuple[np.ndarray, Any]]:
            for block in blocks:
                of_block = list(self._batches(block))
                n_batches.append(len(of_block))
                yield from of_block

        n_threads = cpu_count() if self.hardware.device.type == "cpu" else N_AHEAD
        try:
            parts = prefetch(self._features_of, batches(), n_threads)
            for first in parts:
                rows, features = zip(first, *islice(parts, n_batches.popleft() - 1), strict=True)
                embedding = np.concatenate(features)[np.argsort(np.concatenate(rows))]
                if not np.isfinite(embedding).all():
                    raise InputError(
                        f"{self.name} gives NaN or infinite features for a sample: name another "
                        "model."
                    )
                yield embedding
        except InputError:  # also of a picture that cannot be decoded
            raise
        except (ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{self.name} cannot embed these {self.kind} ({reason_of(error)}): name another "
                "model."
            ) from error

    def _features_of(self, batch: tuple[np.ndarray, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of a batch of samples, and their features."""
        rows, samples = batch
        device = self.hardware.device
        with one_thread(), torch.inference_mode():
            inputs = {name: values.to(device) for name, values in self._inputs(samples).items()}
            with self.hardware.autocast():
                features = self._embed(inputs)
            return rows, features.float().cpu().numpy()

    @abstractmethod
    def _prepare(self, transformers: Any, model: Any) -> None:
        """Load the preprocessing of samples."""

    @abstractmethod
    def _batches(self, X: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield positions of samples, and what `_inputs` takes for them."""

    @abstractmethod
    def _inputs(self, samples: Any) -> Mapping[str, Tensor]:
        """Return the model's inputs; called by threads."""

    @abstractmethod
    def _embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features of shape (n, n_features)."""

    def _n_at_once(self, n_values: int) -> int:
        """Return the batch size for samples of `n_values` inputs."""
        return max(1, prediction_values(self.hardware.device) // n_values)

    def _compute_checksum(self, untrained: set[str]) -> str:
        total = sha256()
        for name in self.files:
            path = _file(self.name, name)
            total.update(f"{name}:".encode() + (path.read_bytes() if path else b""))
        for name, weights in sorted(self.model.state_dict().items()):
            if name not in untrained:
                total.update(name.encode() + weights.contiguous().numpy().tobytes())
        return total.hexdigest()


class PictureEmbedder(Embedder):
    """Features of pictures: the pooled output, else the class token, else the mean over positions.

    Examples
    --------
    A network with random weights, stored as on the hub:

    >>> import tempfile
    >>> import numpy as np
    >>> from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel
    >>> from pudistill.learners.networks.embedding import PictureEmbedder
    >>> folder = tempfile.mkdtemp()
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    >>> ResNetModel(config).save_pretrained(folder)
    >>> _ = ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder)
    >>> PictureEmbedder(folder)(np.zeros((5, 28, 28), np.uint8)).shape
    (5, 8)
    """

    kind = "pictures"
    files = ("config.json", "preprocessor_config.json", "processor_config.json")

    def _prepare(self, transformers: Any, model: Any) -> None:
        self.processor = transformers.AutoImageProcessor.from_pretrained(
            self.name, backend="pil", trust_remote_code=False
        )
        self._n_channels = getattr(model.config, "num_channels", 3)
        self._has_class_token = any("cls_token" in name for name in model.state_dict())
        self._shape: tuple[int, ...] = ()
        self._values: np.ndarray | None = None  # see `values_of_bytes`

    def _batches(self, X: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if X.shape[1:] != self._shape:
            self._shape, self._values = X.shape[1:], None
            self._values = values_of_bytes(self._inputs, (*X.shape[1:3], self._n_channels))
            self._n_values = self._inputs(X[:1])["pixel_values"].numel()
        # Batches of equal size: the last one would otherwise be a single picture.
        n_batches = ceil(len(X) / self._n_at_once(self._n_values))
        for rows in np.array_split(np.arange(len(X)), n_batches):
            yield rows, X[rows[0] : rows[-1] + 1]

    def _inputs(self, samples: np.ndarray) -> Mapping[str, Tensor]:
        pictures = np.asarray(samples)
        if pictures.ndim == 3:  # grey pictures; most networks expect colour
            pictures = np.repeat(pictures[..., None], self._n_channels, axis=3)
        if self._values is not None:
            return {"pixel_values": torch.from_numpy(looked_up(self._values, pictures))}
        return self.processor(
            list(pictures), input_data_format="channels_last", return_tensors="pt"
        )

    def _embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        output = getattr(self.model, "get_image_features", self.model)(**inputs)
        if self._uses_pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        hidden = output.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if self._has_class_token else hidden.mean(dim=1)


class TextEmbedder(Embedder):
    """Features of texts: the mean over tokens, unless a sentence encoder is configured otherwise.

    The folder of a sentence encoder configures the pooling (``1_Pooling/config.json``), the number
    of tokens (``sentence_bert_config.json``) and whether rows are scaled to length 1
    (``modules.json``). The pooled output of a language model is not used: it was trained for
    another task, or not at all.

    Examples
    --------
    A network with random weights, stored as on the hub:

    >>> import tempfile
    >>> import numpy as np
    >>> from transformers import BertConfig, BertModel, BertTokenizer
    >>> from pudistill.learners.networks.embedding import TextEmbedder
    >>> folder = tempfile.mkdtemp()
    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    >>> tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(words)})
    >>> _ = tokenizer.save_pretrained(folder)
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    >>> BertModel(BertConfig(vocab_size=7, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    >>> TextEmbedder(folder)(np.array(["good", "bad, bad", ""], dtype=object)).shape
    (3, 8)
    """

    kind = "texts"
    files = (
        *("config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
        *("vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
    )

    def _prepare(self, transformers: Any, model: Any) -> None:
        setup = text_setup(transformers, self.name, model.config)
        self.tokenizer, self._poolings, self._is_normalised, self._n_tokens = setup
        self._width = getattr(model.config, "hidden_size", LONGEST_TEXT)

    def _batches(self, X: np.ndarray) -> Iterator[tuple[np.ndarray, Mapping[str, Tensor]]]:
        # Tokens are made here and not in `_inputs`, because threads cannot share a tokenizer.
        # An empty text has none at all if the tokenizer does not mark the ends of texts.
        texts = [text if text.strip() else self.tokenizer.pad_token for text in X]
        tokens = self.tokenizer(texts, truncation=True, max_length=self._n_tokens)
        lengths = np.array([len(text_tokens) for text_tokens in tokens["input_ids"]])
        for rows in batches_by_length(lengths, lambda n: self._n_at_once(self._width * n), 1):
            batch = {key: [values[row] for row in rows] for key, values in tokens.items()}
            yield rows, self.tokenizer.pad(batch, return_tensors="pt")

    def _inputs(self, samples: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return samples

    def _embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if hasattr(self.model, "get_text_features"):  # a model of pictures and texts
            features = self.model.get_text_features(**inputs).pooler_output
        else:
            network = self.model
            if network.config.is_encoder_decoder:
                network = network.get_encoder()
            hidden = network(**inputs).last_hidden_state
            mask = inputs["attention_mask"]
            parts = [pooled(hidden, mask, pooling) for pooling in self._poolings]
            features = torch.cat(parts, dim=1)
        if self._is_normalised:
            features = torch.nn.functional.normalize(features.float(), dim=1)
        return features


def values_of_bytes(
    inputs_of: Callable[[np.ndarray], Mapping[str, Tensor]], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Return what a processor makes of each byte, if it maps each byte of a picture by itself.

    Pictures of the size that a network expects are only rescaled and normalised, for which
    processors take several times as long as a small network for its features. Whether they do
    nothing else is tried on noise, half of it dark, as a processor could adapt to the picture.

    Parameters
    ----------
    inputs_of : callable
        Takes pictures, and returns the inputs of the network.
    shape : (int, int, int)
        Height, width and number of channels of the pictures.

    Returns
    -------
    values : ndarray of shape (n_channels, 256) or None
        None if pictures of this shape are resized, or their bytes depend on each other.
    """
    height, width, n_channels = shape
    n = ceil(512 / (height * width))  # each byte is there at least twice
    bytes_of_channels = np.resize(np.arange(256, dtype=np.uint8), (n_channels, n * height * width))
    noise = np.random.default_rng(0).permuted(bytes_of_channels, axis=1)
    noise = np.moveaxis(noise.reshape(n_channels, n, height, width), 0, 3)
    pictures = np.concatenate([noise, noise // 2])
    inputs = inputs_of(pictures)
    found = np.asarray(inputs["pixel_values"])
    if len(inputs) > 1 or found.shape != (2 * n, n_channels, height, width):
        return None
    values = np.zeros((n_channels, 256), found.dtype)
    for channel in range(n_channels):
        values[channel][pictures[..., channel]] = found[:, channel]
    return values if np.array_equal(looked_up(values, pictures), found) else None


def looked_up(values: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Replace the bytes of pictures by their values in a table of `values_of_bytes`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.networks.embedding import looked_up
    >>> looked_up(np.arange(256)[None] / 2, np.full((1, 1, 2, 1), 3)).tolist()
    [[[[1.5, 1.5]]]]
    """
    n, height, width, n_channels = pictures.shape
    inputs = np.empty((n, n_channels, height, width), values.dtype)
    for channel in range(n_channels):
        inputs[:, channel] = values[channel][pictures[..., channel]]
    return inputs


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the tokens of each text into one row.

    Parameters
    ----------
    hidden : Tensor of shape (n, n_tokens, n_features)
        One row per token.
    mask : Tensor of shape (n, n_tokens)
        1 for tokens of the text, 0 for padding after it.
    pooling : {"cls", "max", "mean", "lasttoken"}
        First token, maximum, mean or last token.

    Returns
    -------
    features : Tensor of shape (n, n_features)
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    weights = mask[..., None].to(hidden.dtype)
    if pooling == "max":
        return hidden.masked_fill(weights == 0, -torch.inf).amax(dim=1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


class TextSetup(NamedTuple):
    """How a model reads texts, as its folder configures it; see `TextEmbedder`."""

    tokenizer: Any
    poolings: list[str]
    is_normalised: bool
    n_tokens: int


def text_setup(transformers: Any, name: str, config: Any) -> TextSetup:
    """Read the tokenizer and the configuration of a sentence encoder.

    Parameters
    ----------
    transformers : module
        The library.
    name : str
        The model: its name on the hub, or a folder.
    config : PreTrainedConfig
        Its configuration.

    Returns
    -------
    setup : TextSetup

    Raises
    ------
    InputError
        If a part of the model would need code that is not known here.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        name, trust_remote_code=False, padding_side="right"
    )
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # made up by the library
        raise InputError(
            f"The tokenizer of {name} knows no word: its files, such as tokenizer.json, are "
            "missing. Save the model with its tokenizer."
        )
    if tokenizer.pad_token is None:  # a model that was trained without padding
        tokenizer.pad_token = tokenizer.eos_token
    poolings = _poolings(name, _read_json(name, "1_Pooling/config.json") or {})
    modules = _read_json(name, "modules.json") or []
    for part in modules:
        if not str(part.get("type")).startswith("sentence_transformers."):
            raise InputError(
                f"{name} has a part of the type {part.get('type')}, whose code would have to be "
                "run: name a model whose parts belong to sentence-transformers."
            )
    is_normalised = any(str(part.get("type")).endswith("Normalize") for part in modules)
    limits = (
        tokenizer.model_max_length,
        (_read_json(name, "sentence_bert_config.json") or {}).get("max_seq_length"),
        getattr(config, "max_position_embeddings", None),
    )
    n_tokens = min([LONGEST_TEXT, *(limit for limit in limits if limit)])
    return TextSetup(tokenizer, poolings, is_normalised, n_tokens)


def _poolings(name: str, config: Mapping[str, Any]) -> list[str]:
    """Read the poolings of a sentence encoder, whose results are concatenated."""
    if config.get("pooling_mode") in POOLINGS.values():  # the format of later versions
        return [config["pooling_mode"]]
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode") and value]
    unknown = [key for key in chosen if key not in POOLINGS]
    if unknown:
        raise InputError(
            f"{name} pools by {unknown[0]}, which is not known here: name a model that pools by "
            f"one of {', '.join(POOLINGS.values())}."
        )
    return [pooling for key, pooling in POOLINGS.items() if key in chosen] or ["mean"]


def _read_json(name: str, file: str) -> Any:
    path = _file(name, file)
    return None if path is None else json.loads(path.read_text("utf-8"))


def _file(name: str, file: str) -> Path | None:
    """Find a file of a model in its folder or on the hub; None if there is no such file."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, file))
    except EntryNotFoundError:
        return None
