"""Successive halving: who is promoted, that everything ends, and that the best one trains to the end."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxcls.training import halving
from jaxcls.training.halving import Job

HALVED = {"rungs": 3, "reduction": 3}


def simulated(values, most, **halved):
    """Runs a search whose trial has the same score in every rung; returns the scores and the order of the jobs."""
    scores, order = {}, []
    while jobs := halving.next_jobs(scores, trials=len(values), most=most, **halved):
        assert len(jobs) <= most
        order += jobs
        scores |= {job: values[job.trial] for job in jobs}
        assert len(order) == len(scores), "a job was trained twice"
    return scores, order


@hypothesis.given(
    st.lists(st.floats(-1, 1) | st.just(-math.inf), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(2, 4),
)
def test_every_search_ends_and_the_best_trial_trains_to_the_end(values, most, rungs, reduction):
    scores, order = simulated(values, most, rungs=rungs, reduction=reduction)
    reached = [sum(job.rung == rung for job in scores) for rung in range(rungs)]
    assert reached[0] == len(values)
    for job in order:
        assert job.rung == 0 or (
            Job(job.trial, job.rung - 1) in order[: order.index(job)] and values[job.trial] > -math.inf
        )
    best = halving.ranking(scores)[0]
    assert values[best.trial] == max(values)
    if max(values) > -math.inf:
        assert best.rung == rungs - 1
    for rung in range(rungs - 1):
        # Of those that diverged, none is promoted.
        known = sum(job.rung == rung and math.isfinite(score) for job, score in scores.items())
        assert reached[rung + 1] >= min(known, reached[rung] // reduction)


def test_one_of_three_goes_on_as_soon_as_it_is_among_the_best():
    scores = {Job(0, 0): 0.1, Job(1, 0): 0.9}
    assert halving.next_jobs(scores, trials=9, most=1, **HALVED) == [Job(2, 0)]
    scores |= {Job(2, 0): 0.5}
    assert halving.next_jobs(scores, trials=9, most=2, **HALVED) == [Job(1, 1), Job(3, 0)]
    # A later and better trial is promoted as well, though one of three has.
    scores |= {Job(1, 1): 0.9, Job(3, 0): 0.95, Job(4, 0): 0.0, Job(5, 0): 0.0}
    assert halving.next_jobs(scores, trials=9, most=1, **HALVED) == [Job(3, 1)]


def test_all_at_once_is_plain_successive_halving():
    scores, order = simulated([number / 27 for number in range(27)], 27, **HALVED)
    assert order[27:] == [*(Job(trial, 1) for trial in range(26, 17, -1)), *(Job(trial, 2) for trial in (26, 25, 24))]
    assert len(scores) == 27 + 9 + 3


def test_trial_that_diverges_late_does_not_win():
    scores = {Job(0, 0): 0.9, Job(1, 0): 0.8, Job(0, 1): -math.inf}
    assert halving.next_jobs(scores, trials=2, most=8, rungs=2, reduction=2) == [Job(1, 1)]
    assert halving.ranking(scores)[0] == Job(1, 0)


@pytest.mark.parametrize(
    ("epochs", "count", "reduction", "expected"),
    [(81, 5, 3, [1, 3, 9, 27, 81]), (10, 3, 3, [2, 4, 10]), (1, 3, 3, [1]), (2, 9, 2, [1, 2])],
)
def test_rungs_are_distinct_and_end_with_all_epochs(epochs, count, reduction, expected):
    assert halving.rungs(epochs, count, reduction) == expected
