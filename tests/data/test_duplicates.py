"""Examples that two splits share are counted by content."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxcls.data.duplicates import shared


def count_naively(train, test):
    """Every pair is compared; NaN equals NaN."""
    return sum(any(np.array_equal(one, other, equal_nan=True) for other in train) for one in test)


def images(rows):
    return hnp.arrays(np.uint8, (rows, 2, 1, 1), elements=st.integers(0, 3))


@given(train=images(5), test=images(4))
def test_images_are_compared_by_their_pixels(train, test):
    assert shared(train, test) == count_naively(train, test)


@given(train=st.lists(st.text("ab", max_size=3), max_size=6), test=st.lists(st.text("ab", max_size=3), max_size=6))
def test_texts_are_compared_by_their_characters(train, test):
    assert shared(np.array(train, object), np.array(test, object)) == sum(text in train for text in test)


def columns(rows):
    numbers = hnp.arrays(np.float64, rows, elements=st.sampled_from([0.0, -0.0, 1.5, np.nan]))
    words = hnp.arrays(object, rows, elements=st.sampled_from(["", "a", "b"]))
    return st.fixed_dictionaries({"x": numbers, "y": numbers, "color": words})


def rows_of(table):
    codes = {"": 0.0, "a": 1.0, "b": 2.0}
    return [(x, y, codes[c]) for x, y, c in zip(table["x"], table["y"], table["color"], strict=True)]


@given(train=columns(5), test=columns(4), negative_nan=st.booleans())
def test_rows_of_a_table_are_compared_column_by_column(train, test, negative_nan):
    if negative_nan:
        test = {**test, "x": np.where(np.isnan(test["x"]), -np.nan, test["x"])}
    reordered = dict(reversed(test.items()))
    assert shared(train, reordered) == count_naively(rows_of(train), rows_of(test))


@pytest.mark.parametrize("names", [["x"], ["color"]])
def test_a_table_may_have_only_numbers_or_only_words(names):
    table = {"x": np.array([1.0, np.nan, 3.0]), "color": np.array(["a", "b", "c"], object)}
    table = {name: table[name] for name in names}
    other = {name: column[1:] for name, column in table.items()}
    assert shared(table, other) == 2
    assert shared(other, table) == 2


def test_an_image_of_another_shape_is_another_image():
    assert shared(np.zeros((1, 2, 3, 1), np.uint8), np.zeros((1, 3, 3, 1), np.uint8)) == 0


def test_sixty_thousand_images_take_less_than_a_second():
    train = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    start = time.process_time()
    assert shared(train, train[:10_000]) == 10_000
    assert time.process_time() - start < 1
