"""The section of a report about a detector: scores and curves by class, images with boxes, and mistakes."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from jaxcls.reports.html_report import charts

TEMPLATE = "detection.html"
_CLASS_METRICS = ("map", "map_50", "map_75", "voc_ap_50")


def section(results: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the template."""
    labels = results["labels"]
    headings = {"classes": "Classes", "curves": "Curves", "images": "Images", "missed": "Missed objects"}
    headings["false-alarms"] = "False alarms"
    if not summary["curves"]:
        del headings["curves"]
    return {
        "headings": headings,
        "columns": [name for name in _CLASS_METRICS if any(name in values for values in labels.values())],
        "examples": [example | {"chart": _example(example)} for example in summary["examples"]],
        "curves": [
            {
                "label": label,
                "values": labels[label],
                "chart": charts.curve(
                    charts.Line(label, curve["precision_recall"]), x="recall", y="precision", steps=True
                ),
            }
            for label, curve in summary["curves"].items()
        ],
        "missed": [mistake | {"chart": _crop(mistake, "truth")} for mistake in summary["missed"]],
        "false_alarms": [mistake | {"chart": _crop(mistake, "wrong")} for mistake in summary["false_alarms"]],
    }


def _example(example: Mapping[str, Any]) -> Markup:
    truth = [charts.Box("truth", one["box"], one["class"]) for one in example["truth"]]
    detections = [
        charts.Box("correct" if one["correct"] else "wrong", one["box"], f"{one['class']} {one['score']:.2f}")
        for one in example["detections"]
    ]
    names, detected = (", ".join(box.label for box in boxes) or "none" for boxes in (truth, detections))
    description = f"Test image {example['row']}. Objects: {names}. Detections: {detected}."
    return charts.boxes(example, truth + detections, description)


def _crop(mistake: Mapping[str, Any], style: str) -> Markup:
    box = charts.Box(style, mistake["example"]["box"], "")
    return charts.boxes(mistake["example"], [box], f"{mistake['class']} in test image {mistake['row']}")
