"""Flax Linen modules as models."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxcls.models.model import Model

PyTree = Any

# Common names of the argument that selects training mode; the last one selects the opposite.
_TRAINING_ARGUMENTS = ("train", "training", "is_training", "deterministic")


def from_linen(module: linen.Module, example: PyTree) -> Model:
    """Turns a Linen module into a :class:`jaxcls.models.Model`.

    Its collections other than "params", such as "batch_stats", become the model state. Training mode is passed as the
    argument ``train``, ``training``, ``is_training`` or ``deterministic`` of the module's call, if it has one. Training
    supplies the random stream "dropout".

    Args:
      module: the module.
      example: a batch of inputs, or :class:`jax.ShapeDtypeStruct` instead, for the shapes that initialization needs.

    >>> model = from_linen(linen.Dense(3), jax.ShapeDtypeStruct((1, 4), "float32"))
    >>> params, state = model.init(jax.random.key(0))
    >>> params["kernel"].shape, state
    ((4, 3), {})
    """
    parameters = inspect.signature(type(module).__call__).parameters
    argument = next((name for name in _TRAINING_ARGUMENTS if name in parameters), None)

    def mode(training: bool) -> dict[str, Any]:
        return {} if argument is None else {argument: training != (argument == "deterministic")}

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        variables = dict(module.init(key, inputs, **mode(False)))
        return variables.pop("params", {}), variables

    def apply(
        params: PyTree, model_state: PyTree, inputs: PyTree, *, key: jax.Array | None = None
    ) -> tuple[PyTree, PyTree]:
        variables = {"params": params, **model_state}
        if key is None:
            return module.apply(variables, inputs, **mode(False)), model_state
        outputs, updated = module.apply(
            variables, inputs, rngs={"dropout": key}, mutable=list(model_state), **mode(True)
        )
        return outputs, {**model_state, **updated}

    return Model(init, apply)
