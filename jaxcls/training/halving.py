"""Successive halving: many trials begin, and the best of them are promoted (ASHA, Li et al. 2020, arXiv 1810.05934).

Trials train up to a few numbers of epochs, the rungs. Those that are among the best of a rung, one of ``reduction``,
are promoted to the next one; others stop. What is trained next follows from the scores so far alone, so that a search
that was interrupted continues as if it had not been.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """The training of a trial up to the epochs of a rung; both are numbered from 0."""

    trial: int
    rung: int


# By job. Greater is better; minus infinity is a trial that diverged, which is not promoted.
Scores = Mapping[Job, float]


def rungs(epochs: int, count: int, reduction: int) -> list[int]:
    """Returns up to ``count`` numbers of epochs, each ``reduction`` times that before it; the last one is ``epochs``.

    >>> rungs(40, 3, 3), rungs(4, 3, 3), rungs(40, 1, 3)
    ([5, 14, 40], [1, 2, 4], [40])
    """
    return sorted({math.ceil(epochs / reduction**power) for power in range(count)})


def next_jobs(scores: Scores, *, trials: int, rungs: int, reduction: int, most: int) -> list[Job]:
    """Returns up to ``most`` jobs to train next, none if the search has ended.

    A trial is promoted as soon as it is among the best of its rung so far, those of the last rungs first. Where none
    is, a new one begins. The best of all trains to the end, also where there are fewer than ``reduction``.

    >>> next_jobs({}, trials=3, rungs=2, reduction=2, most=2)
    [Job(trial=0, rung=0), Job(trial=1, rung=0)]
    >>> next_jobs({Job(0, 0): 0.5, Job(1, 0): 0.6}, trials=3, rungs=2, reduction=2, most=2)
    [Job(trial=1, rung=1), Job(trial=2, rung=0)]
    """
    begun, jobs = set(scores), list[Job]()

    def candidate() -> Job | None:
        for rung in range(rungs - 2, -1, -1):
            ranked = _ranked(scores, rung)
            for job in ranked[: len(ranked) // reduction]:
                above = Job(job.trial, rung + 1)
                if above not in begun and math.isfinite(scores[job]):
                    return above
        new = sum(job.rung == 0 for job in begun)
        return Job(new, 0) if new < trials else None

    while len(jobs) < most and (job := candidate()):
        jobs.append(job)
        begun.add(job)
    if not jobs and not any(job.rung == rungs - 1 and math.isfinite(score) for job, score in scores.items()):
        waiting = {job: score for job, score in scores.items() if Job(job.trial, job.rung + 1) not in begun}
        for best in ranking(waiting)[:1]:
            if math.isfinite(scores[best]):
                return [Job(best.trial, best.rung + 1)]
    return jobs


def ranking(scores: Scores) -> list[Job]:
    """Returns the last job of each trial: those of the last rung first, and in a rung the best first.

    >>> ranking({Job(0, 0): 0.9, Job(1, 0): 0.8, Job(1, 1): 0.85, Job(2, 0): 0.7})
    [Job(trial=1, rung=1), Job(trial=0, rung=0), Job(trial=2, rung=0)]
    """
    last = {job.trial: job for job in sorted(scores, key=lambda job: job.rung)}
    return sorted(last.values(), key=lambda job: (-math.isfinite(scores[job]), -job.rung, -scores[job], job.trial))


def may_go_on(scores: Scores, job: Job, *, trials: int, reduction: int) -> bool:
    """Returns whether a trial can still be among the best of its rung, when all others have reached it."""
    return _ranked(scores, job.rung).index(job) < max(1, trials // reduction) and math.isfinite(scores[job])


def _ranked(scores: Scores, rung: int) -> Sequence[Job]:
    """Returns the jobs of a rung, the best first; of equal ones, the trial that began first."""
    return sorted((job for job in scores if job.rung == rung), key=lambda job: (-scores[job], job.trial))
