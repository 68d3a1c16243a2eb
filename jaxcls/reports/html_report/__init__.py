"""Render a run, or a comparison of several, as an HTML page that loads nothing and runs no script."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jaxcls
from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.metrics.intervals import mean_interval
from jaxcls.reports.html_report import charts
from jaxcls.reports.html_report.sections import section
from jaxcls.reports.records import by_output
from jaxcls.reports.run_directory import Records

# Words of metric names that are spelled differently in prose.
_WORDS = {"roc": "ROC", "auc": "AUC", "f1": "F1", "mcc": "MCC", "ece": "ECE", "brier": "Brier", "map": "mAP"}
_WORDS |= {"voc": "VOC", "ap": "AP", "kappa": "Cohen's kappa", "k": "5", "val": "validation"}
_HEADLINE = ("map", "map_50", "map_75", "accuracy", "roc_auc", "average_precision", "f1", "log_loss")
# In three widths of eight lines.
MOST_RUNS = 24
# Into which the values of a searched setting are divided.
_MOST_PARTS = 4


def render(run: Records) -> str:
    """Renders the report of one run.

    Args:
      run: as :func:`jaxcls.reports.run_directory.read_records` returns it.

    Returns:
      HTML of less than 2 MB.
    """
    known = {name: value for name, value in run.results["metrics"].items() if value is not None}
    return _render_template(
        "run.html",
        **_overview(run),
        title=_task(run),
        tiles=[name for name in _headline(run) if name in known][:4],
        metrics=known,
        intervals=_intervals(run),
        models=_models(run),
        learning_curves=_learning_curves(run),
        history_columns=list(dict.fromkeys(name for entry in run.history for name in entry)),
        sections=[
            section(results, summary)
            # Of the anchors and the headings in the section.
            | {"prefix": f"output{number}-" if name else "", "heading": f"{name}: " if name else ""}
            for number, (name, (results, summary)) in enumerate(by_output(run.results, run.summary).items(), 1)
        ],
        explanations=_explanations(run),
        settings={**run.config, **run.summary["recipe"]},
        environment=_environment(run.environment),
    )


def render_comparison(runs: Sequence[Records]) -> str:
    """Renders a comparison of several runs of one task.

    Raises:
      InputError: there are fewer than 2 or more than 24 runs, or they are of different tasks.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(f"--compare takes 2 to {MOST_RUNS} runs, got {len(runs)}.")
    tasks = sorted({_task(run) for run in runs})
    if len(tasks) > 1:
        raise InputError(f"--compare takes runs of one task, got runs of {', '.join(tasks)}.")
    named = dict(zip(_distinct_names(runs), runs, strict=True))
    rows = {name: row for name in runs[0].results["metrics"] if (row := _compared_metric(name, named))}
    return _render_template(
        "compare.html",
        title=tasks[0],
        synthetic=[name for name, run in named.items() if run.data["synthetic"]],
        all_synthetic=all(run.data["synthetic"] for run in runs),
        same_test=len({(str(sorted(run.data["sha256"].items())), run.results["examples"]) for run in runs}) == 1,
        runs={name: _overview(run) for name, run in named.items()},
        headline=[name for name in _headline(runs[0]) if name in rows],
        metrics=rows,
        learning_curves=_compared_learning_curves(named),
        settings=_differing_settings(runs),
    )


def render_search(record: Mapping[str, Any]) -> str:
    """Renders the report of a search.

    Args:
      record: as :func:`jaxcls.tasks.search.search` makes it: the task, the metric, the space, and in 'jobs' the trials,
        the best first.
    """
    jobs, epochs = record["jobs"], record["epochs"]
    styles = [_trial_style(record, job) for job in jobs]
    tooltips = [_trial_words(record, job) for job in jobs]
    scales = {name: _scale(name, record) for name in record["space"]}
    title = metric(record["monitor"])
    rungs = {
        f"after {count} epoch{'s' * (count > 1)}": scale
        for rung, count in enumerate(epochs)
        if (scale := _value_scale(record, rung))
    }
    lines = [
        (
            [_plotted(job["settings"].get(name), scale) for name, scale in scales.items()]
            + [*job["by_rung"], *[None] * len(rungs)][: len(rungs)],
            style,
            tooltip,
        )
        for job, style, tooltip in zip(jobs, styles, tooltips, strict=True)
    ]
    first = _value_scale(record, 0)
    effects = []
    for name, scale in scales.items():
        having = [index for index, job in enumerate(jobs) if name in job["settings"] and job["by_rung"][0] is not None]
        values = [_plotted(jobs[index]["settings"][name], scale) for index in having]
        results = [jobs[index]["by_rung"][0] for index in having]
        dots = [
            (value, result, styles[index], tooltips[index])
            for value, result, index in zip(values, results, having, strict=True)
        ]
        chart = charts.scatter(dots[::-1], scale, x=name, y=first) if first else ""
        effects.append({"name": name, "chart": chart, "share": explained([scale.at(one) for one in values], results)})
    return _render_template(
        "search.html",
        record=record,
        winner=jobs[0],
        title=title,
        finished=sum(style in ("all", "best") for style in styles),
        parallel=charts.parallel(scales | rungs, lines[::-1]),
        effects=sorted(effects, key=lambda effect: -(effect["share"] or 0)),
    )


def explained(positions: Sequence[float], values: Sequence[float]) -> float | None:
    """Returns the share of the differences in rank that a setting explains, alone; None if there are too few values.

    The positions are divided into four parts with as many values, or by the few positions that there are, and the share
    is that of the variance between the parts, without what chance adds (omega squared). So a setting whose middle is
    best has an effect as well.

    >>> explained([0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1] * 2, [5, 5, 1, 1, 2, 2, 7, 7] * 2) > 0.9
    True
    """
    import numpy as np
    from scipy.stats import rankdata

    at, ranks = np.asarray(positions), rankdata(values)
    different = np.unique(at)
    edges = different if len(different) <= _MOST_PARTS else np.quantile(at, np.arange(1, _MOST_PARTS) / _MOST_PARTS)
    parts = np.searchsorted(edges, at, side="right")
    groups = [ranks[parts == part] for part in np.unique(parts)]
    if len(values) < 4 * len(groups) or len(groups) < 2 or len(set(values)) < 2:
        return None
    total = ((ranks - ranks.mean()) ** 2).sum()
    within = sum(((group - group.mean()) ** 2).sum() for group in groups)
    error = within / (len(values) - len(groups))
    return max(0.0, float((total - within - (len(groups) - 1) * error) / (total + error)))


def _trial_style(record: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    if job is record["jobs"][0]:
        return "best"
    reached = len(job["by_rung"])
    return "all" if reached == len(record["epochs"]) else "few" if reached == 1 else "more"


def _trial_words(record: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name} {plain(value)}" for name, value in job["settings"].items())
    result = "diverged" if job["diverged"] else f"{metric(record['monitor'])} {score(job['value'])}"
    return f"trial {job['trial']}: {chosen}; {result} after {len(job['values'])} of {record['epochs'][-1]} epochs"


def _scale(name: str, record: Mapping[str, Any]) -> charts.Scale:
    """Returns the axis of a searched setting."""
    entry = record["space"][name]
    if "choices" in entry:
        names = [plain(choice) for choice in entry["choices"]]
        return charts.Scale(0, len(names) - 1, names=names)
    return charts.Scale(entry["low"], entry["high"], entry["log"])


def _plotted(value: Any, scale: charts.Scale) -> Any:
    return plain(value) if scale.names and value is not None else value


def _value_scale(record: Mapping[str, Any], rung: int) -> charts.Scale | None:
    """Returns the axis of the metric in a rung, without the worst tenth of its values; None if there is none."""
    known = [job["by_rung"][rung] for job in record["jobs"] if len(job["by_rung"]) > rung]
    values = sorted((value for value in known if value is not None), reverse=record["mode"] == "max")
    if not values:
        return None
    low, high = sorted((values[0], values[min(len(values) - 1, math.ceil(0.9 * len(values)))]))
    margin = 0.02 * (high - low) or 0.1 * abs(high) or 0.1
    return charts.Scale(low - margin, high + margin)


def _render_template(template: str, **values: Any) -> str:
    import jinja2

    # Everything is escaped except the charts.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcls.reports", "html_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (metric, score, number, duration, bounds, plain, metrics.direction, charts.styled):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template(template).render(version=jaxcls.__version__, **values)


def metric(name: str) -> str:
    """Returns the name of a metric in prose.

    >>> metric("val_roc_auc"), metric("log_loss"), metric("group_f1")
    ('validation ROC AUC', 'log loss', 'group F1')
    """
    words = name.replace("recall_at_precision", "recall_at_precision_0.9").split("_")
    return " ".join(_WORDS.get(word, word) for word in words)


def score(value: float | None) -> str:
    """Formats a metric.

    >>> score(0.93412), score(12.3456)
    ('0.9341', '12.35')
    """
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def bounds(interval: Sequence[float] | None) -> str:
    """Formats an interval.

    >>> bounds([0.929, 0.93913]), bounds(None)
    ('0.929 to 0.939', '')
    """
    return " to ".join(f"{bound:.3f}" if abs(bound) < 10 else f"{bound:.3g}" for bound in interval or ())


def number(value: float) -> str:
    """Formats a count, a weight or a rate.

    >>> number(60000.0), number(1234.5), number(2.5)
    ('60,000', '1,234', '2.5')
    """
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Formats a number of seconds.

    >>> duration(7.25), duration(192), duration(4000)
    ('7.2 s', '3 min 12 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> str:
    """Formats the value of a setting.

    >>> plain(None), plain(True), plain([1, 2])
    ('not set', 'yes', '1, 2')
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _task(run: Records) -> str:
    """Returns the name of the task; 'compile' for a run of jaxcls.compile."""
    return str(run.config.get("task", "compile"))


def _explanations(run: Records) -> dict[str, Any] | None:
    """Returns the record of explanations, with the greatest contribution of a word in each text."""
    if run.explanations is None:
        return None
    examples = [
        one | {"most": max([1e-9, *(abs(value) for _, value in one["why"].get("words", ()))])}
        for one in run.explanations["examples"]
    ]
    return run.explanations | {"examples": examples}


def _overview(run: Records) -> dict[str, Any]:
    return {
        "run": run,
        "model": run.config.get("model", "model"),
        "seconds": sum(entry["seconds"] for entry in run.history),
        # The median epoch: the first one includes compilation.
        "rate": statistics.median(entry["examples_per_second"] for entry in run.history),
    }


def _intervals(run: Records) -> dict[str, Any]:
    """Returns the intervals of the metrics; those of several outputs are named like 'output_metric'."""
    return {
        f"{output}_{name}" if output else name: interval
        for output, (_, summary) in by_output(run.results, run.summary).items()
        for name, interval in summary["intervals"]["metrics"].items()
    }


def _headline(run: Records) -> list[str]:
    """Returns the names of the most important metrics, the task's own first."""
    outputs = run.results.get("outputs", {})
    prefixed = [f"{output}_{name}" for name in _HEADLINE for output in outputs]
    return list(dict.fromkeys([*run.summary["headline"], *_HEADLINE, *prefixed]))


def _models(run: Records) -> dict[str, Any] | None:
    """Returns the table of an ensemble's models with their scores, their mean and its interval; None of one model."""
    members = run.results.get("members")
    if not members:
        return None
    known = [name for name in _headline(run) if name in run.results["metrics"] and name != "log_loss"]
    names = [*known[:3], *(["log_loss"] if "log_loss" in run.results["metrics"] else [])]
    scores = {name: [member["metrics"].get(name) for member in members] for name in names}
    spread = {name: mean_interval(values) for name, values in scores.items()}
    validated = run.results.get("out_of_fold") or run.results["validation"]
    return {
        "names": names,
        "members": members,
        "means": {name: mean for name, (mean, _) in spread.items()},
        "intervals": {name: (mean - half, mean + half) for name, (mean, half) in spread.items()},
        "ensemble": validated["metrics"],
        "split": "out of fold" if "out_of_fold" in run.results else "validation",
    }


def _learning_curves(run: Records) -> list[dict[str, Any]]:
    """Returns a chart of the losses, and one of each metric."""
    names = dict.fromkeys(name for entry in run.history for name in entry)
    measured = dict.fromkeys(["loss", *(name.removeprefix("val_") for name in names if name.startswith("val_"))])
    tested = [entry["epoch"] for entry in run.history if entry["step"] == run.results["step"]]
    mark = (tested[-1], "tested") if tested and tested[-1] != len(run.history) else None
    shown = []
    for name in measured:
        both = [("training", name), ("validation", f"val_{name}")]
        lines = [_line(label, run, one, style) for style, (label, one) in enumerate(both) if one in names]
        title = metric(name if name in names else f"val_{name}")
        chart = charts.lines(lines, x="epoch", y=title, mark=mark, unit_interval=title != "loss")
        shown.append({"title": title, "lines": lines, "chart": chart})
    return shown


def _line(label: str, run: Records, name: str, style: int) -> charts.Line:
    return charts.Line(label, [(entry["epoch"], entry.get(name)) for entry in run.history], style)


def _environment(record: Mapping[str, Any]) -> dict[str, Any]:
    values = {**record, **record["packages"]}
    devices = Counter(values.get("devices", []))
    values["devices"] = ", ".join(f"{count} {name}" for name, count in devices.items())
    return {
        name.replace("_", " "): value
        for name, value in values.items()
        if name != "packages" and value not in ("", None)
    }


def _distinct_names(runs: Sequence[Records]) -> list[str]:
    """Returns the names of the run directories, with enough of their parent folders to be distinct."""
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise InputError("--compare was given one run twice.")
    depth = next(depth for depth in range(1, 100) if len({path.parts[-depth:] for path in paths}) == len(paths))
    return ["/".join(path.parts[-depth:]) for path in paths]


def _compared_metric(name: str, runs: Mapping[str, Records]) -> dict[str, Any] | None:
    """Returns the values of a metric with their intervals, the best one, and a chart; None if a run lacks it."""
    values = [run.results["metrics"].get(name) for run in runs.values()]
    if not all(value is not None and math.isfinite(value) for value in values):
        return None
    intervals = [_intervals(run).get(name) for run in runs.values()]
    best = min(values) if metrics.direction(name) == "min" else max(values)
    chart = charts.points(list(runs), values, intervals, x=metric(name))
    return {"values": values, "intervals": intervals, "best": best, "chart": chart}


def _compared_learning_curves(runs: Mapping[str, Records]) -> list[dict[str, Any]]:
    shown = []
    for name in dict.fromkeys(name for run in runs.values() for entry in run.history for name in entry):
        if name == "loss" or name.startswith("val_"):
            lines = [_line(run_name, run, name, style) for style, (run_name, run) in enumerate(runs.items())]
            title = "training loss" if name == "loss" else metric(name)
            shown.append({"title": title, "chart": charts.lines(lines, x="epoch", y=title)})
    return shown


def _differing_settings(runs: Sequence[Records]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for run in runs for name in run.config if name != "run_dir")
    values = {name: [plain(run.config.get(name)) for run in runs] for name in names}
    return {name: shown for name, shown in values.items() if len(set(shown)) > 1}
