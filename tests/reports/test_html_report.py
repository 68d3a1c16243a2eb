"""The HTML report is valid, self-contained and accessible, marks synthetic data, and escapes all text."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import html5lib
import numpy as np
import pytest
from made_records import made
from PIL import Image
from scipy import stats

from jaxcls._utils.errors import InputError
from jaxcls.metrics import averages
from jaxcls.reports import html_report
from jaxcls.reports.html_report import charts, sections
from jaxcls.reports.records import by_output, check_records

HOSTILE = """<script>alert("x")</script></style>{{ 7 * 7 }}' onload='alert(1)"""
# The problem and the class names.
PROBLEMS = {
    "binary": ("binary", ("no", "yes")),
    "multiclass": ("multiclass", ("cat", "dog", "owl")),
    "multilabel": ("multilabel", ("rude", "spam")),
    "two outputs": (
        {"size": "binary", "color": "multiclass"},
        {"size": ("small", "large"), "color": ("red", "blue", "green")},
    ),
}
PATH = "{http://www.w3.org/2000/svg}path"
STYLE = (Path(html_report.__file__).parent / "style.css").read_text(encoding="utf-8")


def parsed(html):
    """Parses HTML as browsers do; the first parse error fails the test."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)


def texts(tree):
    return [" ".join("".join(element.itertext()).split()) for element in tree.iter() if isinstance(element.tag, str)]


def of_class(tree, name):
    return [element for element in tree.iter() if name in element.get("class", "").split()]


def hostile(names):
    return tuple(f"{name} {HOSTILE}" for name in names)


def runs(**changes):
    return [made(path=Path("runs") / name, seed=seed, **changes) for seed, name in enumerate(("one", "two", "three"))]


def searched(name="adam", **changes):
    """The record of a search of 30 trials, of which ten were promoted; the best rate is in the middle of its range."""
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "optimizer": {"choices": [name, "sgd"]},
        "momentum": {"low": 0.0, "high": 0.9, "log": False},
    }
    jobs = []
    for trial in range(30):
        rate = round(10 ** (-4 + 3 * (trial + 0.5) / 30), 6)
        point = {"learning_rate": rate, "optimizer": name} if trial % 2 else {"learning_rate": rate, "optimizer": "sgd"}
        values = [abs(trial - 15) / 10 + 0.5, abs(trial - 15) / 10][: 2 if 10 <= trial < 20 else 1]
        point |= {} if trial % 2 else {"momentum": trial * 7 % 30 / 40}
        job = {"trial": trial, "rung": len(values) - 1, "settings": point, "values": values, "diverged": False}
        jobs.append(job | {"seconds": 1.0, "value": values[-1], "by_rung": values})
    jobs[0] |= {"diverged": True, "value": None, "by_rung": [None]}
    jobs.sort(key=lambda job: (-job["rung"], job["value"] is None, job["value"]))
    return {
        "task": "csv", "directory": "search", "synthetic": False, "monitor": "log_loss", "mode": "min",
        "examples": 1234, "sampler": "sobol", "reduction": 3, "trials": 64, "epochs": [1, 2],
        "ended": "the 5 minutes were over", "seeds": 2, "running": False,
        "space": space, "jobs": jobs, "command": "jaxcls train --task csv",
    } | changes  # fmt: skip


REPORTS = {
    **{
        name: lambda problem=problem, names=names: html_report.render(made(problem, names=names))
        for name, (problem, names) in PROBLEMS.items()
    },
    "texts": lambda: html_report.render(made("multilabel", kind="texts", names=("rude", "spam"), synthetic=True)),
    "rows": lambda: html_report.render(made("binary", kind="table", names=("no", "yes"), epochs=1)),
    "detection": lambda: html_report.render(made("detection")),
    "many": lambda: html_report.render(
        made(names=tuple(f"class {number}" for number in range(99)), rows=198, kind="table")
    ),
    "compared": lambda: html_report.render_comparison(runs()),
    "search": lambda: html_report.render_search(searched()),
}


@pytest.fixture(scope="module", params=REPORTS)
def html(request):
    return REPORTS[request.param]()


def test_report_is_valid_html_with_a_language_a_title_and_one_main_heading(html):
    tree = parsed(html)
    assert tree.get("lang") == "en"
    assert tree.find("head/title").text
    assert len(list(tree.iter("h1"))) == 1
    names = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(names) == len(set(names))


def test_report_loads_nothing_and_runs_no_script(html):
    tree = parsed(html)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {element.tag for element in tree.iter()}
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not str(name).startswith("on"), f"{element.tag} {name}"
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                assert value.startswith(("#", "data:image/png;base64,", "data:,")), value
    (style,) = tree.iter("style")
    assert "url(" not in style.text
    assert "@import" not in style.text
    policy = next(meta.get("content") for meta in tree.iter("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_charts_and_images_have_descriptions_and_sections_have_links(html):
    tree = parsed(html)
    for svg in tree.iter("{http://www.w3.org/2000/svg}svg"):
        assert svg.get("aria-hidden") == "true" or (svg.get("role") == "img" and len(svg.get("aria-label")) > 10)
    assert all(image.get("alt") for image in tree.iter("img"))
    anchors = {link.get("href").removeprefix("#") for link in tree.iter("a")}
    assert anchors == {h2.get("id") for h2 in tree.iter("h2")} | {"content"}
    assert all(cell.get("scope") in ("row", "col") for cell in tree.iter("th"))
    # Scrollable regions can be scrolled with the keyboard.
    for region in of_class(tree, "tall"):
        assert region.get("tabindex") == "0"


@pytest.mark.parametrize(("problem", "names"), PROBLEMS.values(), ids=PROBLEMS)
def test_report_shows_metrics_intervals_and_mistakes(problem, names):
    records = made(problem, names=names)
    tree = parsed(html_report.render(records))
    shown = texts(tree)
    outputs = by_output(records.results, records.summary)
    mistakes = [mistake for _, summary in outputs.values() for mistake in summary["mistakes"]]
    assert len(list(tree.iter("img"))) == len(mistakes) > 0
    for results, summary in outputs.values():
        low, high = summary["intervals"]["metrics"]["accuracy" if problem != "multilabel" else "f1"]
        value = results["metrics"]["accuracy" if problem != "multilabel" else "f1"]
        assert f"{value:.4f}" in shown
        assert f"{low:.3f} to {high:.3f}" in shown
        for label, values in results["labels"].items():
            row = next(row for row in tree.iter("tr") if row[0].text == label and len(row) > 5)
            assert "".join(row[-1].itertext()).startswith(f"{values['average_precision']:.4f}")
        first = summary["mistakes"][0]
        label = f"{first['label']}: " if first["label"] else ""
        assert f"{label}{first['truth']}, predicted {first['predicted']}" in shown
    # Multiclass predictions do not depend on a threshold.
    assert bool(of_class(tree, "chosen")) == (problem != "multiclass")


def test_detection_report_shows_boxes_missed_objects_and_false_alarms():
    records = made("detection")
    tree = parsed(html_report.render(records))
    shown, summary = texts(tree), records.summary
    low, high = summary["intervals"]["metrics"]["map"]
    assert f"{records.results['metrics']['map']:.4f}{low:.3f} to {high:.3f}" in shown
    for label, values in records.results["labels"].items():
        row = next(row for row in tree.iter("tr") if row[0].text == label and len(row) == 6)
        assert [cell.text for cell in row[2:4]] == [f"{values['map']:.4f}", f"{values['map_50']:.4f}"]
    truths = sum(len(example["truth"]) for example in summary["examples"]) + len(summary["missed"])
    assert len([box for box in of_class(tree, "box") if "truth" in box.get("class")]) == truths + 1  # one in the legend
    labels = [tag for tag in of_class(tree, "tag") if "truth" in tag.get("class")]
    assert 0 < len(labels) < truths - len(summary["missed"]), "of the objects that are not detected alone"
    assert len(summary["missed"]) > 3
    assert len(summary["false_alarms"]) > 3
    for mistake in summary["missed"] + summary["false_alarms"]:
        assert f"{mistake['class']}, {mistake['reason']}" in shown


def test_detection_report_without_mistakes():
    records = made("detection")
    html = html_report.render(
        records._replace(summary=records.summary | {"missed": [], "false_alarms": [], "curves": {}})
    )
    assert "None: every object is detected." in texts(parsed(html))


def test_confusion_matrix_is_a_table_for_few_classes_and_a_chart_for_many():
    records = made()
    tree = parsed(html_report.render(records))
    (table,) = of_class(tree, "confusion")
    cells = [[cell.text.replace(",", "") for cell in row.iter("td")] for row in table.find("tbody").iter("tr")]
    matrix = {(true, predicted): weight for true, predicted, weight in records.summary["confusion"]}
    assert cells == [
        [f"{matrix[true, predicted]:.0f}" if (true, predicted) in matrix else "·" for predicted in range(3)]
        for true in range(3)
    ]
    tree = parsed(REPORTS["many"]())
    assert not of_class(tree, "confusion")
    assert any("Confusion matrix of 99 classes" in (svg.get("aria-label") or "") for svg in tree.iter())


def test_synthetic_data_is_announced_above_the_metrics():
    (warning,) = of_class(parsed(html_report.render(made(synthetic=True))), "warn")
    assert "SYNTHETIC DATA" in "".join(warning.itertext())
    html = html_report.render(made(synthetic=True))
    assert html.index("SYNTHETIC DATA") < html.index('class="tiles"')
    assert "SYNTHETIC" not in html_report.render(made())


def test_copies_of_training_examples_are_reported():
    records = made()
    records.data["duplicates_in_test"] = 7
    assert "7 of the 120 test examples are also training examples." in texts(parsed(html_report.render(records)))


def test_a_pretrained_encoder_its_frozen_parameters_and_cut_texts_are_shown():
    run = made("binary", names=("bad", "good"))
    run.predictor["pretrained"] = {"revision": "abc123", "sha256": {"model.safetensors": "1" * 64}, "config": {}}
    run.summary.update(frozen=22_000_000, truncated={"training": 0.031, "test": 0.0})
    run.config["max_length"] = 256
    shown = " ".join(texts(parsed(html_report.render(run))))
    for words in (
        "1,234 parameters that learn, of 22,001,234",
        "revision abc123",
        "1" * 64,
        "3.1% of the training texts",
    ):
        assert words in shown
    assert "Pretrained encoder" not in texts(parsed(html_report.render(made())))


def test_settings_that_differ_from_the_preset_are_marked():
    changed = of_class(parsed(html_report.render(made(epochs=3))), "changed")
    assert ["".join(element.itertext()) for element in changed] == ["epochs3preset: 12", "b10.9preset: not set"]


@pytest.mark.parametrize(
    ("problem", "kind"),
    [*((name, kind) for name in PROBLEMS for kind in ("images", "texts", "table")), ("detection", "images")],
)
def test_all_text_is_escaped(problem, kind):
    problem, names = PROBLEMS.get(problem, (problem, ("cat", "dog")))
    if isinstance(names, dict):
        problem = {f"{output} {HOSTILE}": one for output, one in problem.items()}
        names = {f"{output} {HOSTILE}": hostile(classes) for output, classes in names.items()}
    else:
        names = hostile(names)
    records = made(problem, names=names, kind=kind, text=HOSTILE, note=HOSTILE, path=Path("runs") / "a<b>c")
    records.config["model"] = records.config["task"] = HOSTILE
    records.data["location"] = HOSTILE
    records.data["sha256"] = {HOSTILE: HOSTILE}
    records.environment["system"] = HOSTILE
    for html in (
        html_report.render(records),
        html_report.render_comparison([records, records._replace(path=Path("runs") / "d<i>")]),
    ):
        tree = parsed(html)
        assert not list(tree.iter("script"))
        assert not any(str(name).startswith("on") for element in tree.iter() for name in element.attrib)
        assert HOSTILE in " ".join(texts(tree))
        assert len(list(tree.iter("style"))) == 1
    shown = " ".join(texts(parsed(html_report.render(records))))
    assert (names[-1] if isinstance(names, tuple) else [*names][-1]) in shown
    if kind != "images":
        assert f"{HOSTILE} " in shown


def test_partly_known_labels_show_the_number_of_known_examples():
    records = made("multilabel", names=("rude", "spam"))
    records.summary["balance"]["train"] = {"examples": 120, "counts": [30, 20], "known": [120, 80]}
    rows = {
        row[0].text: "".join(row[1].itertext())
        for row in parsed(html_report.render(records)).iter("tr")
        if len(row) == 4
    }
    assert (rows["rude"], rows["spam"]) == ("30", "20of 80 known")


def test_large_reports_stay_below_two_megabytes():
    labels = tuple(f"label {number}" for number in range(14))
    # 24 images of noise at 96 pixels, the largest size shown, compress worst.
    assert len(html_report.render(made("multilabel", names=labels, rows=400, side=96, channels=3)).encode()) < 2_000_000
    classes = tuple(f"a class with the number {number}" for number in range(500))
    assert len(html_report.render(made(names=classes, rows=1000, side=96, channels=3)).encode()) < 2_000_000
    scenes = made("detection", names=labels, rows=200, side=300, channels=3)
    assert len(html_report.render(scenes).encode()) < 2_000_000


@pytest.mark.parametrize("problem", ["multiclass", "multilabel"])
def test_of_very_many_classes_the_most_frequent_are_listed(problem, monkeypatch):
    monkeypatch.setattr(averages, "MOST_LABELS", 12)
    monkeypatch.setattr(sections, "_MOST_CLASSES_OF_A_CHART", 20)
    classes = tuple(f"class {number}" for number in range(30))
    records = made(problem, names=classes, rows=20 if problem == "multiclass" else 3, kind="texts")
    listed = [*records.results["labels"]]
    check_records(problem, *json.loads(json.dumps([records.results, records.summary])), "here")
    assert records.results["labels_left_out"] == 30 - len(listed)
    assert all(records.results["labels"][label]["support"] > 0 for label in listed)
    tree = parsed(html_report.render(records))
    tables = {
        table: [head.text for head in table.iter("th") if head.get("scope") == "row"] for table in tree.iter("table")
    }
    assert sum(heads == listed for heads in tables.values()) == 2  # the metrics and the balance
    captions = [caption.text for caption in tree.iter("caption")]
    shown = " ".join(texts(tree))
    assert f"The averages include the other {30 - len(listed)}" in shown
    assert captions == (listed if problem == "multilabel" else [])
    assert ("The matrix of 30 classes is not drawn" in shown) == (problem == "multiclass")
    records.results["labels"] |= {"class 30": records.results["labels"][listed[0]]}
    with pytest.raises(InputError, match=r"the labels in results.json and summary.json differ"):
        check_records(problem, *json.loads(json.dumps([records.results, records.summary])), "here")


def test_missing_values_are_dashes():
    records = made("binary", names=("no", "yes"))
    records.history[1].update(loss=None, val_loss=float("nan"))
    records.results["metrics"]["roc_auc"] = records.results["labels"]["yes"]["roc_auc"] = None
    html = html_report.render(records._replace(summary={**records.summary, "curves": {}, "mistakes": []}))
    shown = texts(parsed(html))
    assert "None: every prediction on the test examples is correct." in shown
    assert "nan" not in shown
    assert "\N{EN DASH}" in shown


def test_tested_epoch_is_marked_unless_it_is_the_last():
    records = made(epochs=6)
    assert not of_class(parsed(html_report.render(records)), "mark")
    records.results["step"] = 30
    assert len(of_class(parsed(html_report.render(records)), "mark")) == 2


def test_comparison_shows_runs_metrics_and_differing_settings():
    compared = runs()
    tree = parsed(html_report.render_comparison(compared))
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in tree.iter("tr") if row[0].text}
    assert rows["seed"] == ["0", "1", "2"]
    assert "b1" not in rows
    assert [name for name in ("one", "two", "three") if any(text.endswith(name) for text in texts(tree))]
    values = [run.results["metrics"]["log_loss"] for run in compared]
    row = next(row for row in tree.iter("tr") if row[0].text == "log loss")
    best = [cell for cell in row.iter() if cell.get("class") == "best"]
    assert [cell.text for cell in best] == [f"{min(values):.4f}"]
    assert not of_class(tree, "warn")


def test_comparison_warns_about_synthetic_or_different_data():
    real, made_up, _ = runs()
    made_up.data.update(synthetic=True, sha256={"other": "1" * 64})
    warnings = [
        "".join(element.itertext())
        for element in of_class(parsed(html_report.render_comparison([real, made_up])), "warn")
    ]
    assert any("SYNTHETIC DATA in two" in " ".join(text.split()) for text in warnings)
    assert any("used different data" in text for text in warnings)


def test_runs_with_equal_names_show_their_parent_folders():
    here, there = (made(path=Path(folder) / "run") for folder in ("a", "b"))
    shown = texts(parsed(html_report.render_comparison([here, there])))
    assert {"a/run", "b/run"} <= set(shown)


def test_search_shows_the_winner_every_trial_and_what_matters():
    tree = parsed(html_report.render_search(searched()))
    shown = texts(tree)
    assert "jaxcls train --task csv" in shown
    rows = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert len(rows) == 31
    assert rows[1][1:] == ["0.003548", "adam", "\N{EN DASH}", "0.5000", "0.0000"]
    assert [row[4] for row in rows].count("diverged") == 1
    drawn = {style: len([one for one in of_class(tree, style) if one.tag == PATH]) for style in ("few", "all", "best")}
    assert drawn == {"few": 20, "all": 9, "best": 1}
    shares = {one[0].text: one[1].text for one in of_class(tree, "ends")}
    assert int(shares["learning_rate"].removesuffix("% explained")) > 60, "though the middle is best"
    assert shares["optimizer"] == "0% explained"


def test_searches_without_values_or_with_hostile_names_are_shown():
    tree = parsed(html_report.render_search(searched(HOSTILE, task=HOSTILE, command=HOSTILE, directory=HOSTILE)))
    assert not list(tree.iter("script"))
    assert HOSTILE in " ".join(texts(tree))
    record = searched()
    for job in record["jobs"]:
        job.update(diverged=True, value=None, by_rung=[None] * len(job["by_rung"]))
    assert "nan" not in texts(parsed(html_report.render_search(record)))


def test_explained_share_is_that_of_an_analysis_of_variance():
    """Of four groups of ranks, by the sums of squares of scipy."""
    values = np.random.default_rng(0).permutation(40) + np.repeat([0, 10, 0, 25], 10)
    groups = stats.rankdata(values).reshape(4, 10)
    test = stats.f_oneway(*groups)
    omega = 3 * (test.statistic - 1) / (3 * (test.statistic - 1) + 40)
    assert html_report.explained(np.arange(40) / 39, values) == pytest.approx(omega)
    assert html_report.explained([0, 1] * 4, [3] * 8) is None
    assert html_report.explained([0.1, 0.9, 0.5], [1, 2, 3]) is None


@pytest.mark.parametrize(
    ("compared", "message"),
    [
        (lambda: runs()[:1], "takes 2 to 24 runs, got 1"),
        (lambda: [run._replace(path=Path(str(n))) for n in range(9) for run in runs()], "takes 2 to 24 runs, got 27"),
        (lambda: runs()[:1] * 2, "one run twice"),
        (
            lambda: [runs()[0], runs()[1]._replace(config=runs()[1].config | {"task": "other"})],
            "runs of one task, got runs of made, other",
        ),
    ],
    ids=["one", "many", "twice", "tasks"],
)
def test_invalid_comparisons_are_refused(compared, message):
    with pytest.raises(InputError, match=message):
        html_report.render_comparison(compared())


COLORS = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", STYLE))


def luminance(color):
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    """Returns the contrast ratio of WCAG 2.2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def color(name, scheme):
    """Returns a color of the style sheet; 'a+b' is the equal mix that cells of a confusion matrix reach."""
    if "+" in name:
        return [sum(pair) / 2 for pair in zip(*(color(part, scheme) for part in name.split("+")), strict=True)]
    digits = COLORS[name].split(", ")[scheme].removeprefix("#")
    return [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("least", "front", "backs"),
    [
        (4.5, ["ink", "soft"], ["ground", "plate"]),
        (4.5, ["ink"], ["s0+plate", "s1+plate"]),
        (4.5, ["warn"], ["warn-ground"]),
        (4.5, ["s0"], ["ground"]),
        (3.0, [f"s{number}" for number in range(8)], ["ground", "plate"]),
    ],
    ids=["text", "cells", "warning", "links", "lines"],
)
def test_colors_contrast_with_their_background(scheme, least, front, backs):
    for name in front:
        for back in backs:
            assert contrast(color(name, scheme), color(back, scheme)) >= least, f"{name} on {back}"


def test_more_lines_have_other_widths():
    assert {charts.styled(number) for number in range(8, 24)} <= {f"s{n} w{w}" for n in range(8) for w in (1, 2)}
    assert all(re.search(rf"\.w{width} {{ stroke-width", STYLE) for width in (1, 2))


def test_lines_have_distinct_dashes():
    dashes = [re.search(rf"\.s{number} {{[^}}]*}}", STYLE).group() for number in range(8)]
    patterns = [re.search(r"stroke-dasharray: ([\d ]+)", rule) for rule in dashes]
    assert patterns[0] is None
    assert len({pattern.group(1) for pattern in patterns[1:]}) == 7


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    # The browser's own requests do not leave the machine.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


def in_chromium(html, folder, *flags):
    """Returns the console messages and the requests of a page; requests of the browser itself have no origin."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    command = [
        CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
        "--window-size=800,600", f"--screenshot={folder / 'shot.png'}", *flags, file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    events = json.loads((folder / "net.json").read_text(encoding="utf-8"))["events"]
    starts = [event["params"] for event in events if "initiator" in event.get("params", {})]
    urls = {start["url"] for start in starts if start["initiator"] != "not an origin"}
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line], urls


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("name", ["multiclass", "texts", "compared"])
def test_chromium_opens_reports_without_errors_or_requests(name, tmp_path):
    console, urls = in_chromium(REPORTS[name](), tmp_path)
    assert console == []
    assert not urls


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_content_security_policy_blocks_scripts_and_requests(tmp_path):
    image = "http://127.0.0.1:9/x.png"
    html = REPORTS["multiclass"]().replace("<main", f'<img src="{image}" alt="x"><script>1</script><main')
    console, urls = in_chromium(html, tmp_path)
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
    assert not urls
    # Without the policy the request is made, and seen.
    _, urls = in_chromium(html.replace("default-src 'none'; img-src data:;", ""), tmp_path)
    assert urls == {image}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("chosen", "preferred", "expected"),
    [("auto", 1, 0), ("auto", 0, 1), ("dark", 1, 1), ("light", 0, 0)],
)
def test_color_scheme_follows_the_preference_or_the_choice(tmp_path, chosen, preferred, expected):
    html = REPORTS["multiclass"]().replace(' id="theme-auto" checked', ' id="theme-auto"')
    html = html.replace(f' id="theme-{chosen}"', f' id="theme-{chosen}" checked')
    in_chromium(html, tmp_path, f"--blink-settings=preferredColorScheme={preferred}")
    with Image.open(tmp_path / "shot.png") as shot:
        pixel = shot.convert("RGB").getpixel((3, 3))
    assert pixel == tuple(round(255 * part) for part in color("ground", expected))
