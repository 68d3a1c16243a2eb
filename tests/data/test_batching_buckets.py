"""Buckets: batches are cropped to the first size that fits them, so that only padding is lost."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np

from jaxcls.data.batching import canvas_buckets, sequence_buckets

CANVASES = ((4, 8), (8, 4), (6, 8), (8, 8))
WIDTHS = (2, 4, 8)
SEED = st.integers(0, 2**32 - 1)


def sequences(seed, count=7):
    rng = np.random.default_rng(seed)
    tokens, lengths = rng.integers(1, 9, (count, 8)), rng.integers(0, 9, (count, 1))
    # A token 0 within a sequence is not padding.
    tokens[:, 1] *= rng.integers(0, 2, count)
    return np.where(np.arange(8) < lengths, tokens, 0).astype(np.int32)


def images(seed, count=7):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 9, (count, 2)).astype(np.int32)
    inside = [(np.arange(8) < size[:, axis, None]) for axis in (0, 1)]
    return {"image": (inside[0][:, :, None] & inside[1][:, None, :])[..., None].astype(np.uint8), "size": size}


def nonzero(inputs):
    """Counts the nonzero values of each example."""
    pixels = inputs["image"] if isinstance(inputs, dict) else inputs
    return (np.asarray(pixels) != 0).reshape(len(pixels), -1).sum(axis=1)


CASES = (
    (sequence_buckets(WIDTHS), sequences),
    (canvas_buckets(CANVASES), images),
)


@hypothesis.given(seed=SEED, case=st.sampled_from(CASES))
def test_the_chosen_size_is_the_first_that_loses_nothing(seed, case):
    bucketing, draw = case
    inputs = draw(seed)
    for row, number in enumerate(bucketing.indices(inputs)):
        one = jax.tree.map(lambda array, row=row: array[row : row + 1], inputs)
        complete = [(nonzero(bucketing.cut(one, size)) == nonzero(one)).item() for size in bucketing.sizes]
        assert complete.index(True) == number
    number = bucketing.common_index(inputs)
    complete = [bool((nonzero(bucketing.cut(inputs, size)) == nonzero(inputs)).all()) for size in bucketing.sizes]
    assert complete.index(True) == number


@hypothesis.given(seed=SEED, case=st.sampled_from(CASES))
@hypothesis.settings(max_examples=10)
def test_compiled_and_host_indices_are_equal(seed, case):
    bucketing, draw = case
    inputs = draw(seed)
    each, every = jax.jit(lambda inputs: (bucketing.indices(inputs), bucketing.common_index(inputs)))(inputs)
    np.testing.assert_array_equal(each, bucketing.indices(inputs))
    assert each.dtype == bucketing.indices(inputs).dtype == np.int32
    assert every == bucketing.common_index(inputs)
