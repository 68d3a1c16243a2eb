"""The forms of the records that a finished run leaves, which whoever hands on its directory may have changed."""

from typing import Any

from jaxcls import forms, metrics
from jaxcls.errors import InputError
from jaxcls.forms import ANYTHING, NUMBER

_PROBLEM = frozenset({"binary", "multiclass", "multilabel"})
_SCORE = (NUMBER, None)
_PAIR = ([float, float], None)
_POINTS = [[float, float]]

DATA: dict[str, Any] = {
    "source": str,
    "location": str,
    "note": str,
    "synthetic": bool,
    "sha256": {str: str},
    "duplicates_in_test": int,
}
PREDICTOR = {"problem": _PROBLEM, "class_names": [str], "preparation": {"kind": str}}
ENVIRONMENT = {"packages": {str: str}, "devices?": [str]}
EPOCH = {
    "epoch": int,
    "step": int,
    "loss": _SCORE,
    "skipped_steps": int,
    "seconds": float,
    "examples_per_second": float,
}
RESULTS = {
    "problem": _PROBLEM,
    "examples": int,
    "step": int,
    "metrics": {str: _SCORE},
    "labels": {
        str: {"support": float, "precision": _SCORE, "recall": _SCORE, "f1": _SCORE, "roc_auc": _SCORE}
        | {"average_precision": _SCORE, "specificity": _SCORE}
    },
    "undefined_labels": {str: [str]},
    "thresholds": (float, [float]),
    "params_sha256": str,
}
_EXAMPLE = (
    {"kind": frozenset({"image"}), "png": str, "height": int, "width": int},
    {"kind": frozenset({"text"}), "text": str, "more": int},
    {"kind": frozenset({"row"}), "columns": {str: str}, "more": int},
)
SUMMARY = {
    "class_names": [str],
    "headline": [str],
    "parameters": int,
    "recipe": {str: ANYTHING},
    "intervals": {"metrics": {str: _PAIR}, "labels": {str: {str: _PAIR}}},
    "confusion": ([[[float, float], [float, float]]], [[int, int, float]]),
    "curves": {str: {"roc": _POINTS, "precision_recall": _POINTS}},
    "reliability": {"weight": [float], "confidence": [_SCORE], "accuracy": [_SCORE]},
    "mistakes": [
        {"row": int, "label": (str, None), "truth": str, "predicted": str}
        | {"confidence": float, "truth_probability": float, "example": _EXAMPLE}
    ],
    "balance": {str: {"examples": int, "counts": [int], "known?": [int]}},
}


def check_classes(problem: str, class_names: list[str], where: str) -> None:
    """Refuses names that are too few for the problem, or of which two are equal.

    >>> check_classes("binary", ["cat", "dog"], "predictor.json")
    """
    fits = {"binary": len(class_names) == 2, "multiclass": len(class_names) >= 2, "multilabel": len(class_names) >= 1}
    if not fits[problem] or len(set(class_names)) < len(class_names):
        raise InputError(f"{where} is damaged: its {len(class_names)} class names are none of a {problem} problem.")


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
            forms.check(entry, form, f"{where}/metrics.jsonl: line {number}")
    count, bins, thresholds = len(names), summary["reliability"], results["thresholds"]
    confusion, balance = summary["confusion"], summary["balance"]
    for good, what in (
        (bool(history), "metrics.jsonl has no epoch"),
        ([*results["labels"]] == labels, "the labels of results.json are not those of summary.json"),
        ("ece" in results["metrics"], "results.json holds no ece"),
        (set(results["metrics"]) <= set(metrics.METRICS), "results.json holds metrics that there are not"),
        (not isinstance(thresholds, list) or len(thresholds) == len(labels), "there is not a threshold a label"),
        (set(summary["curves"]) <= set(labels), "there are curves of other labels"),
        (
            _is_confusion(problem, confusion, len(labels) if problem == "multilabel" else count),
            "the confusion matrix does not fit the classes",
        ),
        (
            len({len(column) for column in bins.values()}) == 1 and any(weight > 0 for weight in bins["weight"])
            and min(bins["weight"]) >= 0,
            "the bins of the calibration do not fit each other",
        ),
        (
            all(
                len(part["counts"]) == len(part.get("known", names)) == count and min(part["counts"]) >= 0
                for part in balance.values()
            ),
            "the class balance does not fit the classes",
        ),
    ):  # fmt: skip
        if not good:
            raise InputError(f"{where} is damaged: {what}; give another --run-dir.")


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
