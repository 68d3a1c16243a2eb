"""What commands print."""

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
