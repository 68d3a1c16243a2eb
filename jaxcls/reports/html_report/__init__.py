"""A run, or several beside each other, as one HTML page: it loads nothing and needs no script."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jaxcls
from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.reports.run_directory import Records

# Names that are not just their words.
_CALLED = {
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "mcc": "MCC",
    "ece": "ECE",
    "kappa": "Cohen's kappa",
    "recall_at_precision": "recall at precision 0.9",
    "top_k_accuracy": "top 5 accuracy",
    "brier_score": "Brier score",
    "map": "mAP",
    "map_50": "mAP 50",
    "map_75": "mAP 75",
    "map_small": "mAP small",
    "map_medium": "mAP medium",
    "map_large": "mAP large",
    "voc_ap_50": "VOC AP 50",
}
_TILES = ("map", "map_50", "map_75", "accuracy", "roc_auc", "average_precision", "f1", "log_loss")
MOST_RUNS = 8


def render(run: Records) -> str:
    """The page of one run.

    Args:
      run: as :func:`jaxcls.reports.run_directory.read_records` reads it.

    Returns:
      HTML of less than 2 MB.
    """
    # What is shown of the decisions is a matter of the problem, and of a template that fills the common one.
    if run.results["problem"] == "detection":
        from jaxcls.reports.html_report.detection import content

        template = "detection.html"
    else:
        from jaxcls.reports.html_report.classification import content

        template = "classification.html"
    return _render(
        template,
        run=run,
        title=_task(run),
        model=_model(run),
        synthetic=run.data["synthetic"],
        class_names=run.summary["class_names"],
        tiles=_tiles(run),
        scores=_scores(run.results["metrics"], run.summary["intervals"]["metrics"]),
        learning=_learning(run),
        history_columns=list(dict.fromkeys(name for entry in run.history for name in entry)),
        seconds=sum(entry["seconds"] for entry in run.history),
        rate=_rate(run),
        balance=_balance(run),
        settings=_settings(run),
        environment=_environment(run.environment),
        **content(run),
    )


def render_comparison(runs: Sequence[Records]) -> str:
    """The page that lays several runs of one task beside each other.

    Raises:
      InputError: there are fewer than two or more than eight, or they are of different tasks.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(f"--compare takes 2 to {MOST_RUNS} runs, got {len(runs)}.")
    tasks = sorted({_task(run) for run in runs})
    if len(tasks) > 1:
        raise InputError(
            f"--compare takes runs of one task, and these are of {', '.join(tasks)}: their scores differ in kind."
        )
    names = _names(runs)
    shared = [
        name for name in runs[0].results["metrics"] if all(run.results["metrics"].get(name) is not None for run in runs)
    ]
    return _render(
        "compare.html",
        title=tasks[0],
        synthetic=[name for name, run in zip(names, runs, strict=True) if run.data["synthetic"]],
        all_synthetic=all(run.data["synthetic"] for run in runs),
        same_test=len({(str(sorted(run.data["sha256"].items())), run.results["examples"]) for run in runs}) == 1,
        runs=[
            {
                "name": name,
                "run": run,
                "model": _model(run),
                "seconds": sum(entry["seconds"] for entry in run.history),
                "rate": _rate(run),
            }
            for name, run in zip(names, runs, strict=True)
        ],
        charts=_compared_charts(runs, names),
        points=_compared_points(runs, names),
        scores=_compared_scores(runs, shared),
        settings=_compared_settings(runs),
    )


def _task(run: Records) -> str:
    """The name of the task, or 'compile' for a run of jaxcls.compile."""
    task: str = run.config.get("task", "compile")
    return task


def _model(run: Records) -> str:
    model: str = run.config.get("model", "model")
    return model


def _render(template: str, **content: Any) -> str:
    import jinja2

    # Everything is escaped but what charts.py made.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcls.reports", "html_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"called": called, "score": score, "amount": amount, "duration": duration, "bounds": bounds}
    environment.filters.update(filters)
    assert environment.loader is not None
    style, _, _ = environment.loader.get_source(environment, "style.css")
    return environment.get_template(template).render(version=jaxcls.__version__, style=style, **content)


def called(name: str) -> str:
    """What a metric is called in prose.

    >>> called("val_roc_auc"), called("log_loss"), called("group_f1")
    ('validation ROC AUC', 'log loss', 'group F1')
    """
    if name.startswith("val_"):
        return f"validation {called(name.removeprefix('val_'))}"
    # The metric of one of several outputs begins with its name.
    metric = next((known for known in _CALLED if f"_{name}".endswith(f"_{known}")), "")
    words = name.removesuffix(metric).replace("_", " ") + _CALLED.get(metric, "")
    return words.strip()


def score(value: float | None) -> str:
    """
    >>> score(0.93412), score(12.3456)
    ('0.9341', '12.35')
    """
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def bounds(interval: Sequence[float] | None) -> str:
    """
    >>> bounds([0.929, 0.93913]), bounds(None)
    ('0.929 to 0.939', '')
    """
    return (
        ""
        if interval is None
        else " to ".join(f"{bound:.3f}" if abs(bound) < 10 else f"{bound:.3g}" for bound in interval)
    )


def amount(value: float) -> str:
    """
    >>> amount(60000.0), amount(1234.5), amount(2.5)
    ('60,000', '1,234', '2.5')
    """
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """
    >>> duration(7.25), duration(192), duration(4000)
    ('7.2 s', '3 min 12 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _tiles(run: Records) -> list[dict[str, Any]]:
    values = run.results["metrics"]
    names = [name for name in dict.fromkeys([*run.summary["headline"], *_TILES]) if values.get(name) is not None]
    return _scores({name: values[name] for name in names[:4]}, run.summary["intervals"]["metrics"])


def _scores(values: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, "interval": intervals.get(name), "down": metrics.direction(name) == "min"}
        for name, value in values.items()
        if value is not None
    ]


def _learning(run: Records) -> list[dict[str, Any]]:
    """A chart of the losses, and one of each metric of the validation examples."""
    from jaxcls.reports.html_report import charts

    named = dict.fromkeys(name for entry in run.history for name in entry if name.startswith("val_"))
    tested = [entry["epoch"] for entry in run.history if entry["step"] == run.results["step"]]
    last = bool(tested) and tested[-1] == len(run.history)
    mark = (tested[-1], "tested") if tested and not last else None
    shown: list[dict[str, Any]] = []
    pairs = [("loss", ["loss", "val_loss"]), *((called(name), [name]) for name in named if name != "val_loss")]
    for title, names in pairs:
        drawn = [
            charts.Line("training" if name == "loss" else "validation", _over_epochs(run, name), style)
            for style, name in enumerate(names)
        ]
        drawn = drawn if len(drawn) > 1 else [drawn[0]._replace(style=1)]
        values = [value for line in drawn for _, value in line.points if value is not None and math.isfinite(value)]
        unit = title != "loss" and all(0 <= value <= 1 for value in values)
        chart = charts.lines(drawn, x="epoch", y=title, mark=mark, unit_interval=unit)
        shown.append({"title": title, "lines": drawn, "chart": chart})
    return shown


def _over_epochs(run: Records, name: str) -> list[tuple[float, float | None]]:
    return [(entry["epoch"], entry.get(name)) for entry in run.history]


def _rate(run: Records) -> float:
    """Examples a second in the middle one of the epochs: the first of them compiles."""
    return statistics.median(entry["examples_per_second"] for entry in run.history)


def _balance(run: Records) -> dict[str, Any]:
    """By class: of each part how many there are, as a share of the most frequent, and of how many that is known."""
    parts = run.summary["balance"]
    most = {name: max(part["counts"], default=0) or 1 for name, part in parts.items()}
    rows = []
    for place, label in enumerate(run.summary["class_names"]):
        cells = []
        for name, part in parts.items():
            count, known = part["counts"][place], part["known"][place] if "known" in part else part["examples"]
            share = round(count / most[name], 3)
            cells.append({"count": count, "share": share, "known": known if known < part["examples"] else None})
        rows.append({"name": label, "cells": cells})
    return {"parts": {name: part["examples"] for name, part in parts.items()}, "rows": rows}


def _settings(run: Records) -> list[dict[str, Any]]:
    recipe = run.summary["recipe"]
    names = [*run.config, *(name for name in recipe if name not in run.config)]
    return [
        {
            "name": name,
            "value": _plain(run.config.get(name)),
            "changed": name in recipe,
            "recipe": _plain(recipe.get(name)),
        }
        for name in names
        if name not in ("list_tasks", "config", "resume")
    ]


def _environment(record: Mapping[str, Any]) -> dict[str, str]:
    flat = {name: value for name, value in record.items() if name != "packages"} | record["packages"]
    devices = flat.get("devices", [])
    kinds = {kind: devices.count(kind) for kind in devices}
    flat["devices"] = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    return {name.replace("_", " "): _plain(value) for name, value in flat.items() if value not in ("", None)}


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _names(runs: Sequence[Records]) -> list[str]:
    """What the runs are called: their directories, with as much of the way to them as tells them apart."""
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise InputError("--compare was given one run twice.")
    depth = next(depth for depth in range(1, 100) if len({path.parts[-depth:] for path in paths}) == len(paths))
    return ["/".join(path.parts[-depth:]) for path in paths]


def _compared_charts(runs: Sequence[Records], names: Sequence[str]) -> list[dict[str, Any]]:
    from jaxcls.reports.html_report import charts

    found = dict.fromkeys(
        name for run in runs for entry in run.history for name in entry if name == "loss" or name.startswith("val_")
    )
    shown = []
    for name in found:
        drawn = [
            charts.Line(title, _over_epochs(run, name), style)
            for style, (title, run) in enumerate(zip(names, runs, strict=True))
        ]
        title = "training loss" if name == "loss" else called(name)
        shown.append({"title": title, "chart": charts.lines(drawn, x="epoch", y=title)})
    return shown


def _compared_points(runs: Sequence[Records], names: Sequence[str]) -> list[dict[str, Any]]:
    from jaxcls.reports.html_report import charts

    wanted = dict.fromkeys([*runs[0].summary["headline"], *_TILES])
    shown = []
    for name in wanted:
        values = [run.results["metrics"].get(name) for run in runs]
        if any(value is None for value in values):
            continue
        intervals = [run.summary["intervals"]["metrics"].get(name) for run in runs]
        drawn = [
            charts.Interval(title, value, interval, style)
            for style, (title, value, interval) in enumerate(zip(names, values, intervals, strict=True))
        ]
        shown.append({"name": name, "chart": charts.points(drawn, x=called(name))})
    return shown


def _compared_scores(runs: Sequence[Records], shared: Iterable[str]) -> list[dict[str, Any]]:
    rows = []
    for name in shared:
        values = [run.results["metrics"][name] for run in runs]
        best = min(values) if metrics.direction(name) == "min" else max(values)
        cells = [
            {"value": value, "interval": run.summary["intervals"]["metrics"].get(name), "best": value == best}
            for value, run in zip(values, runs, strict=True)
        ]
        rows.append({"name": name, "down": metrics.direction(name) == "min", "cells": cells})
    return rows


def _compared_settings(runs: Sequence[Records]) -> list[dict[str, Any]]:
    ignored = ("run_dir", "list_tasks", "config", "resume")
    names = dict.fromkeys(name for run in runs for name in run.config if name not in ignored)
    rows = [{"name": name, "values": [_plain(run.config.get(name)) for run in runs]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]
