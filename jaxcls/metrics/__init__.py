"""Exact metrics of all scores and labels of a data set, computed on the host in float64 NumPy.

Every metric is a function `(scores, labels, *, problem=None, sample_weight=None, mask=None, ...)`. The problem decides
what the arrays mean:

============  =========================  ==========================
problem       scores                     labels
============  =========================  ==========================
'binary'      (N,), the positive class   (N,), 0 or 1
'multiclass'  (N, K), one per class      (N,), integers in 0 to K-1
'multilabel'  (N, L), one per label      (N, L), 0, 1 or nan
============  =========================  ==========================

Without `problem` the shapes decide: scores (N,) are binary, and scores (N, K) with labels (N,) are multiclass. Labels
of two axes may be one-hot or multi-label, so the metric raises an error: pass `problem="multilabel"`, or
`labels.argmax(axis=1)` in place of one-hot labels.

- `sample_weight` (N,) is scikit-learn's. Rows whose `mask` (N,) is False are padding and are not read. Rows of weight 0
  count as if they were absent.
- A multilabel label that is nan is unknown. Each label is evaluated on the rows where it is known, and metrics that
  pool decisions ('micro', `subset_accuracy`) take the known ones.
- Scores are probabilities. Metrics that only rank (`roc_auc`, `average_precision`, ...) or only take the highest score
  of a row (multiclass predictions) accept any finite score, logits included.
- A binary or multilabel prediction is positive where `score >= threshold`, with one threshold or one per label. A
  multiclass prediction is the class of the highest score, the first of equals.
- `average` is None (one value per label, or per class against the rest), 'macro' (their mean), 'weighted' (their mean
  weighted by the positives of each), 'micro' (all decisions pooled) or 'binary', for the one label of a binary problem.
  'auto' is 'binary' there and 'macro' elsewhere.
- A label for which a metric is 0/0 (an AUC of a single class, a recall without positives) is nan, and is left out of
  averages; `report` lists it. Precision is 0 where nothing is predicted but there are positives, as in scikit-learn.

Invalid arrays raise an `InputError` that names the argument and the row. Definitions and ties are scikit-learn's.
:mod:`jaxcls.metrics.detection` holds the metrics of object detection.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName, check_problem
from jaxcls.metrics import calibration, collected, conformal, detection, shift, slices
from jaxcls.metrics.averages import listed, mean_of_defined, report_of
from jaxcls.metrics.collected import Average, AverageOptions, LabelOptions, Options, ThresholdOptions
from jaxcls.metrics.decisions import (
    accuracy,
    balanced_accuracy,
    cohen_kappa,
    confusion_cells,
    confusion_matrix,
    f1,
    f_beta,
    matthews_correlation,
    precision,
    recall,
    specificity,
    subset_accuracy,
    top_k_accuracy,
    tune_threshold,
)
from jaxcls.metrics.intervals import Interval, bootstrap_interval, proportion_interval, report_intervals
from jaxcls.metrics.label_errors import LabelErrors, find_label_errors
from jaxcls.metrics.probabilities import Reliability, brier_score, expected_calibration_error, log_loss, reliability
from jaxcls.metrics.ranking import (
    PrecisionRecallCurve,
    RocCurve,
    average_precision,
    precision_recall_curve,
    recall_at_precision,
    roc_auc,
    roc_curve,
)

__all__ = [
    "Average", "AverageOptions", "Interval", "LabelErrors", "LabelOptions", "Options", "PrecisionRecallCurve",
    "Reliability", "RocCurve", "ThresholdOptions", "accuracy", "average_precision", "balanced_accuracy",
    "bootstrap_interval", "brier_score", "calibration", "cohen_kappa", "conformal", "confusion_cells",
    "confusion_matrix", "detection", "direction", "expected_calibration_error", "f1", "f_beta", "find_label_errors",
    "get", "log_loss", "matthews_correlation", "names", "precision", "precision_recall_curve", "proportion_interval",
    "recall", "recall_at_precision", "reliability", "report", "report_intervals", "roc_auc", "roc_curve", "shift",
    "slices", "specificity", "subset_accuracy", "top_k_accuracy", "tune_threshold",
]  # fmt: skip


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
    "accuracy": Metric(accuracy, ("threshold",)),
    "subset_accuracy": Metric(subset_accuracy, ("threshold",), ("multilabel",)),
    "balanced_accuracy": Metric(balanced_accuracy, ("threshold",)),
    "top_k_accuracy": Metric(top_k_accuracy, problems=("multiclass",)),
    "precision": Metric(precision, ("average", "threshold")),
    "recall": Metric(recall, ("average", "threshold")),
    "specificity": Metric(specificity, ("average", "threshold")),
    "f1": Metric(f1, ("average", "threshold")),
    "mcc": Metric(matthews_correlation, ("threshold",)),
    "kappa": Metric(cohen_kappa, ("threshold",)),
    "roc_auc": Metric(roc_auc, ("average",)),
    "average_precision": Metric(average_precision, ("average",)),
    "recall_at_precision": Metric(recall_at_precision, ("average",)),
    "log_loss": Metric(log_loss, direction="min"),
    "brier_score": Metric(brier_score, direction="min"),
    "ece": Metric(expected_calibration_error, direction="min"),
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
      name: of a metric, of a detection metric, or of the metric of one output, such as 'group_log_loss' (as in Keras).

    >>> direction("log_loss")
    'min'
    """
    if name in detection.NAMES:
        return "max"
    # The longest first: 'group_balanced_accuracy' is not the accuracy of 'group_balanced'.
    for metric in sorted([*METRICS, *ALIASES], key=len, reverse=True):
        if name.endswith(f"_{metric}") and name not in METRICS:
            return _find(metric).direction
    return _find(name).direction


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
      average, if any. Metrics without a value per label leave out no more of them than `roc_auc` does. Of more than
      1,000 labels, those with the greatest support are listed, at most as many, and 'labels_left_out' is the number of
      the others, which are in all averages.

    >>> scores, labels = [[0.9, 0.1], [0.2, 0.3]], [[1, 0], [0, 0]]
    >>> summary = report(scores, labels, problem="multilabel", class_names=["cat", "dog"])
    >>> summary["metrics"]["roc_auc"], summary["labels"]["dog"]["roc_auc"]
    (1.0, None)
    >>> summary["undefined_labels"]["roc_auc"]
    ['dog']
    """
    scores = collected.numbers(scores, "scores")  # once for all metrics
    data = collected.collect(scores, labels, options)
    count = 2 if data.problem == "binary" else data.scores.shape[1]
    label_names = [str(i) for i in range(count)] if class_names is None else list(class_names)
    if len(label_names) != count or len(set(label_names)) != count:
        raise InputError(f"class_names must be {count} different names for a {data.problem} problem, got {label_names}")
    values: dict[str, float] = {}
    columns: dict[str, np.ndarray] = {}
    for name in names(data.problem):
        if name == "top_k_accuracy" and count <= 5:
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
    positives = label_names[1:] if data.problem == "binary" else label_names
    support = collected.support(data)
    shown = listed(support)
    supports = {positives[i]: float(support[i]) for i in shown}
    columns = {name: column[shown] for name, column in columns.items()}
    complete = report_of(data.problem, len(data.sample_weight), values, supports, columns)
    return complete | ({"labels_left_out": len(positives) - len(shown)} if len(shown) < len(positives) else {})


def _find(name: str) -> Metric:
    metric = METRICS.get(ALIASES.get(name, name))
    if metric is None:
        raise unknown_name("metric", name, [*METRICS, *ALIASES])
    return metric
