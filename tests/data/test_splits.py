"""Splits: every row once, every class in proportion, groups kept whole, the same rows for the same seed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit, train_test_split

from jaxcls._utils.errors import InputError
from jaxcls.data import splits
from jaxcls.data.dataset import Split

labels_of_few_classes = hnp.arrays(np.int32, st.integers(0, 60), elements=st.integers(-2, 4)).filter(
    lambda labels: len(labels) > len(set(labels.tolist()))
)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**64)


def examples_of(labels, groups=None):
    return Split(np.zeros((len(labels), 1)), labels, groups=groups)


def assert_each_row_once(train_rows, validation_rows, count):
    np.testing.assert_array_equal(np.sort(np.concatenate([train_rows, validation_rows])), np.arange(count))
    for rows in (train_rows, validation_rows):
        assert rows.dtype == np.int64
        assert np.all(np.diff(rows) > 0)


@settings(deadline=None)
@given(labels=labels_of_few_classes, fraction=fractions, seed=seeds)
def test_every_row_is_in_one_split_and_every_class_in_proportion(labels, fraction, seed):
    train_rows, validation_rows = splits.stratified(examples_of(labels), fraction, seed=seed)
    assert_each_row_once(train_rows, validation_rows, len(labels))
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
    _, validation_rows = splits.stratified(examples_of(labels), fraction, seed=3)
    np.testing.assert_array_equal(np.unique(labels[validation_rows], return_counts=True)[1], expected)


def test_class_counts_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice(4, size=1000, p=[0.1, 0.2, 0.3, 0.4])
    _, validation_rows = splits.stratified(examples_of(labels), 0.2, seed=0)
    _, theirs = train_test_split(labels, test_size=0.2, stratify=labels, random_state=0)
    assert np.max(np.abs(np.bincount(labels[validation_rows]) - np.bincount(theirs))) <= 1


def test_rows_depend_on_the_seed_only():
    labels = np.arange(1000) % 10
    _, rows = splits.stratified(examples_of(labels), 0.1, seed=42)
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == "17bc95d3ff101d18"
    assert not np.array_equal(rows, splits.stratified(examples_of(labels), 0.1, seed=43)[1])

    groups = np.arange(1000) // 3
    _, rows = splits.grouped(examples_of(labels, groups), 0.1, seed=42)
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == "0811e64290d29176"
    assert not np.array_equal(rows, splits.grouped(examples_of(labels, groups), 0.1, seed=43)[1])


def test_rows_of_a_class_are_chosen_uniformly():
    labels = np.zeros(20, int)
    chosen = np.concatenate([splits.stratified(examples_of(labels), 0.25, seed=seed)[1] for seed in range(400)])
    # 100 times each is expected, with a standard deviation of 8.7.
    assert np.all(np.abs(np.bincount(chosen, minlength=20) - 100) < 40)


def test_rows_with_several_labels_are_split_by_the_rarest():
    # Two rows have the rare label and the common one; one label is unknown, four rows have none.
    labels = np.array([[1, 1]] * 2 + [[0, 1]] * 4 + [[0, 0]] * 3 + [[np.nan, 0]], np.float32)
    for seed in range(20):
        _, validation_rows = splits.stratified(examples_of(labels), 0.5, seed=seed)
        np.testing.assert_array_equal(np.histogram(validation_rows, [0, 2, 6, 10])[0], [1, 2, 2])


many_labels = hnp.arrays(
    np.float32, st.tuples(st.integers(8, 40), st.integers(1, 4)), elements=st.sampled_from([0, 1, np.nan])
)


@given(labels=many_labels, fraction=fractions, seed=seeds)
def test_multilabel_rows_are_split_in_proportion_to_their_strata(labels, fraction, seed):
    train_rows, validation_rows = splits.stratified(examples_of(labels), fraction, seed=seed)
    assert_each_row_once(train_rows, validation_rows, len(labels))
    support = (labels == 1).sum(axis=0)
    rarest = np.array([min((support[j], j) for j in np.flatnonzero(row == 1))[1] if 1 in row else -1 for row in labels])
    assert abs(len(validation_rows) - fraction * len(labels)) <= len(set(rarest.tolist()))
    for label in set(rarest.tolist()):
        count = np.sum(rarest == label)
        assert abs(np.sum(rarest[validation_rows] == label) - fraction * count) <= 1


@st.composite
def grouped_examples(draw):
    """Up to four classes in up to twenty groups; at least three groups hold every class."""
    groups = draw(hnp.arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 20)))
    labels = draw(hnp.arrays(np.int32, len(groups), elements=st.integers(0, 3)))
    whole = np.repeat([100, 101, 102], 4)
    return examples_of(np.append(labels, np.tile(np.arange(4, dtype=np.int32), 3)), np.append(groups, whole))


@given(examples=grouped_examples(), fraction=fractions, seed=seeds)
def test_groups_stay_whole_and_both_sides_have_rows(examples, fraction, seed):
    train_rows, validation_rows = splits.grouped(examples, fraction, seed=seed)
    assert_each_row_once(train_rows, validation_rows, len(examples.labels))
    assert len(train_rows)
    assert len(validation_rows)
    assert not set(examples.groups[train_rows].tolist()) & set(examples.groups[validation_rows].tolist())


@given(
    sizes=st.lists(st.integers(1, 6), min_size=4, max_size=40),
    classes=st.integers(1, 2),
    fraction=fractions,
    seed=seeds,
)
def test_groups_of_one_class_each_are_split_within_one_group_of_the_proportion(sizes, classes, fraction, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    examples = examples_of(groups % classes, groups.astype(str))
    train_rows, validation_rows = splits.grouped(examples, fraction, seed=seed)
    for label in range(classes):
        validating = np.sum(examples.labels[validation_rows] == label)
        assert validating > 0
        assert label in examples.labels[train_rows]
        assert abs(validating - fraction * np.sum(examples.labels == label)) <= 6


def test_patients_with_several_labels_are_split_in_proportion():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 800, 4000)
    labels = (rng.random((4000, 5)) < [0.005, 0.02, 0.05, 0.1, 0.2]).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    _, validation_rows = splits.grouped(examples_of(labels, patients), 0.2, seed=0)
    assert len(validation_rows) == pytest.approx(800, abs=10)
    np.testing.assert_allclose((labels[validation_rows] == 1).sum(0), 0.2 * (labels == 1).sum(0), rtol=0.2)


def test_a_class_in_one_group_trains():
    groups = np.array([0, 1, 1, 2, 3, 3])
    labels = np.array([0, 0, 1, 0, 0, 0])
    for seed in range(20):
        assert 1 in splits.grouped(examples_of(labels, groups), 0.5, seed=seed)[0]


@given(count=st.integers(10, 100), fraction=st.floats(0.2, 0.8), seed=seeds)
def test_chronological_validates_on_the_last_rows(count, fraction, seed):
    train_rows, validation_rows = splits.chronological(examples_of(np.arange(count) % 2), fraction, seed=seed)
    assert_each_row_once(train_rows, validation_rows, count)
    assert train_rows[-1] < validation_rows[0]
    assert abs(len(validation_rows) - count * fraction) <= 1


@given(count=st.integers(2, 100), fraction=fractions, seed=seeds)
def test_random_ignores_labels_and_is_reproducible(count, fraction, seed):
    examples = Split({"image": np.zeros(count)}, {"classes": np.zeros((count, 2))})
    train_rows, validation_rows = splits.random(examples, fraction, seed=seed)
    assert_each_row_once(train_rows, validation_rows, count)
    assert abs(len(validation_rows) - count * fraction) <= 1
    np.testing.assert_array_equal(splits.random(examples, fraction, seed=seed)[0], train_rows)


@pytest.mark.parametrize("split", [splits.stratified, splits.grouped, splits.chronological, splits.random])
@pytest.mark.parametrize(
    ("fraction", "seed", "message"),
    [
        (0.0, 0, "fraction is 0.0.*above 0 and below 1"),
        (1.0, 0, "fraction is 1.0"),
        (float("nan"), 0, "fraction is nan"),
        (0.5, -1, "seed is -1"),
    ],
)
def test_a_fraction_or_seed_out_of_range_is_rejected(split, fraction, seed, message):
    with pytest.raises(InputError, match=message):
        split(examples_of(np.zeros(4, int), np.arange(4)), fraction, seed=seed)


@pytest.mark.parametrize(
    ("split", "examples", "message"),
    [
        (splits.stratified, examples_of(np.zeros((4, 1, 1), int)), r"shape \(4, 1, 1\).*shape \(N,\).*\(N, L\)"),
        (splits.stratified, examples_of(np.zeros(4)), "type float64.*integers"),
        (splits.stratified, examples_of(np.arange(3)), "3 rows are too few"),
        (splits.stratified, examples_of(np.zeros(0, int)), "0 rows are too few"),
        (splits.grouped, examples_of(np.zeros(4, int)), "no groups"),
        (splits.grouped, examples_of(np.zeros(4), np.arange(4)), "type float64.*integers"),
        (splits.grouped, examples_of(np.zeros(4, int), np.zeros(4, int)), "1 groups are too few"),
        (splits.grouped, examples_of(np.arange(4), np.arange(4)), "4 groups are too few"),
        (splits.grouped, examples_of(np.zeros(0, int), np.zeros(0, int)), "0 groups are too few"),
        (splits.chronological, examples_of(np.zeros(1, int)), "1 rows are too few"),
        (splits.random, examples_of(np.zeros(1, int)), "1 rows are too few"),
    ],
)
def test_unsplittable_examples_are_rejected(split, examples, message):
    with pytest.raises(InputError, match=message):
        split(examples, 0.5, seed=0)


def assert_folds(folds, count):
    """Every row validates once, and trains in the other folds."""
    np.testing.assert_array_equal(np.sort(np.concatenate([rows for _, rows in folds])), np.arange(count))
    for train_rows, validation_rows in folds:
        assert_each_row_once(train_rows, validation_rows, count)


@settings(deadline=None)
@given(classes=st.lists(st.integers(5, 12), min_size=1, max_size=4), count=st.integers(2, 5), seed=seeds)
def test_folds_divide_every_class_and_all_rows_equally(classes, count, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(classes)), classes))
    folds = splits.folds(splits.stratified, examples_of(labels), count, seed=seed)
    assert_folds(folds, len(labels))
    by_class = np.array([np.bincount(labels[rows], minlength=len(classes)) for _, rows in folds])
    assert np.all(np.ptp(by_class, axis=0) <= 1)
    assert np.ptp(by_class.sum(axis=1)) <= 1
    theirs = [labels[rows] for _, rows in StratifiedKFold(count).split(labels, labels)]
    theirs = np.array([np.bincount(each, minlength=len(classes)) for each in theirs])
    np.testing.assert_array_equal(np.sort(by_class, axis=0), np.sort(theirs, axis=0))


@given(examples=grouped_examples(), seed=seeds)
def test_folds_of_groups_keep_them_whole_and_hold_every_class(examples, seed):
    folds = splits.folds(splits.grouped, examples, 3, seed=seed)
    assert_folds(folds, len(examples.labels))
    for train_rows, validation_rows in folds:
        assert len(validation_rows)
        assert set(examples.labels[train_rows].tolist()) == {0, 1, 2, 3}
        assert not set(examples.groups[train_rows].tolist()) & set(examples.groups[validation_rows].tolist())


def test_folds_of_groups_are_as_equal_as_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 300, 3000)
    labels = (rng.random(3000) < rng.beta(0.5, 3, 300)[groups]).astype(int)

    def spread(folds):
        return np.ptp([np.bincount(labels[rows]) for _, rows in folds], axis=0)

    theirs = spread(StratifiedGroupKFold(5).split(labels, labels, groups))
    assert np.all(spread(splits.folds(splits.grouped, examples_of(labels, groups), 5, seed=0)) <= np.maximum(theirs, 5))


def test_folds_by_time_are_those_of_scikit_learn():
    labels = np.arange(48) % 2
    folds = splits.folds(splits.chronological, examples_of(labels), 5, seed=0)
    for ours, theirs in zip(folds, TimeSeriesSplit(5).split(labels), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@given(count=st.integers(2, 9), rows=st.integers(9, 40), seed=seeds)
def test_random_folds_are_equal_and_reproducible(count, rows, seed):
    examples = Split({"image": np.zeros(rows)}, {"classes": np.zeros((rows, 2))})
    folds = splits.folds(splits.random, examples, count, seed=seed)
    assert_folds(folds, rows)
    assert np.ptp([len(validation_rows) for _, validation_rows in folds]) <= 1
    again = splits.folds(splits.random, examples, count, seed=seed)
    np.testing.assert_array_equal(folds[0][1], again[0][1])


def test_folds_depend_on_the_seed_only():
    labels, groups = np.arange(1000) % 10, np.arange(1000) // 3
    for splitter, expected in ((splits.stratified, "0415505348a83fb5"), (splits.grouped, "ddc2742356cf9d27")):
        rows = np.concatenate([r for _, r in splits.folds(splitter, examples_of(labels, groups), 5, seed=42)])
        assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == expected


@given(labels=many_labels, count=st.integers(2, 5), seed=seeds)
def test_folds_of_several_labels_are_equal_in_their_strata(labels, count, seed):
    folds = splits.folds(splits.stratified, examples_of(labels), count, seed=seed)
    assert_folds(folds, len(labels))
    by_label = np.array([(labels[rows] == 1).any(axis=1).sum() for _, rows in folds])
    assert np.ptp(by_label) <= labels.shape[1]


def test_several_outputs_are_split_by_the_combinations_of_their_classes():
    random = np.random.default_rng(0)
    color, shape = random.integers(0, 3, 60), random.integers(0, 2, 60)
    examples = Split(np.zeros((60, 1)), {"color": color, "shape": shape})
    one = examples_of(color * 2 + shape)
    np.testing.assert_array_equal(splits.stratified(examples, 0.2, seed=3)[1], splits.stratified(one, 0.2, seed=3)[1])
    ours, theirs = (splits.folds(splits.stratified, each, 3, seed=3)[0][1] for each in (examples, one))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("split", "examples", "count", "message"),
    [
        (splits.stratified, examples_of(np.zeros(4, int)), 1, "number of folds is 1; it must be 2"),
        (splits.stratified, examples_of(np.zeros(2, int)), 3, "2 rows are too few for 3 folds"),
        (splits.random, examples_of(np.zeros(2, int)), 3, "2 rows are too few for 3 folds"),
        (splits.stratified, examples_of(np.array([0] * 9 + [7] * 3)), 4, "class 7 is in 3 rows.*at most 3 folds"),
        (splits.grouped, examples_of(np.zeros(4, int)), 2, "no groups"),
        (splits.grouped, examples_of(np.arange(4) % 2, np.arange(4) % 2), 2, "class 0 is in 1 groups.*at most 2"),
        (splits.grouped, examples_of(np.zeros(4, int), np.zeros(4, int)), 2, "1 groups are too few for 2 folds"),
        (splits.chronological, examples_of(np.arange(5) % 2), 2, "5 rows are too few for 2 folds, which take 6"),
        (splits.chronological, examples_of(np.arange(9) // 8), 2, "all 3 training rows of fold 1 have class 0.*fewer"),
        (splits.chronological, examples_of(np.arange(9) % 5 % 2), 8, "9 rows"),
    ],
)
def test_examples_without_such_folds_are_rejected(split, examples, count, message):
    with pytest.raises(InputError, match=message):
        splits.folds(split, examples, count, seed=0)
