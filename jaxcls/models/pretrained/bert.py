"""BERT and the encoders of texts that differ from it in a few fields: MiniLM, RoBERTa, XLM-RoBERTa and DistilBERT.

Sources: Devlin et al. 2018 (BERT, arXiv 1810.04805), Wang et al. 2020 (MiniLM, arXiv 2002.10957), Liu et al. 2019
(RoBERTa, arXiv 1907.11692), Conneau et al. 2019 (XLM-RoBERTa, arXiv 1911.02116), Sanh et al. 2019 (DistilBERT, arXiv
1910.01108).
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.models.layers import Dropout, Linear, gelu
from jaxcls.models.pretrained.architecture import Architecture

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu, "gelu_new": nnx.gelu, "gelu_pytorch_tanh": nnx.gelu, "relu": nnx.relu,
}  # fmt: skip
# The sizes in a config.json, and the largest that are accepted.
_SIZES = {
    "vocab_size": 10**7, "hidden_size": 10**5, "num_hidden_layers": 10**3, "num_attention_heads": 10**4,
    "intermediate_size": 10**6, "max_position_embeddings": 10**7,
}  # fmt: skip
_DISTILBERT_KEYS = {
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim", "hidden_act": "activation", "hidden_dropout_prob": "dropout",
}  # fmt: skip
# The layers of a block in BERT and in DistilBERT.
_BLOCK = {
    "query": ("attention.self.query", "attention.q_lin"),
    "key": ("attention.self.key", "attention.k_lin"),
    "value": ("attention.self.value", "attention.v_lin"),
    "attended": ("attention.output.dense", "attention.out_lin"),
    "norm1": ("attention.output.LayerNorm", "sa_layer_norm"),
    "widen": ("intermediate.dense", "ffn.lin1"),
    "narrow": ("output.dense", "ffn.lin2"),
    "norm2": ("output.LayerNorm", "output_layer_norm"),
}


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the encoder that a config.json of transformers describes."""
    where, family = f"{where}: config.json", config["model_type"]
    is_distilbert, is_roberta = family == "distilbert", family.endswith("roberta")
    # What older files leave out.
    config = {"layer_norm_eps": 1e-12, "type_vocab_size": 0 if is_distilbert else 2, "pad_token_id": int(is_roberta),
              **config}  # fmt: skip

    def key(name: str) -> str:
        return _DISTILBERT_KEYS.get(name, name) if is_distilbert else name

    schema = dict.fromkeys((*_SIZES, "type_vocab_size", "pad_token_id"), int) | {
        "layer_norm_eps": float, "hidden_dropout_prob": float, "hidden_act": frozenset(_ACTIVATIONS),
    }  # fmt: skip
    schemas.check(config, {key(name): kind for name, kind in schema.items()}, where)
    values = {name: config[key(name)] for name in schema}
    # RoBERTa counts positions from the one after the padding token.
    first_position = values["pad_token_id"] + 1 if is_roberta else 0
    ranges = {name: (1, largest) for name, largest in _SIZES.items()} | {
        "type_vocab_size": (0, 100), "pad_token_id": (0, values["vocab_size"] - 1), "layer_norm_eps": (0, 1),
        "hidden_dropout_prob": (0, 1), "max_position_embeddings": (first_position + 1, 10**7),
    }  # fmt: skip
    for name, (least, most) in ranges.items():
        if not least <= values[name] <= most:
            raise InputError(f"{where}: {key(name)} is {values[name]}; it must be {least} to {most}.")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise InputError(
            f"{where}: {key('hidden_size')} is {values['hidden_size']}; it must be a multiple of "
            f"{key('num_attention_heads')}, {values['num_attention_heads']}."
        )
    for name, supported in {"position_embedding_type": "absolute", "is_decoder": False}.items():
        if config.get(name, supported) != supported:
            raise InputError(f"{where}: {name} is {config[name]!r}; jaxcls has {supported!r} alone.")
    prefix = "roberta" if is_roberta else family

    def tensor(name: str) -> str:
        match = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            return f"{prefix}.embeddings.{name}"
        index, layer, leaf = match.groups()
        stack = "transformer" if is_distilbert else "encoder"
        return f"{prefix}.{stack}.layer.{index}.{_BLOCK[layer][is_distilbert]}.{leaf}"

    def canonical(name: str) -> str:
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            name = name.replace(old, new)
        is_of_encoder = name.startswith(("embeddings.", "encoder.", "transformer.", "pooler."))
        return f"{prefix}.{name}" if is_of_encoder else name

    def build(*, dtype: Any, rngs: nnx.Rngs, dropout: float | None = None) -> nnx.Module:
        rate = values["hidden_dropout_prob"] if dropout is None else dropout
        return Encoder(values, first_position, dropout=rate, dtype=dtype, rngs=rngs)

    return Architecture(
        inputs="texts",
        build=build,
        tensor=tensor,
        canonical=canonical,
        depth=lambda name: int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0,
        layers=values["num_hidden_layers"],
        head="classifier",
        other=rf"(cls|lm_head|vocab_\w+|pre_classifier|qa_outputs|{prefix}\.pooler)\..*|.*\.position_ids",
        padding=values["pad_token_id"],
        max_length=values["max_position_embeddings"] - first_position,
        width=values["hidden_size"],
    )


class Encoder(nnx.Module):
    """Maps token ids (N, width), padded at the end, to features (N, width, features).

    The only difference from the published networks is that attention weights are not dropped in training.

    Args:
      config: the values of a config.json.
      first_position: row of the position embeddings for the first token.
      dropout: rate after the embeddings and after each attention and feed-forward layer.
    """

    def __init__(self, config: Mapping[str, Any], first_position: int, *, dropout: float, dtype: Any, rngs: nnx.Rngs):
        self.features: int = config["hidden_size"]
        self.first_position, self.padding = first_position, config["pad_token_id"]
        embedding = functools.partial(nnx.Embed, features=self.features, dtype=dtype, rngs=rngs)
        self.word_embeddings = embedding(config["vocab_size"])
        self.position_embeddings = embedding(config["max_position_embeddings"])
        # Which of two texts a token is in: all are in the first one.
        types = config["type_vocab_size"]
        self.token_type_embeddings = embedding(types) if types else None
        self.LayerNorm = nnx.LayerNorm(self.features, epsilon=config["layer_norm_eps"], dtype=dtype, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        blocks = (_Block(config, dropout=dropout, dtype=dtype, rngs=rngs) for _ in range(config["num_hidden_layers"]))
        self.blocks = nnx.Sequential(*blocks)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        positions = self.position_embeddings.embedding[...]
        added = jax.lax.slice_in_dim(positions, self.first_position, self.first_position + tokens.shape[1])
        if self.token_type_embeddings is not None:
            added = added + self.token_type_embeddings.embedding[...][:1]
        words = self.word_embeddings(tokens)
        x = self.dropout(self.LayerNorm(kernels.add_bias(words, added.astype(words.dtype))))
        present = tokens != self.padding
        for block in self.blocks.layers:
            x = block(x, present)
        return x


class _Block(nnx.Module):
    def __init__(self, config: Mapping[str, Any], *, dropout: float, dtype: Any, rngs: nnx.Rngs):
        features, wide = config["hidden_size"], config["intermediate_size"]
        linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
        norm = functools.partial(nnx.LayerNorm, features, epsilon=config["layer_norm_eps"], dtype=dtype, rngs=rngs)
        self.query, self.key, self.value = (linear(features, features) for _ in range(3))
        self.attended, self.norm1 = linear(features, features), norm()
        self.widen, self.narrow, self.norm2 = linear(features, wide), linear(wide, features), norm()
        self.dropout = Dropout(dropout, rngs=rngs)
        self.heads, self.activation = config["num_attention_heads"], config["hidden_act"]

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        x = self.norm1(x + self.dropout(self.attended(self._attention(x, present))))
        widened = _ACTIVATIONS[self.activation](self.widen(x))
        return self.norm2(x + self.dropout(self.narrow(widened)))

    def _attention(self, x: jax.Array, present: jax.Array) -> jax.Array:
        # One product of joined kernels is faster than three.
        layers: Any = (self.query, self.key, self.value)
        kernel = jnp.concatenate([layer.kernel[...] for layer in layers], axis=1)
        bias = jnp.concatenate([layer.bias[...] for layer in layers])
        projections = jnp.split(kernels.linear(x, kernel, bias, dtype=self.query.dtype), 3, axis=-1)
        query, key, value = (projection.reshape(*x.shape[:2], self.heads, -1) for projection in projections)
        return kernels.attention(query, key, value, present).reshape(x.shape)
