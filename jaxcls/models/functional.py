"""The functional seam: a model is a pair of pure functions, and any Flax NNX module becomes one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls._utils.errors import InputError

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


def functional(build: Callable[[nnx.Rngs], nnx.Module], *, remat: bool = False) -> Model:
    """Turns a builder of a Flax NNX module into a :class:`Model`; NNX stays in here.

    Args:
      build: makes the module from its random number streams. It is traced abstractly once, and run again for
        each ``init``; it must build the same layers each time.
      remat: keeps of each block its inputs alone, and computes what is in it again for the gradient: less memory,
        more time. A block is a module made of modules that stands in an ``nnx.Sequential``.

    Raises:
      InputError: ``remat``, and there is no block.

    >>> import jax, jax.numpy as jnp
    >>> model = functional(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0))
    >>> params["kernel"].shape
    (4, 3)
    >>> model.apply(params, state, jnp.ones((2, 4)))[0].shape
    (2, 3)
    """
    module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    if remat:
        _recompute_blocks(module)
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


def _recompute_blocks(module: nnx.Module) -> None:
    """Gives each block a class whose call keeps its inputs alone for the gradient; all else about it is the same."""
    sequences = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Sequential)]
    blocks: list[Any] = [layer for sequence in sequences for layer in sequence.layers if _is_made_of_modules(layer)]
    if not blocks:
        raise InputError(
            f"remat computes the blocks of a network again, and {type(module).__name__} has none; leave it out."
        )
    for block in blocks:
        block.__class__ = _recomputing(block.__class__)


def _is_made_of_modules(layer: Any) -> bool:
    return isinstance(layer, nnx.Module) and any(isinstance(value, nnx.Module) for value in vars(layer).values())


# One class for each, so that equal modules have equal graphs.
@functools.cache
def _recomputing(kind: type[Any]) -> type[Any]:
    def call(self: Any, *inputs: jax.Array) -> jax.Array:
        graph, *before = _parts(self)

        def pure(before: PyTree, *inputs: jax.Array) -> tuple[jax.Array, PyTree]:
            # JAX hands constants over as NumPy arrays of its own; a module that counts would change them in place.
            own = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.array(leaf), before)
            module: Any = nnx.merge(graph, *own)
            outputs = kind.__call__(module, *inputs)
            _, _, *changed = _parts(module)
            return outputs, changed

        outputs, changed = _recomputed(pure)(before, *inputs)
        nnx.update(self, *changed)
        return outputs

    return type(kind.__name__, (kind,), {"__call__": call})


def _recomputed(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function, which keeps its arguments for its gradient and nothing that it computes on the way.

    As :func:`jax.checkpoint`, whose barriers XLA's CPU backend removes before it chooses an order: there, all is
    computed again at once and nothing is saved. Here the arguments depend on what the gradient begins with.
    """

    @jax.custom_vjp
    def recomputed(*arguments: PyTree) -> PyTree:
        return function(*arguments)

    def forward(*arguments: PyTree) -> tuple[PyTree, PyTree]:
        return function(*arguments), arguments

    def backward(arguments: PyTree, cotangents: PyTree) -> PyTree:
        first = next(leaf for leaf in jax.tree.leaves(cotangents) if jnp.issubdtype(leaf.dtype, jnp.inexact))
        # Always so unless the gradient is lost already, which no compiler can know.
        begun = ~jnp.isnan(first.ravel()[0])

        def after(leaf: jax.Array) -> jax.Array:
            return jnp.where(begun, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.vjp(function, *jax.tree.map(after, arguments))[1](cotangents)

    recomputed.defvjp(forward, backward)
    return recomputed
