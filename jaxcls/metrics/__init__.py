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

from jaxcls.metrics import detection
from jaxcls.metrics.averages import Average
from jaxcls.metrics.by_name import direction, get, names, report
from jaxcls.metrics.collected import Options
from jaxcls.metrics.decisions import (
    LabelOptions,
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
from jaxcls.metrics.intervals import Interval, bootstrap_interval, proportion_interval, report_intervals
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
from jaxcls.metrics.thresholds import tune_threshold

__all__ = [
    "Average", "Interval", "LabelOptions", "Options", "PrecisionRecallCurve", "Reliability", "RocCurve", "accuracy",
    "average_precision", "balanced_accuracy", "bootstrap_interval", "brier_score", "cohen_kappa", "confusion_matrix",
    "detection", "direction", "expected_calibration_error", "f1", "f_beta", "get", "log_loss", "matthews_correlation",
    "names", "precision", "precision_recall_curve", "proportion_interval", "recall", "recall_at_precision",
    "reliability", "report", "report_intervals", "roc_auc", "roc_curve", "specificity", "subset_accuracy",
    "top_k_accuracy", "tune_threshold",
]  # fmt: skip
