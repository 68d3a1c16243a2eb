"""Charts as SVG whose colours and type come from the page's style sheet, so that they follow light and dark.

Each function gives markup that is safe to put into a page: names are escaped. The size is that of the drawing, which
the page scales. A chart is an image to a screen reader and has a description; the page shows its numbers as a table.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

Point = tuple[float, float | None]
_MOST_CELLS, _MOST_NAMED_CELLS = 10_000, 2_000


class Line(NamedTuple):
    """A line through points (x, y), with a gap where y is None or not finite.

    Attributes:
      name: for the legend and the description.
      points: in their order.
      style: from 0 on; each has a colour and a dash of its own in the style sheet.
    """

    name: str
    points: Sequence[Point]
    style: int = 0


class Interval(NamedTuple):
    """A value with its bounds, or without where there are none."""

    name: str
    value: float
    bounds: tuple[float, float] | None
    style: int = 0


class _Frame(NamedTuple):
    """Where values lie in a drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    right: float
    top: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.across(x), self.up(y)

    def across(self, x: float) -> float:
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def up(self, y: float) -> float:
        return self.bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many.

    >>> ticks(0.0, 1.0), ticks(1, 12, about=6)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0])
    """
    rough = (high - low) / max(about, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def lines(
    drawn: Sequence[Line], *, x: str, y: str, mark: tuple[float, str] | None = None, unit_interval: bool = False
) -> Markup:
    """Lines over whole numbers, such as epochs.

    Args:
      x, y: what the axes are.
      mark: where an upright line stands, and what it is called.
      unit_interval: the values cannot leave 0 to 1.
    """
    points = [point for line in drawn for point in _finite(line.points)]
    if not points:
        return _svg(400, 60, f"No value of {y} is finite.", [_text(200, 34, "nothing to draw", "middle")])
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    frame = _Frame(_span(min(xs), max(xs)), _padded(min(ys), max(ys), unit_interval), 48, 390, 10, 208)
    body = list(_axes(frame, x, x_ticks=[tick for tick in ticks(*frame.x) if tick == int(tick)]))
    if mark is not None:
        place = frame.across(mark[0])
        body.append(f'<path class="mark" d="M{place:.1f} {frame.top}V{frame.bottom}"/>')
        side = "end" if place > 300 else "start"
        body.append(_text(place + (-5 if side == "end" else 5), frame.bottom - 7, mark[1], side))
    for line in drawn:
        body.append(f'<path class="line s{line.style}" d="{_path(frame, line.points)}"/>')
        if len(line.points) <= 24:
            body += [
                f'<circle class="dot s{line.style}" cx="{frame.across(px):.1f}" cy="{frame.up(py):.1f}" r="2.4"/>'
                for px, py in _finite(line.points)
            ]
    said = "; ".join(_said(line) for line in drawn)
    return _svg(400, 248, f"{y} over {x}. {said}.", body)


def curve(
    line: Line, *, x: str, y: str, steps: bool = False, diagonal: bool = False, dot: tuple[float, float] | None = None
) -> Markup:
    """A curve in the unit square.

    Args:
      steps: from each point first up or down, then across, as average precision is summed.
      diagonal: draw what chance gives.
      dot: the point that was chosen.
    """
    frame = _Frame((0, 1), (0, 1), 34, 192, 8, 166)
    body = list(_axes(frame, x, about=2))
    if diagonal:
        body.append(f'<path class="reference" d="M{frame.left} {frame.bottom}L{frame.right} {frame.top}"/>')
    body.append(f'<path class="line s0" d="{_path(frame, line.points, steps=steps)}"/>')
    chosen = ""
    if dot is not None:
        place = frame.at(*dot)
        body.append(f'<circle class="chosen" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4"/>')
        chosen = f" At the threshold {x} {dot[0]:.3f}, {y} {dot[1]:.3f}."
    return _svg(200, 200, f"{line.name}: {y} over {x}.{chosen}", body)


def reliability(weights: Sequence[float], said: Sequence[float | None], right: Sequence[float | None]) -> Markup:
    """How often decisions of each confidence were right, above how many there were.

    Args:
      weights, said, right: of each bin from 0 to 1, the weight of its decisions, their mean confidence, and the share
        of them that was right.
    """
    bins, total = len(weights), sum(weights)
    filled = [place for place in range(bins) if weights[place] > 0]
    low = math.floor(10 * filled[0] / bins) / 10
    frame = _Frame((low, 1), (0, 1), 48, 390, 10, 190)
    body = list(_axes(frame, "confidence", below=62))
    strip = _Frame((low, 1), (0, max(weights)), 48, 390, 198, 234)
    parts = []
    for place in filled:
        left, right_edge = frame.across(max(place / bins, low)) + 1, frame.across((place + 1) / bins) - 1
        share = right[place] or 0.0
        for area, height in ((frame, share), (strip, weights[place])):
            top = area.up(height)
            shade = "bar" if area is frame else "bar faint"
            body.append(
                f'<rect class="{shade}" x="{left:.1f}" y="{top:.1f}" width="{right_edge - left:.1f}" '
                f'height="{area.bottom - top:.1f}"/>'
            )
        parts.append(f"confidence {said[place] or 0:.2f}, right {share:.2f}, {weights[place] / total:.0%} of decisions")
    body.append(f'<path class="reference" d="M{frame.across(low):.1f} {frame.up(low):.1f}L{frame.right} {frame.top}"/>')
    for place in filled:
        x, y = frame.at(min(max(said[place] or 0.0, low), 1.0), right[place] or 0.0)
        body.append(f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    body.append(f'<path class="axis" d="M{strip.left} {strip.bottom}H{strip.right}"/>')
    return _svg(400, 272, "Share of right decisions by confidence. " + "; ".join(parts) + ".", body)


def heatmap(cells: Sequence[tuple[int, int, float]], names: Sequence[str]) -> Markup:
    """A confusion matrix of many classes: each cell as dark as its share of its true class.

    Args:
      cells: (true, predicted, weight) of those that are not 0. Of more than 10,000, the heaviest are drawn.
    """
    count, side = len(names), 400.0
    step = side / count
    totals = [0.0] * count
    for true, _, weight in cells:
        totals[true] += weight
    body = [f'<rect class="plate" x="24" y="8" width="{side:g}" height="{side:g}"/>']
    # One path for all cells of a shade; where there are few, their names are told to who points at them.
    shades: dict[tuple[str, float], list[str]] = {}
    for true, predicted, weight in sorted(cells, key=lambda cell: -cell[2])[:_MOST_CELLS]:
        kind = "right" if true == predicted else "wrong"
        opacity = 0.2 + 0.2 * math.ceil(4 * weight / totals[true])
        square = f"M{24 + predicted * step:.2f} {8 + true * step:.2f}h{step:.2f}v{step:.2f}h-{step:.2f}z"
        if kind == "wrong" and len(cells) <= _MOST_NAMED_CELLS:
            said = f"{names[true]} taken for {names[predicted]}: {weight:g}"
            body.append(
                f'<path class="wrong" fill-opacity="{opacity:.1f}" d="{square}"><title>{escape(said)}</title></path>'
            )
        else:
            shades.setdefault((kind, opacity), []).append(square)
    body += [
        f'<path class="{kind}" fill-opacity="{opacity:.1f}" d="{"".join(squares)}"/>'
        for (kind, opacity), squares in shades.items()
    ]
    body += [
        _text(24 + side / 2, 8 + side + 18, "predicted", "middle"),
        f'<text class="label" text-anchor="middle" transform="translate(14 {8 + side / 2:g}) rotate(-90)">true</text>',
    ]
    return _svg(432, 436, f"Confusion matrix of {count} classes; right decisions lie on the diagonal.", body)


def points(values: Sequence[Interval], *, x: str) -> Markup:
    """Values below each other, each with its interval."""
    reach = [bound for value in values for bound in (value.value, *(value.bounds or ()))]
    height = 12 + 24 * len(values)
    frame = _Frame(_padded(min(reach), max(reach), False), (0, 1), 34, 386, 6, height)
    body = list(_axes(frame, x, about=4, y_ticks=[]))
    for place, value in enumerate(values):
        y = 18 + 24 * place
        if value.bounds is not None:
            low, high = (frame.across(bound) for bound in value.bounds)
            body.append(f'<path class="whisker s{value.style}" d="M{low:.1f} {y}H{high:.1f}"/>')
        body.append(f'<circle class="dot s{value.style}" cx="{frame.across(value.value):.1f}" cy="{y}" r="4.5"/>')
        body.append(_text(26, y + 4, str(place + 1), "end"))
    said = "; ".join(
        f"{value.name} {value.value:.4g}"
        + (f" ({value.bounds[0]:.4g} to {value.bounds[1]:.4g})" if value.bounds is not None else "")
        for value in values
    )
    return _svg(400, height + 40, f"{x}: {said}.", body)


def boxes_on(
    png: str, width: int, height: int, boxes: Sequence[tuple[str, Sequence[float], str]], description: str
) -> Markup:
    """An image with boxes on it.

    Args:
      png: base64.
      width, height: of the pixels that boxes are given in.
      boxes: of each its kind, 'truth', 'found' or 'wrong'; x1, y1, x2, y2; and what is written at it.
    """
    # Lines and letters have one size, whatever that of the image.
    scale = 320 / max(width, height)
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    body = [f'<image href="data:image/png;base64,{png}" {size} preserveAspectRatio="none"/>']
    for kind, (x1, y1, x2, y2), said in boxes:
        left, top, right, bottom = (corner * scale for corner in (x1, y1, x2, y2))
        body.append(f'<path class="box {kind}" d="M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}z"/>')
        if said:
            # What is true stands at the foot of its box, and hides nothing that was found. A letter is about 7 wide.
            up = bottom - 4 if kind == "truth" or top < 16 else top - 3
            across = max(0.0, min(left + 2, width * scale - 7 * len(said)))
            body.append(f'<text class="tag {kind}" x="{across:.1f}" y="{up:.1f}">{escape(said)}</text>')
    return _svg(width * scale, height * scale, description, body)


def _svg(width: float, height: float, description: str, body: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">{"".join(body)}</svg>'
    )


def _axes(
    frame: _Frame,
    x: str,
    *,
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
    about: int = 5,
    below: float = 18,
) -> Iterator[str]:
    """Faint lines across, numbers at both axes, and what x is; what y is stands above the chart."""
    x_ticks = ticks(*frame.x, about) if x_ticks is None else x_ticks
    y_ticks = ticks(*frame.y, about) if y_ticks is None else y_ticks
    for tick, label in zip(y_ticks, _labels(y_ticks), strict=True):
        place = frame.up(tick)
        yield f'<path class="grid" d="M{frame.left} {place:.1f}H{frame.right}"/>'
        yield _text(frame.left - 6, place + 4, label, "end")
    yield f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right}"/>'
    for tick, label in zip(x_ticks, _labels(x_ticks), strict=True):
        yield _text(frame.across(tick), frame.bottom + below - 2, label, "middle")
    yield _text((frame.left + frame.right) / 2, frame.bottom + below + 14, x, "middle")


def _labels(values: Sequence[float]) -> list[str]:
    step = min((b - a for a, b in itertools.pairwise(values)), default=abs(values[0]) if values else 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    if any(abs(value) >= 1e5 for value in values) or decimals > 5:
        return [f"{value:.3g}" for value in values]
    return [f"{value:,.{decimals}f}" for value in values]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(frame: _Frame, points: Sequence[Point], *, steps: bool = False) -> str:
    pieces, drawing = [], False
    for x, y in points:
        if y is None or not math.isfinite(y):
            drawing = False
            continue
        across, up = (f"{place:.1f}" for place in frame.at(x, y))
        if not drawing:
            pieces.append(f"M{frame.left:.1f} {up}H{across}" if steps else f"M{across} {up}")
        else:
            pieces.append(f"V{up}H{across}" if steps else f"L{across} {up}")
        drawing = True
    return "".join(pieces)


def _finite(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _span(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float, unit_interval: bool) -> tuple[float, float]:
    """A little more than from low to high."""
    room = 0.06 * (high - low) or abs(high) * 0.1 or 0.1
    least, most = low - room, high + room
    return (max(least, 0.0), min(most, 1.0)) if unit_interval else (least, most)


def _said(line: Line) -> str:
    points = _finite(line.points)
    if not points:
        return f"{line.name}: no value"
    return f"{line.name}: {points[0][1]:.4g} at {points[0][0]:g}, {points[-1][1]:.4g} at {points[-1][0]:g}"
