"""Low-rank adaptation: frozen kernels plus the products of two thin matrices, which alone learn.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError
from jaxcls.models.model import Model

PyTree = Any
# The names of the dense layers of queries and values, in transformers and in timm.
TARGETS = ("query", "value", "q_lin", "v_lin", "qkv")


def adapt(model: Model, *, rank: int, alpha: float, targets: Collection[str] = TARGETS) -> Model:
    """Returns a model that learns ``kernel + alpha / rank * a @ b`` for dense layers that the model holds frozen.

    Args:
      model: its targets are in the model state, see ``frozen`` of :func:`jaxcls.models.functional`.
      rank: the columns of ``a`` (inputs, rank) and the rows of ``b`` (rank, outputs). ``b`` starts with zeros, so the
        first outputs are those of the model.
      alpha: the scale of the product.
      targets: the names of the layers.

    Raises:
      InputError: the model has no such layer.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))[1]
    kernels = {name: leaf.shape for name, leaf in _named(shapes) if leaf.ndim == 2 and _layer(name) in targets}
    if not kernels:
        layers = {_layer(name) for name, leaf in _named(shapes) if name.endswith("/kernel") and leaf.ndim == 2}
        raise InputError(f"there is no layer {' or '.join(targets)} to adapt; this network has {sorted(layers)}.")

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        params, model_state = model.init(jax.random.fold_in(key, 0))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(kernels))
        matrices = {
            name: {"a": jax.nn.initializers.he_uniform()(one, (inputs, rank)), "b": jnp.zeros((rank, outputs))}
            for one, (name, (inputs, outputs)) in zip(keys, kernels.items(), strict=True)
        }
        return {"model": params, "lora": matrices}, model_state

    def apply(
        params: PyTree, model_state: PyTree, inputs: PyTree, *, key: jax.Array | None = None
    ) -> tuple[PyTree, PyTree]:
        outputs, updated = model.apply(*merge(params, model_state, rank=rank, alpha=alpha), inputs, key=key)
        frozen = dict(_named(model_state))
        return outputs, _replaced(updated, lambda name, leaf: frozen[name] if name in kernels else leaf)

    return Model(init, apply)


def merge(params: Mapping[str, PyTree], model_state: PyTree, *, rank: int, alpha: float) -> tuple[PyTree, PyTree]:
    """Returns parameters and state of the model that was adapted, with the products added to its kernels."""

    def merged(name: str, leaf: Any) -> Any:
        if name not in params["lora"]:
            return leaf
        matrices = params["lora"][name]
        return leaf + (alpha / rank) * (matrices["a"] @ matrices["b"])

    return params["model"], _replaced(model_state, merged)


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _replaced(tree: PyTree, replace: Callable[[str, Any], Any]) -> PyTree:
    return jax.tree.map_with_path(
        lambda path, leaf: replace(jax.tree_util.keystr(path, simple=True, separator="/"), leaf), tree
    )


def _layer(name: str) -> str:
    """Returns the name of the layer of a kernel, such as 'query' of 'backbone/encoder/query/kernel'.

    >>> _layer("backbone/encoder/query/kernel"), _layer("scale")
    ('query', '')
    """
    return name.split("/")[-2] if name.endswith("/kernel") else ""
