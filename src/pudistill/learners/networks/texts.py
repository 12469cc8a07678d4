"""Text classifiers: an encoder of `transformers` with trained weights, which is trained further.

The last layer learns first, on features of the encoder as it is, and then the whole network at a
small learning rate: a layer of random weights would first spoil what the encoder knows [1]_.

References
----------
.. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang, "Fine-Tuning can Distort Pretrained
   Features and Underperform Out-of-Distribution", ICLR 2022.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.learners.networks.embedding import pooled, text_setup
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.prediction import compute_embeddings
from pudistill.learners.networks.pretrained import (
    check_complete,
    config_of_layers,
    layers_of,
    load_config,
    loading_model,
)
from pudistill.learners.networks.recipes import HEAD
from pudistill.learners.networks.trainer import Trainer
from pudistill.utils.shown import shown

# Encoders whose code is part of `transformers` and whose output is a row for each token.
TEXT_MODEL_TYPES = frozenset(
    (
        *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"),
        *("ernie", "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "modernbert", "mpnet"),
        *("nystromformer", "qwen2", "qwen3", "roberta", "roformer", "squeezebert", "xlm-roberta"),
    )
)
PADDING = -1  # in an array of tokens
MOST_CHARACTERS = 32  # of a token, on average: what follows in a text is not read
MOST_KEPT = 2**26  # tokens that a process keeps
SMALLEST_SCALE = 0.1  # of a feature, as a share of the median
DROPOUT = 0.1  # of the features, before the last layer


class StoredTokenizer(NamedTuple):
    """A tokenizer as a value.

    Attributes
    ----------
    json : str
        The tokenizer, in the format of the package `tokenizers`.
    n_tokens : int
        Longest text; the rest of it is not read.
    empty : int
        The token of a text without tokens.
    """

    json: str
    n_tokens: int
    empty: int


class _Tokenizer:
    """Tokenises each text once."""

    def __init__(self, stored: StoredTokenizer) -> None:
        from tokenizers import Tokenizer

        self._empty, self._n_tokens = stored.empty, stored.n_tokens
        self._tokenizer = Tokenizer.from_str(stored.json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(stored.n_tokens)
        self._known: dict[str, np.ndarray] = {}
        self._too_long: set[str] = set()
        self._n_kept = 0

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        most = MOST_CHARACTERS * self._n_tokens
        # Half of a surrogate pair, which damaged files hold, is no character.
        cut = [text[:most].encode("utf-8", "replace").decode() for text in texts]
        new = [text for text in dict.fromkeys(cut) if text not in self._known]
        encodings = self._tokenizer.encode_batch(new)
        found = {
            text: np.array(encoding.ids or [self._empty], dtype=np.int32)
            for text, encoding in zip(new, encodings, strict=True)
        }
        self._too_long |= {text for text, e in zip(new, encodings, strict=True) if e.overflowing}
        # Known texts count, too: they may have been read where warnings are silenced.
        if not self._too_long.isdisjoint(cut) or any(len(text) > most for text in texts):
            warn_user(
                f"Some texts are longer than the {self._n_tokens} tokens that the network reads: "
                "the rest of them is not used. Shorten them to what matters.",
                DataWarning,
            )
        if not all(text.strip() for text in cut):
            warn_user(
                "Some texts are empty, and nothing can be learned from them: leave them out.",
                DataWarning,
            )
        rows = [found[text] if text in found else self._known[text] for text in cut]
        if self._n_kept < MOST_KEPT:
            self._known |= found
            self._n_kept += sum(map(len, found.values()))
        return rows


_opened = lru_cache(maxsize=2)(_Tokenizer)


def tokenise(stored: StoredTokenizer, texts: Sequence[str]) -> np.ndarray:
    """Return the tokens of texts.

    Parameters
    ----------
    stored : StoredTokenizer
        The tokenizer; a process tokenises a text once.
    texts : sequence of str
        At least one text. An empty one has one token.

    Returns
    -------
    tokens : ndarray of shape (n_texts, n_longest), int32
        Followed by `PADDING` where a text has fewer.

    Warns
    -----
    DataWarning
        If texts are empty or too long.
    """
    rows = _opened(stored)(texts)
    tokens = np.full((len(rows), max(map(len, rows))), PADDING, dtype=np.int32)
    for row, of_text in zip(tokens, rows, strict=True):
        row[: len(of_text)] = of_text
    return tokens


def open_tokenizer(name: str) -> StoredTokenizer:
    """Load the tokenizer of a text model, by its name on the hub or in a folder.

    Raises
    ------
    InputError
        If it cannot be loaded, or does not fit the model.
    """
    with loading_model(name, _REMEDY) as transformers:
        config = load_config(transformers, name)
        setup = text_setup(transformers, name, config)
        fast = getattr(setup.tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise InputError(
                f"The tokenizer of {name} has no tokenizer.json: save it as a fast tokenizer."
            )
        n_known = getattr(config, "vocab_size", 0)
        largest = max(fast.get_vocab().values(), default=0)
        if largest >= n_known:
            raise InputError(
                f"The tokenizer of {name} does not fit its model: it gives tokens up to {largest}, "
                f"but the model knows {n_known}. Name a folder whose files belong together."
            )
        return StoredTokenizer(fast.to_str(), setup.n_tokens, setup.tokenizer.pad_token_id or 0)


_REMEDY = "name a text model on the hub, or a folder that holds one with its tokenizer"


class TextNetwork(nn.Module):
    """An encoder of texts, pooling, standardisation and a linear layer.

    Encoders have features that vary little around a large mean: dropout of these as they are would
    drown all others.

    Parameters
    ----------
    encoder : PreTrainedModel
        Gives a row for each token.
    poolings : list of str
        How rows of tokens become features, see `pudistill.learners.networks.embedding.pooled`.
    n_classes : int
        Number of logits. The last layer starts at zero.
    """

    mean: Tensor
    inverse_scale: Tensor

    def __init__(self, encoder: Any, poolings: Sequence[str], n_classes: int) -> None:
        super().__init__()
        self.encoder, self.poolings = encoder, list(poolings)
        self.dropout = nn.Dropout(DROPOUT)
        n_features = len(poolings) * encoder.config.hidden_size
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("inverse_scale", torch.ones(n_features))
        self.head = nn.Linear(n_features, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def architecture(self) -> dict[str, Any]:
        """A description, as JSON, from which `build_untrained_text` builds the network."""
        return {"encoder": layers_of(self.encoder.config), "poolings": self.poolings}

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(n, n_tokens)``, with `PADDING` at the end, to logits ``(n, n_classes)``."""
        mask = tokens != PADDING
        longest = int(mask.sum(dim=1).max())
        mask, ids = mask[:, :longest], tokens[:, :longest].clamp_min(0).long()
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        features = torch.cat([pooled(hidden, mask, pooling) for pooling in self.poolings], dim=1)
        return self.head(self.dropout((features - self.mean) * self.inverse_scale))


class PretrainedText:
    """A factory of text classifiers with pretrained weights and a new last layer.

    Parameters
    ----------
    name : str
        A text model: its name on the hub, such as ``sentence-transformers/all-MiniLM-L6-v2``, or a
        folder that holds it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, in_shape: tuple[int, ...], n_classes: int) -> TextNetwork:
        """Load the network; see the class."""
        del in_shape  # a text has no shape
        with loading_model(self.name, _REMEDY) as transformers:
            config = load_config(transformers, self.name)
            if config.model_type not in TEXT_MODEL_TYPES:
                raise InputError(
                    f"{self.name} is of the type {config.model_type!r}, which cannot be trained "
                    f"further here: name a model of one of the types "
                    f"{', '.join(sorted(TEXT_MODEL_TYPES))}."
                )
            encoder, info = transformers.AutoModel.from_pretrained(
                self.name, config=config, output_loading_info=True, trust_remote_code=False
            )
            setup = text_setup(transformers, self.name, config)
        check_complete(self.name, info["missing_keys"])
        return TextNetwork(_without_pooler(encoder.float()), setup.poolings, n_classes)


def _without_pooler(encoder: Any) -> Any:
    """Remove a language model's own pooler, which is not used: it would only fill files."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def build_untrained_text(architecture: dict[str, Any], n_classes: int) -> TextNetwork:
    """Build a network from `TextNetwork.architecture`, without its weights.

    Parameters
    ----------
    architecture : dict
        A description that may come from somebody else: only what describes layers is used.
    n_classes : int
        Number of logits.

    Raises
    ------
    InputError
        If the encoder is not one of `TEXT_MODEL_TYPES`, or its layers are absurd.
    """
    with config_of_layers(architecture["encoder"], TEXT_MODEL_TYPES) as (transformers, config):
        encoder = transformers.AutoModel.from_config(config, trust_remote_code=False)
    return TextNetwork(_without_pooler(encoder), [*architecture["poolings"]][:4], n_classes)


def train_head(job: Job) -> None:
    """Train the last layer of a new text classifier on the features of its encoder.

    The features are computed once. Their means and scales stay those of these samples.
    """
    network = job.module
    if not isinstance(network, TextNetwork) or network.head.weight.any():
        return
    features = compute_embeddings(network, job.inputs, job.normalisation, job.hardware)
    scales = Normalisation.of(features, np.ones(len(features)))
    # Encoders have features that hardly vary, and will once the encoder is trained.
    floor = SMALLEST_SCALE * np.median(scales.scale)
    scales = replace(scales, scale=np.maximum(scales.scale, floor))
    mean, network.inverse_scale = scales.on(job.hardware)
    network.mean = mean.to(job.hardware.dtype)
    recipe = replace(HEAD, trusted_share=job.recipe.trusted_share)
    head = replace(
        job,
        module=network.head,
        inputs=features,
        normalisation=scales,
        recipe=recipe.for_n_samples(len(features)),
        rng=np.random.RandomState(job.seed),  # that of the job is for its own training
    )
    for _ in Trainer([head]):
        pass


def with_lora(network: nn.Module, rank: int) -> nn.Module:
    """Freeze the encoder of a text classifier, and add low-rank matrices that are trained.

    Parameters
    ----------
    network : TextNetwork
        The network, which is changed.
    rank : int
        Rank of the matrices, at least 1.

    Returns
    -------
    network : TextNetwork

    Raises
    ------
    InputError
        If the rank is less than 1, the network has no linear layers or reads no texts, or the
        package peft is missing.

    References
    ----------
    E. J. Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    """
    if not (isinstance(rank, Integral) and int(rank) >= 1):
        raise InputError(f"lora_rank={rank} must be at least 1, or None.")
    if not isinstance(network, TextNetwork):
        raise InputError(
            f"lora_rank={rank} is for text models (module='transformers:NAME' on texts): leave it "
            "out."
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise InputError(
            f"LoRA needs {error.name}, which is not installed: pip install 'pudistill[lora]'."
        ) from error
    names = [name for name, part in network.encoder.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise InputError(
            f"The encoder {shown(network.encoder.config.model_type)} has no linear layers, which "
            "LoRA would adapt: leave lora_rank out."
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    inject_adapter_in_model(config, network.encoder)
    return network


def merged(network: nn.Module) -> nn.Module:
    """Return a network whose low-rank matrices, if it has any, are added to its weights."""
    if not isinstance(network, TextNetwork) or not _adapted(network):
        return network
    network = copy.deepcopy(network)
    for name, part in _adapted(network).items():
        part.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, part.get_base_layer())
    del network.encoder.peft_config
    return network


def _adapted(network: nn.Module) -> dict[str, Any]:
    return {name: part for name, part in network.named_modules() if hasattr(part, "lora_A")}
