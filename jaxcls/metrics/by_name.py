"""Metrics by name, and a report of all that fit a problem."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName, check_problem
from jaxcls.metrics import decisions, detection, probabilities, ranking
from jaxcls.metrics.averages import json_number, mean_of_defined
from jaxcls.metrics.collected import FloatArray, Options, collect, support


class Metric(NamedTuple):
    """An entry of the table of metrics.

    Attributes:
      function: the metric.
      takes: which of 'average' and 'threshold' it takes.
      problems: those that it fits.
      direction: whether a higher ('max') or a lower ('min') value is better.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...] = ()
    problems: tuple[ProblemName, ...] = get_args(ProblemName)
    direction: Literal["max", "min"] = "max"


METRICS = {
    "accuracy": Metric(decisions.accuracy, ("threshold",)),
    "subset_accuracy": Metric(decisions.subset_accuracy, ("threshold",), ("multilabel",)),
    "balanced_accuracy": Metric(decisions.balanced_accuracy, ("threshold",)),
    "top_k_accuracy": Metric(decisions.top_k_accuracy, problems=("multiclass",)),
    "precision": Metric(decisions.precision, ("average", "threshold")),
    "recall": Metric(decisions.recall, ("average", "threshold")),
    "specificity": Metric(decisions.specificity, ("average", "threshold")),
    "f1": Metric(decisions.f1, ("average", "threshold")),
    "mcc": Metric(decisions.matthews_correlation, ("threshold",)),
    "kappa": Metric(decisions.cohen_kappa, ("threshold",)),
    "roc_auc": Metric(ranking.roc_auc, ("average",)),
    "average_precision": Metric(ranking.average_precision, ("average",)),
    "recall_at_precision": Metric(ranking.recall_at_precision, ("average",)),
    "log_loss": Metric(probabilities.log_loss, direction="min"),
    "brier_score": Metric(probabilities.brier_score, direction="min"),
    "ece": Metric(probabilities.expected_calibration_error, direction="min"),
}
# Keras's names, which have one meaning per problem.
ALIASES = {
    "auc": "roc_auc",
    "binary_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
}


def names(problem: ProblemName | None = None) -> tuple[str, ...]:
    """The names that `get` takes, without Keras's aliases; with a problem, those that fit it.

    >>> names("binary")[:3]
    ('accuracy', 'balanced_accuracy', 'precision')
    """
    if problem is not None:
        check_problem(problem)
    return tuple(name for name, metric in METRICS.items() if problem is None or problem in metric.problems)


def get(name: str, problem: ProblemName | None = None) -> Callable[..., float]:
    """The metric of that name as `function(scores, labels, *, sample_weight=None, mask=None) -> float`.

    Its other options (`threshold`, `k`, ...) stay open to the caller. Without a problem, the metric infers it from
    the shapes of its arrays, as all metrics do.

    Raises:
      InputError: the name is unknown, or the metric does not fit the problem.

    >>> get("auc")([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    metric = _find(name)
    if problem is None:
        return metric.function
    if problem not in metric.problems:
        fitting = ", ".join(names(problem))
        raise InputError(f"the metric {name!r} does not fit a {problem} problem. Those that do: {fitting}.")
    return partial(metric.function, problem=problem)


def direction(name: str) -> Literal["max", "min"]:
    """Whether a higher ('max') or a lower ('min') value of a metric is better.

    Args:
      name: of a metric, of a detection metric, or of the metric of one output, such as 'group_log_loss'.

    >>> direction("log_loss")
    'min'
    """
    if name in detection.NAMES:
        return "max"
    if name not in METRICS and any(name.endswith(f"_{metric}") for metric in [*METRICS, *ALIASES]):
        return _find(split_output_name(name)[1]).direction
    return _find(name).direction


def split_output_name(name: str) -> tuple[str, str]:
    """The output and the metric in a name such as 'group_log_loss', which Keras gives the metric of an output.

    Raises:
      InputError: the name does not end with that of a metric.

    >>> split_output_name("group_log_loss")
    ('group', 'log_loss')
    """
    # The longest first: 'group_balanced_accuracy' is not the accuracy of 'group_balanced'.
    for metric in sorted([*METRICS, *ALIASES], key=len, reverse=True):
        if name.endswith(f"_{metric}") and len(name) > len(metric) + 1:
            return name.removesuffix(f"_{metric}"), metric
    raise unknown_name("metric of an output", name, [f"<output>_{metric}" for metric in METRICS])


def report(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    threshold: ArrayLike = 0.5,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """Every metric that fits the problem, as a plain dict that JSON can hold (nan becomes None).

    Args:
      scores: probabilities.
      class_names: the K classes, the L labels, or the negative and the positive class. Default: their numbers.
      threshold: one value, or one per label if multilabel; 0.5 if multiclass.

    Returns:
      A dict of 'problem'; 'examples', the number of those that count; 'metrics', name -> value, averaged as by `get` at
      default options (k=5, precision 0.9, 15 bins), with `top_k_accuracy` from 6 classes on; 'labels', label -> its
      support (the total weight of its known positives) and its value of every metric that takes `average`, where a
      binary problem has one label, the positive class; and 'undefined_labels', metric -> the labels left out of its
      average, if any. Metrics without a value per label leave out no more of them than `roc_auc` does.

    >>> scores, labels = [[0.9, 0.1], [0.2, 0.3]], [[1, 0], [0, 0]]
    >>> summary = report(scores, labels, problem="multilabel", class_names=["cat", "dog"])
    >>> summary["metrics"]["roc_auc"], summary["labels"]["dog"]["roc_auc"]
    (1.0, None)
    >>> summary["undefined_labels"]["roc_auc"]
    ['dog']
    """
    data = collect(scores, labels, options)
    label_names = _label_names(class_names, data.problem, data.scores.shape[1])
    values: dict[str, float] = {}
    columns: dict[str, FloatArray] = {}
    for name in names(data.problem):
        if name == "top_k_accuracy" and len(label_names) <= 5:
            continue
        function, takes, *_ = METRICS[name]
        chosen: dict[str, Any] = {**options, "problem": data.problem}
        if "threshold" in takes:
            chosen["threshold"] = threshold
        if "average" in takes:
            columns[name] = np.asarray(function(scores, labels, average=None, **chosen))
            values[name] = mean_of_defined(columns[name])
        else:
            values[name] = function(scores, labels, **chosen)
    table = {"support": support(data), **columns}
    return {
        "problem": data.problem,
        "examples": len(data.sample_weight),
        "metrics": {name: json_number(value) for name, value in values.items()},
        "labels": {
            label: {name: json_number(column[i]) for name, column in table.items()}
            for i, label in enumerate(label_names)
        },
        "undefined_labels": {
            name: [label_names[i] for i in np.flatnonzero(np.isnan(column))]
            for name, column in columns.items()
            if np.isnan(column).any()
        },
    }


def _find(name: str) -> Metric:
    metric = METRICS.get(ALIASES.get(name, name))
    if metric is None:
        raise unknown_name("metric", name, [*METRICS, *ALIASES])
    return metric


def _label_names(class_names: Sequence[str] | None, problem: ProblemName, columns: int) -> list[str]:
    count = 2 if problem == "binary" else columns
    names = [str(i) for i in range(count)] if class_names is None else list(class_names)
    if len(names) != count or len(set(names)) != count:
        raise InputError(f"class_names must be {count} different names for a {problem} problem, got {names}")
    return names[1:] if problem == "binary" else names
