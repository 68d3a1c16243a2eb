"""Anchor-based object detection: boxes, anchors, matching and decoding as pure functions of fixed shapes.

Boxes are float32 (x1, y1, x2, y2) with x2 > x1 and y2 > y1, in pixels of the canvas to which images are padded.

Labels of N images are a dict: "boxes" (N, M, 4), "classes" int32 (N, M) and "crowd" bool (N, M), padded with class -1.
Detections are a dict: "boxes" (N, D, 4), "scores" (N, D) and "classes" int32 (N, D), in descending order of the scores,
padded with box 0, score 0 and class -1.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils.errors import InputError

__all__ = [
    "IGNORED", "NEGATIVE", "Anchors", "Decoding", "DetectorOutput", "area", "canvas_anchors", "clip", "decode_boxes",
    "decode_detections", "encode_boxes", "generalized_iou", "intersection", "iou", "match", "pairwise_iou", "suppress",
]  # fmt: skip
# Instead of the index of a box: background, and anchors without a target.
NEGATIVE, IGNORED = -1, -2


def area(boxes: jax.Array) -> jax.Array:
    """Returns the area of each box, (..., 4) to (...); 0 if x2 < x1 or y2 < y1.

    >>> print(area(jnp.array([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 0.0, 3.0]])))
    [6. 0.]
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip(boxes: jax.Array, height: float, width: float) -> jax.Array:
    """Clips boxes to a canvas, (..., 4) to (..., 4).

    >>> print(clip(jnp.array([-1.0, 2.0, 5.0, 9.0]), 8, 4))
    [0. 2. 4. 8.]
    """
    sides = jnp.array([width, height, width, height], boxes.dtype)
    return jnp.clip(boxes, 0, jnp.broadcast_to(sides, boxes.shape))


def intersection(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the area of the intersection of each pair of boxes.

    >>> print(intersection(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 1.0, 3.0, 3.0])))
    1.0
    """
    sides = jnp.minimum(first[..., 2:], second[..., 2:]) - jnp.maximum(first[..., :2], second[..., :2])
    sides = jnp.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the intersection over union of each pair of boxes; 0 if both have no area.

    >>> print(iou(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([0.0, 0.0, 2.0, 1.0])))
    0.5
    """
    shared = intersection(first, second)
    return _ratio(shared, area(first) + area(second) - shared)


def generalized_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the generalized IoU of each pair of boxes, in (-1, 1].

    It is the IoU minus the fraction of the enclosing box that neither box covers, so that it has a gradient where boxes
    do not overlap.

    Source: Rezatofighi et al. 2019, arXiv 1902.09630.

    >>> print(generalized_iou(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([3.0, 0.0, 4.0, 1.0])))
    -0.5
    """
    shared = intersection(first, second)
    union = area(first) + area(second) - shared
    sides = jnp.maximum(first[..., 2:], second[..., 2:]) - jnp.minimum(first[..., :2], second[..., :2])
    enclosing = sides[..., 0] * sides[..., 1]
    return _ratio(shared, union) - _ratio(enclosing - union, enclosing)


def pairwise_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the IoU of every box of (..., A, 4) with every box of (..., M, 4), as (..., A, M).

    >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
    >>> print(pairwise_iou(boxes, boxes))
    [[1. 0.]
     [0. 1.]]
    """
    return iou(first[..., :, None, :], second[..., None, :, :])


def encode_boxes(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Encodes boxes relative to anchors as (dx, dy, log width ratio, log height ratio), (..., 4) each.

    dx and dy are the distances of the centers in sides of the anchor. As in RetinaNet's code, nothing is scaled
    further.

    Source: Girshick et al. 2014, arXiv 1311.2524, appendix C.

    >>> print(encode_boxes(jnp.array([2.0, 0.0, 6.0, 4.0]), jnp.array([0.0, 0.0, 4.0, 4.0])))
    [0.5 0.  0.  0. ]
    """
    center, sides = _center_and_sides(boxes)
    anchor_center, anchor_sides = _center_and_sides(anchors)
    return jnp.concatenate([(center - anchor_center) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)


def decode_boxes(deltas: jax.Array, anchors: jax.Array) -> jax.Array:
    """Decodes boxes from their encoding relative to anchors; the inverse of :func:`encode_boxes`.

    >>> print(decode_boxes(jnp.array([0.5, 0.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 4.0, 4.0])))
    [2. 0. 6. 4.]
    """
    anchor_center, anchor_sides = _center_and_sides(anchors)
    center = anchor_center + deltas[..., :2] * anchor_sides
    # Sides grow by at most this factor, as in Detectron, so that an untrained network does not overflow.
    half = anchor_sides * jnp.exp(jnp.minimum(deltas[..., 2:], math.log(1000 / 16))) / 2
    return jnp.concatenate([center - half, center + half], axis=-1)


def _center_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    return numerator / jnp.where(denominator > 0, denominator, 1)


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

    Above 512 pixels they are those of the paper, from 32 pixels per side. Smaller canvases have smaller objects: there
    anchors are half as large (below 256 pixels three quarters as large), and levels with a map of 2 x 2 or less are
    omitted. At 256 pixels, these overlap 89 % of the platelets of BCCD, about 16 pixels wide, by half or more; those of
    the paper 5 %.

    Raises:
      InputError: the canvas is too small for any level.

    >>> canvas_anchors(128, 128).levels, canvas_anchors(512, 384).levels
    ((3, 4, 5), (3, 4, 5, 6, 7))
    """
    side = max(height, width)
    if side > 512:
        return Anchors()
    levels = tuple(level for level in range(3, 8) if side > 2 ** (level + 1))
    if not levels:
        raise InputError(f"a canvas of {height} x {width} pixels is too small to detect anything on; give 32 or more.")
    return Anchors(levels=levels, size=2.0 if side >= 256 else 3.0)


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
    # IoUs that differ by less are considered equal: fused loops round differently.
    forced = ((overlaps >= best * (1 - 1e-5)) & (best > 0)).any(axis=1)
    covered = intersection(anchors[:, None, :], boxes[None, :, :]) / area(anchors)[:, None]
    crowded = ((covered >= 0.5) & ((classes >= 0) & crowd)[None, :]).any(axis=1)
    unmatched = jnp.where((highest < negative) & ~crowded, NEGATIVE, IGNORED)
    return jnp.where((highest >= positive) | forced, box, unmatched)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How detections are selected; the defaults are RetinaNet's.

    Attributes:
      score_threshold: classes with at most this score at an anchor are dropped.
      candidates: number of candidates of each level, those with the highest scores, before suppression.
      iou_threshold: of two boxes of one class with a higher IoU, the one with the lower score is dropped.
      max_detections: number of detections per image.
    """

    score_threshold: float = 0.05
    candidates: int = 1000
    iou_threshold: float = 0.5
    max_detections: int = 100


def decode_detections(
    class_logits: jax.Array, box_deltas: jax.Array, anchors: jax.Array, counts: tuple[int, ...],
    canvas: tuple[int, int], decoding: Decoding = Decoding(),
) -> dict[str, jax.Array]:  # fmt: skip
    """Decodes the detections of each image, in descending order of the scores.

    Args:
      class_logits: (N, A, num_classes).
      box_deltas: (N, A, 4), boxes relative to the anchors.
      anchors: (A, 4).
      counts: number of anchors of each level.
      canvas: height and width, to which boxes are clipped.
      decoding: how detections are selected.

    Returns:
      "boxes" (N, D, 4), "scores" (N, D) and "classes" int32 (N, D), where D is ``decoding.max_detections``, padded with
      box 0, score 0 and class -1.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0]])
    >>> logits = jnp.full((1, 1, 3), -9.0).at[0, 0, 2].set(9.0)
    >>> detections = decode_detections(logits, jnp.zeros((1, 1, 4)), anchors, (1,), (8, 8))
    >>> detections["boxes"][0, 0].tolist(), detections["classes"][0, :2].tolist()
    ([0.0, 0.0, 8.0, 8.0], [2, -1])
    """

    def decode_image(class_logits: jax.Array, box_deltas: jax.Array) -> dict[str, jax.Array]:
        num_classes = class_logits.shape[1]
        scores = jax.nn.sigmoid(class_logits)
        scores = jnp.where(scores > decoding.score_threshold, scores, 0)
        top_scores, top_indices, first = [], [], 0
        for count in counts:
            level = scores[first : first + count].reshape(-1)
            score, index = jax.lax.top_k(level, min(decoding.candidates, level.size))
            top_scores.append(score)
            top_indices.append(index + first * num_classes)
            first += count
        score, index = jnp.concatenate(top_scores), jnp.concatenate(top_indices)
        anchor, classes = index // num_classes, (index % num_classes).astype(jnp.int32)
        boxes = clip(decode_boxes(box_deltas[anchor], anchors[anchor]), *canvas)
        # Boxes outside of the canvas are empty.
        score = jnp.where(area(boxes) > 0, score, 0)
        selected, valid = suppress(
            boxes, score, classes, iou_threshold=decoding.iou_threshold, max_detections=decoding.max_detections
        )
        return {
            "boxes": jnp.where(valid[:, None], boxes[selected], 0),
            "scores": jnp.where(valid, score[selected], 0),
            "classes": jnp.where(valid, classes[selected], -1),
        }

    anchors = jnp.asarray(anchors)
    return jax.vmap(decode_image)(class_logits.astype(jnp.float32), box_deltas.astype(jnp.float32))


def suppress(
    boxes: jax.Array, scores: jax.Array, classes: jax.Array, *, iou_threshold: float = 0.5, max_detections: int = 100
) -> tuple[jax.Array, jax.Array]:
    """Greedy non-maximum suppression by class.

    It is exact: each step selects the box with the highest remaining score, of equals the first, and drops the boxes of
    its class with an IoU above the threshold.

    Args:
      boxes: (T, 4).
      scores: (T,); boxes with a score of 0 or less are never selected.
      classes: (T,).
      iou_threshold: see above.
      max_detections: number of boxes to select.

    Returns:
      The indices of the selected boxes in descending order of the scores, int32 (max_detections,), and which of these
      are valid, bool (max_detections,).

    >>> boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 3.5], [0, 0, 4, 4]])
    >>> indices, valid = suppress(boxes, jnp.array([0.5, 0.9, 0.4]), jnp.array([1, 1, 2]), max_detections=3)
    >>> indices[valid].tolist()
    [1, 2]
    """

    def select(remaining: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        index = remaining.argmax().astype(jnp.int32)
        # Sums of one number and zeros instead of gathers, which are slow on a TPU and which converters reject in loops.
        selected = indices == index
        box, box_class = jnp.where(selected[None, :], corners, 0).sum(axis=1), jnp.where(selected, classes, 0).sum()
        dropped = selected | ((iou(boxes, box[None, :]) > iou_threshold) & (classes == box_class))
        return jnp.where(dropped, 0, remaining), (index, remaining.max() > 0)

    indices, corners = jnp.arange(len(scores)), boxes.T
    return jax.lax.scan(select, scores, length=max_detections)[1]
