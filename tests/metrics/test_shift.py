"""Two-sample tests agree with SciPy's, and tell shifted columns from those of the same distribution."""

import numpy as np
import pytest
from scipy import stats

from jaxcls.metrics import shift

RNG = np.random.default_rng(0)
WORDS = np.array(["a", "b", "c", "rare"], object)


def compared(before, now):
    return shift.compare(shift.reference(before), now)


@pytest.mark.parametrize("offset", [0.0, 0.3, 2.0])
def test_numbers_are_compared_as_by_kolmogorov_and_smirnov(offset):
    before, now = RNG.normal(size=100), RNG.normal(offset, size=80).round(1)
    expected = stats.ks_2samp(before, now)
    [result] = compared({"x": before}, {"x": now})
    assert result.difference == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(stats.kstwobign.sf(np.sqrt(100 * 80 / 180) * expected.statistic))


def test_words_are_compared_by_the_chi_squared_test():
    before, now = (RNG.choice(WORDS[:3], size, p=p) for size, p in ((500, [0.5, 0.3, 0.2]), (300, [0.2, 0.3, 0.5])))
    counts = [[np.sum(words == word) for word in WORDS[:3]] for words in (before, now)]
    [result] = compared({"plan": before}, {"plan": now})
    assert result.p_value == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    assert result.difference == pytest.approx(np.abs(np.diff(np.array(counts) / [[500], [300]], axis=0)).sum() / 2)
    assert result.is_large


def test_quantiles_of_many_rows_stand_for_all():
    before, now = RNG.exponential(size=5000), RNG.exponential(1.5, size=5000)
    [result] = compared({"x": before}, {"x": now})
    assert result.difference == pytest.approx(stats.ks_2samp(before, now).statistic, abs=1 / 128)


def test_nothing_is_large_within_a_distribution():
    for _ in range(20):
        columns = [
            {
                "x": RNG.normal(size=2000),
                "word": RNG.choice(WORDS, 2000),
                "id": np.arange(i, 4000, 2).astype(str).astype(object),
            }
            for i in range(2)
        ]
        assert not any(one.is_large for one in compared(*columns))
        assert min(one.p_value for one in compared(*columns)) > 1e-4


def test_missing_numbers_and_new_words_are_found():
    before = {"x": np.arange(200.0), "word": np.array(["a"] * 200, object), "gone": np.zeros(200)}
    now = {"x": np.where(np.arange(200) % 2, np.nan, np.arange(200.0)), "word": np.array(["b"] * 200, object)}
    result = {one.column: one for one in compared(before, now)}
    assert (result["x is missing"].before, result["x is missing"].now) == ("0.0%", "50.0%")
    assert not result["x"].is_large
    assert result["word"].difference == 1
    assert result.keys() == {"x", "x is missing", "word"}


@pytest.mark.parametrize(
    ("problem", "scores", "expected"),
    [
        ("binary", [0.2, 0.9], {"probability": [0.2, 0.9]}),
        ("multiclass", [[0.2, 0.8], [0.6, 0.4]], {"highest probability": [0.8, 0.6]}),
        ("multilabel", [[0.2, 0.4]], {"mean probability": [0.3]}),
        ({"a": "binary"}, {"a": [0.2]}, {"a: probability": [0.2]}),
        ("detection", None, {}),
    ],
)
def test_scores_have_columns(problem, scores, expected):
    result = {name: column.round(9).tolist() for name, column in shift.score_columns(scores, problem).items()}
    assert result == expected
