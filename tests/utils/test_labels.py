"""Labels are validated, and class weights agree with scikit-learn and with hand-computed values."""

import chex
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from jaxcls._utils import labels
from jaxcls._utils.errors import InputError


@pytest.mark.parametrize(
    ("targets", "problem", "ignore_label"),
    [
        ([0, 1, 1], "binary", None),
        ([True, False], "binary", None),
        ([0.0, 0.3, 1.0, -1.0], "binary", -1),
        ([0, 2, 1], "multiclass", None),
        (np.array([0, 255, 2], np.uint8), "multiclass", 255),
        (np.eye(3), "multiclass", None),
        ([[0.5, 0.5, 0.0]], "multiclass", None),
        ([[0, 1, 1], [0, 0, 0]], "multilabel", None),
        ([[0, 1, np.nan]], "multilabel", np.nan),
    ],
)
def test_valid_labels_pass(targets, problem, ignore_label):
    labels.validate(targets, problem, 3, ignore_label=ignore_label)


@pytest.mark.parametrize(
    ("targets", "problem", "message"),
    [
        ([0, 1, 2], "binary", "row 2 holds 2; binary labels are 0 and 1"),
        ([0, np.nan], "binary", "row 1 holds nan"),
        ([[0], [1]], "binary", r"\(2, 1\) must have shape \(2,\).*labels\[..., 0\]"),
        ([0, -1, 3], "multiclass", "row 1 holds -1; multiclass indices lie in 0 to 2"),
        ([0.0, 1.0], "multiclass", "must be integers, not float64"),
        ([[1, 0]], "multiclass", r"shape \(1,\) or \(1, 3\) for num_classes=3"),
        ([[1, 0, 0], [0.5, 0.1, 0.1]], "multiclass", "row 1 holds 0.7; that is the sum"),
        ([[0, 1, 0], [0, 1, 2]], "multilabel", "row 1, column 2 holds 2; multilabel labels"),
        ([0, 1], "multilabel", r"\(2,\) must have shape \(2, 3\)"),
        (["cat", "dog"], "multiclass", "must be numbers"),
        ([0], "multi-label", "Did you mean 'multilabel'"),
        (0, "binary", "must have shape"),
    ],
)
def test_the_first_invalid_label_is_named(targets, problem, message):
    with pytest.raises(InputError, match=message):
        labels.validate(targets, problem, 3)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_balanced_weights_agree_with_scikit_learn(more):
    targets = np.array([0, 1, 2, 3, *more])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=targets)
    np.testing.assert_allclose(labels.class_weights(targets, 4), expected)


def test_effective_weights_agree_with_the_paper():
    counts = np.array([1, 10, 2000])
    effective = np.array([np.sum(0.99 ** np.arange(n)) for n in counts])  # the number it is named after
    expected = 3 / effective / np.sum(1 / effective)
    targets = np.repeat([0, 1, 2], counts)
    np.testing.assert_allclose(labels.class_weights(targets, 3, method="effective", beta=0.99), expected)


def test_multilabel_weights_are_computed_per_label():
    targets = np.array([[0, 1], [0, 1], [1, 0], [1, -1], [1, 1.0]])
    weights = labels.class_weights(targets, 2, ignore_label=-1)
    np.testing.assert_allclose(
        weights, [labels.class_weights(targets[:, 0], 2), labels.class_weights(targets[[0, 1, 2, 4], 1], 2)]
    )
    chex.assert_shape(weights, (2, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labels.class_weights([0, 2], 3), "class 1 has no row"),
        (lambda: labels.class_weights([], 2), "class 0 has no row"),
        (lambda: labels.class_weights(["cat", "dog"], 2), "must be numbers"),
        (lambda: labels.class_weights([[1, 1], [0, 1]], 2), "class 0 of label 1 has no row"),
        (lambda: labels.class_weights([0, 1, 2], 2), "row 2 holds 2; .* integers in 0 to 1"),
        (lambda: labels.class_weights([0, 1, np.nan], 2), "row 2 holds nan"),
        (lambda: labels.class_weights([0, 0.5], 2), "row 1 holds 0.5"),
        (lambda: labels.class_weights([[0, 1]], 3), r"\(1, 2\) must have shape \(N,\), or \(N, 3\)"),
        (lambda: labels.class_weights([0, 1], 2, method="effective", beta=1.0), "beta is 1.0"),
        (lambda: labels.class_weights([0, 1], 2, method="balance"), "Did you mean 'balanced'"),
        (lambda: labels.resolve_class_weight("balanced", "binary", 2), "pass labels="),
        (
            lambda: labels.resolve_class_weight("balnced", "binary", 2, labels=[0, 1]),
            "Did you mean 'balanced'",
        ),
        (
            lambda: labels.resolve_class_weight("balanced", "multiclass", 2, labels=np.eye(2)),
            r"of shape \(N,\)",
        ),
        (
            lambda: labels.resolve_class_weight({0: 1.0}, "binary", 2),
            "lacks class 1; it must have a weight for each class from 0 to 1",
        ),
        (
            lambda: labels.resolve_class_weight([1, 2, 3], "multilabel", 3),
            r"\(3,\) must have shape \(2,\) or \(3, 2\)",
        ),
        (lambda: labels.resolve_class_weight([1, -2], "binary", 2), r"holds \[-2.\]; weights are finite"),
        (lambda: labels.resolve_class_weight([1, 2], "regression", 2), "unknown problem"),
    ],
)
def test_invalid_weights_are_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("class_weight", "problem", "num_classes", "targets", "expected"),
    [
        ([1, 5], "binary", 1, None, [1, 5]),
        ({1: 5.0, 0: 1.0, 2: 2.0}, "multiclass", 3, None, [1, 5, 2]),
        ({1: 5.0, 0: 1.0}, "multilabel", 3, None, [1, 5]),
        (np.ones((3, 2)), "multilabel", 3, None, np.ones((3, 2))),
        ("balanced", "binary", 1, [0.0, 0.0, 0.0, 1.0], [2 / 3, 2]),
        ("balanced", "binary", 1, [False, False, False, True], [2 / 3, 2]),
        ("effective", "multiclass", 2, [0, 1], [1, 1]),
        ("balanced", "multilabel", 1, [[0], [0], [0], [1]], [[2 / 3, 2]]),
    ],
)
def test_class_weight_in_any_form_becomes_an_array(class_weight, problem, num_classes, targets, expected):
    weights = labels.resolve_class_weight(class_weight, problem, num_classes, labels=targets)
    np.testing.assert_allclose(weights, expected)
