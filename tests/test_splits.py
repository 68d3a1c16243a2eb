"""The stratified split: every row once, every class in proportion, the same rows for the same seed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.model_selection import train_test_split

from jaxcls.data import splits
from jaxcls.errors import InputError

labels_of_few_classes = hnp.arrays(np.int32, st.integers(0, 60), elements=st.integers(-2, 4)).filter(
    lambda labels: len(labels) > len(set(labels.tolist()))
)


@settings(deadline=None)
@given(labels=labels_of_few_classes, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**64))
def test_every_row_is_in_one_split_and_every_class_in_proportion(labels, fraction, seed):
    train_rows, validation_rows = splits.stratified(labels, fraction, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train_rows, validation_rows])), np.arange(len(labels)))
    for rows in (train_rows, validation_rows):
        assert rows.dtype == np.int64
        assert np.all(np.diff(rows) > 0)
    for label in set(labels.tolist()):
        count = np.sum(labels == label)
        validating = np.sum(labels[validation_rows] == label)
        if count == 1:
            assert validating == 0
        else:
            assert 1 <= validating <= count - 1
            assert abs(validating - count * fraction) <= 1


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, [1, 2, 2]), (0.25, [2, 4, 6]), (0.5, [4, 8, 12])])
def test_rows_lost_to_rounding_go_to_the_largest_remainders(fraction, expected):
    # Ideal at 0.1: 0.7, 1.6 and 2.4 of 4.7 rows, so 5 rows; at 0.25: 1.75, 4, 6; at 0.5: 3.5, 8, 12.
    labels = np.repeat([5, 6, 7], [7, 16, 24])
    _, validation_rows = splits.stratified(labels, fraction, seed=3)
    np.testing.assert_array_equal(np.unique(labels[validation_rows], return_counts=True)[1], expected)


def test_class_counts_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice(4, size=1000, p=[0.1, 0.2, 0.3, 0.4])
    _, validation_rows = splits.stratified(labels, 0.2, seed=0)
    _, theirs = train_test_split(labels, test_size=0.2, stratify=labels, random_state=0)
    assert np.max(np.abs(np.bincount(labels[validation_rows]) - np.bincount(theirs))) <= 1


def test_the_same_seed_gives_the_same_rows_everywhere_and_another_seed_others():
    labels = np.arange(1000) % 10
    _, rows = splits.stratified(labels, 0.1, seed=42)
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == "17bc95d3ff101d18"
    assert not np.array_equal(rows, splits.stratified(labels, 0.1, seed=43)[1])


def test_rows_of_a_class_are_chosen_evenly():
    labels = np.zeros(20, int)
    chosen = np.concatenate([splits.stratified(labels, 0.25, seed=seed)[1] for seed in range(400)])
    # 100 times each is expected, with a standard deviation of 8.7.
    assert np.all(np.abs(np.bincount(chosen, minlength=20) - 100) < 40)


@pytest.mark.parametrize(
    ("labels", "fraction", "seed", "says"),
    [
        (np.zeros((4, 1), int), 0.5, 0, r"shape \(4, 1\).*shape \(N,\)"),
        (np.zeros(4), 0.5, 0, "type float64.*integers"),
        (np.zeros(4, int), 0.0, 0, "fraction is 0.0.*above 0 and below 1"),
        (np.zeros(4, int), 1.0, 0, "fraction is 1.0"),
        (np.zeros(4, int), float("nan"), 0, "fraction is nan"),
        (np.zeros(4, int), 0.5, -1, "seed is -1"),
        (np.arange(3), 0.5, 0, "3 rows are too few"),
        (np.zeros(0, int), 0.5, 0, "0 rows are too few"),
    ],
)
def test_what_cannot_be_split_is_refused_in_words(labels, fraction, seed, says):
    with pytest.raises(InputError, match=says):
        splits.stratified(labels, fraction, seed=seed)
