"""Calibration next to the optimum that SciPy finds of scikit-learn's log loss, and what no calibration may change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.metrics import log_loss

from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.metrics import calibration


def drawn(seed=0, rows=400, classes=3, sharpness=3.0):
    """Logits that are too sharp, labels and weights."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return sharpness * logits + np.arange(classes) / 2, labels, random.uniform(0.5, 2, rows)


def minimum(loss, start):
    return optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7}).x


def test_temperature_is_the_optimum_of_the_log_loss():
    logits, labels, weight = drawn()
    fitted = calibration.fit(logits, labels, sample_weight=weight)
    (scale,) = minimum(lambda x: log_loss(labels, special.softmax(logits * x[0], axis=1), sample_weight=weight), [1.0])
    assert float(fitted.scale) == pytest.approx(scale, rel=1e-4)
    assert 0.2 < scale < 0.5, "they were drawn three times too sharp"
    assert float(fitted.bias) == 0
    before, after = (calibration.probabilities_of(one, "multiclass") for one in (logits, fitted(logits)))
    np.testing.assert_array_equal(before.argsort(axis=1), after.argsort(axis=1))
    error = metrics.expected_calibration_error(after, labels, sample_weight=weight)
    assert error < metrics.expected_calibration_error(before, labels, sample_weight=weight) / 2


def test_vector_is_the_optimum_with_its_prior():
    logits, labels, weight = drawn(rows=100)
    start = float(calibration.fit(logits, labels, sample_weight=weight).scale)

    def loss(x):
        scores = special.softmax(logits * x[:3] + x[3:], axis=1)
        prior = (((x[:3] / start - 1) ** 2).sum() + (x[3:] ** 2).sum()) / 2
        return weight.sum() * log_loss(labels, scores, sample_weight=weight) + prior

    fitted = calibration.fit(logits, labels, method="vector", sample_weight=weight)
    solution = minimum(loss, [start] * 3 + [0.0] * 3)
    np.testing.assert_allclose([*fitted.scale, *fitted.bias], solution, atol=1e-3)


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_each_label_is_calibrated_by_its_known_rows_like_a_binary_problem(method):
    logits, labels, weight = drawn(classes=4)
    truth = (labels[:, None] == np.arange(4)).astype(float)
    truth[::7, 0] = np.nan
    truth[:, 3] = 0  # one class: unchanged
    both = calibration.fit(logits, truth, problem="multilabel", method=method, sample_weight=weight)
    known = np.isfinite(truth[:, 0])
    alone = calibration.fit(logits[known, 0], truth[known, 0].astype(int), method=method, sample_weight=weight[known])
    assert (both.scale[0], both.bias[0]) == pytest.approx((float(alone.scale), float(alone.bias)), rel=1e-6)
    assert (both.scale[3], both.bias[3]) == (1, 0)
    assert (both.bias[1] != 0) == (method == "vector")

    def loss(x):  # Platt's scaling, whose prior hardly counts here
        scores = special.expit(logits[known, 0] * x[0] + (x[1] if method == "vector" else 0))
        return log_loss(truth[known, 0], scores, sample_weight=weight[known])

    solution = minimum(loss, [1.0, 0.0] if method == "vector" else [1.0])
    np.testing.assert_allclose([alone.scale, alone.bias][: len(solution)], solution, atol=0.05)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0.01, 1.0, 40.0]))
def test_calibrated_log_loss_is_never_greater_and_decisions_stay(seed, classes, sharpness):
    logits, labels, _ = drawn(seed, rows=30, classes=classes, sharpness=sharpness)
    fitted = calibration.fit(logits, labels)
    assert np.isfinite(fitted.scale)
    before, after = (calibration.probabilities_of(one, "multiclass") for one in (logits, fitted(logits)))
    assert metrics.log_loss(after, labels) <= metrics.log_loss(before, labels) + 1e-6
    np.testing.assert_array_equal(logits.argmax(axis=1), fitted(logits).argmax(axis=1))
    vector = calibration.fit(logits, labels, method="vector")
    assert np.isfinite([*vector.scale, *vector.bias]).all()


def test_without_an_error_nothing_is_sharpened():
    logits = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    assert float(calibration.fit(logits, [0, 1, 0]).scale) == 1
    vector = calibration.fit(logits, [0, 1, 0], method="vector")
    assert np.abs(vector.scale).max() < 3
    # Worse than chance.
    assert float(calibration.fit([3.0, -3.0], [0, 1]).scale) == 0.01


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
def test_logits_of_probabilities_lead_back_to_them(problem):
    logits = drawn()[0] if problem == "multiclass" else np.linspace(-80, 16, 50)
    scores = calibration.probabilities_of(logits, problem).astype(np.float32)
    again = calibration.probabilities_of(calibration.logits_of(scores, problem), problem)
    np.testing.assert_allclose(again, scores, rtol=1e-6, atol=1e-37)
    assert np.isfinite(calibration.logits_of([[0.0, 1.0]] if problem == "multiclass" else [0.0, 1.0], problem)).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="unknown method of calibration 'isotonic'"):
        calibration.fit([0.5], [1], method="isotonic")
