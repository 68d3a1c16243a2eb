"""What a page shows of a detector: images with their boxes, curves and scores by class, what it missed and made up."""

from typing import Any

from jaxcls.reports.run_directory import Records

_OF_A_CLASS = ("map", "map_50", "map_75", "voc_ap_50")


def content(run: Records) -> dict[str, Any]:
    """What the template `detection.html` takes beside that of every run."""
    from jaxcls.reports.html_report import charts

    summary, labels = run.summary, run.results["labels"]
    return {
        "threshold": run.results["thresholds"],
        "counts": summary["counts"],
        "label_columns": [name for name in _OF_A_CLASS if any(name in values for values in labels.values())],
        "labels": labels,
        "examples": [example | {"drawing": charts.boxes_on(**_drawn(example))} for example in summary["examples"]],
        "curves": [
            {
                "label": label,
                "value": labels[label]["map_50"],
                "chart": charts.curve(
                    charts.Line(label, curve["precision_recall"]), x="recall", y="precision", steps=True
                ),
            }
            for label, curve in summary["curves"].items()
        ],
        "missed": [_of_mistake(one, "truth") for one in summary["mistakes"]],
        "alarms": [_of_mistake(one, "wrong") for one in summary["alarms"]],
    }


def _drawn(example: dict[str, Any]) -> dict[str, Any]:
    boxes = [("truth", one["box"], one["class"]) for one in example["truth"]]
    for one in example["found"]:
        said = f"{one['class']} {one['score']:.2f}"
        boxes.append(("found" if one["right"] else "wrong", one["box"], said))
    described = "; ".join(
        [
            f"test image {example['row']}: " + (", ".join(one["class"] for one in example["truth"]) or "no true box"),
            "found " + (", ".join(name for kind, _, name in boxes if kind != "truth") or "nothing"),
        ]
    )
    return {
        "png": example["png"],
        "width": example["width"],
        "height": example["height"],
        "boxes": boxes,
        "description": described,
    }


def _of_mistake(one: dict[str, Any], kind: str) -> dict[str, Any]:
    from jaxcls.reports.html_report import charts

    example = one["example"]
    drawing = charts.boxes_on(
        png=example["png"],
        width=example["width"],
        height=example["height"],
        boxes=[(kind, example["box"], "")],
        description=f"{one['class']} in test image {one['row']}",
    )
    return one | {"drawing": drawing}
