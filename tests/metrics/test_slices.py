"""Subgroups with more errors are result, with Fisher's p values and Wilson's intervals."""

import numpy as np
import pytest
from scipy import stats

from jaxcls.metrics.slices import worst_slices

RNG = np.random.default_rng(0)


def test_a_subgroup_with_more_errors_is_found_with_its_interval():
    plan = RNG.choice(np.array(["old", "new", "none"], object), 1000)
    wrong = RNG.random(1000) < np.where(plan == "new", 0.4, 0.1)
    [result] = worst_slices({"plan": plan, "noise": RNG.normal(size=1000)}, wrong)
    inside = plan == "new"
    table = [[wrong[inside].sum(), (~wrong[inside]).sum()], [wrong[~inside].sum(), (~wrong[~inside]).sum()]]
    assert (result.name, result.examples, result.error_rate) == ("plan new", inside.sum(), wrong[inside].mean())
    interval = stats.binomtest(int(wrong[inside].sum()), int(inside.sum())).proportion_ci(method="wilson")
    assert result.interval == pytest.approx((interval.low, interval.high))
    # Holm's factor of the smallest of 3 words and 4 quarters.
    assert result.p_value == pytest.approx(7 * stats.fisher_exact(table, alternative="greater").pvalue)


def test_quarters_of_numbers_and_missing_ones_are_subgroups():
    size = np.where(np.arange(1000) % 4 == 0, np.nan, RNG.normal(size=1000))
    [missing] = worst_slices({"size": size}, np.isnan(size))
    assert (missing.name, missing.examples) == ("size is missing", 250)
    result = worst_slices({"size": np.arange(400.0)}, np.arange(400) >= 300)
    assert [one.name for one in result] == ["size 299.2 to 399"]


@pytest.mark.parametrize(
    "wrong", [np.zeros(200, bool), np.ones(200, bool), np.arange(200) % 2 == 0], ids=["none", "all", "half"]
)
def test_chance_no_errors_and_all_errors_have_no_worst_subgroup(wrong):
    columns = {"x": RNG.normal(size=200), "word": RNG.choice(np.array(["a", "b"], object), 200)}
    assert worst_slices(columns, RNG.permutation(wrong)) == []


def test_small_subgroups_are_not_judged():
    rare = np.array(["rare"] * 10 + ["common"] * 990, object)
    assert worst_slices({"word": rare}, rare == "rare") == []
