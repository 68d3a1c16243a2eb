"""The loss over the learning rate, as a terminal and as a browser show it."""

from collections.abc import Sequence

import numpy as np

from jaxcls.training.learning_rate_search import Search

_COLUMNS, _ROWS = 60, 12
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 360, 60, 20, 20, 50


def text(found: Search) -> str:
    """The smoothed loss over the logarithm of the rate, in characters.

    >>> rates = np.logspace(-3, 0, 50)
    >>> text(Search(rates, 2 - rates, 2 - rates)).splitlines()[0].split("•")[0]
    '     1.999 | '
    """
    low, high = _bounds(found.smoothed)
    across, up = _along(found.rates, found.rates), _up(found.smoothed, low, high)
    columns, rows = (across * (_COLUMNS - 1)).round().astype(int), (up * (_ROWS - 1)).round().astype(int)
    cells = np.full((_ROWS, _COLUMNS), " ", object)
    cells[_ROWS - 1 - rows, columns] = "•"
    lines = ["".join(row) for row in cells]
    labels = {0: f"{high:.4g}", _ROWS - 1: f"{low:.4g}"}
    edges = f"{found.rates[0]:.1e}", f"{found.rates[-1]:.1e}"
    return "\n".join(
        [
            *(f"{labels.get(row, ''):>10} | {line}".rstrip() for row, line in enumerate(lines)),
            f"{'loss':>10} +-{'-' * _COLUMNS}",
            f"{'':12} {edges[0]}{edges[1]:>{_COLUMNS - len(edges[0])}}",
        ]
    )


def svg(found: Search, marked: Sequence[float]) -> str:
    """An SVG file: the loss of each step, the smoothed one, and the marked rates. It follows the reader's dark mode."""
    # An average follows its losses late, so they reach lower.
    low, high = float(found.losses.min()), _bounds(found.smoothed)[1]
    inside = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    x = _LEFT + _along(found.rates, found.rates) * inside[0]
    smoothed, single = (_TOP + (1 - _up(losses, low, high)) * inside[1] for losses in (found.smoothed, found.losses))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, smoothed, strict=True))
    points = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="1.5"/>' for a, b in zip(x, single, strict=True))
    bottom = _HEIGHT - _BOTTOM
    decades = range(int(np.ceil(np.log10(found.rates[0]) - 1e-6)), int(np.floor(np.log10(found.rates[-1]) + 1e-6)) + 1)
    ticks = "".join(
        f'<path d="M{a:.1f} {bottom}v5"/><text x="{a:.1f}" y="{bottom + 20}" text-anchor="middle">1e{decade}</text>'
        for decade in decades
        for a in [_LEFT + _along(10.0**decade, found.rates) * inside[0]]
    )
    marks = "".join(
        f'<path class="mark" d="M{a:.1f} {_TOP}V{bottom}"/>'
        f'<text x="{a + 4:.1f}" y="{_TOP + 12 + 16 * place}">{rate:.2g}</text>'
        for place, rate in enumerate(marked)
        for a in [_LEFT + _along(rate, found.rates) * inside[0]]
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">
<title>Loss over the learning rate</title>
<style>
  svg {{ background: #fff; color: #222; font: 12px sans-serif }}
  @media (prefers-color-scheme: dark) {{ svg {{ background: #1b1b1b; color: #ddd }} }}
  text {{ fill: currentColor }} path {{ stroke: currentColor; fill: none }}
  polyline {{ stroke: #2b7bba; stroke-width: 2; fill: none }} circle {{ fill: #2b7bba; opacity: .3 }}
  .mark {{ stroke: #d1495b; stroke-dasharray: 4 3 }}
</style>
<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>
{points}
<polyline points="{line}"/>
{ticks}{marks}
<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{high:.3g}</text>
<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>
<text x="{_LEFT - 6}" y="{(_TOP + bottom) // 2}" text-anchor="end">loss</text>
<text x="{(_LEFT + _WIDTH - _RIGHT) // 2}" y="{_HEIGHT - 8}" text-anchor="middle">learning rate</text>
</svg>
"""


def _along(rate: float | np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Where a rate lies between the first and the last of them, on a scale of logarithms: 0 to 1."""
    return np.log(rate / rates[0]) / np.log(rates[-1] / rates[0])


def _bounds(losses: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest loss that is shown: those at the end, where training diverges, flatten all others."""
    best = int(losses.argmin())
    shown = losses[: best + 1] if best else losses
    return float(losses[best]), max(float(shown.max()), float(losses[best]) + 1e-12)


def _up(losses: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where a loss lies between two of them, 0 to 1; what lies outside is shown at the edge."""
    return np.clip((losses - low) / (high - low), 0, 1)
