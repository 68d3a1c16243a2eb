"""The functional interface: a model is a pair of pure functions, made from any module of Flax."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx

from jaxcls._utils.errors import InputError

PyTree = Any
Path = tuple[Any, ...]

# Common names of the argument that selects training mode; the last one selects the opposite.
_TRAINING_ARGUMENTS = ("train", "training", "is_training", "deterministic")


class Model(NamedTuple):
    """A model as two pure functions, like an optimizer in optax.

    Attributes:
      init: ``key -> (params, model_state)``, two trees of arrays. ``model_state`` holds values that training
        updates without gradients, such as the running statistics of batch normalization. NumPy arrays among them come
        from data, not from the key: pretrained weights, or the bins of tables.
      apply: ``(params, model_state, inputs, *, key=None) -> (outputs, model_state)``. With a key, training mode:
        dropout uses the key, and batch normalization the statistics of the batch. Without a key, evaluation mode: the
        state is returned unchanged.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[jax.Array, PyTree]]


def functional(
    build: Callable[[nnx.Rngs], nnx.Module], *, remat: bool = False, frozen: Callable[[Path], bool] = lambda path: False
) -> Model:
    """Turns a function that builds a Flax NNX module into a :class:`Model`.

    Args:
      build: builds the module from its random number generators. It is traced once, and called for each ``init``; it
        must build the same layers each time.
      remat: save only the inputs of each block for the gradient and recompute its activations: less memory, more time.
        A block is an element of an ``nnx.Sequential`` that contains modules itself.
      frozen: the path of a parameter, such as ("encoder", "dense", "kernel") -> whether it does not learn; it is then
        part of the model state. In training mode, a layer whose parameters are all frozen computes as in evaluation
        mode: without dropout, and with its running statistics.

    Raises:
      InputError: ``remat`` is set, but the module has no blocks.

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
    nodes = [*nnx.iter_graph(module)]
    leaves = [path for path, node in nodes if isinstance(node, nnx.Param)]
    for path, node in nodes:
        inside = [leaf for leaf in leaves if leaf[: len(path)] == path]
        if isinstance(node, nnx.Module) and inside and all(map(frozen, inside)):
            node.eval()
    training, _, rng_state, _ = _split(module, frozen)
    module.eval()
    evaluation, *_ = _split(module, frozen)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        _, params, _, model_state = _split(build(nnx.Rngs(key)), frozen)
        return params, model_state

    def apply(
        params: PyTree, model_state: PyTree, inputs: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, PyTree]:
        graph = evaluation if key is None else training
        # Evaluation uses no random numbers, but merging needs the full state.
        seeded = _seeded(rng_state, jax.random.key(0) if key is None else key)
        # NNX would change NumPy arrays, such as those of a checkpoint, in place.
        module: Any = nnx.merge(graph, params, seeded, jax.tree.map(jnp.asarray, model_state))
        outputs = module(inputs)
        if key is None:
            return outputs, model_state
        *_, model_state = _split(module, frozen)
        return outputs, model_state

    return Model(init, apply)


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


def _split(
    module: nnx.Module, frozen: Callable[[Path], bool] = lambda path: False
) -> tuple[Any, PyTree, PyTree, PyTree]:
    """Splits a module into its graph definition, and parameters, random state and other state as plain dicts."""
    trained = nnx.All(nnx.Param, lambda path, value: not frozen(path))
    graph, *states = nnx.split(module, trained, nnx.RngState, ...)
    params, rng_state, model_state = (nnx.to_pure_dict(state) for state in states)
    return graph, params, rng_state, model_state


def _seeded(rng_state: PyTree, key: jax.Array) -> PyTree:
    """Returns the random state with a separate key for each layer, derived from ``key``, and all counts at 0."""
    leaves, tree = jax.tree.flatten(rng_state)
    filled = [
        jax.random.fold_in(key, index) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for index, leaf in enumerate(leaves)
    ]  # fmt: skip
    return jax.tree.unflatten(tree, filled)


def _recompute_blocks(module: nnx.Module) -> None:
    """Changes the class of each block to one that recomputes its activations for the gradient."""
    sequences = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Sequential)]
    blocks: list[Any] = [layer for sequence in sequences for layer in sequence.layers if _contains_modules(layer)]
    if not blocks:
        raise InputError(
            f"remat recomputes the blocks of a network, and {type(module).__name__} has none; leave it out."
        )
    for block in blocks:
        block.__class__ = _recomputing_class(block.__class__)


def _contains_modules(layer: Any) -> bool:
    return isinstance(layer, nnx.Module) and any(isinstance(value, nnx.Module) for value in vars(layer).values())


# Cached, since equal modules must have equal graphs.
@functools.cache
def _recomputing_class(cls: type[Any]) -> type[Any]:
    def call(self: Any, *inputs: jax.Array) -> jax.Array:
        graph, *states = _split(self)

        def pure(states: PyTree, *inputs: jax.Array) -> tuple[jax.Array, PyTree]:
            # JAX passes constants as NumPy arrays, which a module that counts its calls would change in place.
            states = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.array(leaf), states)
            module: Any = nnx.merge(graph, *states)
            outputs = cls.__call__(module, *inputs)
            _, _, *updated = _split(module)
            return outputs, updated

        outputs, updated = _rematerialize(pure)(states, *inputs)
        nnx.update(self, *updated)
        return outputs

    return type(cls.__name__, (cls,), {"__call__": call})


def _rematerialize(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Like :func:`jax.checkpoint`, but saves memory on a CPU too.

    XLA's CPU backend removes the barriers of ``jax.checkpoint`` before it schedules, and then recomputes everything at
    once. Here the saved arguments depend on the cotangent, so nothing can be recomputed before it is known.
    """

    @jax.custom_vjp
    def rematerialized(*arguments: PyTree) -> PyTree:
        return function(*arguments)

    def forward(*arguments: PyTree) -> tuple[PyTree, PyTree]:
        return function(*arguments), arguments

    def backward(arguments: PyTree, cotangents: PyTree) -> PyTree:
        first = next(leaf for leaf in jax.tree.leaves(cotangents) if jnp.issubdtype(leaf.dtype, jnp.inexact))
        # True unless the gradient is NaN already, but the compiler cannot know that.
        is_known = ~jnp.isnan(first.ravel()[0])

        def depend(leaf: jax.Array) -> jax.Array:
            return jnp.where(is_known, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.vjp(function, *jax.tree.map(depend, arguments))[1](cotangents)

    rematerialized.defvjp(forward, backward)
    return rematerialized
