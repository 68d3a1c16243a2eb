"""Buckets: padded examples are cut to the first size that holds them, and nothing but padding is cut off."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np

from jaxcls.data import buckets

CANVASES = ((4, 8), (8, 4), (6, 8), (8, 8))
WIDTHS = (2, 4, 8)
SEED = st.integers(0, 2**32 - 1)


def sequences(seed, count=7):
    rng = np.random.default_rng(seed)
    tokens, lengths = rng.integers(1, 9, (count, 8)), rng.integers(0, 9, (count, 1))
    # A token 0 within a sequence is no padding.
    tokens[:, 1] *= rng.integers(0, 2, count)
    return np.where(np.arange(8) < lengths, tokens, 0).astype(np.int32)


def images(seed, count=7):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 9, (count, 2)).astype(np.int32)
    inside = [(np.arange(8) < size[:, axis, None]) for axis in (0, 1)]
    return {"image": (inside[0][:, :, None] & inside[1][:, None, :])[..., None].astype(np.uint8), "size": size}


def real(inputs):
    """How many numbers of each example are not padding."""
    pixels = inputs["image"] if isinstance(inputs, dict) else inputs
    return (np.asarray(pixels) != 0).reshape(len(pixels), -1).sum(axis=1)


KINDS = (
    (buckets.of_sequences(WIDTHS), sequences),
    (buckets.of_canvases(CANVASES), images),
)


@hypothesis.given(seed=SEED, kind=st.sampled_from(KINDS))
def test_the_first_size_that_holds_an_example_loses_nothing_of_it_and_those_before_do(seed, kind):
    made, drawn = kind
    inputs = drawn(seed)
    for row, number in enumerate(made.of_each(inputs)):
        one = jax.tree.map(lambda array, row=row: array[row : row + 1], inputs)
        kept = [(real(made.cut(one, size)) == real(one)).item() for size in made.sizes]
        assert kept.index(True) == number
    number = made.of_all(inputs)
    kept = [bool((real(made.cut(inputs, size)) == real(inputs)).all()) for size in made.sizes]
    assert kept.index(True) == number


@hypothesis.given(seed=SEED, kind=st.sampled_from(KINDS))
@hypothesis.settings(max_examples=10)
def test_the_compiled_step_sees_the_same(seed, kind):
    made, drawn = kind
    inputs = drawn(seed)
    each, every = jax.jit(lambda inputs: (made.of_each(inputs), made.of_all(inputs)))(inputs)
    np.testing.assert_array_equal(each, made.of_each(inputs))
    assert each.dtype == made.of_each(inputs).dtype == np.int32
    assert every == made.of_all(inputs)
