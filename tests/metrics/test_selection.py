"""Greedy ensemble selection, next to one written for log loss alone, and the gain on examples that were not used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.metrics import log_loss
from jaxcls.metrics.selection import greedy_selection, selection_gain


def drawn(seed, candidates=4, rows=30, classes=3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    noise = random.uniform(0.5, 3, (candidates, 1, 1))
    logits = (labels[:, None] == np.arange(classes)) + noise * random.normal(size=(candidates, rows, classes))
    scores = np.exp(logits)
    return scores / scores.sum(axis=2, keepdims=True), labels


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_weights_are_those_of_the_best_round_of_the_greedy_choice(seed):
    scores, labels = drawn(seed)
    weights = greedy_selection(scores, labels, rounds=8)
    true, taken, means = scores[:, np.arange(len(labels)), labels], [], []
    for _ in range(8):
        losses = [-np.log(true[[*taken, one]].mean(axis=0)).mean() for one in range(len(scores))]
        taken.append(int(np.argmin(losses)))
        means.append(min(losses))
    best = int(np.argmin(means)) + 1
    np.testing.assert_allclose(weights, np.bincount(taken[:best], minlength=len(scores)) / best)
    mean_loss = log_loss(np.tensordot(weights, scores, 1), labels)
    assert mean_loss <= min(log_loss(one, labels) for one in scores) + 1e-12
    np.testing.assert_array_equal(greedy_selection(scores[::-1], labels, rounds=8)[::-1], weights)


def test_bagged_weights_are_means_over_halves_and_rows_may_be_masked():
    scores, labels = drawn(0, candidates=6)
    weights = greedy_selection(scores, labels, bags=20)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).sum() > (greedy_selection(scores, labels) > 0).sum()
    masked = scores.copy()
    masked[:, 20:] = np.nan
    expected = greedy_selection(scores[:, :20], labels[:20])
    np.testing.assert_array_equal(greedy_selection(masked, labels, mask=np.arange(30) < 20), expected)


def test_the_gain_is_that_of_examples_that_did_not_choose():
    # One candidate knows the labels: it alone is selected, and the gain is all that the mean loses.
    _, labels = drawn(1, rows=200)
    known = np.where(labels[:, None] == np.arange(3), 0.9, 0.05)
    uniform = np.full((200, 3), 1 / 3)
    gain, interval = selection_gain([known, uniform], labels, resamples=200)
    assert gain == pytest.approx(log_loss((known + uniform) / 2, labels) - log_loss(known, labels))
    assert interval.low == pytest.approx(gain)
    # Of candidates of pure noise, selection gains nothing, though it seems to on the examples that it was made of.
    noise = np.random.default_rng(0).dirichlet([5, 5, 5], (20, 200))
    mean_loss = log_loss(noise.mean(axis=0), labels)
    assert log_loss(np.tensordot(greedy_selection(noise, labels), noise, 1), labels) < mean_loss
    gain, interval = selection_gain(noise, labels, resamples=200)
    assert gain < 0 or interval.low < 0


@pytest.mark.parametrize(
    ("changes", "message"), [({"rounds": 0}, "rounds is 0"), ({"parts": 1}, "parts is 1"), ({"bags": 0}, "bags is 0")]
)
def test_counts_are_checked(changes, message):
    scores, labels = drawn(0)
    with pytest.raises(InputError, match=message):
        selection_gain(scores, labels, **changes)
