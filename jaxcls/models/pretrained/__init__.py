"""Pretrained encoders: networks from their papers, with the weights of published checkpoints, and a new classifier."""

import functools
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.layers import Dropout, Linear
from jaxcls.models.model import Model, functional
from jaxcls.models.pretrained import architecture as architectures
from jaxcls.models.pretrained import checkpoint as checkpoints
from jaxcls.models.pretrained import weights
from jaxcls.models.pretrained.architecture import Architecture

PyTree = Any
Pooling = Literal["mean", "cls", "max"]


class Classifier(nnx.Module):
    """A pretrained encoder, pooling over the tokens of texts, dropout and a linear classifier.

    Maps token ids, int32 (N, width), or images, float (N, height, width, 3), to float32 logits (N, num_classes). It
    also takes the pooled features of examples, float (N, features), in their place, which a frozen encoder needs to
    compute only once.

    Args:
      pooling: of the features of tokens: their mean or maximum without padding, or those of the first token.
      dropout: rate before the classifier.
    """

    def __init__(
        self, architecture: Architecture, num_classes: int, *, pooling: Pooling = "mean", dropout: float = 0.1,
        dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        backbone: Any = architecture.build(dtype=dtype, rngs=rngs)
        self.backbone = backbone
        self.padding = architecture.padding if architecture.inputs == "texts" else None
        self.pooling = pooling
        self.dropout = Dropout(dropout, rngs=rngs)
        self.head = Linear(backbone.features, num_classes, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.head(self.dropout(self.features(inputs)))

    def features(self, inputs: jax.Array) -> jax.Array:
        """Returns the pooled features, float32 (N, features)."""
        if inputs.ndim == 2 and jnp.issubdtype(inputs.dtype, jnp.floating):
            return inputs.astype(jnp.float32)
        outputs = self.backbone(inputs).astype(jnp.float32)
        if self.padding is None:
            return outputs
        if self.pooling == "cls":
            return outputs[:, 0]
        present = (inputs != self.padding)[..., None]
        if self.pooling == "max":
            return jnp.where(present, outputs, -jnp.inf).max(axis=1, initial=jnp.finfo(jnp.float32).min)
        return (outputs * present).sum(axis=1) / jnp.maximum(present.sum(axis=1), 1)


def load(
    path: str | Path,
    num_classes: int | None = None,
    *,
    revision: str | None = None,
    pooling: Pooling = "mean",
    dropout: float = 0.1,
    dtype: Any = jnp.float32,
    remat: bool = False,
) -> Model:
    """Loads a pretrained encoder with a new classifier, as :func:`jaxcls.compile` takes it.

    Args:
      path: a folder in Hugging Face's layout, or a name on the hub; see
        :func:`jaxcls.models.pretrained.checkpoint.find`.
      num_classes: number of logits: 1 for a binary problem. None keeps the classifier of the checkpoint.
      revision: of a name on the hub.
      pooling: of the tokens of texts: 'mean', 'cls' (the first token) or 'max'.
      dropout: rate before the classifier.
      dtype: type of the computation; parameters are float32.
      remat: recompute the activations of each block for the gradient: less memory, more time.

    Raises:
      InputError: the checkpoint is missing or damaged, or its architecture is not supported.
    """
    found = checkpoints.find(path, revision)
    architecture = architectures.find(found.config, found.name)
    tensors = found.tensors()
    with_head = num_classes is None
    if num_classes is None:
        kernel = tensors.get(f"{architecture.head}.weight")
        if kernel is None:
            raise InputError(f"{path} has no classifier {architecture.head}; give num_classes for a new one.")
        num_classes = len(kernel)
    build = functools.partial(Classifier, architecture, num_classes, pooling=pooling, dropout=dropout, dtype=dtype)
    return with_weights(build, architecture, tensors, found.name, with_head=with_head, remat=remat)


def with_weights(
    build: Any, architecture: Architecture, tensors: Any, where: str, *, with_head: bool = False, remat: bool = False
) -> Model:
    """Returns the model whose ``init`` returns the checkpoint's weights, as NumPy arrays, and draws only new leaves."""
    model = functional(lambda rngs: build(rngs=rngs), remat=remat)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    taken = weights.from_tensors(architecture, shapes, tensors, where, with_head=with_head)
    is_new = jax.tree.map(lambda leaf: leaf is None, taken, is_leaf=lambda leaf: leaf is None)

    @jax.jit
    def drawn(key: jax.Array) -> PyTree:
        return jax.tree.map(lambda leaf, new: leaf if new else None, model.init(key), is_new)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        both: Any = jax.tree.map(
            lambda old, new: new if old is None else old, taken, drawn(key), is_leaf=lambda leaf: leaf is None
        )
        return both

    return Model(init, model.apply)
