"""The fusion barrier is in the compiled program, and derivatives and vmap pass through it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jaxcls._utils.fusion_barrier import fusion_barrier

X = jnp.linspace(-1, 1, 12).reshape(3, 4)


def in_turn(x):
    return fusion_barrier(jnp.sin(x)).T * 2


def fused(x):
    return jnp.sin(x).T * 2


def test_the_compiled_program_does_not_fuse_over_it():
    def entry(function):
        return jax.jit(function).lower(X).compile().as_text().split("ENTRY")[1]

    assert "call(" in entry(in_turn)
    assert "call(" not in entry(fused)


def test_it_changes_no_value():
    np.testing.assert_array_equal(jax.jit(in_turn)(X), jax.jit(fused)(X))
    np.testing.assert_array_equal(jax.vmap(in_turn)(X[None])[0], in_turn(X))


def test_derivatives_go_through():
    check_grads(in_turn, (X,), order=2)
