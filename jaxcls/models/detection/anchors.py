"""Anchors: the boxes that stand at every place of a feature pyramid, which a detector moves and classifies."""

import dataclasses
import math

import numpy as np

from jaxcls._utils.errors import InputError

# The side of a canvas from which on it has the pyramid and the anchors of the paper.
_LARGE = 256


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Anchors of RetinaNet (Lin et al. 2017, arXiv:1708.02002).

    Attributes:
      levels: of the pyramid, ascending. The map of level l has a place for every 2^l pixels, rounded up.
      size: the side of a square anchor of scale 1, in strides of its level.
      scales: of each place, times that side.
      ratios: of each place and scale, height over width at the same area.

    >>> anchors = Anchors(levels=(3, 4))
    >>> anchors.counts(64, 64), anchors.boxes(64, 64).shape
    ((576, 144), (720, 4))
    """

    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    size: float = 4.0
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_place(self) -> int:
        """How many there are at a place."""
        return len(self.scales) * len(self.ratios)

    def maps(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of the map of each level, for a canvas of that size in pixels."""
        return tuple((-(-height // 2**level), -(-width // 2**level)) for level in self.levels)

    def counts(self, height: int, width: int) -> tuple[int, ...]:
        """How many anchors each level has."""
        return tuple(rows * columns * self.per_place for rows, columns in self.maps(height, width))

    def boxes(self, height: int, width: int) -> np.ndarray:
        """All anchors, float32 (A, 4): by level, row, column, scale and ratio. They may reach beyond the canvas."""
        found = []
        for level, (rows, columns) in zip(self.levels, self.maps(height, width), strict=True):
            stride = 2**level
            sides = np.array([
                (self.size * stride * scale / math.sqrt(ratio), self.size * stride * scale * math.sqrt(ratio))
                for scale in self.scales
                for ratio in self.ratios
            ])  # fmt: skip
            x, y = np.meshgrid((np.arange(columns) + 0.5) * stride, (np.arange(rows) + 0.5) * stride)
            centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
            found.append(np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).reshape(-1, 4))
        return np.concatenate(found).astype(np.float32)


def for_canvas(height: int, width: int) -> Anchors:
    """The anchors of a canvas, by a rule that whatever needs them can follow.

    From 256 pixels on they are those of the paper: levels 3 to 7, from 32 pixels a side. Small canvases have small
    things on them: there they are three quarters as large, and the levels end where a map would be of 2 x 2.

    Raises:
      InputError: the canvas is too small to have any.

    >>> for_canvas(128, 128).levels, for_canvas(512, 384).levels
    ((3, 4, 5), (3, 4, 5, 6, 7))
    """
    side = max(height, width)
    if side >= _LARGE:
        return Anchors()
    levels = tuple(level for level in range(3, 8) if side > 2 ** (level + 1))
    if not levels:
        raise InputError(f"a canvas of {height} x {width} pixels is too small to detect anything on; give 32 or more.")
    return Anchors(levels=levels, size=3.0)
