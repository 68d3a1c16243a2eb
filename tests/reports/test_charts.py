"""Positions in charts are proportional to values, missing values are gaps, and names are escaped."""

import math
import re
from xml.etree import ElementTree

import pytest

from jaxcls.reports.html_report import charts
from jaxcls.reports.html_report.charts import Line

HOSTILE = """<script>alert("1")</script>' & co."""


def drawn(markup):
    """The chart as a tree; it must also be XML."""
    return ElementTree.fromstring(str(markup))


def paths(tree, kind):
    return [element.get("d") for element in tree.iter("path") if element.get("class", "").split()[:1] == [kind]]


def corners(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1, 2, [0, 0.5, 1]),
        (0.8123, 0.8391, 5, [0.82, 0.83]),
        (-3, 4, 5, [-2, 0, 2, 4]),
        (1e-7, 9e-7, 4, [2e-7, 4e-7, 6e-7, 8e-7]),
        (0, 12345, 5, [0, 5000, 10000]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low, high, about, expected):
    assert charts.ticks(low, high, about) == pytest.approx(expected, abs=1e-12)


def test_line_positions_are_proportional_to_values():
    tree = drawn(charts.lines([Line("loss", [(1, 4.0), (2, 2.0), (3, 1.0)])], x="epoch", y="loss"))
    (path,) = paths(tree, "line")
    (x1, y1), (x2, y2), (x3, y3) = corners(path)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert (y2 - y1) / (y3 - y2) == pytest.approx(2.0, abs=0.01)  # y grows downward in SVG, and the loss falls
    assert y1 < y2 < y3
    assert tree.get("aria-label") == "loss over epoch. loss: 4 at 1, 1 at 3."


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_missing_values_leave_a_gap_in_a_line(missing):
    tree = drawn(charts.lines([Line("loss", [(1, 1.0), (2, missing), (3, 2.0), (4, 3.0)])], x="epoch", y="loss"))
    (path,) = paths(tree, "line")
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert "nan" not in path


@pytest.mark.parametrize("points", [[(1, 0.5)], [(1, 0.0), (2, 0.0)], [(1, 1e9), (2, 1e9)]])
def test_single_or_equal_values_are_drawn(points):
    tree = drawn(charts.lines([Line("loss", points)], x="epoch", y="loss", unit_interval=points[0][1] <= 1))
    assert len(list(tree.iter("circle"))) == len(points)
    numbers = [float(element.get("cy")) for element in tree.iter("circle")]
    assert all(0 <= number <= 248 for number in numbers)


def test_chart_without_finite_values_has_a_description():
    assert "finite" in drawn(charts.lines([Line("loss", [(1, math.nan)])], x="epoch", y="loss")).get("aria-label")


def test_curve_spans_the_unit_square_and_steps_like_average_precision():
    tree = drawn(charts.curve(Line("cat", [(0, 0), (0, 1), (1, 1)]), x="a", y="b", dot=(0.5, 0.25)))
    assert corners(*paths(tree, "line")) == [(34.0, 166.0), (34.0, 8.0), (192.0, 8.0)]
    (dot,) = tree.iter("circle")
    assert (dot.get("cx"), dot.get("cy")) == ("113.0", "126.5")
    stepped = drawn(charts.curve(Line("cat", [(0.5, 1.0), (1.0, 0.5)]), x="recall", y="precision", steps=True))
    # Precision 1 up to recall 0.5, then down, then to recall 1.
    assert paths(stepped, "line") == ["M34.0 8.0H113.0V87.0H192.0"]


def test_reliability_bars_have_the_height_of_the_accuracy():
    tree = drawn(charts.reliability([0, 10, 0, 30], [None, 0.4, None, 0.9], [None, 0.5, None, 1.0]))
    bars = [element for element in tree.iter("rect") if element.get("class") == "bar"]
    assert [float(bar.get("height")) for bar in bars] == [90.0, 180.0]
    counts = [float(e.get("height")) for e in tree.iter("rect") if e.get("class") == "bar faint"]
    assert counts == pytest.approx([12, 36])
    assert "75% of predictions" in tree.get("aria-label")


def test_heatmap_cells_are_at_their_classes():
    tree = drawn(charts.heatmap([(0, 0, 9.0), (0, 3, 1.0), (3, 3, 10.0)], ["a", "b", "c", "d"]))
    (wrong,) = paths(tree, "wrong")
    assert wrong.startswith("M324.00 8.00h100.00")
    assert [element.text for element in tree.iter("title")] == ["a predicted as d: 1"]
    assert sum(path.count("M") for path in paths(tree, "right")) == 2


def test_heatmap_of_many_cells_draws_the_largest_without_tooltips():
    cells = [(row, column, 1.0 + (row == column)) for row in range(150) for column in range(150)]
    tree = drawn(charts.heatmap(cells, [str(number) for number in range(150)]))
    assert sum(path.count("M") for kind in ("right", "wrong") for path in paths(tree, kind)) == 10_000
    assert sum(path.count("M") for path in paths(tree, "right")) == 150
    assert not list(tree.iter("title"))


def test_whisker_spans_the_interval():
    tree = drawn(charts.points(["a", "b"], [0.5, 0.6], [(0.4, 0.6), None], x="accuracy"))
    (whisker,) = paths(tree, "whisker")
    low, high = (float(number) for number in re.fullmatch(r"M([\d.]+) 18H([\d.]+)", whisker).groups())
    first, second = (float(circle.get("cx")) for circle in tree.iter("circle"))
    assert first == pytest.approx((low + high) / 2, abs=0.1)
    assert second == pytest.approx(high, abs=0.1)


@pytest.mark.parametrize(
    "chart",
    [
        charts.lines([Line(HOSTILE, [(1, 1.0), (2, 2.0)])], x=HOSTILE, y=HOSTILE, mark=(1, HOSTILE)),
        charts.curve(Line(HOSTILE, [(0, 0), (1, 1)]), x=HOSTILE, y=HOSTILE),
        charts.heatmap([(0, 1, 1.0)], [HOSTILE, HOSTILE]),
        charts.points([HOSTILE], [1.0], [None], x=HOSTILE),
    ],
    ids=["lines", "curve", "heatmap", "points"],
)
def test_names_are_escaped(chart):
    tree = drawn(chart)
    assert not list(tree.iter("script"))
    texts = [tree.get("aria-label"), *(element.text for element in tree.iter() if element.text)]
    assert any(HOSTILE in text for text in texts)
