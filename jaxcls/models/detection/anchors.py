"""Anchors, the boxes at each position of a feature pyramid that a detector classifies and refines, and their
targets."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.models.detection.boxes import area, intersection, pairwise_iou

# Instead of the index of a box: background, and anchors without a target.
NEGATIVE, IGNORED = -1, -2
# Canvases with a longer side of at least this many pixels have the levels and anchors of the paper.
_LARGE = 256
# IoUs that differ by less are considered equal: fused loops round differently.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of RetinaNet (Lin et al. 2017, arXiv 1708.02002).

    Attributes:
      levels: levels of the pyramid, ascending. The feature map of level l has stride 2^l; its size is rounded up.
      size: side of a square anchor of scale 1, in strides of its level.
      scales: factors of the side, at each position.
      ratios: height / width at equal area, for each scale.

    >>> anchors = Anchors(levels=(3, 4))
    >>> anchors.counts(64, 64), anchors.boxes(64, 64).shape
    ((576, 144), (720, 4))
    """

    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    size: float = 4.0
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_position(self) -> int:
        """Number of anchors at each position."""
        return len(self.scales) * len(self.ratios)

    def maps(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Returns height and width of the feature map of each level, for a canvas of that size in pixels."""
        return tuple((-(-height // 2**level), -(-width // 2**level)) for level in self.levels)

    def counts(self, height: int, width: int) -> tuple[int, ...]:
        """Returns the number of anchors of each level."""
        return tuple(rows * columns * self.per_position for rows, columns in self.maps(height, width))

    def boxes(self, height: int, width: int) -> np.ndarray:
        """Returns all anchors, float32 (A, 4), by level, row, column, scale and ratio; some exceed the canvas."""
        boxes = []
        for level, (rows, columns) in zip(self.levels, self.maps(height, width), strict=True):
            stride = 2**level
            sides = np.array([
                (self.size * stride * scale / math.sqrt(ratio), self.size * stride * scale * math.sqrt(ratio))
                for scale in self.scales
                for ratio in self.ratios
            ])  # fmt: skip
            x, y = np.meshgrid((np.arange(columns) + 0.5) * stride, (np.arange(rows) + 0.5) * stride)
            centers = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
            boxes.append(np.concatenate([centers - sides / 2, centers + sides / 2], axis=-1).reshape(-1, 4))
        return np.concatenate(boxes).astype(np.float32)


def canvas_anchors(height: int, width: int) -> Anchors:
    """Returns the anchors that this package uses for a canvas, a function of the longer side alone.

    From 256 pixels they are those of the paper: levels 3 to 7, from 32 pixels per side. Smaller canvases have smaller
    objects: there anchors are three quarters as large, and levels with a map of 2 x 2 or less are omitted.

    Raises:
      InputError: the canvas is too small for any level.

    >>> canvas_anchors(128, 128).levels, canvas_anchors(512, 384).levels
    ((3, 4, 5), (3, 4, 5, 6, 7))
    """
    side = max(height, width)
    if side >= _LARGE:
        return Anchors()
    levels = tuple(level for level in range(3, 8) if side > 2 ** (level + 1))
    if not levels:
        raise InputError(f"a canvas of {height} x {width} pixels is too small to detect anything on; give 32 or more.")
    return Anchors(levels=levels, size=3.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectorOutput:
    """The output of a detector, with the size of the canvas, from which the anchors follow.

    Attributes:
      outputs: "class_logits" (N, A, num_classes) and "box_deltas" (N, A, 4), see :func:`encode_boxes`, of the anchors
        that :func:`canvas_anchors` returns for the canvas, in that order.
      canvas: height and width in pixels, static under tracing.
    """

    outputs: dict[str, jax.Array]
    canvas: tuple[int, int] = dataclasses.field(metadata={"static": True})


def match(
    anchors: jax.Array, boxes: jax.Array, classes: jax.Array, crowd: jax.Array, *,
    positive: float = 0.5, negative: float = 0.4,
) -> jax.Array:  # fmt: skip
    """Matches the anchors of one image with its boxes.

    An anchor is matched with the box with which it has the highest IoU (the first of equals), if that is at least
    ``positive``, or if no other anchor has a higher IoU with some box. So, as in Detectron2 and torchvision, boxes that
    overlap little with any anchor are learned too. Other anchors are negative if their IoU with every box is below
    ``negative``, and ignored if not, or if at least half of the anchor is within a crowd box.

    Args:
      anchors: (A, 4).
      boxes: (M, 4).
      classes: (M,), -1 for padding.
      crowd: bool (M,), boxes around groups of objects, which anchors are not matched with.
      positive: IoU from which an anchor is matched.
      negative: IoU below which an anchor is negative.

    Returns:
      The index of the box of each anchor, int32 (A,), or NEGATIVE or IGNORED.

    Source: Lin et al. 2017, arXiv 1708.02002; for crowds, MMDetection's ``ignore_iof_thr``.

    >>> anchors = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2], [8, 8, 12, 12], [20, 20, 24, 24]])
    >>> boxes = jnp.array([[0.0, 0, 4, 3.5], [8, 8, 9, 9]])
    >>> print(match(anchors, boxes, jnp.array([3, 5]), jnp.array([False, False])))
    [ 0  0  1 -1]
    """
    overlaps = pairwise_iou(anchors, boxes)
    overlaps = jnp.where(((classes >= 0) & ~crowd)[None, :], overlaps, 0)
    highest, box = overlaps.max(axis=1), overlaps.argmax(axis=1).astype(jnp.int32)
    best = overlaps.max(axis=0, keepdims=True)
    forced = ((overlaps >= best * (1 - _ROUNDING)) & (best > 0)).any(axis=1)
    covered = intersection(anchors[:, None, :], boxes[None, :, :]) / area(anchors)[:, None]
    crowded = ((covered >= 0.5) & ((classes >= 0) & crowd)[None, :]).any(axis=1)
    unmatched = jnp.where((highest < negative) & ~crowded, NEGATIVE, IGNORED)
    return jnp.where((highest >= positive) | forced, box, unmatched)
