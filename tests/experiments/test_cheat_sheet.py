"""The statistics of the cheat sheet; measuring takes half an hour."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


def test_without_a_difference_between_parts_the_test_is_students():
    """A seed's chance alone: the interval and the p value are those of a t test over seeds."""
    from cheat_sheet import crossed

    by_seed = RNG.normal(0.3, 1.0, size=6)
    estimate, oracle = crossed(np.tile(by_seed[:, None], 10)), stats.ttest_1samp(by_seed, 0.0)
    low, high = oracle.confidence_interval(0.95)
    np.testing.assert_allclose(estimate, (by_seed.mean(), (high - low) / 2, oracle.pvalue))
    np.testing.assert_allclose(crossed(np.tile(by_seed, (10, 1))), estimate)


def test_an_interval_of_seeds_and_parts_holds_its_mean():
    """Simulated: the interval of 95 % includes the true mean at least that often."""
    from cheat_sheet import crossed

    seeds, parts, rest = RNG.normal(size=(400, 10, 1)), RNG.normal(size=(400, 1, 10)), RNG.normal(size=(400, 10, 10))
    held = [abs(estimate.mean) <= estimate.half_width for estimate in map(crossed, 0.5 * seeds + parts + rest)]
    assert np.mean(held) > 0.93


def test_holm_rejects_what_the_sequential_procedure_rejects():
    from cheat_sheet import holm

    p = RNG.uniform(0, 0.05, size=12)
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected = np.zeros(12, bool)
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > level / (12 - rank):
                break
            rejected[index] = True
        np.testing.assert_array_equal(adjusted <= level, rejected)


def test_effects_are_averaged_over_what_both_have():
    from cheat_sheet import effects

    def row(value):
        return {"parts": np.full((3, 4), value).tolist()}

    cells = {
        ("cross-entropy", "adam"): row(0.5), ("cross-entropy", "sgd"): row(0.6), ("cross-entropy", "lion"): row(0.9),
        ("hinge", "adam"): row(0.4), ("hinge", "sgd"): row(0.4),
    }  # fmt: skip
    assert effects(cells, 0)["hinge"].mean == pytest.approx(-0.15)
    assert effects(cells, 1)["sgd"].mean == pytest.approx(0.05)
    assert effects(cells, 1)["lion"].mean == pytest.approx(0.4)


def test_only_a_best_rate_at_an_end_widens_the_grid():
    from cheat_sheet import beyond, grid

    rates = grid(0.01, 5)
    np.testing.assert_allclose(rates, 0.01 * 10.0 ** np.array([-1, -0.5, 0, 0.5, 1]))
    assert not beyond(dict(zip(rates, [1, 2, 3, 2, 1], strict=True)))
    np.testing.assert_allclose(beyond(dict(zip(rates, [3, 2, 1, 1, 1], strict=True))), [10**-3.5, 10**-4.0])
