"""Averages of the weights: the moving one is kept here, schedule-free's by Optax; both are read here."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The weights to evaluate with: the moving average if kept, schedule-free's average, else `params`.

    The moving average is the debiased one: after step t it is the mean of the parameters after steps 1 to t,
    with weights that fall by `ema_decay` a step back; before the first step it is the parameters themselves.
    Shapes and dtypes are those of `params`. Pure, and works under `jit`.

    >>> from jaxcls.optimizers import sgd
    >>> transform = sgd(1.0, ema_decay=0.5)
    >>> params = jnp.zeros(1)
    >>> state = transform.init(params)
    >>> for _ in range(2):
    ...     updates, state = transform.update(jnp.ones(1), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> print(params, evaluation_params(state, params))  # (1/2 * -1 + 1 * -2) / (1/2 + 1)
    [-2.] [-1.66666...]
    """
    averages = EmaState | optax.contrib.ScheduleFreeState
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, averages)):
        if isinstance(node, EmaState):
            return optax.tree.cast_like(node.ema, params)
        if isinstance(node, optax.contrib.ScheduleFreeState):
            return optax.tree.cast_like(optax.contrib.schedule_free_eval_params(node, params), params)
    return params


class EmaState(NamedTuple):
    """The average of the parameters after `step` updates, and the state of the wrapped transformation."""

    step: jax.Array
    ema: PyTree
    inner_state: PyTree


def with_ema(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The same updates, with a debiased moving average of the parameters that they lead to."""

    def init(params: PyTree) -> EmaState:
        # A copy, for parameters and optimizer state are donated together; float32, for small steps to count.
        ema = jax.tree.map(lambda p: jnp.array(p, jnp.promote_types(p.dtype, jnp.float32)), params)
        return EmaState(jnp.zeros((), jnp.int32), ema, inner.init(params))

    def update(grads: PyTree, state: EmaState, params: PyTree = None) -> tuple[PyTree, EmaState]:
        updates, inner_state = inner.update(grads, state.inner_state, params)
        step = optax.safe_increment(state.step)
        # (1 - decay) / (1 - decay**step): the debiased average itself is kept. expm1, since 1 - decay**step
        # loses its digits where decay is near 1.
        weight = (1 - decay) / -jnp.expm1(step * math.log(decay))
        moved = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda mean, p: mean + weight * (p - mean), state.ema, moved)
        return updates, EmaState(step, ema, inner_state)

    return optax.GradientTransformation(init, update)
