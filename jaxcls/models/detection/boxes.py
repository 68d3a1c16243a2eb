"""Boxes, (..., 4) as x1, y1, x2, y2: their areas, and how much two of them have in common.

Functions of two arrays pair box with box, and broadcast axes of size 1 as NumPy does.
"""

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
    """The area of each box, (..., 4) to (...); 0 where its corners are the wrong way round.

    >>> print(area(jnp.array([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 0.0, 3.0]])))
    [6. 0.]
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip(boxes: jax.Array, height: float, width: float) -> jax.Array:
    """The part of each box that lies on a canvas of that size, (..., 4) to (..., 4).

    >>> print(clip(jnp.array([-1.0, 2.0, 5.0, 9.0]), 8, 4))
    [0. 2. 4. 8.]
    """
    x1, y1, x2, y2 = (boxes[..., corner] for corner in range(4))
    return jnp.stack(
        [jnp.clip(x1, 0, width), jnp.clip(y1, 0, height), jnp.clip(x2, 0, width), jnp.clip(y2, 0, height)], axis=-1
    )


def intersection(first: jax.Array, second: jax.Array) -> jax.Array:
    """The area that lies in both boxes of each pair.

    >>> print(intersection(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 1.0, 3.0, 3.0])))
    1.0
    """
    sides = jnp.minimum(first[..., 2:], second[..., 2:]) - jnp.maximum(first[..., :2], second[..., :2])
    sides = jnp.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Intersection over union of each pair of boxes; 0 of two without an area.

    >>> print(iou(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([0.0, 0.0, 2.0, 1.0])))
    0.5
    """
    both = intersection(first, second)
    return both / _not_zero(area(first) + area(second) - both)


def generalised_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """IoU less the share of the smallest box around both that neither covers, in (-1, 1].

    Unlike IoU it has a slope where boxes do not touch.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630.

    >>> print(generalised_iou(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([3.0, 0.0, 4.0, 1.0])))
    -0.5
    """
    both = intersection(first, second)
    union = area(first) + area(second) - both
    sides = jnp.maximum(first[..., 2:], second[..., 2:]) - jnp.minimum(first[..., :2], second[..., :2])
    around = sides[..., 0] * sides[..., 1]
    return both / _not_zero(union) - (around - union) / _not_zero(around)


def pairwise_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """IoU of every box of (..., A, 4) with every box of (..., M, 4), as (..., A, M).

    >>> one = jnp.array([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
    >>> print(pairwise_iou(one, one))
    [[1. 0.]
     [0. 1.]]
    """
    return iou(first[..., :, None, :], second[..., None, :, :])


def _not_zero(denominator: jax.Array) -> jax.Array:
    return jnp.where(denominator > 0, denominator, 1)
