"""Hyper-parameters as part of the optimizer's state, so that one compiled step serves all their values."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class HyperparameterState(NamedTuple):
    """The values of hyper-parameters, float32 scalars by name, and the state of the optimizer that has them."""

    values: dict[str, jax.Array]
    inner_state: PyTree


def with_hyperparameters(
    make: Callable[..., optax.GradientTransformation], values: Mapping[str, float]
) -> optax.GradientTransformation:
    """Returns the optimizer ``make(**values)``, whose state holds the values.

    As :func:`optax.inject_hyperparams`, for a function of any name and options; schedules of such a learning rate are
    made inside of ``make``.

    Args:
      make: hyper-parameters by name -> optimizer. It is traced: it must not decide anything by their values.
      values: those of a new state; see :func:`replace_values`.

    >>> from jaxcls.optimizers import sgd
    >>> transform = with_hyperparameters(lambda learning_rate: sgd(learning_rate), {"learning_rate": 0.5})
    >>> state = replace_values(transform.init(jnp.ones(1)), {"learning_rate": 0.25})
    >>> print(transform.update(jnp.ones(1), state, jnp.ones(1))[0])
    [-0.25]
    """

    def init(params: PyTree) -> HyperparameterState:
        return HyperparameterState(_as_arrays(values), make(**values).init(params))

    def update(grads: PyTree, state: HyperparameterState, params: PyTree = None) -> tuple[PyTree, HyperparameterState]:
        updates, inner_state = make(**state.values).update(grads, state.inner_state, params)
        return updates, HyperparameterState(state.values, inner_state)

    return optax.GradientTransformation(init, update)


def replace_values(state: HyperparameterState, values: Mapping[str, float]) -> HyperparameterState:
    """Returns the state before the first update with other values."""
    return state._replace(values=_as_arrays({**state.values, **values}))


def _as_arrays(values: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
