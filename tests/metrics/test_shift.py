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
    assert 0 <= stats.ks_2samp(before, now).statistic - result.difference < 1 / 128


@pytest.mark.parametrize("zeros", [0.0, 0.97])
def test_quantiles_give_no_false_alarms(zeros):
    p_values = []
    for _ in range(100):
        before, now = (np.where(RNG.random(5000) < zeros, 0, RNG.normal(size=5000)) for _ in range(2))
        [result] = compared({"x": before}, {"x": now})
        assert result.difference <= stats.ks_2samp(before, now, method="asymp").statistic + 1e-12
        p_values.append(result.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.1


def test_what_a_record_cannot_hold_is_missing():
    [missing, x] = compared({"x": np.array([np.inf, np.nan, 1e305, *range(97)])}, {"x": np.arange(97.0)})
    assert (missing.column, missing.before, missing.now) == ("x is missing", "3.0%", "0.0%")
    assert x.difference == 0


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
        ("multiclass", [[0.2, 0.8], [0.6, 0.4]], {"highest probability": [0.8, 0.6], "class": ["1", "0"]}),
        ("multilabel", [[0.2, 0.4]], {"mean probability": [0.3]}),
        ({"a": "binary"}, {"a": [0.2]}, {"a: probability": [0.2]}),
        ("detection", None, {}),
    ],
)
def test_scores_have_columns(problem, scores, expected):
    result = {
        name: (column if column.dtype == object else column.round(9)).tolist()
        for name, column in shift.score_columns(scores, problem).items()
    }
    assert result == expected


@pytest.mark.parametrize("degrees", [1, 2, 7, 50])
def test_tails_are_those_of_scipy(degrees):
    for x in (0.01, 0.5, 3.0, 40.0, 900.0):
        assert shift._chi_squared_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9)
        assert shift._kolmogorov_tail(x) == pytest.approx(stats.kstwobign.sf(x), abs=1e-4)
