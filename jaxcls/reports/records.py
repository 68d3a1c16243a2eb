"""The forms of the records that a finished run leaves, which whoever hands on its directory may have changed."""

from typing import Any

from jaxcls import metrics
from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError, error_context
from jaxcls._utils.labels import outputs
from jaxcls._utils.schemas import ANYTHING, NUMBER
from jaxcls.metrics import detection

_CLASSIFICATION = frozenset({"binary", "multiclass", "multilabel", "multioutput"})
_SCORE = (NUMBER, None)
_PAIR = ([float, float], None)
_POINTS = [[float, float]]

# What a report shows of a configuration beside the table of its settings.
CONFIG: dict[str, Any] = {"task?": str, "model?": str, "seed?": int, "tune_threshold?": str}
DATA: dict[str, Any] = {
    "source": str,
    "location": str,
    "note": str,
    "synthetic": bool,
    "sha256": {str: str},
    "duplicates_in_test": int,
}
PREDICTOR = {"problem": _CLASSIFICATION | {"detection"}, "class_names": [str], "preprocessor": ({"type": str}, None)}
ENVIRONMENT = {"packages": {str: str}, "devices?": [str]}
EPOCH = {
    "epoch": int,
    "step": int,
    "loss": _SCORE,
    "skipped_steps": int,
    "seconds": float,
    "examples_per_second": float,
}
_ANY_RESULTS = {
    "examples": int,
    "step": int,
    "metrics": {str: _SCORE},
    "undefined_labels": {str: [str]},
    "params_sha256": str,
}
_ANY_SUMMARY = {
    "class_names": [str],
    "headline": [str],
    "parameters": int,
    "recipe": {str: ANYTHING},
    "intervals": {"metrics": {str: _PAIR}, "labels": {str: {str: _PAIR}}},
    "balance": {str: {"examples": int, "counts": [int], "known?": [int]}},
}

_CLASSIFICATION_RESULTS = _ANY_RESULTS | {
    "problem": _CLASSIFICATION,
    "labels": {
        str: {"support": float, "precision": _SCORE, "recall": _SCORE, "f1": _SCORE, "roc_auc": _SCORE}
        | {"average_precision": _SCORE, "specificity": _SCORE}
    },
    "thresholds": (float, [float]),
}
_EXAMPLE = (
    {"kind": frozenset({"image"}), "png": str, "height": int, "width": int},
    {"kind": frozenset({"text"}), "text": str, "more": int},
    {"kind": frozenset({"row"}), "columns": {str: str}, "more": int},
    # Inputs that cannot be shown.
    None,
)
_CLASSIFICATION_SUMMARY = _ANY_SUMMARY | {
    "confusion": ([[[float, float], [float, float]]], [[int, int, float]]),
    "curves": {str: {"roc": _POINTS, "precision_recall": _POINTS}},
    "reliability": {"weight": [float], "confidence": [_SCORE], "accuracy": [_SCORE]},
    "mistakes": [
        {"row": int, "label": (str, None), "truth": str, "predicted": str}
        | {"confidence": float, "truth_probability": float, "example": _EXAMPLE}
    ],
}

_BOX = [float, float, float, float]
_PICTURE = {"png": str, "height": int, "width": int}
_DETECTION_RESULTS = _ANY_RESULTS | {
    "problem": frozenset({"detection"}),
    "labels": {str: {"support": float, "map": _SCORE, "map_50": _SCORE, "map_75": _SCORE, "voc_ap_50": _SCORE}},
    "thresholds": float,
}
_DETECTION_SUMMARY = _ANY_SUMMARY | {
    "counts": {"found": int, "missed": int, "alarms": int},
    "curves": {str: {"precision_recall": _POINTS}},
    "examples": [
        _PICTURE
        | {"row": int, "truth": [{"box": _BOX, "class": str, "crowd": bool}]}
        | {"found": [{"box": _BOX, "class": str, "score": float, "right": bool}]}
    ],
    "mistakes": [{"row": int, "class": str, "said": str, "example": _PICTURE | {"box": _BOX}}],
    "alarms": [{"row": int, "class": str, "score": float, "why": str, "example": _PICTURE | {"box": _BOX}}],
}

# By the problem.
RESULTS: dict[str, Any] = dict.fromkeys(_CLASSIFICATION, _CLASSIFICATION_RESULTS) | {"detection": _DETECTION_RESULTS}
SUMMARY: dict[str, Any] = dict.fromkeys(_CLASSIFICATION, _CLASSIFICATION_SUMMARY) | {"detection": _DETECTION_SUMMARY}


def check_classes(problem: str, class_names: list[str], where: str) -> None:
    """Refuses names that are too few for the problem, or of which two are equal.

    >>> check_classes("binary", ["cat", "dog"], "predictor.json")
    """
    least = {"binary": 2, "multiclass": 2, "multilabel": 1, "multioutput": 2, "detection": 1}[problem]
    fits = len(class_names) == least if problem == "binary" else len(class_names) >= least
    if not fits or len(set(class_names)) < len(class_names):
        raise InputError(f"{where} is damaged: its {len(class_names)} class names are none of a {problem} problem.")
    if problem == "multioutput":
        with error_context(f"{where} is damaged"):
            outputs(class_names)


def check_page(history: list[Any], results: dict[str, Any], summary: dict[str, Any], where: str) -> None:
    """Refuses records, each of its form, that do not belong together: a page is made of all of them.

    Args:
      where: the run's directory, for messages.
    """
    problem, names = results["problem"], summary["class_names"]
    check_classes(problem, names, f"{where}/summary.json")
    labels = names[1:] if problem == "binary" else names
    for number, entry in enumerate(history, 1):
        for form in (EPOCH, {str: _SCORE}):
            schemas.check(entry, form, f"{where}/metrics.jsonl: line {number}")
    balance, known = summary["balance"].values(), {*metrics.names()}
    checks = [
        (bool(history), "metrics.jsonl has no epoch"),
        ([*results["labels"]] == labels, "the labels of results.json are not those of summary.json"),
        (set(summary["curves"]) <= set(labels), "there are curves of other labels"),
        (
            all(
                len(part["counts"]) == len(part.get("known", names)) == len(names) and min(part["counts"]) >= 0
                for part in balance
            ),
            "the class balance does not fit the classes",
        ),
    ]
    if problem == "detection":
        known = {*detection.NAMES}
    else:
        if problem == "multioutput":
            known = {f"{output}_{name}" for output in outputs(names) for name in known}
        checks += _of_classification(problem, len(names), len(labels), results, summary)
    checks.append((set(results["metrics"]) <= known, "results.json holds metrics that there are not"))
    for good, what in checks:
        if not good:
            raise InputError(f"{where} is damaged: {what}; give another --run-dir.")


def _of_classification(
    problem: str, classes: int, labels: int, results: dict[str, Any], summary: dict[str, Any]
) -> list[tuple[bool, str]]:
    bins, thresholds, confusion = summary["reliability"], results["thresholds"], summary["confusion"]
    return [
        (problem == "multioutput" or "ece" in results["metrics"], "results.json holds no ece"),
        (not isinstance(thresholds, list) or len(thresholds) == labels, "there is not a threshold a label"),
        (
            _is_confusion(problem, confusion, labels if problem == "multilabel" else classes),
            "the confusion matrix does not fit the classes",
        ),
        (
            len({len(column) for column in bins.values()}) == 1
            and any(weight > 0 for weight in bins["weight"])
            and min(bins["weight"]) >= 0,
            "the bins of the calibration do not fit each other",
        ),
    ]


def _is_confusion(problem: str, confusion: list[Any], count: int) -> bool:
    if problem == "multilabel":
        return len(confusion) == count and all(
            len(matrix) == 2 and weight >= 0 for matrix in confusion for row in matrix for weight in row
        )
    return all(
        len(cell) == 3
        and not isinstance(cell[0], list)
        and min(cell[:2]) >= 0
        and max(cell[:2]) < count
        and cell[2] > 0
        for cell in confusion
    )
