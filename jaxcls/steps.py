"""The training state and the pure functions of it: the step, many steps in one dispatch, and prediction."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls.data.pipeline import Batch, Examples, batch_rows, in_order, take
from jaxcls.models.functional import Model

PyTree = Any
Loss = Callable[..., jax.Array]
TrainStep = Callable[["TrainState", Batch], tuple["TrainState", "StepMetrics"]]


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      step: int32, batches seen.
      key: the run's random key. It never changes: everything random derives from it and the step.
      params: what the gradient moves.
      model_state: what the model changes itself, such as running statistics.
      opt_state: the optimizer's.
    """

    step: jax.Array
    key: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree


class StepMetrics(NamedTuple):
    """What one step reports.

    Attributes:
      loss: of the batch.
      gradient_norm: over all parameters together.
      applied: whether the update was finite, and so was applied.
      examples: how many of the batch's count.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    applied: jax.Array
    examples: jax.Array


def init_state(model: Model, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step; everything in it follows from the seed.

    >>> from flax import nnx
    >>> from jaxcls.models.functional import functional
    >>> model = functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> int(init_state(model, optax.adam(1e-3), seed=0).step)
    0
    """
    initial, training = jax.random.split(jax.random.key(seed))
    params, model_state = model.init(initial)
    return TrainState(jnp.zeros((), jnp.int32), training, params, model_state, optimizer.init(params))


def make_train_step(
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    prepare: Callable[[PyTree], PyTree] = lambda inputs: inputs,
    augment: Callable[[jax.Array, PyTree], PyTree] = lambda key, inputs: inputs,
) -> TrainStep:
    """The pure step ``(state, batch) -> (state, metrics)``.

    Args:
      loss: ``(outputs, labels, *, sample_weight, mask) -> scalar``.
      prepare: the compact form of the data to what the model takes, such as uint8 to normalised float.
      augment: ``(key, inputs) -> inputs``, before ``prepare``.

    A batch whose loss, gradient, update or model state is not finite moves nothing but the step's number. A
    batch that is masked whole changes nothing at all.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        _check_batch(batch)
        step_key, _ = _streams(state.key)
        augment_key, model_key = jax.random.split(jax.random.fold_in(step_key, state.step))
        inputs = prepare(augment(augment_key, batch.inputs))

        def objective(params: PyTree) -> tuple[jax.Array, PyTree]:
            outputs, model_state = model.apply(params, state.model_state, inputs, key=model_key)
            return loss(outputs, batch.labels, sample_weight=batch.weights, mask=batch.mask), model_state

        (value, model_state), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        chex.assert_rank(value, 0)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        count = batch.mask.sum()
        norm = optax.tree.norm(gradient)
        apply = (count > 0) & jnp.isfinite(value) & jnp.isfinite(norm) & _is_finite((updates, model_state))
        old = (state.params, state.model_state, state.opt_state)
        kept = jax.tree.map(lambda new, old: jnp.where(apply, new, old), (params, model_state, opt_state), old)
        return TrainState(state.step + (count > 0), state.key, *kept), StepMetrics(value, norm, apply, count)

    return train_step


def epoch_order(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """The random order of ``count`` examples in an epoch, from the run's key and the epoch's number alone.

    >>> sorted(epoch_order(jax.random.key(0), 1, 3).tolist())
    [0, 1, 2]
    """
    _, order_key = _streams(key)
    return jax.random.permutation(jax.random.fold_in(order_key, epoch), count)


def make_train_chunk(
    train_step: TrainStep, *, batch_size: int, length: int, sharding: jax.sharding.Sharding | None = None
) -> Callable[[TrainState, Examples, jax.Array, jax.Array], tuple[TrainState, StepMetrics]]:
    """Compiles ``(state, data, order, first) -> (state, metrics)``: ``length`` steps in one dispatch.

    The state is donated. ``data`` lives on the device, ``order`` is that of the epoch, and ``first`` the number
    of the first batch in it; one compiled program serves them all. The metrics are stacked, (length,).

    The steps always run under ``lax.scan``: any two lengths then agree bit for bit, which a step that is
    compiled alone does not with one that is not.

    Args:
      sharding: how a batch, (batch_size, ...), lies on several devices.
    """

    def train_chunk(
        state: TrainState, data: Examples, order: jax.Array, first: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        def body(state: TrainState, rows_and_mask: Any) -> tuple[TrainState, StepMetrics]:
            batch = take(data, *rows_and_mask)
            if sharding is not None:
                batch = jax.lax.with_sharding_constraint(batch, sharding)
            return train_step(state, batch)

        return jax.lax.scan(body, state, batch_rows(order, first, batch_size=batch_size, length=length))

    return jax.jit(train_chunk, donate_argnums=0)


def make_evaluation_step(
    model: Model,
    loss: Loss,
    *,
    problem: str,
    prepare: Callable[[PyTree], PyTree] = lambda inputs: inputs,
    views: Sequence[Callable[[PyTree], PyTree]] = (),
) -> Callable[[PyTree, PyTree, Batch], tuple[jax.Array, jax.Array]]:
    """Compiles ``(params, model_state, batch) -> (scores, losses)``, one row for each example.

    The scores are probabilities: the sigmoid of the outputs of a binary or multi-label problem, the softmax of
    those of a multiclass one; with views, their mean over the example and its views. The losses are those of
    the example itself.

    Args:
      loss: ``(outputs, labels, *, normalizer) -> (N,)``.
      views: other looks at the inputs, such as their mirror image.
    """
    probabilities = jax.nn.softmax if problem == "multiclass" else jax.nn.sigmoid

    def evaluation_step(params: PyTree, model_state: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
        _check_batch(batch)
        outputs, _ = model.apply(params, model_state, prepare(batch.inputs))
        scores = probabilities(outputs)
        for view in views:
            scores += probabilities(model.apply(params, model_state, prepare(view(batch.inputs)))[0])
        losses = loss(outputs, batch.labels, normalizer="none")
        chex.assert_shape(losses, batch.mask.shape)
        return scores / (1 + len(views)), losses

    return jax.jit(evaluation_step)


def collect(
    evaluation_step: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, jax.Array]],
    params: PyTree,
    model_state: PyTree,
    data: Examples,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The scores and losses of all examples, in their order, on the host.

    Batches have one size, so that one compiled program serves sets of every size.
    """
    parts = [
        evaluation_step(params, model_state, jax.device_put(batch, sharding)) for batch in in_order(data, batch_size)
    ]
    scores, losses = (np.concatenate([np.asarray(part) for part in column]) for column in zip(*parts, strict=True))
    return scores[: len(data)], losses[: len(data)]


def _is_finite(tree: PyTree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _check_batch(batch: Batch) -> None:
    """Costs nothing when the compiled step runs: shapes and types are checked while it is traced."""
    chex.assert_rank([batch.mask, batch.weights], 1)
    chex.assert_type([batch.mask, batch.weights], [bool, float])
    chex.assert_equal_shape_prefix([*jax.tree.leaves(batch.inputs), batch.labels, batch.mask, batch.weights], 1)


def _streams(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent keys: one for what a step draws, one for the order of an epoch."""
    step_key, order_key = jax.random.split(key)
    return step_key, order_key
