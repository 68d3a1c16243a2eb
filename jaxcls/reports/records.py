"""Schemas of the files of a finished run, which may come from an untrusted source."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcls import metrics
from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls._utils.schemas import ANYTHING, NUMBER, Schema
from jaxcls.metrics import averages, detection

_PROBLEM = frozenset({"binary", "multiclass", "multilabel", "detection"})
_SCORE = (NUMBER, None)
_SCORES = {str: _SCORE}
_INTERVAL = ([float, float], None)
_POINTS = [[float, float]]

# The configuration is free, except for what a report shows of it outside the table of settings.
CONFIG: Schema = {
    "task?": str, "model?": str, "seed?": int, "tune_threshold?": str, "pretrained?": str, "max_length?": int,
    "calibrate?": str,
}  # fmt: skip
DATA = {"source": str, "location": str, "note": str, "synthetic": bool, "sha256": {str: str}, "duplicates_in_test": int}
# Several outputs have their problems and class names by output.
PREDICTOR: Schema = {
    "problem": (_PROBLEM, {str: _PROBLEM}),
    "class_names": ([str], {str: [str]}, None),
    # None for a model that takes arrays without preprocessing.
    "preprocessor": ({"type": str}, None),
    # The members of an ensemble, with the index of their preprocessor and the settings of their own.
    "ensemble?": [{"name": str, "weight": float, "preprocessor": int, "settings": {str: ANYTHING}}],
    "pretrained?": {"revision": (str, None), "sha256": {str: str}, "config": {str: ANYTHING}},
}
ENVIRONMENT: Schema = {"packages": {str: str}, "devices?": [str]}
EPOCH: Schema = {
    "epoch": int,
    "step": int,
    "loss": _SCORE,
    "skipped_steps": int,
    "seconds": float,
    "examples_per_second": float,
    # Metrics.
    str: _SCORE,
}
_FACTORS = (float, [float])
# Of columns of numbers: some of them, each with the number of those below it and up to it.
_COLUMNS: Schema = {
    str: ({"count": int, "missing": int, "ranks": [[float, int, int]]}, {"count": int, "shares": {str: float}})
}
REFERENCE: Schema = {"inputs": _COLUMNS, "scores": _COLUMNS}
# Of each output; the name of a single one is ''. The scores of the true classes, by method and class, make sets.
CALIBRATION: Schema = {
    "method": str,
    "split": str,
    "examples": int,
    "thresholds": ANYTHING,
    "outputs": {str: {"scale": _FACTORS, "bias": _FACTORS, "sets": ({"lac": [[float]], "aps": [[float]]}, None)}},
}
# A line of trials.jsonl of a search.
TRIAL: Schema = {
    "trial": int, "rung": int, "settings": {str: ANYTHING}, "values": [(float, None)], "seconds": float,
    "diverged": bool, "by_seed?": [[(float, None)]],
}  # fmt: skip
_THRESHOLDS = (float, [float])
_VALIDATED = {"examples": int, "metrics": _SCORES}
RESULTS: Schema = {
    "examples": int,
    "step": int,
    "metrics": _SCORES,
    "params_sha256": str,
    "thresholds": (float, [float], {str: _THRESHOLDS}),
    "outputs?": {str: {}},
    # Of an ensemble: its models, and the scores of their mean on examples that they have not seen.
    "members?": [_VALIDATED | {"name": str, "weight": float, "training_examples": int}],
    "out_of_fold?": _VALIDATED,
    "validation?": _VALIDATED,
}
_EXAMPLE = (
    {"type": frozenset({"image"}), "png": str, "height": int, "width": int},
    {"type": frozenset({"text"}), "text": str, "more": int},
    {"type": frozenset({"row"}), "columns": {str: str}, "more": int},
    # Other types of inputs are not shown.
    None,
)
_LABEL_ERROR = {
    "row": int, "label": (str, None), "current": str, "suggested": str, "current_probability": float,
    "suggested_probability": float, "example": _EXAMPLE,
}  # fmt: skip
SUMMARY: Schema = {
    "headline": [str],
    "parameters": int,
    "frozen?": int,
    "truncated?": {str: float},
    "recipe": {str: ANYTHING},
    # How test examples differ from training examples.
    "shift?": [{"column": str, "difference": float, "p_value": float, "before": str, "now": str, "large": bool}],
    # Of folds: the number of probable label errors, and the most probable ones.
    "label_errors?": {"labels": int, "errors": int, "listed": [_LABEL_ERROR]},
    "outputs?": {str: {}},
}

# The results and the summary of one output.
_LABEL_SCORES = ("precision", "recall", "f1", "roc_auc", "average_precision", "specificity")
_CLASSIFICATION_RESULTS = {
    "examples": int,
    "metrics": _SCORES,
    "undefined_labels": {str: [str]},
    "labels_left_out?": int,
    "labels": {str: {"support": float} | dict.fromkeys(_LABEL_SCORES, _SCORE)},
    "thresholds": _THRESHOLDS,
    "calibration?": {
        "method": str,
        "split": str,
        "examples": int,
        "scale": _FACTORS,
        "bias": _FACTORS,
        "before": _SCORES,
        "sets": [
            {"method": str, "by_class": bool}
            | dict.fromkeys(("stated", "coverage", "worst_class", "mean_size", "single", "empty"), float)
        ],
    },
}
_COMMON_SUMMARY = {
    "class_names": [str],
    "intervals": {"metrics": {str: _INTERVAL}, "labels": {str: {str: _INTERVAL}}},
    "balance": {str: {"examples": int, "counts": [int], "known?": [int]}},
}
_RELIABILITY = {"weight": [float], "confidence": [_SCORE], "accuracy": [_SCORE]}
_CLASSIFICATION_SUMMARY: dict[str, Schema] = _COMMON_SUMMARY | {
    "curves": {str: {"roc": _POINTS, "precision_recall": _POINTS}},
    "reliability": _RELIABILITY,
    "reliability_before?": _RELIABILITY,
    # Of the test examples, or of folds out of fold.
    "slices_of?": str,
    "slices?": [{"name": str, "examples": int, "error_rate": float, "interval": [float], "p_value": float}],
    "mistakes": [
        {
            "row": int,
            "label": (str, None),
            "truth": str,
            "predicted": str,
            "confidence": float,
            "truth_probability": float,
            "example": _EXAMPLE,
        }
    ],
}

# What `jaxcls explain` writes.
EXPLANATIONS: Schema = {
    "split": str,
    "mistakes": bool,
    "examples": [
        {
            "row": int,
            "truth": (str, None),
            "predicted": str,
            "confidence": float,
            "example": _EXAMPLE,
            "why": (
                {"type": frozenset({"heat"}), "png": str, "sum": float},
                {"type": frozenset({"words"}), "words": [[str, float]]},
                {"type": frozenset({"columns"}), "columns": [[str, str, float]], "base": float},
            ),
        }
    ],
    "importance": [{"column": str, "increase": float, "error": float}],
}

_BOX = [float, float, float, float]
_PICTURE = {"png": str, "height": int, "width": int}
_DETECTION_MISTAKE = {"row": int, "class": str, "reason": str, "example": _PICTURE | {"box": _BOX}}
_DETECTION_RESULTS = _CLASSIFICATION_RESULTS | {
    "labels": {str: {"support": float, "map": _SCORE, "map_50": _SCORE, "map_75": _SCORE, "voc_ap_50": _SCORE}},
    "thresholds": float,
}
_DETECTION_SUMMARY = _COMMON_SUMMARY | {
    "counts": {"detected": int, "missed": int, "false_alarms": int},
    "curves": {str: {"precision_recall": _POINTS}},
    "examples": [
        _PICTURE
        | {
            "row": int,
            "truth": [{"box": _BOX, "class": str, "crowd": bool}],
            "detections": [{"box": _BOX, "class": str, "score": float, "correct": bool}],
        }
    ],
    "missed": [_DETECTION_MISTAKE],
    "false_alarms": [_DETECTION_MISTAKE | {"score": float}],
}


def by_output(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], Any]]:
    """Returns the results and the summary of each output; those of a single output have the name ''."""
    if "outputs" not in results:
        return {"": (dict(results), summary)}
    return {
        name: (output | {"thresholds": results["thresholds"][name]}, summary["outputs"][name])
        for name, output in results["outputs"].items()
    }


def check_predictor(predictor: Mapping[str, Any], where: str) -> None:
    """Raises InputError if the class names do not fit the problem, or two of an output are equal.

    >>> check_predictor({"problem": "binary", "class_names": ["cat", "dog"]}, "predictor.json")
    """
    problem, names = predictor["problem"], predictor["class_names"]
    problems, names = (value if isinstance(value, dict) else {"": value} for value in (problem, names))
    if predictor["class_names"] is None:
        return
    if problems.keys() != names.keys():
        raise InputError(f"{where} is damaged: its problems and class names are of different outputs.")
    for name, class_names in names.items():
        _check_classes(problems[name], class_names, where)


def check_calibration(calibration: Mapping[str, Any], predictor: Mapping[str, Any], where: str) -> None:
    """Raises InputError if a calibration does not fit the problem and the classes of its run."""
    problem, names = predictor["problem"], predictor["class_names"]
    problems, names = (value if isinstance(value, dict) else {"": value} for value in (problem, names))
    outputs, thresholds = calibration["outputs"], calibration["thresholds"]
    _require({"it is not of the outputs of the run": problems.keys() == outputs.keys()}, where)
    schema = {name: _THRESHOLDS if one == "multilabel" else float for name, one in problems.items()}
    schemas.check(thresholds, schema.get("", schema), where)
    for name, one in outputs.items():
        lists = [part for part in (one["scale"], one["bias"], thresholds) if isinstance(part, list)]
        fits = problems[name] != "detection" and not (lists and problems[name] == "binary")
        sizes = {*map(len, [*lists, *(one["sets"] or {}).values()])}
        known = names.get(name)
        _require({"it does not fit the classes": fits and (not known or sizes <= {len(known)})}, where)


def check_records(
    problem: str | Mapping[str, str], results: Mapping[str, Any], summary: Mapping[str, Any], where: str
) -> None:
    """Raises InputError if the records of a run do not match their schemas, the problem or each other.

    Args:
      problem: of predictor.json.
      where: the run's directory, for messages.
    """
    if isinstance(problem, Mapping):
        by_name = [results.get("outputs"), results["thresholds"], summary.get("outputs")]
        fits = all(isinstance(record, dict) and record.keys() == problem.keys() for record in by_name)
    else:
        problem, fits = {"": problem}, "outputs" not in results
    _require({"its records and predictor.json are not of the same outputs": fits}, where)
    known = set()
    for name, (output_results, output_summary) in by_output(results, summary).items():
        one, suffix = problem[name], f": output {name!r}" if name else ""
        results_schema, summary_schema = _output_schemas(one)
        schemas.check(output_results, results_schema, f"{where}/results.json{suffix}")
        schemas.check(output_summary, summary_schema, f"{where}/summary.json{suffix}")
        _check_output(output_results, output_summary, where)
        metric_names = detection.NAMES if one == "detection" else metrics.names()
        known |= {f"{name}_{metric}" if name else metric for metric in metric_names}
    _require({"results.json contains unknown metrics": set(results["metrics"]) <= known}, where)


def _output_schemas(problem: str) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Returns the schemas of the results and of the summary of one output."""
    if problem == "detection":
        results, summary = _DETECTION_RESULTS, _DETECTION_SUMMARY
    else:
        # Of each label: [[true negatives, false positives], [false negatives, true positives]]; or the nonzero cells:
        # true class, predicted class, weight.
        confusion = [[[float, float], [float, float]]] if problem == "multilabel" else [[int, int, float]]
        results, summary = _CLASSIFICATION_RESULTS, _CLASSIFICATION_SUMMARY | {"confusion": confusion}
    return results | {"problem": frozenset({problem})}, summary


def _check_output(results: Mapping[str, Any], summary: Mapping[str, Any], where: str) -> None:
    problem, names = results["problem"], summary["class_names"]
    _check_classes(problem, names, f"{where}/summary.json")
    labels = names[1:] if problem == "binary" else names
    checks = {
        "the labels in results.json and summary.json differ": _are_listed([*results["labels"]], labels),
        "there are curves of unknown labels": set(summary["curves"]) <= set(labels),
        "the class balance does not fit the classes": all(
            len(split["counts"]) == len(split.get("known", names)) == len(names) and min(split["counts"]) >= 0
            for split in summary["balance"].values()
        ),
    }
    if problem != "detection":
        thresholds, diagrams = results["thresholds"], [summary["reliability"]]
        diagrams += [summary["reliability_before"]] if "calibration" in results else []
        checks |= {
            "results.json contains no ece": "ece" in results["metrics"],
            "the thresholds do not fit the labels": not isinstance(thresholds, list) or len(thresholds) == len(labels),
            "the confusion matrix does not fit the classes": _fits(summary["confusion"], problem, len(names)),
            "the calibration bins do not fit each other": all(
                len({*map(len, bins.values())}) == 1 and min(bins["weight"], default=-1) >= 0 and any(bins["weight"])
                for bins in diagrams
            ),
        }
    _require(checks, where)


def _are_listed(listed: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether results list these labels: all, or of very many some in their order."""
    rest = iter(labels)
    many = len(listed) <= averages.MOST_LABELS < len(labels)
    return listed == labels or (many and all(label in rest for label in listed))


def _require(checks: Mapping[str, bool], where: str) -> None:
    for message, passed in checks.items():
        if not passed:
            raise InputError(f"{where} is damaged: {message}; give another run directory.")


def _check_classes(problem: str, class_names: Sequence[str], where: str) -> None:
    least = 1 if problem in ("multilabel", "detection") else 2
    fits = len(class_names) == 2 if problem == "binary" else len(class_names) >= least
    if not fits or len(set(class_names)) < len(class_names):
        raise InputError(f"{where} is damaged: its {len(class_names)} class names do not fit a {problem} problem.")


def _fits(confusion: Sequence[Any], problem: str, classes: int) -> bool:
    if problem == "multilabel":
        weights = [weight for matrix in confusion for row in matrix for weight in row]
        return len(confusion) == classes and all(weight >= 0 for weight in weights)
    return all(0 <= true < classes and 0 <= predicted < classes and weight > 0 for true, predicted, weight in confusion)
