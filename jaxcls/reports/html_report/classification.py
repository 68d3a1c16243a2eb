"""What a page shows of a classifier's decisions: confusions, curves, calibration, and each label's scores."""

from typing import TYPE_CHECKING, Any

from jaxcls.reports.run_directory import Records

if TYPE_CHECKING:
    from markupsafe import Markup

# A prediction is the likeliest class, of one output or of each.
_OF_CLASSES = ("multiclass", "multioutput")
_OF_A_LABEL = ("precision", "recall", "f1", "roc_auc", "average_precision")
# From more classes on a confusion matrix is a drawing, and its cells have no numbers.
_MOST_CLASSES_OF_A_TABLE = 20


def content(run: Records) -> dict[str, Any]:
    """What the template `classification.html` takes beside that of every run."""
    problem, count = run.results["problem"], len(run.summary["class_names"])
    single, many = problem != "multilabel", count > _MOST_CLASSES_OF_A_TABLE
    return {
        "confusion": _confusion_table(run) if single and not many else None,
        "confusion_map": _confusion_map(run) if single and many else None,
        "taken_for": _taken_for(run) if problem in _OF_CLASSES else [],
        "of_classes": problem in _OF_CLASSES,
        "calibration": _calibration(run),
        "label_columns": _OF_A_LABEL,
        "labels": _labels(run),
        "curves": _curves(run),
        "reliability": _reliability(run),
    }


def _confusion_table(run: Records) -> list[list[dict[str, Any]]]:
    """Rows of cells: the weight, its share of its true class, and how it is drawn."""
    count = len(run.summary["class_names"])
    matrix = [[0.0] * count for _ in range(count)]
    for true, predicted, weight in run.summary["confusion"]:
        matrix[true][predicted] = weight
    rows = []
    for true, cells in enumerate(matrix):
        total = sum(cells)
        rows.append([
            {
                "weight": weight,
                "share": round(weight / total, 3) if total else 0,
                "kind": "none" if not weight else "hit" if true == predicted else "miss",
            }
            for predicted, weight in enumerate(cells)
        ])  # fmt: skip
    return rows


def _confusion_map(run: Records) -> "Markup":
    from jaxcls.reports.html_report import charts

    return charts.heatmap(run.summary["confusion"], run.summary["class_names"])


def _taken_for(run: Records) -> list[dict[str, Any]]:
    """The most frequent confusions, as shares of the true class."""
    totals: dict[int, float] = {}
    for true, _, weight in run.summary["confusion"]:
        totals[true] = totals.get(true, 0.0) + weight
    wrong = [cell for cell in run.summary["confusion"] if cell[0] != cell[1]]
    return [
        {
            "true": run.summary["class_names"][true],
            "predicted": run.summary["class_names"][predicted],
            "weight": weight,
            "total": totals[true],
        }
        for true, predicted, weight in sorted(wrong, key=lambda cell: -cell[2])[:8]
    ]


def _labels(run: Records) -> list[dict[str, Any]]:
    thresholds = _thresholds(run)
    intervals = run.summary["intervals"]["labels"]
    matrices = run.summary["confusion"] if run.results["problem"] == "multilabel" else []
    return [
        {
            "name": name,
            "values": values,
            "intervals": intervals.get(name, {}),
            "threshold": thresholds[place] if thresholds else None,
            "matrix": matrices[place] if matrices else None,
        }
        for place, (name, values) in enumerate(run.results["labels"].items())
    ]


def _thresholds(run: Records) -> list[float]:
    """One a label; of a multiclass problem, none."""
    given, count = run.results["thresholds"], len(run.results["labels"])
    if run.results["problem"] in _OF_CLASSES:
        return []
    return given if isinstance(given, list) else [given] * count


def _curves(run: Records) -> dict[str, Any]:
    from jaxcls.reports.html_report import charts

    roc, found = [], []
    for label, curve in run.summary["curves"].items():
        values = run.results["labels"][label]
        chosen = run.results["problem"] not in _OF_CLASSES and values["precision"] is not None
        roc.append({
            "label": label,
            "value": values["roc_auc"],
            "chart": charts.curve(
                charts.Line(label, curve["roc"]),
                x="false positive rate",
                y="true positive rate",
                diagonal=True,
                dot=(1 - values["specificity"], values["recall"]) if chosen else None,
            ),
        })  # fmt: skip
        found.append({
            "label": label,
            "value": values["average_precision"],
            "chart": charts.curve(
                charts.Line(label, curve["precision_recall"]),
                x="recall",
                y="precision",
                steps=True,
                dot=(values["recall"], values["precision"]) if chosen else None,
            ),
        })  # fmt: skip
    ranked = sum(values["roc_auc"] is not None for values in run.results["labels"].values())
    return {"roc": roc, "precision_recall": found, "left_out": ranked - len(roc)}


def _calibration(run: Records) -> list[dict[str, Any]]:
    """The expected calibration error; of several outputs, that of each with its name."""
    values = run.results["metrics"]
    return [
        {"output": name.removesuffix("ece").rstrip("_"), "value": value}
        for name, value in values.items()
        if name == "ece" or name.endswith("_ece")
    ]


def _reliability(run: Records) -> dict[str, Any]:
    from jaxcls.reports.html_report import charts

    bins = run.summary["reliability"]
    rows = [
        {
            "from": place / len(bins["weight"]),
            "to": (place + 1) / len(bins["weight"]),
            **dict(zip(bins, row, strict=True)),
        }
        for place, row in enumerate(zip(*bins.values(), strict=True))
        if row[0]
    ]
    return {"chart": charts.reliability(bins["weight"], bins["confidence"], bins["accuracy"]), "rows": rows}
