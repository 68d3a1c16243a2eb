"""Box arithmetic. Boxes are (..., 4) as x1, y1, x2, y2; functions of two arrays of boxes broadcast them."""

import math

import jax
import jax.numpy as jnp

# Sides grow by at most this factor, as in Detectron, so that an untrained network does not overflow.
_MAX_LOG_SCALE = math.log(1000 / 16)


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
    x1, y1, x2, y2 = (boxes[..., corner] for corner in range(4))
    return jnp.stack(
        [jnp.clip(x1, 0, width), jnp.clip(y1, 0, height), jnp.clip(x2, 0, width), jnp.clip(y2, 0, height)], axis=-1
    )


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
    half = anchor_sides * jnp.exp(jnp.minimum(deltas[..., 2:], _MAX_LOG_SCALE)) / 2
    return jnp.concatenate([center - half, center + half], axis=-1)


def _center_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    return numerator / jnp.where(denominator > 0, denominator, 1)
