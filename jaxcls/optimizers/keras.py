"""The exact updates of Keras 3, where they differ from Optax's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`keras.optimizers.Adam`: `eps` is added to the root before its correction."""

    def update(grads: PyTree, state: optax.ScaleByAdamState, params: PyTree = None) -> tuple[PyTree, PyTree]:
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

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
        count = optax.safe_increment(state.adam.count)
        mu = optax.tree.update_moment(grads, state.adam.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.adam.nu, b2, 2)
        now, ahead = (b1 * (1 - 0.5 * 0.96**step) for step in (count, count + 1))
        product = state.momentum_product * now
        from_mu, from_grad = ahead / (1 - product * ahead), (1 - now) / (1 - product)
        root_correction = jnp.sqrt(1 - b2**count)
        updates = jax.tree.map(
            lambda m, v, g: (from_mu * m + from_grad * g) / (jnp.sqrt(v) / root_correction + eps),
            mu,
            nu,
            grads,
        )
        return updates, NadamState(optax.ScaleByAdamState(count, mu, nu), product)

    return optax.GradientTransformation(init, update)
