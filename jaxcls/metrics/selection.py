"""Weights of an ensemble by greedy selection on scores of examples that its members did not train on.

Source: Caruana et al. (2004), "Ensemble selection from libraries of models"; bagging from Caruana et al. (2006),
"Getting the most out of ensemble selection".
"""

import math
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.metrics.collected import FloatArray, Options
from jaxcls.metrics.intervals import Interval, bootstrap_interval


def greedy_selection(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: str = "log_loss",
    rounds: int = 30,
    bags: int = 1,
    seed: int = 0,
    **options: Unpack[Options],
) -> FloatArray:
    """The weights (K,) of the candidates in their weighted mean; they add up to 1, and many may be 0.

    Each round adds the candidate, again if need be, whose addition makes the mean of all added ones best. The weights
    are the shares of the best round, the first of equals. So the mean is never worse than the best candidate on these
    examples; on others, :func:`selection_gain` estimates what it gains. Give scores of examples that the candidates did
    not train on, such as out-of-fold ones, and never those of test examples.

    Args:
      scores: (K, N) or (K, N, C), of each candidate as the metric takes them.
      metric: the name of one of :mod:`jaxcls.metrics`.
      rounds: the maximum number of additions.
      bags: with several, the mean of the weights that are selected among as many random halves of the candidates,
        which makes chance less likely to decide where there are many.
      seed: of the halves.

    Raises:
      InputError: the arrays do not fit each other or the metric.

    >>> first, second, third = [0.9, 0.5, 0.1], [0.5, 0.9, 0.1], [0.5, 0.5, 0.5]
    >>> greedy_selection([first, second, third], [1, 1, 0])
    array([0.5, 0.5, 0. ])
    """
    candidates = _candidates(scores, rounds=rounds, bags=bags)
    score = _scorer(metric, labels, options)
    count = len(candidates)
    if bags == 1:
        return _selected(candidates, score, np.arange(count), rounds)
    random = np.random.default_rng(seed)
    halves = [np.sort(random.choice(count, -(-count // 2), replace=False)) for _ in range(bags)]
    return np.mean([_selected(candidates, score, half, rounds) for half in halves], axis=0)


def selection_gain(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: str = "log_loss",
    rounds: int = 30,
    bags: int = 1,
    seed: int = 0,
    parts: int = 5,
    confidence: float = 0.95,
    resamples: int = 1000,
    **options: Unpack[Options],
) -> tuple[float, Interval]:
    """How much better greedy selection is than the mean of all candidates, and the interval of that.

    The examples are divided at random. The weights for each part are selected on the others, so the gain is not that
    of a choice among the same examples. Positive is better, also of metrics of which less is better. The interval is
    the percentile bootstrap of the difference over examples.

    Args:
      parts: the number of parts. For the others, see :func:`greedy_selection` and
        :func:`jaxcls.metrics.bootstrap_interval`.

    >>> gain, interval = selection_gain([[0.9, 0.2, 0.7, 0.1]] * 2, [1, 0, 1, 0], seed=0, parts=2)
    >>> gain, interval.low, interval.high
    (0.0, 0.0, 0.0)
    """
    candidates, truth = _candidates(scores, rounds=rounds, bags=bags), np.asarray(labels)
    if not 2 <= parts <= len(truth):
        raise InputError(f"parts is {parts}; give a number from 2 to {len(truth)}, the number of examples.")
    part = np.random.default_rng(seed).permutation(len(truth)) % parts
    chosen: Any = {name: value for name, value in options.items() if value is not None}
    by_row = {name: np.asarray(chosen.pop(name)) for name in ("sample_weight", "mask") if name in chosen}
    selected, mean = np.empty_like(candidates[0]), candidates.mean(axis=0)
    for number in range(parts):
        others = part != number
        weights = greedy_selection(
            candidates[:, others], truth[others], metric=metric, rounds=rounds, bags=bags, seed=seed,
            **chosen, **{name: value[others] for name, value in by_row.items()},
        )  # fmt: skip
        selected[~others] = np.tensordot(weights, candidates[:, ~others], 1)
    evaluate, sign = metrics.get(metric), _sign(metric)

    def gain(both: FloatArray, truth: np.ndarray, **by_row: Any) -> float:
        of_selection, of_mean = (evaluate(both[:, one], truth, **chosen, **by_row) for one in (0, 1))
        return of_selection - of_mean if sign > 0 else of_mean - of_selection

    both = np.stack([selected, mean], axis=1)
    interval = bootstrap_interval(gain, both, truth, seed=seed, confidence=confidence, resamples=resamples, **by_row)
    return gain(both, truth, **by_row), interval


def _candidates(scores: ArrayLike, **counts: int) -> FloatArray:
    candidates = np.asarray(scores, np.float64)
    if candidates.ndim not in (2, 3) or not candidates.size:
        raise InputError(f"the scores have shape {candidates.shape}; give (candidates, examples) or one axis more.")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; give 1 or more.")
    return candidates


def _sign(metric: str) -> int:
    return 1 if metrics.direction(metric) == "max" else -1


def _scorer(metric: str, labels: ArrayLike, options: Any) -> Callable[[FloatArray], float]:
    evaluate, sign = metrics.get(metric), _sign(metric)

    def score(scores: FloatArray) -> float:
        value = sign * evaluate(scores, labels, **options)
        return -math.inf if math.isnan(value) else value

    return score


def _selected(
    candidates: FloatArray, score: Callable[[FloatArray], float], among: np.ndarray, rounds: int
) -> FloatArray:
    """Returns the weights of greedy selection among some candidates."""
    total, counts = np.zeros_like(candidates[0]), np.zeros(len(candidates))
    best, weights = -math.inf, counts
    for number in range(1, rounds + 1):
        values = [score((total + candidates[index]) / number) for index in among]
        index = among[int(np.argmax(values))]
        total, counts[index] = total + candidates[index], counts[index] + 1
        if max(values) > best or number == 1:
            best, weights = max(values), counts / number
    return weights
