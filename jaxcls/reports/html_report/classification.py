"""The section of a report about a classifier: confusions, scores and curves by label, calibration and mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcls.reports.html_report import charts

TEMPLATE = "classification.html"
_LABEL_METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")
# The confusion matrix of more classes is a chart without numbers.
_MOST_CLASSES_OF_A_TABLE = 20
_MOST_CONFUSIONS = 8


def section(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the template."""
    problem, names, confusion = results["problem"], summary["class_names"], summary["confusion"]
    # The predicted class of a multiclass problem is the most likely one.
    has_thresholds = problem != "multiclass"
    thresholds, bins = results["thresholds"], summary["reliability"]
    if not isinstance(thresholds, list):
        thresholds = [thresholds] * len(results["labels"])
    is_table = problem != "multilabel" and len(names) <= _MOST_CLASSES_OF_A_TABLE
    is_chart = problem != "multilabel" and not is_table
    headings = {"confusion": "Confusion matrix", "labels": "Labels" if problem == "multilabel" else "Classes"}
    headings |= {"curves": "Curves"} if summary["curves"] else {}
    return {
        "headings": headings | {"calibration": "Calibration", "mistakes": "Most confident mistakes"},
        "confusion_table": _matrix(confusion, len(names)) if is_table else None,
        "confusion_chart": charts.heatmap(confusion, names) if is_chart else None,
        "confusions": [] if has_thresholds else _most_frequent_confusions(confusion, names),
        "columns": _LABEL_METRICS,
        "thresholds": thresholds if has_thresholds else None,
        "curves": [_curves(label, curves, results, has_thresholds) for label, curves in summary["curves"].items()],
        "reliability_chart": charts.reliability(bins["weight"], bins["confidence"], bins["accuracy"]),
    }


def _matrix(cells: Sequence[tuple[int, int, float]], count: int) -> list[list[float]]:
    matrix = [[0.0] * count for _ in range(count)]
    for true, predicted, weight in cells:
        matrix[true][predicted] = weight
    return matrix


def _most_frequent_confusions(cells: Sequence[tuple[int, int, float]], names: Sequence[str]) -> list[dict[str, Any]]:
    totals = dict.fromkeys(range(len(names)), 0.0)
    for true, _, weight in cells:
        totals[true] += weight
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    return [
        {"true": names[true], "predicted": names[predicted], "weight": weight, "total": totals[true]}
        for true, predicted, weight in wrong[:_MOST_CONFUSIONS]
    ]


def _curves(label: str, curves: Mapping[str, Any], results: Mapping[str, Any], has_threshold: bool) -> dict[str, Any]:
    values = results["labels"][label]
    recall, precision, specificity = values["recall"], values["precision"], values["specificity"]
    marked = has_threshold and precision is not None
    roc = charts.curve(
        charts.Line(label, curves["roc"]),
        x="false positive rate",
        y="true positive rate",
        diagonal=True,
        dot=(1 - specificity, recall) if marked else None,
    )
    precision_recall = charts.curve(
        charts.Line(label, curves["precision_recall"]),
        x="recall",
        y="precision",
        steps=True,
        dot=(recall, precision) if marked else None,
    )
    return {"label": label, "values": values, "roc": roc, "precision_recall": precision_recall}
