"""The forms of the records that a finished run leaves, which whoever hands on its directory may have changed."""

from typing import Any

from jaxcls import metrics
from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls._utils.schemas import ANYTHING, NUMBER
from jaxcls.metrics import detection

_CLASSIFICATION = frozenset({"binary", "multiclass", "multilabel"})
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
# Of several outputs, problem and class names are dicts by output; an experiment that was saved without data has no names.
PREDICTOR = {
    "problem": (_CLASSIFICATION | {"detection"}, {str: _CLASSIFICATION}),
    "class_names": ([str], {str: [str]}, None),
    "preprocessor": ({"type": str}, None),
}
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

_RUN_RESULTS = ("step", "params_sha256", "thresholds")
_RUN_SUMMARY = ("headline", "parameters", "recipe")


def _of_output(schema: dict[str, Any], of_run: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in of_run}


_OUTPUTS_RESULTS = {
    "problem": frozenset({"multioutput"}),
    "examples": int,
    "step": int,
    "params_sha256": str,
    "metrics": {str: _SCORE},
    "thresholds": {str: (float, [float])},
    "outputs": {str: _of_output(_CLASSIFICATION_RESULTS, _RUN_RESULTS)},
}
_OUTPUTS_SUMMARY = {name: _ANY_SUMMARY[name] for name in _RUN_SUMMARY} | {
    "outputs": {str: _of_output(_CLASSIFICATION_SUMMARY, _RUN_SUMMARY)}
}

# By the problem.
RESULTS: dict[str, Any] = dict.fromkeys(_CLASSIFICATION, _CLASSIFICATION_RESULTS) | {
    "detection": _DETECTION_RESULTS,
    "multioutput": _OUTPUTS_RESULTS,
}
SUMMARY: dict[str, Any] = dict.fromkeys(_CLASSIFICATION, _CLASSIFICATION_SUMMARY) | {
    "detection": _DETECTION_SUMMARY,
    "multioutput": _OUTPUTS_SUMMARY,
}


def check_classes(problem: Any, class_names: Any, where: str) -> None:
    """Refuses class names that are too few for the problem, or not distinct; of several outputs, dicts of both.

    >>> check_classes("binary", ["cat", "dog"], "predictor.json")
    """
    if isinstance(problem, dict):
        if not isinstance(class_names, dict) or problem.keys() != class_names.keys() or not problem:
            raise InputError(f"{where} is damaged: its class names are not those of its outputs.")
        for name in problem:
            check_classes(problem[name], class_names[name], f"{where}: output {name!r}")
    elif class_names is not None:
        least = {"binary": 2, "multiclass": 2, "multilabel": 1, "detection": 1}[problem]
        count = len(class_names)
        fits = isinstance(class_names, list) and (count == least if problem == "binary" else count >= least)
        if not fits or len(set(class_names)) < count:
            raise InputError(f"{where} is damaged: {count} class names do not fit a {problem} problem.")


def check_report(records: Any) -> None:
    """Refuses the records of a run, each of them valid, that do not belong together.

    Args:
      records: :class:`jaxcls.reports.run_directory.Records`.
    """
    where, results, summary = str(records.path), records.results, records.summary
    for number, entry in enumerate(records.history, 1):
        for schema in (EPOCH, {str: _SCORE}):
            schemas.check(entry, schema, f"{where}/metrics.jsonl: line {number}")
    checks = [(bool(records.history), "metrics.jsonl has no epoch")]
    if "outputs" in results:
        names = set(results["outputs"])
        if not names or not names == set(summary["outputs"]) == set(results["thresholds"]):
            raise InputError(f"{where} is damaged: its records have different outputs; give another --run-dir.")
        metrics_of_outputs = {f"{name}_{metric}" for name in names for metric in metrics.names()}
        checks.append((set(results["metrics"]) <= metrics_of_outputs, "results.json has unknown metrics"))
    for output in records.outputs.values():
        checks += _of_problem(output.results, output.summary, where)
    for good, what in checks:
        if not good:
            raise InputError(f"{where} is damaged: {what}; give another --run-dir.")


def _of_problem(results: dict[str, Any], summary: dict[str, Any], where: str) -> list[tuple[bool, str]]:
    problem, names = results["problem"], summary["class_names"]
    check_classes(problem, names, f"{where}/summary.json")
    labels = names[1:] if problem == "binary" else names
    known = {*detection.NAMES} if problem == "detection" else {*metrics.names()}
    checks = [
        ([*results["labels"]] == labels, "the labels of results.json are not those of summary.json"),
        (set(summary["curves"]) <= set(labels), "there are curves of other labels"),
        (
            all(
                len(split["counts"]) == len(split.get("known", names)) == len(names) and min(split["counts"]) >= 0
                for split in summary["balance"].values()
            ),
            "the class balance does not fit the classes",
        ),
        (set(results["metrics"]) <= known, "results.json has unknown metrics"),
    ]
    if problem != "detection":
        checks += _of_classification(problem, len(names), len(labels), results, summary)
    return checks


def _of_classification(
    problem: str, classes: int, labels: int, results: dict[str, Any], summary: dict[str, Any]
) -> list[tuple[bool, str]]:
    bins, thresholds, confusion = summary["reliability"], results["thresholds"], summary["confusion"]
    return [
        ("ece" in results["metrics"], "results.json has no ece"),
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
