"""Averages of the parameters to evaluate with: the moving average of any optimizer, and schedule-free's."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate with: the moving or schedule-free average in `opt_state`, or else `params`.

    The moving average is debiased: after step t it is the mean of the parameters after steps 1 to t, with weights that
    fall by a factor of `ema_decay` per step back; before the first step it is the parameters themselves. Shapes and
    dtypes are those of `params`. Works under `jit`.

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
        # A copy, since parameters and optimizer state are donated together; float32, so that small steps count.
        ema = jax.tree.map(lambda p: jnp.array(p, jnp.promote_types(p.dtype, jnp.float32)), params)
        return EmaState(jnp.zeros((), jnp.int32), ema, inner.init(params))

    def update(grads: PyTree, state: EmaState, params: PyTree = None) -> tuple[PyTree, EmaState]:
        updates, inner_state = inner.update(grads, state.inner_state, params)
        step = optax.safe_increment(state.step)
        # (1 - decay) / (1 - decay**step) updates the debiased average directly. expm1, since 1 - decay**step loses
        # digits if decay is near 1.
        weight = (1 - decay) / -jnp.expm1(step * math.log(decay))
        moved = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda mean, p: mean + weight * (p - mean), state.ema, moved)
        return updates, EmaState(step, ema, inner_state)

    return optax.GradientTransformation(init, update)
