"""A Flax Linen module as a pair of pure functions."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxcls.models.functional import Model

PyTree = Any

# What modules call the argument that says whether they train; the last one says the opposite.
_FLAGS = ("train", "training", "is_training", "deterministic")


def from_linen(module: linen.Module, example: PyTree) -> Model:
    """Turns a Linen module into a :class:`jaxcls.models.functional.Model`.

    Its collections other than 'params', such as 'batch_stats', are the model's state. It is told whether it trains
    through the argument ``train``, ``training``, ``is_training`` or ``deterministic`` of its call, if it has one.
    The stream 'dropout' is drawn from in training.

    Args:
      example: a batch of inputs, or :class:`jax.ShapeDtypeStruct` in its place: Linen needs shapes to begin.

    >>> model = from_linen(linen.Dense(3), jax.ShapeDtypeStruct((1, 4), "float32"))
    >>> params, state = model.init(jax.random.key(0))
    >>> params["kernel"].shape, state
    ((4, 3), {})
    """
    flag = next((name for name in _FLAGS if name in inspect.signature(type(module).__call__).parameters), None)

    def told(training: bool) -> dict[str, Any]:
        return {} if flag is None else {flag: training != (flag == "deterministic")}

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        variables = dict(module.init(key, inputs, **told(False)))
        return variables.pop("params", {}), variables

    def apply(
        params: PyTree, model_state: PyTree, inputs: PyTree, *, key: jax.Array | None = None
    ) -> tuple[PyTree, PyTree]:
        variables = {"params": params, **model_state}
        if key is None:
            return module.apply(variables, inputs, **told(False)), model_state
        outputs, changed = module.apply(
            variables, inputs, rngs={"dropout": key}, mutable=list(model_state), **told(True)
        )
        return outputs, {**model_state, **changed}

    return Model(init, apply)
