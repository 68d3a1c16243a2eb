"""Batching: every example occurs once per epoch, in padded batches of one size."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcls.data import batching

SIZES = {"count": st.integers(1, 50), "batch_size": st.integers(1, 20)}


@settings(max_examples=25)
@given(**SIZES, length=st.integers(1, 8))
def test_each_row_is_unmasked_once_per_epoch(count, batch_size, length):
    order = np.random.default_rng(count).permutation(count)
    steps = batching.steps_per_epoch(count, batch_size)
    seen = []
    for first in range(0, steps, length):
        rows, mask = batching.batch_rows(order, first, batch_size=batch_size, length=length)
        assert rows.shape == mask.shape == (length, batch_size)
        seen += np.asarray(rows)[np.asarray(mask)].tolist()
    assert seen == order.tolist()


@given(**SIZES)
def test_padded_batches_keep_the_order_of_the_examples(count, batch_size):
    batches = list(batching.padded_batches({"x": np.arange(count)}, batch_size))
    assert {len(batch["x"]) for batch in batches} == {batch_size}
    rows = np.concatenate([batch["x"] for batch in batches])
    assert rows[:count].tolist() == list(range(count))
    assert set(rows[count:]) <= set(range(count))


@given(steps=st.integers(1, 5000), most=st.integers(1, 100))
def test_chunk_length_minimizes_wasted_steps(steps, most):
    length = batching.chunk_length(steps, most)
    assert 1 <= length <= max(most, 1)
    if steps <= most:
        assert length == steps
    else:
        assert all(-steps % length <= -steps % other for other in range(most // 2 + 1, most + 1))


def test_batches_are_padded_with_real_rows():
    rows, mask = batching.batch_rows(jnp.array([3, 1, 2, 0]), jnp.int32(1), batch_size=3, length=1)
    assert rows.tolist() == [[0, 3, 1]]
    assert mask.tolist() == [[True, False, False]]
    assert isinstance(rows, jax.Array)
