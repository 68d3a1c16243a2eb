"""The section of a report about one output: the name of its template, and what this shows besides the records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from jaxcls.metrics.detection import box_iou
from jaxcls.reports import detection_summary
from jaxcls.reports.html_report import charts

# The confusion matrix of more classes is a chart without numbers.
_MOST_CLASSES_OF_A_TABLE = 20
# That of more has cells too small to see.
_MOST_CLASSES_OF_A_CHART = 2_000
_MOST_CONFUSIONS, _MANY_CONFUSIONS = 8, 100
Cells = Sequence[tuple[int, int, float]]


def section(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the template of an output, given its records."""
    values = _detection if results["problem"] == "detection" else _classification
    names, listed = summary["class_names"], results["labels"]
    # Of very many classes, those that the results list.
    classes = [pair for pair in enumerate(names) if "labels_left_out" not in results or pair[1] in listed]
    greatest = {split: max(1, *balance["counts"]) for split, balance in summary["balance"].items()}
    shared = {"results": results, "summary": summary, "classes": classes, "greatest": greatest}
    return values(results, summary) | shared


def _classification(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    problem, names, confusion = results["problem"], summary["class_names"], summary["confusion"]
    # The predicted class of a multiclass problem is the most likely one.
    labels, thresholds, bins = names[1:] if problem == "binary" else names, None, summary["reliability"]
    if problem != "multiclass":
        each = results["thresholds"]
        thresholds = dict(zip(labels, each, strict=True)) if isinstance(each, list) else dict.fromkeys(labels, each)
    earlier = summary.get("reliability_before", {"confidence": [], "accuracy": []})
    pairs = zip(earlier["confidence"], earlier["accuracy"], strict=True)
    before = [pair for pair in pairs if None not in pair]
    is_table = len(names) <= _MOST_CLASSES_OF_A_TABLE
    has_chart = problem != "multilabel" and not is_table and len(names) <= _MOST_CLASSES_OF_A_CHART
    return {
        "template": "classification.html",
        "confusion_table": _matrix(confusion, len(names)) if problem != "multilabel" and is_table else None,
        "confusion_chart": charts.heatmap(confusion, names) if has_chart else None,
        "confusions": _most_frequent_confusions(confusion, names) if problem == "multiclass" else [],
        "thresholds": thresholds,
        "curves": [
            _curves(label, curves, results["labels"][label], has_threshold=thresholds is not None)
            for label, curves in summary["curves"].items()
        ],
        "reliability_chart": charts.reliability(bins["weight"], bins["confidence"], bins["accuracy"], before),
    }


def _matrix(cells: Cells, count: int) -> list[list[float]]:
    matrix = [[0.0] * count for _ in range(count)]
    for true, predicted, weight in cells:
        matrix[true][predicted] = weight
    return matrix


def _most_frequent_confusions(cells: Cells, names: Sequence[str]) -> list[dict[str, Any]]:
    totals = charts.true_totals(cells)
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    most = _MOST_CONFUSIONS if len(names) <= _MOST_CLASSES_OF_A_CHART else _MANY_CONFUSIONS
    return [
        {"true": names[true], "predicted": names[predicted], "weight": weight, "total": totals[true]}
        for true, predicted, weight in wrong[:most]
    ]


def _curves(label: str, curves: Mapping[str, Any], values: Mapping[str, Any], has_threshold: bool) -> dict[str, Any]:
    recall, precision, specificity = values["recall"], values["precision"], values["specificity"]
    roc_dot = precision_recall_dot = None
    if has_threshold and None not in (recall, precision, specificity):
        roc_dot, precision_recall_dot = (1 - specificity, recall), (recall, precision)
    roc = charts.curve(charts.Line(label, curves["roc"]), x="false positive rate", y="true positive rate", dot=roc_dot)
    precision_recall = _precision_recall(label, curves, precision_recall_dot)
    return {"label": label, "values": values, "roc": roc, "precision_recall": precision_recall}


def _precision_recall(label: str, curves: Mapping[str, Any], dot: tuple[float, float] | None = None) -> Markup:
    return charts.curve(charts.Line(label, curves["precision_recall"]), x="recall", y="precision", steps=True, dot=dot)


def _detection(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "template": "detection.html",
        "examples": [example | {"chart": _example(example)} for example in summary["examples"]],
        "curves": [
            {"label": label, "values": results["labels"][label], "chart": _precision_recall(label, curves)}
            for label, curves in summary["curves"].items()
        ],
        "missed": [mistake | {"chart": _crop(mistake, "truth")} for mistake in summary["missed"]],
        "false_alarms": [mistake | {"chart": _crop(mistake, "wrong")} for mistake in summary["false_alarms"]],
    }


def _example(example: Mapping[str, Any]) -> Markup:
    truth, detections = example["truth"], example["detections"]
    correct = [one for one in detections if one["correct"]]
    # The correct detection of an object says its class too: two labels of every object would hide a crowded image.
    overlaps = box_iou(*(np.reshape([one["box"] for one in some], (-1, 4)) for some in (truth, correct)))
    matched = (overlaps >= detection_summary.IOU) & (_classes(truth)[:, None] == _classes(correct))
    drawn = [
        charts.Box("truth", one["box"], "" if hidden else one["class"])
        for one, hidden in zip(truth, matched.any(axis=1), strict=True)
    ]
    drawn += [
        charts.Box("correct" if one["correct"] else "wrong", one["box"], f"{one['class']} {one['score']:.2f}")
        for one in detections
    ]
    names = ", ".join(_classes(truth)) or "none"
    detected = ", ".join(box.label for box in drawn[len(truth) :]) or "none"
    description = f"Test image {example['row']}. Objects: {names}. Detections: {detected}."
    return charts.boxes(example, drawn, description)


def _classes(objects: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([one["class"] for one in objects], object)


def _crop(mistake: Mapping[str, Any], style: str) -> Markup:
    box = charts.Box(style, mistake["example"]["box"], "")
    return charts.boxes(mistake["example"], [box], f"{mistake['class']} in test image {mistake['row']}")
