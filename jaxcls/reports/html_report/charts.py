"""Charts as SVG whose colors and type come from the report's style sheet, so that they follow light and dark mode.

Each function returns markup with names escaped. Sizes are in units of the drawing, which the page scales. To a screen
reader, a chart is an image with a description; the report shows its numbers as a table too.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

Point = tuple[float, float | None]
_STYLES = 8
_MOST_CELLS, _MOST_NAMED_CELLS = 10_000, 2_000


class Line(NamedTuple):
    """A line through points (x, y), with a gap where y is None or not finite.

    Attributes:
      name: for the legend and the description.
      points: in the order in which they are connected.
      style: from 0; eight have their own color and dashes in the style sheet, and the next ones another width.
    """

    name: str
    points: Sequence[Point]
    style: int = 0


class Box(NamedTuple):
    """A box on an image.

    Attributes:
      style: 'truth', 'correct' or 'wrong'.
      corners: x1, y1, x2, y2 in pixels.
      label: written at the box.
    """

    style: str
    corners: Sequence[float]
    label: str


class Scale(NamedTuple):
    """An axis of numbers from low to high, or of their logarithms, or of names.

    Attributes:
      names: at equal distances, the first one at 0; none for an axis of numbers.
    """

    low: float
    high: float
    log: bool = False
    names: Sequence[str] = ()

    def at(self, value: Any) -> float:
        """Returns where a value is, from 0 to 1; numbers beyond an end are at it.

        >>> round(Scale(1e-4, 1e-2, log=True).at(1e-3), 3), Scale(0, 2, names=["a", "b", "c"]).at("b")
        (0.5, 0.5)
        """
        if self.names:
            value = self.names.index(value)
        low, high, value = (math.log(number) if self.log else number for number in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0) if low < high else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Returns round numbers as where they are and their labels.

        >>> [label for _, label in Scale(1e-4, 1e-2, log=True).ticks()]
        ['0.0001', '0.001', '0.01']
        """
        if self.names:
            return [(self.at(name), name) for name in self.names]
        if not self.log:
            return [(self.at(tick), label) for tick, label in _labeled(ticks(self.low, self.high))]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 2, 5)):
            numbers = [factor * 10.0**power for power in powers for factor in factors]
            shown = [number for number in numbers if self.low * 0.999 <= number <= self.high * 1.001]
            if len(shown) > 1:
                break
        return [(self.at(number), f"{number:g}") for number in shown[:: math.ceil(len(shown) / 6)]]


class _Frame(NamedTuple):
    """The ranges of x and y, and the area of the drawing that shows them."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    right: float
    top: float
    bottom: float

    def across(self, x: float) -> float:
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def up(self, y: float) -> float:
        return self.bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns about ``about`` round numbers from low to high.

    >>> ticks(0.0, 1.0), ticks(1, 12, about=6)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0])
    """
    rough = (high - low) / max(about, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def styled(style: int) -> str:
    """Returns the classes of a line in the style sheet.

    >>> styled(1), styled(9)
    ('s1', 's1 w1')
    """
    return f"s{style % _STYLES}" + (f" w{style // _STYLES}" if style >= _STYLES else "")


def lines(
    data: Sequence[Line], *, x: str, y: str, mark: tuple[float, str] | None = None, unit_interval: bool = False
) -> Markup:
    """Draws lines over integers, such as epochs.

    Args:
      x, y: the names of the axes.
      mark: the x of a vertical line, and its label.
      unit_interval: whether the axis stays within 0 to 1 if all values do.
    """
    points = [point for line in data for point in _finite(line.points)]
    if not points:
        return _svg(400, 60, f"No value of {y} is finite.", [_text(200, 34, "no finite values", "middle")])
    xs, ys = zip(*points, strict=True)
    x_range = (min(xs), max(xs)) if min(xs) < max(xs) else (xs[0] - 0.5, xs[0] + 0.5)
    is_share = unit_interval and min(ys) >= 0 and max(ys) <= 1
    frame = _Frame(x_range, _padded(min(ys), max(ys), is_share), 48, 390, 10, 208)
    body = _axes(frame, x, [tick for tick in ticks(*frame.x) if tick == int(tick)], ticks(*frame.y))
    if mark is not None:
        position, label = frame.across(mark[0]), mark[1]
        body.append(f'<path class="mark" d="M{position:.1f} {frame.top}V{frame.bottom}"/>')
        offset, anchor = (-5, "end") if position > 300 else (5, "start")
        body.append(_text(position + offset, frame.bottom - 7, label, anchor))
    for line in data:
        body.append(f'<path class="line {styled(line.style)}" d="{_path(frame, line.points)}"/>')
        if len(line.points) <= 24:
            body += [_dot(frame, point, f"dot {styled(line.style)}", 2.4) for point in _finite(line.points)]
    return _svg(400, 248, f"{y} over {x}. {'; '.join(map(_line_description, data))}.", body)


def curve(line: Line, *, x: str, y: str, steps: bool = False, dot: tuple[float, float] | None = None) -> Markup:
    """Draws a curve in the unit square: an ROC curve with the diagonal of chance, or a precision-recall curve.

    Args:
      x, y: the names of the axes.
      steps: of precision and recall: go from each point vertically, then horizontally, as average precision is summed.
      dot: the point of the decision threshold.
    """
    frame = _Frame((0, 1), (0, 1), 34, 192, 8, 166)
    body = _axes(frame, x, ticks(0, 1, about=2), ticks(0, 1, about=2))
    if steps:
        corners = [
            f"{frame.up(precision):.1f}H{frame.across(recall):.1f}" for recall, precision in _finite(line.points)
        ]
        path = f"M{frame.left:.1f} {'V'.join(corners)}"
    else:
        body.append(f'<path class="reference" d="M{frame.left} {frame.bottom}L{frame.right} {frame.top}"/>')
        path = _path(frame, line.points)
    body.append(f'<path class="line s0" d="{path}"/>')
    description = f"{line.name}: {y} over {x}."
    if dot is not None:
        body.append(_dot(frame, dot, "chosen", 4))
        description += f" At the threshold {x} {dot[0]:.3f}, {y} {dot[1]:.3f}."
    return _svg(200, 200, description, body)


def reliability(
    weights: Sequence[float],
    confidences: Sequence[float | None],
    accuracies: Sequence[float | None],
    before: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Draws the accuracy of predictions by their confidence, above the number of predictions.

    Args:
      weights: the weight of the predictions in each bin, bins of equal width from 0 to 1.
      confidences: their mean confidence.
      accuracies: their accuracy.
      before: confidence and accuracy in each bin before a calibration.
    """
    filled = [
        (index / len(weights), (index + 1) / len(weights), weight, confidence or 0.0, accuracy or 0.0)
        for index, (weight, confidence, accuracy) in enumerate(zip(weights, confidences, accuracies, strict=True))
        if weight > 0
    ]
    low = math.floor(10 * min([filled[0][0], *(confidence for confidence, _ in before)])) / 10
    frame = _Frame((low, 1), (0, 1), 48, 390, 10, 190)
    counts = _Frame((low, 1), (0, max(weights)), 48, 390, 198, 234)
    body = _axes(frame, "confidence", ticks(*frame.x), ticks(*frame.y), below=62)
    for start, end, weight, _, accuracy in filled:
        left, right = frame.across(max(start, low)) + 1, frame.across(end) - 1
        for area, height, style in ((frame, accuracy, "bar"), (counts, weight, "bar faint")):
            top = area.up(height)
            size = f'width="{right - left:.1f}" height="{area.bottom - top:.1f}"'
            body.append(f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" {size}/>')
    body.append(f'<path class="reference" d="M{frame.across(low):.1f} {frame.up(low):.1f}L{frame.right} {frame.top}"/>')
    for point in before:
        body.append(_dot(frame, point, "chosen", 4))
    for *_, confidence, accuracy in filled:
        body.append(_dot(frame, (min(max(confidence, low), 1.0), accuracy), "dot s0", 3))
    body.append(f'<path class="axis" d="M{counts.left} {counts.bottom}H{counts.right}"/>')
    bins = "; ".join(
        f"confidence {confidence:.2f}, accuracy {accuracy:.2f}, {weight / sum(weights):.0%} of predictions"
        for _, _, weight, confidence, accuracy in filled
    )
    earlier = "; ".join(f"confidence {confidence:.2f}, accuracy {accuracy:.2f}" for confidence, accuracy in before)
    description = f"Accuracy by confidence. {bins}." + f" Before calibration: {earlier}." * bool(before)
    return _svg(400, 272, description, body)


def heatmap(cells: Sequence[tuple[int, int, float]], names: Sequence[str]) -> Markup:
    """Draws a confusion matrix of many classes, each cell as dark as its share of its true class.

    Args:
      cells: (true, predicted, weight) of the nonzero cells. Of more than 10,000, the largest are drawn.
      names: of the classes.
    """
    side, left, top = 400.0, 24, 8
    step = side / len(names)
    totals = true_totals(cells)
    body = [f'<rect class="plate" x="{left}" y="{top}" width="{side:g}" height="{side:g}"/>']
    # One path for all cells of a shade. Where there are few, each confusion is a path with a tooltip.
    paths: dict[tuple[str, float, str], list[str]] = {}
    for true, predicted, weight in sorted(cells, key=lambda cell: -cell[2])[:_MOST_CELLS]:
        style, tooltip = "right" if true == predicted else "wrong", ""
        if style == "wrong" and len(cells) <= _MOST_NAMED_CELLS:
            tooltip = escape(f"{names[true]} predicted as {names[predicted]}: {weight:g}")
        opacity = 0.2 + 0.2 * math.ceil(4 * weight / totals[true])
        square = f"M{left + predicted * step:.2f} {top + true * step:.2f}h{step:.2f}v{step:.2f}h-{step:.2f}z"
        paths.setdefault((style, opacity, tooltip), []).append(square)
    for (style, opacity, tooltip), squares in paths.items():
        title = f"<title>{tooltip}</title>" if tooltip else ""
        body.append(f'<path class="{style}" fill-opacity="{opacity:.1f}" d="{"".join(squares)}">{title}</path>')
    body.append(_text(left + side / 2, top + side + 18, "predicted", "middle"))
    turned = f"translate(14 {top + side / 2:g}) rotate(-90)"
    body.append(f'<text class="label" text-anchor="middle" transform="{turned}">true</text>')
    return _svg(432, 436, f"Confusion matrix of {len(names)} classes; correct predictions are on the diagonal.", body)


def true_totals(cells: Sequence[tuple[int, int, float]]) -> Mapping[int, float]:
    """Returns the weight of each true class, given the nonzero cells of a confusion matrix."""
    totals: dict[int, float] = defaultdict(float)
    for true, _, weight in cells:
        totals[true] += weight
    return totals


def points(
    names: Sequence[str], values: Sequence[float], intervals: Sequence[Sequence[float] | None], *, x: str
) -> Markup:
    """Draws numbered values below each other, each with its interval, if it has one."""
    reach = [*values, *(bound for interval in intervals for bound in interval or ())]
    height = 12 + 24 * len(values)
    frame = _Frame(_padded(min(reach), max(reach), False), (0, 1), 34, 386, 6, height)
    body = _axes(frame, x, ticks(*frame.x, about=4), [])
    descriptions = []
    for style, (name, value, bounds) in enumerate(zip(names, values, intervals, strict=True)):
        y = 24 * style + 18
        description = f"{name} {value:.4g}"
        if bounds is not None:
            low, high = map(frame.across, bounds)
            body.append(f'<path class="whisker {styled(style)}" d="M{low:.1f} {y}H{high:.1f}"/>')
            description += f" ({bounds[0]:.4g} to {bounds[1]:.4g})"
        body.append(f'<circle class="dot {styled(style)}" cx="{frame.across(value):.1f}" cy="{y}" r="4.5"/>')
        body.append(_text(26, y + 4, str(style + 1), "end"))
        descriptions.append(description)
    return _svg(400, height + 40, f"{x}: {'; '.join(descriptions)}.", body)


def scatter(dots: Sequence[tuple[Any, float, str, str]], horizontal: Scale, *, x: str, y: Scale) -> Markup:
    """Draws dots.

    Args:
      dots: (x, y, style, tooltip); a style is 'few', 'more' or 'all'.
      x: the name of the horizontal axis.
      y: the vertical axis.
    """
    frame = _Frame((-0.04, 1.04), (-0.03, 1.03), 48, 390, 10, 208)
    body = []
    for position, label in y.ticks():
        up = frame.up(position)
        body += [f'<path class="grid" d="M{frame.left} {up:.1f}H{frame.right}"/>', _text(42, up + 4, label, "end")]
    body.append(f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right}"/>')
    body += [_text(frame.across(position), 224, label, "middle") for position, label in horizontal.ticks()]
    body.append(_text((frame.left + frame.right) / 2, 240, x, "middle"))
    for across, up, style, tooltip in dots:
        title = f"<title>{escape(tooltip)}</title>"
        center = f'cx="{frame.across(horizontal.at(across)):.1f}" cy="{frame.up(y.at(up)):.1f}" r="4"'
        body.append(f'<circle class="trial {style}" {center}>{title}</circle>')
    return _svg(400, 248, f"{len(dots)} dots over {x}. The table has their values.", body)


def parallel(axes: Mapping[str, Scale], lines: Sequence[tuple[Sequence[Any], str, str]]) -> Markup:
    """Draws parallel coordinates: an upright axis for each name, and lines from each to the next one.

    Args:
      axes: from left to right.
      lines: (a value for each axis, None for a gap; style; tooltip), the last one on top of the others; a style is
        'few', 'more', 'all' or 'best'.
    """
    width, top, bottom = max(400.0, 118.0 * len(axes)), 30.0, 250.0
    step = (width - 110) / max(len(axes) - 1, 1)
    body = []
    for values, style, tooltip in lines:
        path, command = "", "M"
        for number, (scale, value) in enumerate(zip(axes.values(), values, strict=True)):
            if value is None:
                command = "M"
                continue
            path += f"{command}{55 + number * step:.1f} {bottom - scale.at(value) * (bottom - top):.1f}"
            command = "L"
        body.append(f'<path class="trial {style}" d="{path}"><title>{escape(tooltip)}</title></path>')
    for number, (name, scale) in enumerate(axes.items()):
        x = 55 + number * step
        body += [f'<path class="axis" d="M{x:.1f} {top}V{bottom}"/>', _text(x, 14, name, "middle")]
        for position, label in scale.ticks():
            up = bottom - position * (bottom - top)
            body += [f'<path class="axis" d="M{x - 3:.1f} {up:.1f}h6"/>', _halo(x - 6, up + 4, label)]
    description = f"Parallel coordinates of {len(lines)} trials over {', '.join(axes)}. The table has their values."
    return _svg(width, 262, description, body)


def boxes(image: Mapping[str, Any], drawn: Sequence[Box], description: str) -> Markup:
    """Draws an image with boxes.

    Args:
      image: 'png', base64; 'width' and 'height' in the pixels of the boxes.
    """
    # Lines and letters have the same size for images of any size.
    scale = 320 / max(image["width"], image["height"])
    width, height = image["width"] * scale, image["height"] * scale
    size = f'width="{width:.0f}" height="{height:.0f}" preserveAspectRatio="none"'
    body = [f'<image href="data:image/png;base64,{image["png"]}" {size}/>']
    for style, corners, label in drawn:
        left, top, right, bottom = (corner * scale for corner in corners)
        body.append(f'<path class="box {style}" d="M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}z"/>')
        if label:
            # Labels of objects are at the bottom, those of detections at the top. A letter is about 7 wide.
            y = bottom - 4 if style == "truth" or top < 16 else top - 3
            x = max(0.0, min(left + 2, width - 7 * len(label)))
            body.append(f'<text class="tag {style}" x="{x:.1f}" y="{y:.1f}">{escape(label)}</text>')
    return _svg(width, height, description, body)


def _svg(width: float, height: float, description: str, body: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">{"".join(body)}</svg>'
    )


def _axes(frame: _Frame, x: str, x_ticks: Sequence[float], y_ticks: Sequence[float], below: float = 18) -> list[str]:
    """Returns horizontal grid lines, the numbers of both axes, and the name of x; that of y is above the chart."""
    drawn = []
    for tick, label in _labeled(y_ticks):
        y = frame.up(tick)
        drawn.append(f'<path class="grid" d="M{frame.left} {y:.1f}H{frame.right}"/>')
        drawn.append(_text(frame.left - 6, y + 4, label, "end"))
    drawn.append(f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right}"/>')
    for tick, label in _labeled(x_ticks):
        drawn.append(_text(frame.across(tick), frame.bottom + below - 2, label, "middle"))
    return [*drawn, _text((frame.left + frame.right) / 2, frame.bottom + below + 14, x, "middle")]


def _labeled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Returns the numbers of an axis with their labels, which have as many decimals as their distance needs."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=abs(values[0]) if values else 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    rounded = decimals > 5 or any(abs(value) >= 1e5 for value in values)
    return [(value, f"{value:.3g}" if rounded else f"{value:,.{decimals}f}") for value in values]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _halo(x: float, y: float, text: str) -> str:
    """Returns a label that can be read on lines."""
    return f'<text class="label halo" x="{x:.1f}" y="{y:.1f}" text-anchor="end">{escape(text)}</text>'


def _dot(frame: _Frame, point: tuple[float, float], style: str, radius: float) -> str:
    return f'<circle class="{style}" cx="{frame.across(point[0]):.1f}" cy="{frame.up(point[1]):.1f}" r="{radius:g}"/>'


def _path(frame: _Frame, points: Sequence[Point]) -> str:
    pieces, command = "", "M"
    for x, y in points:
        if y is None or not math.isfinite(y):
            command = "M"
            continue
        pieces += f"{command}{frame.across(x):.1f} {frame.up(y):.1f}"
        command = "L"
    return pieces


def _finite(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _padded(low: float, high: float, unit_interval: bool) -> tuple[float, float]:
    """Returns a range slightly larger than low to high."""
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 0.1
    low, high = low - margin, high + margin
    return (max(low, 0.0), min(high, 1.0)) if unit_interval else (low, high)


def _line_description(line: Line) -> str:
    points = _finite(line.points)
    if not points:
        return f"{line.name}: no value"
    return f"{line.name}: {points[0][1]:.4g} at {points[0][0]:g}, {points[-1][1]:.4g} at {points[-1][0]:g}"
