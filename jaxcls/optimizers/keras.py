"""The exact updates of Keras 3, where they differ from Optax's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`keras.optimizers.Adam`: `eps` is added to the root before its bias correction."""

    def update(grads: PyTree, state: optax.ScaleByAdamState, params: PyTree = None) -> tuple[PyTree, PyTree]:
        state = _moments(grads, state, b1, b2)
        correction = jnp.sqrt(1 - b2**state.count) / (1 - b1**state.count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), state.mu, state.nu)
        return updates, state

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


class NadamState(NamedTuple):
    """Adam's moments, and the product of the momenta so far."""

    adam: optax.ScaleByAdamState
    momentum_product: jax.Array


def scale_by_nadam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`keras.optimizers.Nadam`: the momentum warms up, and its running product corrects the mean."""

    def init(params: PyTree) -> NadamState:
        return NadamState(optax.scale_by_adam().init(params), jnp.ones((), jnp.float32))

    def update(grads: PyTree, state: NadamState, params: PyTree = None) -> tuple[PyTree, PyTree]:
        adam = _moments(grads, state.adam, b1, b2)
        now, ahead = (b1 * (1 - 0.5 * 0.96**step) for step in (adam.count, adam.count + 1))
        product = state.momentum_product * now
        from_mu, from_grad = ahead / (1 - product * ahead), (1 - now) / (1 - product)
        root_correction = jnp.sqrt(1 - b2**adam.count)
        updates = jax.tree.map(
            lambda m, v, g: (from_mu * m + from_grad * g) / (jnp.sqrt(v) / root_correction + eps),
            adam.mu,
            adam.nu,
            grads,
        )
        return updates, NadamState(adam, product)

    return optax.GradientTransformation(init, update)


def _moments(grads: PyTree, state: optax.ScaleByAdamState, b1: float, b2: float) -> optax.ScaleByAdamState:
    """Adam's moments after one more gradient, without bias correction."""
    mu = optax.tree.update_moment(grads, state.mu, b1, 1)
    nu = optax.tree.update_moment(grads, state.nu, b2, 2)
    return optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)
