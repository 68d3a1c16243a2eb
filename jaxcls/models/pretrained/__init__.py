"""Pretrained encoders: networks from their papers, with the weights of published checkpoints, and a new classifier."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.layers import Dropout, head
from jaxcls.models.model import Model, functional
from jaxcls.models.pretrained import architecture as architectures
from jaxcls.models.pretrained import checkpoint as checkpoints
from jaxcls.models.pretrained import lora, weights
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
        self.head = head(backbone.features, num_classes, rngs=rngs)

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


class PretrainedModel(Model):
    """A classifier whose ``init`` returns the weights of a checkpoint; also has what fine-tuning and export need.

    Attributes:
      architecture: that of the checkpoint.
      settings: what of it learns.
      features: ``(params, model_state, inputs) -> (N, features)``, what the classifier takes.
      is_frozen: the path of a parameter or a statistic -> whether it does not change in training.
      record: of the checkpoint, see :attr:`jaxcls.models.pretrained.checkpoint.Checkpoint.record`.
    """

    architecture: Architecture
    settings: "FineTuning"
    features: Callable[..., jax.Array]
    is_frozen: Callable[[Sequence[Any]], bool]
    record: Mapping[str, Any]

    def tensors(self, params: PyTree, model_state: PyTree) -> dict[str, np.ndarray]:
        """Returns all weights under their names in the checkpoint, with the changes of LoRA added."""
        return weights.to_tensors(self.architecture, self.settings.merged(params, model_state))

    def adapter(self, params: PyTree) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns what LoRA learned, and the classifier, in the layout of the library PEFT: tensors, and its config."""
        assert self.settings.lora_rank is not None
        tensors = {
            f"base_model.model.{name}": value
            for name, value in weights.to_tensors(self.architecture, (params["model"],)).items()
        }
        targets = set()
        for name, matrices in params["lora"].items():
            path = [jax.tree_util.DictKey(key) for key in name.split("/")[1:]]
            layer = self.architecture.tensor(weights.dotted(path)).removesuffix(".weight")
            targets.add(layer.rpartition(".")[2])
            for letter, matrix in matrices.items():
                tensor = np.ascontiguousarray(np.asarray(matrix).T)
                tensors[f"base_model.model.{layer}.lora_{letter.upper()}.weight"] = tensor
        config = {
            "peft_type": "LORA",
            "r": self.settings.lora_rank,
            "lora_alpha": self.settings.alpha,
            "target_modules": sorted(targets),
            "modules_to_save": [self.architecture.head],
        }
        return tensors, config

    def learning_rate_scale(self, decay: float = 1.0, head_first: int = 0) -> Callable[[PyTree], PyTree]:
        """Returns what :func:`jaxcls.optimizers.get` takes as ``learning_rate_scale``.

        Args:
          decay: factor of the learning rate from each block to the one before it; the classifier has the full rate.
          head_first: number of updates in which the classifier alone learns.
        """
        return learning_rate_scale(self.architecture, decay, head_first)


def learning_rate_scale(architecture: Architecture, decay: float, head_first: int) -> Callable[[PyTree], PyTree]:
    """See :meth:`PretrainedModel.learning_rate_scale`."""

    def factor(path: Any, leaf: Any) -> Any:
        module, _, name = weights.dotted(path).partition(".")
        if module != "backbone":
            return 1.0
        scale = decay ** (architecture.layers + 1 - architecture.depth(name))
        return lambda count: jnp.where(count < head_first, 0.0, scale)

    return lambda params: jax.tree.map_with_path(factor, params)


def load(
    path: str | Path,
    num_classes: int | None = None,
    *,
    revision: str | None = None,
    pooling: Pooling = "mean",
    dropout: float = 0.1,
    freeze: str | int = "nothing",
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_targets: Collection[str] = lora.TARGETS,
    dtype: Any = jnp.float32,
    remat: bool = False,
) -> PretrainedModel:
    """Loads a pretrained encoder with a new classifier, as :func:`jaxcls.compile` takes it.

    Args:
      path: a folder in Hugging Face's layout, or a name on the hub; see
        :func:`jaxcls.models.pretrained.checkpoint.find`.
      num_classes: number of logits: 1 for a binary problem. None keeps the classifier of the checkpoint.
      revision: of a name on the hub.
      pooling: of the tokens of texts: 'mean', 'cls' (the first token) or 'max'.
      dropout: rate before the classifier.
      freeze: which weights do not learn: 'nothing', 'embeddings' (and the stem of a convolutional network),
        'backbone' (all but the classifier), or the embeddings and this number of blocks.
      lora_rank: freeze the backbone, and learn matrices of this rank; see :mod:`jaxcls.models.pretrained.lora`.
      lora_alpha: their scale; twice the rank by default.
      lora_targets: the names of the adapted layers.
      dtype: type of the computation; parameters are float32.
      remat: recompute the activations of each block for the gradient: less memory, more time.

    Raises:
      InputError: the checkpoint is missing or damaged, or its architecture is not supported.
    """
    checkpoint = checkpoints.find(path, revision)
    architecture = architectures.find(checkpoint.config, checkpoint.name)
    tensors = checkpoint.tensors()
    with_head = num_classes is None
    if num_classes is None:
        kernel = tensors.get(f"{architecture.head}.weight")
        # The classifiers of text encoders in transformers have a layer before the last one, which ours have not.
        before = re.compile(r"(.*\.)?(pooler|classifier\.dense|pre_classifier)\..*")
        if kernel is None or any(map(before.fullmatch, tensors)):
            raise InputError(f"{path} has no linear classifier {architecture.head}; give num_classes for a new one.")
        num_classes = len(kernel)
    settings = FineTuning(pooling, freeze, lora_rank, lora_alpha, tuple(lora_targets))
    model = build(
        architecture, num_classes, settings, record=checkpoint.record, dropout=dropout, dtype=dtype, remat=remat
    )
    return with_weights(model, tensors, checkpoint.name, with_head=with_head)


class FineTuning(NamedTuple):
    """How an encoder is used and what of it learns; see :func:`load`."""

    pooling: Pooling = "mean"
    freeze: str | int = "nothing"
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_targets: Sequence[str] = lora.TARGETS

    @property
    def alpha(self) -> float:
        """The scale of LoRA: twice the rank by default."""
        return self.lora_alpha or 2.0 * (self.lora_rank or 1)

    def merged(self, params: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]:
        """Returns the weights of a classifier without LoRA, to which its changes are added."""
        if self.lora_rank is None:
            return params, model_state
        return lora.merge(params, model_state, rank=self.lora_rank, alpha=self.alpha)


def build(
    architecture: Architecture, num_classes: int, settings: FineTuning, *, record: Mapping[str, Any], dropout: float,
    dtype: Any, remat: bool = False,
) -> PretrainedModel:  # fmt: skip
    """Builds the model of an architecture, with random weights; see :func:`load` for the arguments.

    Args:
      record: of the checkpoint.

    Raises:
      InputError: ``freeze`` is none of those, or no layer has a name of ``lora_targets``.
    """
    rank = settings.lora_rank
    depth = _frozen_depth(architecture, "backbone" if rank else settings.freeze)

    def is_frozen(path: Sequence[Any]) -> bool:
        module, _, name = weights.dotted([jax.tree_util.DictKey(key) for key in path]).partition(".")
        return module == "backbone" and architecture.depth(name) <= depth

    def functions(classifier: type[Classifier]) -> Model:
        return functional(
            lambda rngs: classifier(
                architecture, num_classes, pooling=settings.pooling, dropout=dropout, dtype=dtype, rngs=rngs
            ),
            remat=remat,
            frozen=is_frozen,
        )

    model, encoder = functions(Classifier), functions(_Encoder)

    if rank is not None:
        model = lora.adapt(model, rank=rank, alpha=settings.alpha, targets=settings.lora_targets)
    made = PretrainedModel(*model)
    made.architecture, made.settings, made.record, made.is_frozen = architecture, settings, record, is_frozen
    made.features = lambda params, model_state, inputs: encoder.apply(*settings.merged(params, model_state), inputs)[0]
    return made


class _Encoder(Classifier):
    """A classifier without its last layer."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.features(inputs)


def _frozen_depth(architecture: Architecture, freeze: str | int) -> int:
    """Returns the depth up to which layers are frozen; -1 for none."""
    names = {"nothing": -1, "embeddings": 0, "backbone": architecture.layers}
    if freeze in names:
        return names[str(freeze)]
    if not str(freeze).isdigit() or int(freeze) > architecture.layers:
        raise InputError(
            f"freeze is {freeze!r}; it must be {', '.join(names)}, or a number of blocks up to {architecture.layers}."
        )
    return int(freeze)


def with_weights(
    model: PretrainedModel, tensors: Mapping[str, np.ndarray], where: str, *, with_head: bool = False
) -> PretrainedModel:
    """Returns the model whose ``init`` returns the weights of a checkpoint, as NumPy arrays, and draws only the rest.

    Args:
      tensors: of the checkpoint, by name.
      where: its name, for messages.
      with_head: take the classifier of the checkpoint, too.

    Raises:
      InputError: the tensors do not fit the model; see :func:`jaxcls.models.pretrained.weights.from_tensors`.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    constants = weights.from_tensors(model.architecture, shapes, tensors, where, with_head=with_head)

    @jax.jit
    def draw(key: jax.Array) -> list[jax.Array | None]:
        drawn = jax.tree.leaves(model.init(key))
        return [leaf if constant is None else None for leaf, constant in zip(drawn, constants, strict=True)]

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        leaves = [new if old is None else old for old, new in zip(constants, draw(key), strict=True)]
        both: tuple[PyTree, PyTree] = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return both

    with_constants = PretrainedModel(init, model.apply)
    vars(with_constants).update(vars(model))
    return with_constants
