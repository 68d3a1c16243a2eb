"""Metrics by name, as a command line gives them, and all that fit a problem in one report."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName, check_problem
from jaxcls.metrics import detection
from jaxcls.metrics.averages import mean_of_defined
from jaxcls.metrics.collected import FloatArray, Rows, collect, support_of
from jaxcls.metrics.decisions import (
    accuracy,
    balanced_accuracy,
    cohen_kappa,
    f1,
    matthews_correlation,
    precision,
    recall,
    specificity,
    subset_accuracy,
    top_k_accuracy,
)
from jaxcls.metrics.probabilities import brier_score, expected_calibration_error, log_loss
from jaxcls.metrics.ranking import average_precision, recall_at_precision, roc_auc


class Metric(NamedTuple):
    """What a name stands for: the function, the problems that it fits, and which direction is better."""

    function: Callable[..., Any]
    problems: tuple[ProblemName, ...] = get_args(ProblemName)
    direction: Literal["max", "min"] = "max"


METRICS = {
    "accuracy": Metric(accuracy),
    "subset_accuracy": Metric(subset_accuracy, ("multilabel",)),
    "balanced_accuracy": Metric(balanced_accuracy),
    "top_k_accuracy": Metric(top_k_accuracy, ("multiclass",)),
    "precision": Metric(precision),
    "recall": Metric(recall),
    "specificity": Metric(specificity),
    "f1": Metric(f1),
    "mcc": Metric(matthews_correlation),
    "kappa": Metric(cohen_kappa),
    "roc_auc": Metric(roc_auc),
    "average_precision": Metric(average_precision),
    "recall_at_precision": Metric(recall_at_precision),
    "log_loss": Metric(log_loss, direction="min"),
    "brier_score": Metric(brier_score, direction="min"),
    "ece": Metric(expected_calibration_error, direction="min"),
}
# Keras's names; what they mean is decided by the problem alone.
ALIASES = {
    "auc": "roc_auc",
    "binary_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
}


def get(name: str, problem: ProblemName) -> Callable[..., float]:
    """The metric of that name as `function(scores, labels, *, sample_weight=None, mask=None) -> float`.

    Its other options (`threshold`, `k`, ...) stay open to the caller. Raises `InputError` for an unknown name
    and for a metric that does not fit the problem.

    >>> get("auc", "binary")([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    metric = _named(name)
    check_problem(problem)
    if problem not in metric.problems:
        fitting = ", ".join(known for known, other in METRICS.items() if problem in other.problems)
        raise InputError(f"the metric {name!r} does not fit a {problem} problem. Those that do: {fitting}.")
    return partial(metric.function, problem=problem) if _takes(metric, "problem") else metric.function


def direction(name: str) -> Literal["max", "min"]:
    """Whether greater ('max') or less ('min') of the metric of that name is better; also of one of detection, and of
    one of an output, such as 'group_log_loss'.

    >>> direction("log_loss")
    'min'
    """
    if name in detection.NAMES:
        return "max"
    if name not in METRICS and any(name.endswith(f"_{metric}") for metric in [*METRICS, *ALIASES]):
        return _named(of_output(name)[1]).direction
    return _named(name).direction


def of_output(name: str) -> tuple[str, str]:
    """Of 'group_log_loss', as Keras calls the metric of one of several outputs, the output and the metric.

    Raises:
      InputError: no metric is called so.

    >>> of_output("group_log_loss")
    ('group', 'log_loss')
    """
    for metric in sorted([*METRICS, *ALIASES], key=len, reverse=True):
        # The longest first: 'group_balanced_accuracy' is not the accuracy of 'group_balanced'.
        if name.endswith(f"_{metric}") and len(name) > len(metric) + 1:
            return name.removesuffix(f"_{metric}"), metric
    raise unknown_name("metric of an output", name, [f"<output>_{metric}" for metric in METRICS])


def report(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    class_names: Sequence[str] | None = None,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> dict[str, Any]:
    """Every metric that fits the problem, as a plain dict that JSON can hold (nan becomes None).

    - `metrics`: name -> value, averaged as by `get`, at default options (k=5, precision 0.9, 15 bins).
      `top_k_accuracy` is there from 6 classes on.
    - `labels`: label -> its support (the weight of its known positives) and its value of every metric that takes
      `average`. A binary problem has one label, the positive class.
    - `undefined_labels`: metric -> the labels that were left out of its average, where there were any. The
      metrics without a value for each label leave out no more than `roc_auc` does.

    `class_names` are the K classes, the L labels, or the negative and the positive class; numbers if not
    given. `scores` are probabilities; `threshold` is one value or one a label, 0.5 for multiclass.

    >>> scores, labels = [[0.9, 0.1], [0.2, 0.3]], [[1, 0], [0, 0]]
    >>> summary = report(scores, labels, problem="multilabel", class_names=["cat", "dog"])
    >>> summary["metrics"]["roc_auc"], summary["labels"]["dog"]["roc_auc"]
    (1.0, None)
    >>> summary["undefined_labels"]["roc_auc"]
    ['dog']
    """
    data = collect(scores, labels, problem, sample_weight, mask)
    names = _label_names(class_names, problem, data.scores.shape[1])
    values: dict[str, float] = {}
    vectors: dict[str, FloatArray] = {}
    for name, metric in METRICS.items():
        if problem not in metric.problems or (name == "top_k_accuracy" and len(names) <= 5):
            continue
        function = partial(get(name, problem), scores, labels, sample_weight=sample_weight, mask=mask)
        if _takes(metric, "threshold"):
            function = partial(function, threshold=threshold)
        if _takes(metric, "average"):
            vectors[name] = np.asarray(function(average=None))
            values[name] = mean_of_defined(vectors[name])
        else:
            values[name] = function()
    table = {"support": support_of(data), **vectors}
    return {
        "problem": problem,
        "examples": len(data.sample_weight),
        "metrics": {name: _json(value) for name, value in values.items()},
        "labels": {label: {name: _json(column[i]) for name, column in table.items()} for i, label in enumerate(names)},
        "undefined_labels": {
            name: [names[i] for i in np.flatnonzero(np.isnan(vector))]
            for name, vector in vectors.items()
            if np.isnan(vector).any()
        },
    }


def _named(name: str) -> Metric:
    canonical = ALIASES.get(name, name)
    if canonical not in METRICS:
        raise unknown_name("metric", name, [*METRICS, *ALIASES])
    return METRICS[canonical]


def _takes(metric: Metric, option: str) -> bool:
    return option in inspect.signature(metric.function).parameters


def _label_names(class_names: Sequence[str] | None, problem: ProblemName, columns: int) -> list[str]:
    count = 2 if problem == "binary" else columns
    names = [str(i) for i in range(count)] if class_names is None else list(class_names)
    if len(names) != count or len(set(names)) != count:
        raise InputError(f"class_names must be {count} different names for a {problem} problem, got {names}")
    return names[1:] if problem == "binary" else names


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
