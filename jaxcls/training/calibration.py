"""The calibration of a trained experiment: fitted on scores of validation examples, and part of what predicts then.

The record of a calibration, as calibration.json holds it, is plain JSON: the method, the thresholds, and of each output
(the name of a single one is '') its scale and bias, and the scores that conformal sets are made by.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import jax
import numpy as np

from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.data import rows
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Split
from jaxcls.metrics import calibration, conformal
from jaxcls.metrics.calibration import Calibration
from jaxcls.models import Model
from jaxcls.reports import summary as summaries
from jaxcls.training import ensemble, steps
from jaxcls.training import objective as objectives
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import by_output

PyTree = Any
Record = dict[str, Any]

# The coverages of sets that a report shows.
COVERAGES = (0.9, 0.95, 0.99)
_SETS: tuple[tuple[conformal.Method, bool], ...] = (("lac", False), ("lac", True), ("aps", False))


def logits(experiment: Experiment, weights: Mapping[str, PyTree], inputs: PyTree) -> PyTree:
    """Returns the logits of examples, input arrays on the host; of test-time augmentation, those of the mean."""
    return _with_one_view(experiment).outputs(weights, inputs)


def logits_of(problem: Any, scores: PyTree) -> PyTree:
    """Returns the logits of probabilities, such as out-of-fold ones; a dict by output."""
    logits = {
        name: calibration.logits_of(values, one) for name, (one, values) in _named(problem, problem, scores).items()
    }
    return logits.get("", logits)


def fit(
    problem: Any,
    logits: PyTree,
    split: Split,
    method: Any,
    *,
    split_name: str = "validation",
    tune_threshold: str | None = None,
) -> Record:
    """Fits a calibration, thresholds on the calibrated scores, and what conformal sets need.

    Args:
      problem: the name, or a dict of names by output.
      logits: of the examples of the split, which no weight was learned from.
      method: see :func:`jaxcls.metrics.calibration.fit`.
      split_name: 'validation' or 'out_of_fold'.
      tune_threshold: the metric that thresholds maximize; without it, they are 0.5.
    """
    outputs: Record = {}
    thresholds = {}
    for name, (one, values, labels, weight) in _named(
        problem, problem, logits, rows.in_memory(split.labels), rows.in_memory(split.sample_weight)
    ).items():
        known: Any = {"problem": one, "sample_weight": weight}
        fitted = calibration.fit(values, labels, method=method, **known)
        # In the precision of a prediction.
        scores = calibration.probabilities_of(fitted(values), one).astype(np.float32)
        sets = None
        if one != "multilabel":
            sets = {
                kind: [column.tolist() for column in conformal.calibration_scores(scores, labels, kind, **known)]
                for kind in get_args(conformal.Method)
            }
        outputs[name] = {"scale": fitted.scale.tolist(), "bias": fitted.bias.tolist(), "sets": sets}
        tuned = (
            0.5 if tune_threshold is None else metrics.tune_threshold(scores, labels, metric=tune_threshold, **known)
        )
        thresholds[name] = np.asarray(tuned).tolist()
    return {
        "method": method,
        "split": split_name,
        "examples": split.num_examples,
        "thresholds": thresholds.get("", thresholds),
        "outputs": outputs,
    }


def calibrated(experiment: Experiment, record: Mapping[str, Any]) -> Experiment:
    """Returns the experiment with calibrated scores."""

    def scores_of(one: Mapping[str, Any], problem: str) -> Any:
        fitted = Calibration(np.asarray(one["scale"]), np.asarray(one["bias"]))
        return lambda outputs: objectives.probabilities(problem)(fitted(outputs))

    specs: dict[Any, Any] = {
        name: spec._replace(scores=scores_of(record["outputs"][name or ""], spec.problem))
        for name, spec in objectives.specs(experiment.objective)
    }
    made = dataclasses.replace(_with_one_view(experiment), objective=specs.get(None, specs), calibration=record)
    made._class_weights.update(experiment._class_weights)
    return made


def as_split(experiment: Experiment, examples: Examples) -> Split:
    """Returns array examples as a split, with the most likely class of soft labels."""
    labels = {}
    for name, spec, truth, _, _ in by_output(experiment.objective, examples.labels, examples.labels, None):
        if spec.problem == "multiclass" and truth.ndim == 2:
            likely = _most_likely
        elif spec.problem == "binary":
            likely = _positive
        else:
            labels[name] = truth
            continue
        labels[name] = truth.mapped(likely, (), np.int32) if isinstance(truth, rows.Rows) else likely(truth)
    return Split(examples.inputs, labels.get(None, labels), examples.sample_weight)


def _most_likely(labels: np.ndarray) -> np.ndarray:
    return labels.argmax(axis=1)


def _positive(labels: np.ndarray) -> np.ndarray:
    return (labels >= 0.5).astype(np.int32)


def prediction_sets(
    record: Mapping[str, Any], coverage: float, method: Any, by_class: bool
) -> Callable[[PyTree], PyTree]:
    """Returns the function from calibrated scores to conformal sets, bool (N, classes); of several outputs, dicts.

    Raises:
      InputError: the problem is multilabel, or the coverage is not between 0 and 1.
    """
    outputs = record["outputs"]
    if any(one["sets"] is None for one in outputs.values()):
        raise InputError("conformal sets are of problems with one class per example, not of multilabel ones.")
    limits = {name: conformal.limits(one["sets"][method], coverage, by_class=by_class) for name, one in outputs.items()}
    if "" in limits:
        return lambda scores: conformal.prediction_sets(scores, limits[""], method)
    return lambda scores: {
        name: conformal.prediction_sets(scores[name], limit, method) for name, limit in limits.items()
    }


def describe(
    record: Mapping[str, Any], before: PyTree, scores: PyTree, test: Split, report: Record, summary: Record
) -> None:
    """Adds to the report and the summary of the test what the calibration changed, and how good conformal sets are.

    Args:
      before, scores: of the test examples, without and with the calibration.
    """
    problem = (
        report["problem"]
        if "outputs" not in report
        else {name: one["problem"] for name, one in report["outputs"].items()}
    )
    named = _named(problem, problem, before, scores, test.labels, test.sample_weight)
    for name, (one, raw, now, labels, weight) in named.items():
        options: Any = {"problem": one, "sample_weight": weight}
        entry, fitted = {name: record[name] for name in ("method", "split", "examples")}, record["outputs"][name]
        entry |= {part: fitted[part] for part in ("scale", "bias")}
        entry["before"] = {
            metric: metrics.get(metric, one)(raw, labels, sample_weight=weight)
            for metric in ("accuracy", "ece", "log_loss", "brier_score")
        }
        entry["sets"] = []
        for kind, by_class in _SETS if fitted["sets"] else ():
            for coverage in COVERAGES:
                limits = conformal.limits(fitted["sets"][kind], coverage, by_class=by_class)
                quality = conformal.set_quality(conformal.prediction_sets(now, limits, kind), labels)
                entry["sets"].append({"method": kind, "by_class": by_class, "stated": coverage} | quality._asdict())
        of_report, of_summary = (tree if name == "" else tree["outputs"][name] for tree in (report, summary))
        of_report["calibration"] = entry
        of_summary["reliability_before"] = summaries.reliability(raw, labels, options)


def line(report: Mapping[str, Any]) -> str:
    """Returns one line that says what the calibration changed in the report of a test."""
    changes = []
    for name, one in report.get("outputs", {"": report}).items():
        before, now = one["calibration"]["before"], one["metrics"]
        shown = f"{name}: " if name else ""
        changes.append(
            f"{shown}calibration error {before['ece']:.4f}, now {now['ece']:.4f}; "
            f"log loss {before['log_loss']:.4f}, now {now['log_loss']:.4f}"
        )
    return "; ".join(changes)


def _named(problem: Any, *trees: Any) -> dict[str, tuple[Any, ...]]:
    """Returns, by output, its part of each tree; one array may serve all outputs. The name of a single one is ''."""
    if not isinstance(problem, Mapping):
        return {"": trees}
    return {name: tuple(tree[name] if isinstance(tree, Mapping) else tree for tree in trees) for name in problem}


def _with_one_view(experiment: Experiment) -> Experiment:
    """Returns the experiment with a model that averages the probabilities of test-time augmentation itself."""
    if not experiment.tta:
        return experiment

    def apply(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: jax.Array | None = None) -> Any:
        if key is not None:
            return experiment.model.apply(params, model_state, experiment.preprocess(inputs), key=key)
        mean = ensemble.log_probabilities(experiment.objective, experiment, params, model_state, inputs)
        return ensemble.as_logits(experiment.objective, mean), model_state

    return dataclasses.replace(experiment, model=Model(experiment.model.init, apply), preprocess=steps.identity, tta=())
