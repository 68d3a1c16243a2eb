"""Losses agree with float64 formulas, with Keras and Optax, and with each other."""

import functools

import chex
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from jaxcls import losses
from jaxcls._utils.errors import InputError
from jaxcls.losses import SIGMOID_FAMILY

PRIOR = np.array([0.7, 0.2, 0.1])
ALPHA = np.array([0.25, 0.5, 1.0])


# Expected values: formulas in float64, one value per element or per example.


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def focal(x, gamma):
    """The focal loss of a positive label with logit x."""
    return -np.exp(gamma * log_sigmoid(-x)) * log_sigmoid(x)


def sigmoid_focal(x, y, gamma=2.0, alpha=None):
    """As Keras and Optax define it for soft labels: one probability of the label, one factor."""
    log_y, log_not_y = np.log(np.maximum(y, 1e-300)), np.log(np.maximum(1 - y, 1e-300))
    log_not_p = np.logaddexp(log_y + log_sigmoid(-x), log_not_y + log_sigmoid(x))
    balance = 1 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
    return balance * np.exp(gamma * log_not_p) * (-y * log_sigmoid(x) - (1 - y) * log_sigmoid(-x))


def asymmetric(x, y, gamma_negative=4.0, gamma_positive=1.0, clip=0.05):
    p = np.exp(log_sigmoid(x))
    shifted = np.maximum(p - clip, 0)
    log_rest = np.log(np.exp(log_sigmoid(-x)) + clip) if clip else log_sigmoid(-x)
    return y * focal(x, gamma_positive) - (1 - y) * shifted**gamma_negative * np.minimum(log_rest, 0)


def log_p(s):
    return s - np.logaddexp.reduce(s, axis=-1, keepdims=True)


def log_not_p(s):
    """log(1 - p), each class by a sum over all the others."""
    others = [np.logaddexp.reduce(np.delete(s, k, axis=-1), axis=-1) for k in range(s.shape[-1])]
    return np.stack(others, axis=-1) - np.logaddexp.reduce(s, axis=-1, keepdims=True)


def softmax_focal(s, y, gamma=2.0, alpha=1.0):
    return -np.sum(alpha * y * np.exp(gamma * log_not_p(s)) * log_p(s), axis=-1)


def categorical_hinge(s, y):
    return np.maximum(0, 1 + np.max((1 - y) * s, axis=-1) - np.sum(y * s, axis=-1))


def case(loss, truth, **options):
    name = "-".join([loss.__name__, *(f"{key}={np.ravel(value)}" for key, value in options.items())])
    return pytest.param(functools.partial(loss, **options), truth, id=name)


SIGMOID = [
    case(losses.sigmoid_cross_entropy, lambda x, y: -y * log_sigmoid(x) - (1 - y) * log_sigmoid(-x)),
    case(losses.hinge, lambda x, y: y * np.maximum(0, 1 - x) + (1 - y) * np.maximum(0, 1 + x)),
    case(losses.squared_hinge, lambda x, y: y * np.maximum(0, 1 - x) ** 2 + (1 - y) * np.maximum(0, 1 + x) ** 2),
    case(losses.sigmoid_focal, sigmoid_focal),
    case(losses.sigmoid_focal, functools.partial(sigmoid_focal, gamma=0), gamma=0.0),
    case(losses.sigmoid_focal, functools.partial(sigmoid_focal, gamma=0.5, alpha=0.25), gamma=0.5, alpha=0.25),
    case(losses.asymmetric, asymmetric),
    case(
        losses.asymmetric,
        functools.partial(asymmetric, gamma_negative=0.5, gamma_positive=0.0),
        gamma_negative=0.5,
        gamma_positive=0.0,
    ),
    case(losses.asymmetric, functools.partial(asymmetric, clip=0), clip=0.0),
    case(
        losses.sigmoid_poly,
        lambda x, y: (
            y * (np.exp(log_sigmoid(-x)) - log_sigmoid(x)) + (1 - y) * (np.exp(log_sigmoid(x)) - log_sigmoid(-x))
        ),
    ),
]
SOFTMAX = [
    case(losses.softmax_cross_entropy, lambda s, y: -np.sum(y * log_p(s), axis=-1)),
    case(losses.softmax_focal, softmax_focal),
    case(losses.softmax_focal, functools.partial(softmax_focal, gamma=0), gamma=0.0),
    case(losses.softmax_focal, functools.partial(softmax_focal, gamma=0.5, alpha=ALPHA), gamma=0.5, alpha=ALPHA),
    case(losses.categorical_hinge, categorical_hinge),
    case(losses.softmax_poly, lambda s, y: np.sum(y * (np.exp(log_not_p(s)) - log_p(s)), axis=-1)),
    case(
        losses.logit_adjusted_cross_entropy,
        lambda s, y: -np.sum(y * log_p(s + 0.5 * np.log(PRIOR)), axis=-1),
        prior=PRIOR,
        tau=0.5,
    ),
]

# One of each loss, for properties of all of them.
EVERY_SIGMOID = SIGMOID_FAMILY
EVERY_SOFTMAX = [
    losses.softmax_cross_entropy,
    losses.softmax_focal,
    losses.categorical_hinge,
    losses.softmax_poly,
    functools.partial(losses.logit_adjusted_cross_entropy, prior=PRIOR),
]
EVERY_LOSS = [*EVERY_SIGMOID, *EVERY_SOFTMAX]


def name_of(loss):
    return getattr(loss, "func", loss).__name__


every_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=name_of)
every_sigmoid = pytest.mark.parametrize("loss", EVERY_SIGMOID, ids=name_of)
every_softmax = pytest.mark.parametrize("loss", EVERY_SOFTMAX, ids=name_of)


def batch(loss, rows=6):
    """Logits of three labels or classes, and hard labels that fit the loss.

    Operations outside `jit` are compiled once for each shape: most tests share this one, the others compile as a whole.
    """
    rng = np.random.default_rng(0)
    logits = jnp.asarray(3 * rng.normal(size=(rows, 3)), jnp.float32)
    if loss in EVERY_SIGMOID:
        return logits, jnp.asarray(rng.integers(0, 2, (rows, 3)))
    return logits, jnp.asarray(rng.integers(0, 3, rows))


@functools.cache
def compiled(loss):
    return jax.jit(loss)


def elements_of(loss):
    """The loss of each element of the batch by itself: 1-D logits give one value per element."""
    logits, labels = batch(loss)
    return np.asarray(compiled(loss)(logits.ravel(), labels.ravel())).reshape(6, 3)


# Values and gradients.


def logits_of(shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.parametrize(("loss", "truth"), SIGMOID)
@settings(max_examples=20, deadline=None)
@given(logits_of((3, 4)), hnp.arrays(np.float32, (3, 4), elements=st.sampled_from([0, 1, 0.25])))
def test_sigmoid_losses_are_the_mean_over_labels_of_their_formula(loss, truth, x, y):
    expected = truth(x.astype(np.float64), y.astype(np.float64)).mean(axis=-1)
    chex.assert_trees_all_close(np.asarray(compiled(loss)(x, y)), expected.astype(np.float32), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("loss", "truth"), SOFTMAX)
@settings(max_examples=20, deadline=None)
@given(logits_of((2, 3)), hnp.arrays(np.int32, 2, elements=st.integers(0, 2)), st.sampled_from([0, 0.25]))
def test_softmax_losses_agree_with_their_formula(loss, truth, x, y, mixed):
    one_hot = np.eye(3, dtype=np.float32)[y]
    soft = (1 - mixed) * one_hot + mixed * one_hot[::-1]
    expected = truth(x.astype(np.float64), soft.astype(np.float64))
    # The hinge is a difference of scores, and scores that soft labels mix are rounded at their own size.
    rounding = np.finfo(np.float32).eps * np.abs(x).max() if mixed and loss.func is losses.categorical_hinge else 0
    np.testing.assert_allclose(compiled(loss)(x, soft), expected, rtol=2e-5, atol=2e-6 + 2 * rounding)
    if not mixed:
        np.testing.assert_allclose(compiled(loss)(x, y), expected, rtol=2e-5, atol=2e-6)


def slope(truth, x, y, direction):
    """The derivative of a float64 formula by central differences."""
    step = 1e-4 * direction
    return (truth(x + step, y) - truth(x - step, y)) / 2e-4


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(loss, logits, y):
    """By type of the logits."""
    pairs = {dtype: jax.vjp(lambda x: loss(x, y), x) for dtype, x in logits.items()}
    return {dtype: (value, pull(jnp.ones_like(value))[0]) for dtype, (value, pull) in pairs.items()}


TOLERANCE = {"float32": 2e-5, "bfloat16": 8e-3, "float16": 1e-3}
LOGITS = [-1e4, -300.0, -30.0, -3.3, -0.4, 0.4, 3.3, 30.0, 300.0, 1e4]


@pytest.mark.parametrize(("loss", "truth"), SIGMOID)
def test_sigmoid_losses_are_accurate_at_saturated_logits(loss, truth):
    logits = {dtype: jnp.asarray(np.repeat(LOGITS, 2), dtype) for dtype in TOLERANCE}
    y = np.tile([0, 1], len(LOGITS))
    for dtype, (value, gradient) in value_and_gradient(loss, logits, y).items():
        assert value.dtype == jnp.float32
        assert gradient.dtype == dtype
        exact = np.asarray(logits[dtype], np.float64)
        np.testing.assert_allclose(value, truth(exact, y), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(
            np.asarray(gradient, np.float64), slope(truth, exact, y, 1), rtol=TOLERANCE[dtype], atol=1e-6
        )


@pytest.mark.parametrize(("loss", "truth"), SOFTMAX)
def test_softmax_losses_are_accurate_at_saturated_logits(loss, truth):
    rows = [(1e4, -1e4, 0.0), (300.0, 2.0, 300.5), (30.0, 1.0, -30.0), (2.0, 0.5, -1.0), (-9e3, -1e4, -9.5e3)]
    logits = {dtype: jnp.asarray(np.repeat(rows, 3, axis=0), dtype) for dtype in TOLERANCE}
    y = np.tile([0, 1, 2], len(rows))
    for dtype, (value, gradient) in value_and_gradient(loss, logits, y).items():
        assert value.dtype == jnp.float32
        assert gradient.dtype == dtype
        exact, one_hot = np.asarray(logits[dtype], np.float64), np.eye(3)[y]
        slopes = np.stack([slope(truth, exact, one_hot, direction) for direction in np.eye(3)], axis=-1)
        np.testing.assert_allclose(value, truth(exact, one_hot), rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(np.asarray(gradient, np.float64), slopes, rtol=TOLERANCE[dtype], atol=2e-6)


@pytest.mark.parametrize(
    "loss",
    [
        losses.sigmoid_cross_entropy,
        losses.sigmoid_focal,
        losses.sigmoid_poly,
        losses.asymmetric,
        losses.softmax_cross_entropy,
        functools.partial(losses.softmax_focal, gamma=0.5),
        losses.softmax_poly,
        EVERY_SOFTMAX[-1],
    ],
    ids=name_of,
)
def test_second_derivatives_agree_with_finite_differences(loss):
    logits = jnp.array([[0.3, -1.2, 2.1], [0.7, 1.5, -0.4]])
    labels = jnp.array([[0, 1, 1], [1, 0, 0]]) if loss in EVERY_SIGMOID else jnp.array([2, 0])
    gradient = jax.jit(jax.grad(lambda x: loss(x, labels, normalizer="batch")))
    check_grads(gradient, (logits,), order=1, modes=["rev"], rtol=2e-2)


# Other libraries.

X1, Y1 = np.array([-2.0, 0.3, 1.4, -0.7], np.float32), np.array([0, 1, 0, 1], np.float32)
X3 = np.array([[0.2, -1.0, 2.0], [-0.5, -0.1, -3.0], [1.0, 1.5, 0.0]], np.float32)
I3 = np.array([2, 0, 1])
H3 = np.eye(3, dtype=np.float32)[I3]
P3 = np.exp(log_p(X3.astype(np.float64))).astype(np.float32)
W3 = np.array([1.0, 2, 5], np.float32)


def by_keras(name, labels, outputs, *, sample_weight=None, reduction=None, **options):
    loss = getattr(keras.losses, name)(reduction=reduction, **options)
    if labels.ndim == 1 and outputs.ndim == 1:  # Keras takes the mean over the last axis.
        labels, outputs = labels[:, None], outputs[:, None]
    return loss(labels, outputs, sample_weight=sample_weight)


AGAINST_KERAS = {
    "binary": (
        lambda: losses.sigmoid_cross_entropy(X1, Y1, label_smoothing=0.2),
        lambda: by_keras("BinaryCrossentropy", Y1, X1, from_logits=True, label_smoothing=0.2),
    ),
    "hinge": (lambda: losses.hinge(X1, Y1), lambda: by_keras("Hinge", Y1, X1)),
    "squared hinge": (lambda: losses.squared_hinge(X1, Y1), lambda: by_keras("SquaredHinge", Y1, X1)),
    "binary focal": (
        lambda: losses.sigmoid_focal(X1, Y1, gamma=1.5, alpha=0.3),
        lambda: by_keras(
            "BinaryFocalCrossentropy",
            Y1,
            X1,
            from_logits=True,
            gamma=1.5,
            alpha=0.3,
            apply_class_balancing=True,
        ),
    ),
    "smoothed binary focal": (
        lambda: losses.sigmoid_focal(X1, Y1, alpha=0.3, label_smoothing=0.1),
        lambda: by_keras(
            "BinaryFocalCrossentropy",
            Y1,
            X1,
            from_logits=True,
            alpha=0.3,
            apply_class_balancing=True,
            label_smoothing=0.1,
        ),
    ),
    "ignored class": (
        lambda: losses.softmax_cross_entropy(X3, I3, ignore_label=0),
        lambda: by_keras("SparseCategoricalCrossentropy", I3, X3, from_logits=True, ignore_class=0),
    ),
    "probabilities": (
        lambda: losses.softmax_cross_entropy(X3, H3, label_smoothing=0.2),
        lambda: by_keras("CategoricalCrossentropy", H3, P3, label_smoothing=0.2),
    ),
    "categorical focal": (
        lambda: losses.softmax_focal(X3, H3, gamma=1.5, alpha=ALPHA, label_smoothing=0.2),
        lambda: by_keras(
            "CategoricalFocalCrossentropy",
            H3,
            X3,
            from_logits=True,
            gamma=1.5,
            alpha=ALPHA[None],
            label_smoothing=0.2,
        ),
    ),
    "categorical hinge": (
        lambda: losses.categorical_hinge(X3, I3),
        lambda: by_keras("CategoricalHinge", H3, X3),
    ),
    "sum over the batch": (
        lambda: losses.softmax_cross_entropy(X3, I3, sample_weight=W3, normalizer="batch"),
        lambda: by_keras(
            "SparseCategoricalCrossentropy",
            I3,
            X3,
            from_logits=True,
            sample_weight=W3,
            reduction="sum_over_batch_size",
        ),
    ),
    "mean with weights": (
        lambda: losses.softmax_cross_entropy(X3, I3, sample_weight=W3, normalizer="weights"),
        lambda: by_keras(
            "SparseCategoricalCrossentropy",
            I3,
            X3,
            from_logits=True,
            sample_weight=W3,
            reduction="mean_with_sample_weight",
        ),
    ),
}


@pytest.mark.parametrize("name", AGAINST_KERAS)
def test_agrees_with_keras(name):
    ours, theirs = AGAINST_KERAS[name]
    np.testing.assert_allclose(jax.jit(ours)(), jax.jit(theirs)(), rtol=2e-5, atol=1e-6)


AGAINST_OPTAX = {
    "focal of soft labels": (
        lambda: losses.sigmoid_focal(jnp.array([6.0, -1.0]), jnp.array([0.7, 0.2])),
        lambda: optax.sigmoid_focal_loss(jnp.array([6.0, -1.0]), jnp.array([0.7, 0.2]), gamma=2.0),
    ),
    "binary": (
        lambda: losses.sigmoid_cross_entropy(X1, Y1),
        lambda: optax.sigmoid_binary_cross_entropy(X1, Y1),
    ),
    "hinge": (lambda: losses.hinge(X1, Y1), lambda: optax.hinge_loss(X1, 2 * Y1 - 1)),
    "sigmoid focal": (
        lambda: losses.sigmoid_focal(X1, Y1, alpha=0.3),
        lambda: optax.sigmoid_focal_loss(X1, Y1, alpha=0.3, gamma=2.0),
    ),
    "integers": (
        lambda: losses.softmax_cross_entropy(X3, I3),
        lambda: optax.softmax_cross_entropy_with_integer_labels(X3, I3),
    ),
    "soft": (
        lambda: losses.softmax_cross_entropy(X3, 0.5 * H3 + 1 / 6),
        lambda: optax.softmax_cross_entropy(X3, 0.5 * H3 + 1 / 6),
    ),
    "poly": (
        lambda: losses.softmax_poly(X3, I3, epsilon=2.0, label_smoothing=0.3),
        lambda: optax.losses.poly_loss_cross_entropy(X3, 0.7 * H3 + 0.1, epsilon=2.0),
    ),
}


@pytest.mark.parametrize("name", AGAINST_OPTAX)
def test_agrees_with_optax(name):
    ours, theirs = AGAINST_OPTAX[name]
    np.testing.assert_allclose(jax.jit(ours)(), jax.jit(theirs)(), rtol=2e-5, atol=1e-6)


def test_categorical_hinge_differs_from_crammer_and_singer_only_below_zero():
    scores = jnp.array([[0.5, 1.5], [0.5, -1.5]])
    ours = jax.jit(losses.categorical_hinge)(scores, jnp.array([0, 0]))
    theirs = jax.jit(optax.losses.multiclass_hinge_loss)(scores, jnp.array([0, 0]))
    np.testing.assert_allclose(ours, [2.0, 0.5])
    np.testing.assert_allclose(theirs, [2.0, 0.0])


# Identities.


@pytest.mark.parametrize(
    ("loss", "options", "plain"),
    [
        (losses.sigmoid_focal, {"gamma": 0.0}, losses.sigmoid_cross_entropy),
        (
            losses.asymmetric,
            {"gamma_negative": 0, "gamma_positive": 0, "clip": 0},
            losses.sigmoid_cross_entropy,
        ),
        (losses.sigmoid_poly, {"epsilon": 0.0}, losses.sigmoid_cross_entropy),
        (losses.softmax_focal, {"gamma": 0.0}, losses.softmax_cross_entropy),
        (losses.softmax_poly, {"epsilon": 0.0}, losses.softmax_cross_entropy),
    ],
)
def test_a_loss_with_its_extra_term_off_is_exactly_cross_entropy(loss, options, plain):
    logits, labels = batch(loss)
    logits = logits.at[3:].multiply(3e3)
    chex.assert_trees_all_equal(loss(logits, labels, **options), plain(logits, labels))


@every_loss
def test_masked_examples_reach_neither_value_nor_gradient(loss):
    logits, labels = batch(loss)
    mask = jnp.array([True, False, True, True, False, True])
    row_mask = mask[:, None]
    weight = jnp.where(mask, jnp.arange(1.0, 7), jnp.nan)

    def total(logits, labels, **weighting):
        return loss(logits, labels, normalizer="batch", label_smoothing=0.1, **weighting)

    value_and_gradient = jax.value_and_grad(total)
    value, gradient = value_and_gradient(jnp.where(row_mask, logits, jnp.nan), labels, mask=mask, sample_weight=weight)
    value_of_subset, gradient_of_subset = jax.jit(value_and_gradient)(
        logits[mask], labels[mask], sample_weight=weight[mask]
    )
    np.testing.assert_allclose(value, value_of_subset, rtol=1e-6)
    np.testing.assert_allclose(gradient[mask], gradient_of_subset, rtol=1e-5, atol=1e-7)
    assert not np.any(gradient[~mask])
    assert not np.any(loss(logits, labels, mask=mask)[~mask])


@every_sigmoid
def test_masked_elements_are_excluded_from_the_mean_of_their_example(loss):
    logits, labels = batch(loss)
    rows = [[True, False, True], [False, False, False], [True, True, True]]
    mask = jnp.array(2 * rows)
    dirty = jnp.where(mask, logits, jnp.inf)
    expected = np.sum(elements_of(loss), axis=1, where=mask) / np.maximum(np.sum(mask, axis=1), 1)
    np.testing.assert_allclose(loss(dirty, labels, mask=mask), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(logits, jnp.where(mask, labels, -1), ignore_label=-1), expected, rtol=1e-6)
    missing = jnp.where(mask, labels, jnp.nan)
    np.testing.assert_allclose(loss(logits, missing, ignore_label=float("nan")), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: loss(x, labels, mask=mask, normalizer="batch"))(dirty)
    assert np.all(np.isfinite(gradient))
    mean = np.sum(expected) / 4  # of the examples that have a label left
    np.testing.assert_allclose(loss(dirty, labels, mask=mask, normalizer="batch"), mean, rtol=1e-6)


@every_softmax
@pytest.mark.parametrize(("ignored", "dtype"), [(255, jnp.uint8), (-1, jnp.int32)])
def test_ignored_labels_are_masked(loss, ignored, dtype):
    logits, labels = batch(loss)
    keep = np.array([True, True, False, True, False, True])
    result = loss(logits, jnp.where(keep, labels, ignored).astype(dtype), ignore_label=ignored)
    np.testing.assert_allclose(result, loss(logits, labels) * keep, rtol=1e-6)


def test_an_ignored_label_does_not_wrap_to_the_type_of_the_labels():
    labels = jnp.full(6, 255, jnp.uint8)  # -1 as uint8 is 255
    assert np.all(np.isnan(losses.softmax_cross_entropy(jnp.zeros((6, 3)), labels, ignore_label=-1)))


@every_loss
def test_uniform_weights_change_nothing(loss):
    logits, labels = batch(loss)
    plain = loss(logits, labels)
    ones = {"class_weight": jnp.ones(2 if loss in EVERY_SIGMOID else 3), "sample_weight": jnp.ones(6)}
    chex.assert_trees_all_close(loss(logits, labels, **ones), plain, rtol=1e-6)
    fives = {name: 5 * weight for name, weight in ones.items()}
    means = [loss(logits, labels, normalizer="weights", **weights) for weights in ({}, ones, fives)]
    np.testing.assert_allclose(means, np.mean(plain), rtol=1e-6)


@every_loss
def test_a_weight_of_two_repeats_the_example(loss):
    logits, labels = batch(loss, rows=4)
    weight = jnp.array([2.0, 1, 2, 1])
    twice = np.array([0, 0, 1, 2, 2, 3])
    mean, weighted = jax.jit(
        lambda *data: [loss(*data, sample_weight=weight, normalizer=name) for name in ("batch", "weights")]
    )(logits, labels)
    repeated = loss(logits[twice], labels[twice])
    np.testing.assert_allclose(4 * mean, np.sum(repeated), rtol=1e-6)
    np.testing.assert_allclose(weighted, np.mean(repeated), rtol=1e-6)


@every_loss
def test_losses_are_equivariant_to_permutations_of_examples_and_classes(loss):
    logits, labels = batch(loss)
    rows = np.array([3, 0, 5, 1, 4, 2])
    chex.assert_trees_all_close(loss(logits[rows], labels[rows]), loss(logits, labels)[rows], rtol=1e-6)
    columns = np.array([2, 0, 1])
    options = {"prior": PRIOR[columns]} if name_of(loss) == "logit_adjusted_cross_entropy" else {}
    moved = labels[:, columns] if loss in EVERY_SIGMOID else jnp.argsort(columns)[labels]
    chex.assert_trees_all_close(loss(logits[:, columns], moved, **options), loss(logits, labels), rtol=1e-5)


# Weights and normalizers, by hand.


@every_sigmoid
def test_side_weights_of_binary_and_multilabel_losses_multiply(loss):
    logits, labels = batch(loss)
    plain = elements_of(loss)
    np.testing.assert_allclose(loss(logits, labels), plain.mean(axis=1), rtol=1e-6)
    shared, pos, per_label = (
        np.array([0.5, 3.0]),
        np.array([1.0, 4.0, 2.0]),
        np.array([[1.0, 2], [3, 4], [5, 6]]),
    )
    y = np.asarray(labels)
    for weighting, weight in [
        ({"class_weight": shared}, shared[y]),
        ({"class_weight": per_label}, per_label[np.arange(3), y]),
        ({"pos_weight": 4.0}, np.where(y == 1, 4, 1)),
        ({"pos_weight": pos, "class_weight": shared}, shared[y] * np.where(y == 1, pos, 1)),
    ]:
        np.testing.assert_allclose(loss(logits, labels, **weighting), (weight * plain).mean(axis=1), rtol=1e-5)
        mean = (weight * plain).sum() / weight.sum()
        np.testing.assert_allclose(loss(logits, labels, normalizer="weights", **weighting), mean, rtol=1e-5)


@every_softmax
def test_class_weight_of_a_soft_label_is_its_expectation_before_smoothing(loss):
    logits, labels = batch(loss)
    weight = np.array([1.0, 5.0, 0.5], np.float32)
    soft = 0.75 * np.eye(3, dtype=np.float32)[labels] + 0.25 * np.eye(3, dtype=np.float32)[0]
    for target, expected in [(labels, weight[labels]), (soft, soft @ weight)]:
        plain = loss(logits, target, label_smoothing=0.3)
        weighted = loss(logits, target, label_smoothing=0.3, class_weight=weight)
        np.testing.assert_allclose(weighted, expected * plain, rtol=1e-5)


def test_alpha_of_sigmoid_focal_is_a_class_weight():
    logits, labels = batch(losses.sigmoid_focal)
    for normalizer in ("none", "weights"):
        chex.assert_trees_all_close(
            losses.sigmoid_focal(logits, labels, alpha=0.3, normalizer=normalizer),
            losses.sigmoid_focal(logits, labels, class_weight=[0.7, 0.3], normalizer=normalizer),
            rtol=1e-6,
        )


@every_loss
def test_label_smoothing_mixes_labels_with_the_uniform_distribution(loss):
    logits, labels = batch(loss)
    if loss in EVERY_SIGMOID:
        soft = 0.8 * labels + 0.1
    else:
        soft = 0.8 * jnp.eye(3)[labels] + 0.2 / 3
    chex.assert_trees_all_close(loss(logits, labels, label_smoothing=0.2), loss(logits, soft), rtol=1e-5)


def test_normalizers_agree_with_hand_computed_values():
    logits, labels = jnp.zeros((3, 2)), jnp.array([[1, 1], [1, 0], [0, 0]])
    mask = jnp.array([[True, True], [True, False], [False, False]])
    weighting = {"mask": mask, "sample_weight": jnp.array([3.0, 1.0, 9.0]), "pos_weight": 2.0}
    unit = np.log(2)  # the loss of one element
    expected = {
        "none": np.array([6 * unit, 2 * unit, 0]),
        "batch": 8 * unit / 2,
        "weights": unit,
        "positives": (3 * 2 * 2 + 1 * 2) * unit / 3,
    }
    result = jax.jit(
        lambda: {name: losses.sigmoid_cross_entropy(logits, labels, normalizer=name, **weighting) for name in expected}
    )()
    chex.assert_trees_all_close(result, expected, rtol=1e-6)


def test_the_positives_normalizer_agrees_with_retinanet():
    """The sum over anchors and classes, divided by the number of positive anchors, at least 1."""
    logits, labels = batch(losses.sigmoid_focal)
    sums = [
        losses.sigmoid_focal(logits, y, alpha=0.25, normalizer="positives") for y in (labels, jnp.zeros_like(labels))
    ]
    expected = [
        optax.sigmoid_focal_loss(logits, labels.astype(float), alpha=0.25).sum() / labels.sum(),
        optax.sigmoid_focal_loss(logits, jnp.zeros((6, 3)), alpha=0.25).sum(),
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("normalizer", ["none", "batch", "weights", "positives"])
def test_an_empty_batch_gives_zero(loss, normalizer):
    logits, labels = batch(loss)
    value, pull = jax.vjp(
        lambda x: loss(x, labels, mask=jnp.zeros(6, bool), normalizer=normalizer),
        jnp.full_like(logits, jnp.nan),
    )
    assert not np.any(value)
    assert not np.any(pull(jnp.ones_like(value))[0])


@every_loss
def test_labels_out_of_range_give_nan(loss):
    logits, labels = batch(loss)
    wrong = labels.at[2].set(-1).at[4].set(3)
    assert list(np.flatnonzero(np.isnan(loss(logits, wrong)))) == [2, 4]


# Transformations.


@every_loss
def test_vmap_and_sharded_jit_agree_with_eager_mode(loss):
    logits, labels = batch(loss)
    weighting = {"mask": jnp.arange(6) != 1, "sample_weight": jnp.arange(6.0)}
    plain = loss(logits, labels, normalizer="batch", **weighting)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.device_put((logits, labels, weighting), rows)

    def total(x, y, w):
        return loss(x, y, normalizer="batch", **w)

    np.testing.assert_allclose(jax.jit(total)(*sharded), plain, rtol=1e-6)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), (logits, labels, weighting))
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(*stacked), [plain, plain], rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.sigmoid_focal, losses.softmax_focal])
def test_any_number_of_leading_axes_is_accepted(loss):
    logits, labels = batch(loss)
    deep = jax.jit(functools.partial(loss, mask=jnp.ones((2, 3), bool)))(
        logits.reshape(2, 3, 3), labels.reshape(2, 3, *labels.shape[1:])
    )
    chex.assert_trees_all_close(deep, loss(logits, labels).reshape(2, 3), rtol=1e-6)


# Infinite logits and traced settings.


@pytest.mark.parametrize("loss", EVERY_SOFTMAX, ids=name_of)
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_that_were_ruled_out_with_infinite_logits_change_nothing(loss, one_hot):
    if name_of(loss) == "logit_adjusted_cross_entropy":
        loss = functools.partial(losses.logit_adjusted_cross_entropy, prior=jnp.ones(3))
    labels = jnp.eye(3)[1:2] if one_hot else jnp.array([1])
    logits = jnp.array([[0.0, 1.0, -jnp.inf]])
    # The class at -1e4 has no probability either.
    expected, gradient = (f(lambda x: loss(x, labels).sum())(logits.clip(-1e4)) for f in (lambda f: f, jax.grad))
    np.testing.assert_allclose(loss(logits, labels).sum(), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: loss(x, labels).sum())(logits), gradient, rtol=1e-6)


@pytest.mark.parametrize("loss", [*EVERY_SIGMOID, functools.partial(losses.sigmoid_focal, gamma=0.0)], ids=name_of)
def test_infinite_logits_on_the_right_side_have_no_loss(loss):
    logits, labels = jnp.array([jnp.inf, -jnp.inf]), jnp.array([1, 0])
    assert loss(logits, labels).tolist() == [0, 0]
    assert jax.grad(lambda x: loss(x, labels).sum())(logits).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (losses.sigmoid_cross_entropy, {"label_smoothing": 0.1}),
        (losses.sigmoid_focal, {"gamma": 1.5, "alpha": 0.3}),
        (losses.asymmetric, {"gamma_negative": 3.0, "gamma_positive": 0.5, "clip": 0.1}),
        (losses.asymmetric, {"clip": 0.0}),
        (losses.sigmoid_poly, {"epsilon": 0.5}),
        (losses.softmax_cross_entropy, {"label_smoothing": 0.1}),
        (losses.softmax_focal, {"gamma": 1.5, "alpha": 0.3}),
        (losses.softmax_poly, {"epsilon": 0.5}),
        (losses.logit_adjusted_cross_entropy, {"prior": PRIOR, "tau": 0.5}),
    ],
)
def test_settings_may_be_traced(loss, settings):
    arrays = batch(loss)
    traced = jax.jit(lambda settings: loss(*arrays, **settings))(settings)
    np.testing.assert_allclose(traced, loss(*arrays, **settings), rtol=1e-5)


# Invalid arguments.


F3, B3 = jnp.zeros((4, 3)), jnp.zeros((4, 3), int)
I4, V4 = jnp.zeros(4, int), jnp.zeros(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.sigmoid_cross_entropy(jnp.zeros((4, 1)), I4),
            r"\(4, 1\) and labels \(4,\).*logits\[..., 0\]",
        ),
        (lambda: losses.hinge(V4, I4[:, None]), r"labels\[..., 0\]"),
        (lambda: losses.softmax_cross_entropy(F3, I4[:, None]), r"\(4,\) \(integer.*labels\[..., 0\]"),
        (lambda: losses.softmax_cross_entropy(F3, V4), "must be integers, not float32"),
        (lambda: losses.softmax_cross_entropy(B3, I4), "logits are int32; they must be floats"),
        (lambda: losses.sigmoid_focal(I4, I4), "they must be floats"),
        (lambda: losses.softmax_cross_entropy(jnp.zeros((4, 1)), I4), "fewer than two classes"),
        (lambda: losses.softmax_cross_entropy(jnp.zeros(()), jnp.zeros((), int)), "fewer than two classes"),
        (
            lambda: losses.softmax_cross_entropy(F3, I4, class_weight=[1.0, 2]),
            r"class_weight \(2,\) must .* \(3,\)",
        ),
        (lambda: losses.hinge(F3, B3, class_weight=[1.0, 2, 3]), r"\(2,\) or \(3, 2\): .* per label"),
        (
            lambda: losses.hinge(V4, I4, class_weight=jnp.ones((4, 2))),
            r"shape \(2,\): the weights of the labels 0 and 1\.",
        ),
        (
            lambda: losses.hinge(F3, B3, pos_weight=[1.0, 2]),
            r"pos_weight \(2,\) must have shape \(\) or \(3,\)",
        ),
        (lambda: losses.hinge(V4, I4, pos_weight=V4), r"pos_weight \(4,\) must have shape \(\)\."),
        (lambda: losses.softmax_poly(F3, I4, pos_weight=2.0), "with class_weight"),
        (
            lambda: losses.softmax_poly(F3, I4, class_weight="balanced"),
            r"training labels: losses\.resolve_class_weight",
        ),
        (lambda: losses.hinge(V4, I4, class_weight={0: 1, 1: 2}), "resolve_class_weight"),
        (
            lambda: losses.hinge(V4, I4, sample_weight=V4[:, None]),
            r"sample_weight \(4, 1\) must have shape \(4,\)",
        ),
        (lambda: losses.hinge(V4, I4, sample_wieght=V4), "Did you mean 'sample_weight'"),
        (lambda: losses.hinge(V4, I4, mask=V4), "mask is float32; it must be bool"),
        (lambda: losses.hinge(F3, B3, mask=V4[:3] == 0), r"mask \(3,\) must have shape \(4, 3\) or \(4,\)"),
        (lambda: losses.hinge(V4, I4, normalizer="mean"), "unknown normalizer 'mean'"),
        (lambda: losses.hinge(V4, I4, label_smoothing=1.0), r"label_smoothing is 1.0; .*\[0, 1\)"),
        (lambda: losses.softmax_poly(F3, F3 + 1, ignore_label=1), "ignore_label needs integer labels"),
        (lambda: losses.sigmoid_focal(V4, I4, gamma=-1.0), "gamma is -1.0"),
        (lambda: losses.softmax_focal(F3, I4, gamma=float("nan")), "gamma is nan"),
        (lambda: losses.sigmoid_focal(V4, I4, alpha=1.5), r"alpha is 1.5; it must lie in \[0, 1\]"),
        (lambda: losses.softmax_focal(F3, I4, alpha=[1.0, 0.5, 2.0]), "alpha is .* Weights of any size"),
        (lambda: losses.softmax_focal(F3, I4, alpha=[1.0, 0.5]), r"alpha \(2,\) must have shape \(3,\)"),
        (lambda: losses.asymmetric(V4, I4, gamma_negative=-1), "gamma_negative is -1"),
        (lambda: losses.asymmetric(V4, I4, gamma_positive=-1), "gamma_positive is -1"),
        (lambda: losses.asymmetric(V4, I4, clip=1.0), "clip is 1.0"),
        (
            lambda: losses.logit_adjusted_cross_entropy(F3, I4, prior=[1, 0, 2]),
            r"prior of class \[1\] is not positive",
        ),
        (
            lambda: losses.logit_adjusted_cross_entropy(F3, I4, prior=[1, 2]),
            r"prior \(2,\) must have shape \(3,\)",
        ),
        (lambda: losses.logit_adjusted_cross_entropy(F3, I4, prior=PRIOR, tau=-1), "tau is -1"),
    ],
)
def test_invalid_arguments_are_rejected_while_tracing(call, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(call)


# Names.


@pytest.mark.parametrize("problem", ["binary", "multilabel", "detection", "multiclass"])
def test_every_name_gives_a_loss_of_its_problem(problem):
    needed = {
        "logit_adjusted_cross_entropy": {"prior": PRIOR},
        "weighted_crossentropy": {"class_weight": [1, 1, 1] if problem == "multiclass" else [1, 1]},
    }
    for name in losses.names(problem):
        loss = losses.get(name, problem, **needed.get(name, {}))
        labels = jnp.zeros(2, int) if problem == "multiclass" else jnp.zeros((2, 3))
        values = jax.eval_shape(loss, jnp.zeros((2, 3)), labels)
        chex.assert_shape(values, (2,))


def test_every_name_fits_some_problem_and_keras_names_are_known():
    assert set(losses.names()) == {*losses.names("binary"), *losses.names("multiclass")}
    keras_names = {
        "binary_crossentropy",
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "hinge",
    }
    keras_names |= {"squared_hinge", "categorical_hinge", "binary_focal_crossentropy"}
    assert keras_names | {"categorical_focal_crossentropy"} <= set(losses.names())


@pytest.mark.parametrize(
    ("name", "problem", "expected"),
    [
        ("binary_crossentropy", None, losses.sigmoid_cross_entropy),
        ("binary_focal_crossentropy", "binary", losses.sigmoid_focal),
        ("sparse_categorical_crossentropy", "multiclass", losses.softmax_cross_entropy),
        ("categorical_crossentropy", "multiclass", losses.softmax_cross_entropy),
        ("categorical_focal_crossentropy", None, losses.softmax_focal),
        ("focal_loss", "binary", losses.sigmoid_focal),
        ("focal_loss", "detection", losses.sigmoid_focal),
        ("focal_loss", "multiclass", losses.softmax_focal),
        ("hinge", "multilabel", losses.hinge),
    ],
)
def test_a_name_stands_for_one_function(name, problem, expected):
    assert losses.get(name, problem, label_smoothing=0.1).func is expected
    assert losses.get(name, problem, label_smoothing=0.1).keywords == {"label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("problem", "expected"),
    [("binary", losses.sigmoid_cross_entropy), ("multiclass", losses.softmax_cross_entropy)],
)
def test_weighted_crossentropy_needs_its_weight(problem, expected):
    assert losses.get("weighted_crossentropy", problem, class_weight=[1.0, 2.0]).func is expected
    with pytest.raises(
        InputError, match=rf"needs a weight: losses.get\('weighted_crossentropy', '{problem}', class_weight=...\)"
    ):
        losses.get("weighted_crossentropy", problem, class_weight=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.find("crossentropy", "multiclass"), "Did you mean 'softmax_cross_entropy'"),
        (lambda: losses.find("crossentropy", "binary"), "Did you mean 'binary_crossentropy'"),
        (lambda: losses.get("focal_los"), "unknown loss 'focal_los'. Did you mean 'focal_loss'"),
        (
            lambda: losses.get("hinge", "multiclass"),
            "'hinge' does not fit a multiclass problem; .*categorical_hinge",
        ),
        (lambda: losses.get("softmax_poly", "binary"), "these do: .*sigmoid_poly"),
        (lambda: losses.get("hinge", "multi-class"), "unknown problem.*Did you mean 'multiclass'"),
        (
            lambda: losses.get("focal_loss", "binary", gama=1.0),
            "unknown setting of focal_loss 'gama'. Did you mean 'gamma'",
        ),
        (lambda: losses.get("focal_loss", "multiclass", pos_weight=2.0), "with class_weight"),
        (lambda: losses.get("hinge", gamma=1.0), "unknown setting of hinge 'gamma'"),
        (
            lambda: losses.get("logit_adjusted_cross_entropy"),
            r"needs the setting prior: losses.get\(.*, \'multiclass\', prior=...\)",
        ),
        (lambda: losses.names("multi-class"), "Did you mean 'multiclass'"),
        (lambda: losses.get("focal_loss"), r"call losses.get\('focal_loss', 'binary'\), or with .*'multiclass'"),
        (
            lambda: losses.get("weighted_crossentropy", pos_weight=2.0),
            r"losses.get\('weighted_crossentropy', 'binary'\)",
        ),
    ],
)
def test_unknown_names_and_settings_are_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()
