"""What commands print."""

import io
import math

import pytest

from jaxcls.cli import console


def history(**values):
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([3.0, 1.0, 2.0], "█▁▅"),
        ([5.0, 5.0], "▁▁"),
        ([1.0, None, math.nan, math.inf, 2.0], "▁   █"),
        ([None, math.nan], "  "),
    ],
)
def test_sparkline_heights_follow_the_values(values, expected):
    assert console.sparkline(values) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", None])
def test_sparkline_is_ascii_if_the_encoding_lacks_blocks(encoding):
    line = console.sparkline(list(range(8)), encoding)
    assert line == ".:-=+*%@"


def test_sparkline_of_many_values_keeps_the_first_and_the_last():
    line = console.sparkline([*range(1000)])
    assert len(line) == 48
    assert line[0] == "▁"
    assert line[-1] == "█"
    assert list(line) == sorted(line)


def test_curves_show_the_loss_and_the_first_validation_metric():
    shown = console.curves(
        history(loss=[2.0, 1.0], val_loss=[2.5, 1.5], val_log_loss=[2.2, 1.4], val_accuracy=[0.5, 0.75]),
        encoding="utf-8",
    )
    assert shown.splitlines() == ["  loss          █▁  2.0000 to 1.0000", "  val_log_loss  █▁  2.2000 to 1.4000"]


@pytest.mark.parametrize(
    ("history", "lines"),
    [
        (history(loss=[1.0], val_accuracy=[0.5]), 0),
        (history(loss=[None, None], val_accuracy=[0.5, 0.6]), 1),
        (history(loss=[2.0, 1.0], val_loss=[2.0, 1.0]), 2),
    ],
    ids=["one epoch", "no step counted", "no metric"],
)
def test_curves_omit_missing_values(history, lines):
    assert len(console.curves(history, encoding="utf-8").splitlines()) == lines


def report(classes, metrics):
    labels = {f"class {index}": {"support": 5.0, "f1": index / classes} for index in range(classes)}
    return {"synthetic": False, "examples": 9, "metrics": metrics, "labels": labels}


def test_a_table_has_the_five_metrics_that_count_most_and_the_ten_classes_with_the_lowest_scores():
    metrics = dict.fromkeys(("mcc", "ece", "kappa", "log_loss", "specificity", "f1", "accuracy"), 0.5)
    lines = console.table(report(12, metrics), "test").splitlines()
    assert [line.split()[0] for line in lines if line.endswith("0.5000")][:5] == [
        "accuracy", "f1", "log_loss", "mcc", "ece",
    ]  # fmt: skip
    assert sum(line.strip().startswith("class ") for line in lines) == 10
    assert "class 10" not in "".join(lines)
    assert lines[-1] == "  the 10 of 12 classes with the lowest f1"
    assert "lowest" not in console.table(report(10, metrics), "test")


@pytest.mark.parametrize("terminal", [True, False])
def test_colors_are_for_terminals(monkeypatch, terminal):
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    console.say("warning: few", file=out)
    assert out.getvalue() == ("\033[33mwarning:\033[0m few\n" if terminal else "warning: few\n")
    monkeypatch.setenv("NO_COLOR", "1")
    console.say("error: many", file=out)
    assert out.getvalue().endswith("few\nerror: many\n")


def test_quiet_keeps_warnings_and_json_keeps_standard_output_free(capsys):
    for quiet, json in ((False, False), (False, True), (True, False), (True, True)):
        say = console.sayer(quiet=quiet, json=json)
        say("a line")
        say("warning: this")
        lines = "warning: this\n" if quiet else "a line\nwarning: this\n"
        assert capsys.readouterr() == (("", lines) if quiet or json else (lines, ""))
