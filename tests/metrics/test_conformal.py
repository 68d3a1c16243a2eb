"""Conformal sets: their coverage on exchangeable data, with ties, next to the definition of the quantile."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.metrics import conformal

COVERAGES = st.sampled_from([0.5, 0.8, 0.9, 0.95])


def drawn(seed, rows, classes=4, digits=8):
    """Probabilities of logits that are rounded to a number of digits, and labels that are drawn from others."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    scores = np.exp(2 * logits.round(digits))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), labels


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), COVERAGES)
def test_at_least_the_stated_share_of_exchangeable_scores_is_covered_by_the_others(scores, coverage):
    # Each in turn is the new example: the mean over them is the probability, given the scores, whatever these are.
    covered = [
        score <= conformal.limits([[*scores[:row], *scores[row + 1 :]]], coverage)[0]
        for row, score in enumerate(scores)
    ]
    assert np.mean(covered) >= coverage - 1e-12
    if len({*scores}) == len(scores):
        assert np.mean(covered) <= coverage + 1 / len(scores) + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 99))
def test_limit_is_the_least_score_that_covers_enough(scores, percent):
    enough = [score for score in scores if 100 * sum(one <= score for one in scores) >= percent * (len(scores) + 1)]
    assert conformal.limits([scores], percent / 100)[0] == min(enough, default=math.inf)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("digits", [8, 0])
def test_sets_cover_new_examples_as_often_as_stated(method, by_class, digits):
    coverages, worst = [], []
    for seed in range(40):
        scores, labels = drawn(seed, 1200, digits=digits)
        known = conformal.calibration_scores(scores[:400], labels[:400], method)
        assert sum(map(len, known)) == 400
        limit = conformal.limits(known, 0.9, by_class=by_class)
        quality = conformal.set_quality(conformal.prediction_sets(scores[400:], limit, method), labels[400:])
        coverages.append(quality.coverage)
        worst.append(quality.worst_class)
    # The deviation of a mean of 40 is 0.003. With ties, more may be covered.
    assert 0.89 < np.mean(coverages) < (0.92 if digits == 8 else 1)
    if by_class:
        assert np.mean(worst) > 0.85


def test_aps_sums_what_is_more_probable_and_depends_on_nothing_else():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
    sums = conformal.nonconformity(scores, "aps")
    part = sums[0, 0] / 0.5
    np.testing.assert_allclose(sums[0], [0.5 * part, 0.5 + 0.3 * part, 0.8 + 0.2 * part], rtol=1e-6)
    assert 0 < part < 1
    np.testing.assert_array_equal(conformal.nonconformity(scores[::-1], "aps"), sums[::-1])


def test_a_binary_problem_is_one_of_two_classes():
    scores, labels = drawn(0, 50, classes=2)
    two = conformal.calibration_scores(np.stack([1 - scores[:, 1], scores[:, 1]], axis=1), labels)
    alone = conformal.calibration_scores(scores[:, 1], labels)
    np.testing.assert_allclose(np.concatenate(alone), np.concatenate(two), atol=1e-6)
    limit = conformal.limits(two, 0.9)
    assert conformal.prediction_sets(scores[:, 1], limit).shape == (50, 2)


def test_few_examples_make_sets_of_all_classes_and_weights_of_zero_do_not_count():
    scores, labels = drawn(0, 9)
    known = conformal.calibration_scores(scores, labels, sample_weight=[0.0] * 4 + [2.0] * 5)
    assert sum(map(len, known)) == 5
    limit = conformal.limits(known, 0.9)
    quality = conformal.set_quality(conformal.prediction_sets(scores, limit), labels)
    assert quality == conformal.SetQuality(1, 1, 4, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conformal.limits([[0.5]], 90), "coverage is 90; give a number between 0 and 1"),
        (lambda: conformal.nonconformity([0.5], "raps"), "unknown method of conformal sets 'raps'"),
        (lambda: conformal.calibration_scores([[0.5]], [[1]], problem="multilabel"), "not of multilabel"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
