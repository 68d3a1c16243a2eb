"""The functional seam: a model is a pair of pure functions, and any Flax NNX module becomes one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

PyTree = Any


class Model(NamedTuple):
    """A model as two pure functions, as an optimizer is in optax.

    Attributes:
      init: ``key -> (params, model_state)``, two trees of arrays; ``model_state`` holds what training
        changes without a gradient, such as the running statistics of batch normalisation.
      apply: ``(params, model_state, inputs, *, key=None) -> (outputs, model_state)``. A key means training:
        dropout draws from it and batch statistics are taken from the batch. ``key=None`` means evaluation, and
        the state comes back as it went in.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[jax.Array, PyTree]]


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Turns a builder of a Flax NNX module into a :class:`Model`; NNX stays in here.

    Args:
      build: makes the module from its random number streams. It is traced abstractly once, and run again for
        each ``init``; it must build the same layers each time.

    >>> import jax, jax.numpy as jnp
    >>> model = functional(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0))
    >>> params["kernel"].shape
    (4, 3)
    >>> model.apply(params, state, jnp.ones((2, 4)))[0].shape
    (2, 3)
    """
    module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    module.train()
    training, _, streams, _ = _parts(module)
    module.eval()
    evaluation, *_ = _parts(module)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        _, params, _, model_state = _parts(build(nnx.Rngs(key)))
        return params, model_state

    def apply(
        params: PyTree, model_state: PyTree, inputs: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, PyTree]:
        graph = evaluation if key is None else training
        # Evaluation draws nothing, but the graph has a place for the streams that must be filled.
        keys = _seeded(streams, jax.random.key(0) if key is None else key)
        module: Any = nnx.merge(graph, params, keys, model_state)
        outputs = module(inputs)
        if key is None:
            return outputs, model_state
        *_, model_state = _parts(module)
        return outputs, model_state

    return Model(init, apply)


def _parts(module: nnx.Module) -> tuple[Any, PyTree, PyTree, PyTree]:
    """The graph without its arrays, then the arrays as plain dicts: parameters, random streams, the rest."""
    graph, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
    params, streams, rest = (nnx.to_pure_dict(state) for state in states)
    return graph, params, streams, rest


def _seeded(streams: PyTree, key: jax.Array) -> PyTree:
    """The random state of every layer, all of it derived from one key: a key of its own, and a count of 0."""
    leaves, tree = jax.tree.flatten(streams)
    filled = [
        jax.random.fold_in(key, place) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for place, leaf in enumerate(leaves)
    ]  # fmt: skip
    return jax.tree.unflatten(tree, filled)
