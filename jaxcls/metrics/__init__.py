"""Exact metrics of collected scores and labels, on the host, in float64 NumPy.

Every metric is a function `(scores, labels, *, problem, sample_weight=None, mask=None, ...)`. What its arrays mean
is decided by the declared `problem`, never by their shapes:

============  ===========================  ============================
problem       scores                       labels
============  ===========================  ============================
'binary'      (N,), of the positive class  (N,), 0 or 1
'multiclass'  (N, K), one a class          (N,), integers from 0 to K-1
'multilabel'  (N, L), one a label          (N, L), 0, 1 or nan
============  ===========================  ============================

- `sample_weight` (N,) are scikit-learn's `sample_weight`; rows whose `mask` (N,) is False are padding and are not
  read. Rows of weight 0 count for nothing, as if they were not there.
- A multilabel label that is not known is nan. Each label is then judged by the rows where it is known, and a
  pool of decisions ('micro', `subset_accuracy`) holds the known ones.
- Scores are probabilities. Metrics that only rank (`roc_auc`, `average_precision`, ...) or only take the
  highest score of a row (multiclass predictions) accept any finite score, logits too.
- A binary or multilabel prediction is positive where `score >= threshold`, one threshold or one a label; a
  multiclass prediction is the highest score, the first of equals.
- Vectors come first, averages second. `average` is None (the vector: one value a label, or one a class
  against the rest), 'macro' (the mean), 'weighted' (the mean weighted by the positives of each label),
  'micro' (all decisions in one pool) or, for the one label of a binary problem, 'binary'. 'auto' is 'binary'
  there and 'macro' elsewhere.
- A label for which a metric is 0/0 (an AUC of one class only, a recall without positives, anything where the
  label is known nowhere) is nan in the vector and is left out of the averages; `report` names it. No other
  value is: precision is 0 where nothing was predicted and there was something to find, as in scikit-learn.

Bad arrays raise an `InputError` that names the argument and the row. Definitions and ties are scikit-learn's.
"""

from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.averages import Average
from jaxcls.metrics.by_name import ALIASES, METRICS, Metric, direction, get, of_output, report
from jaxcls.metrics.closed_form import proportion_interval, report_intervals
from jaxcls.metrics.decisions import (
    accuracy,
    balanced_accuracy,
    cohen_kappa,
    confusion_matrix,
    f1,
    f_beta,
    matthews_correlation,
    precision,
    recall,
    specificity,
    subset_accuracy,
    top_k_accuracy,
)
from jaxcls.metrics.intervals import Interval, bootstrap_interval
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
from jaxcls.metrics.thresholds import check_tunable, tune_threshold

__all__ = [
    "ALIASES",
    "METRICS",
    "Average",
    "Interval",
    "Metric",
    "PrecisionRecallCurve",
    "ProblemName",
    "Reliability",
    "RocCurve",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "bootstrap_interval",
    "brier_score",
    "check_tunable",
    "cohen_kappa",
    "confusion_matrix",
    "direction",
    "expected_calibration_error",
    "f1",
    "f_beta",
    "get",
    "log_loss",
    "matthews_correlation",
    "of_output",
    "precision",
    "precision_recall_curve",
    "proportion_interval",
    "recall",
    "recall_at_precision",
    "reliability",
    "report",
    "report_intervals",
    "roc_auc",
    "roc_curve",
    "specificity",
    "subset_accuracy",
    "top_k_accuracy",
    "tune_threshold",
]
