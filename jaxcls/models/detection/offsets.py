"""How far a box is from an anchor, in numbers that a network can give whatever their size."""

import math

import jax
import jax.numpy as jnp

# A side is never drawn out more than this, as in Detectron: an untrained network must not overflow.
MOST_GROWTH = math.log(1000 / 16)


def offsets_to(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """From anchors to boxes, (..., 4) each: centre by the anchor's sides, and the logarithm of the sides' ratio.

    The order is x, y, width, height. They are not scaled further, as in RetinaNet's own code.

    Source: Girshick et al. 2014, arXiv:1311.2524, appendix C.

    >>> print(offsets_to(jnp.array([2.0, 0.0, 6.0, 4.0]), jnp.array([0.0, 0.0, 4.0, 4.0])))
    [0.5 0.  0.  0. ]
    """
    centre, sides = _centre_and_sides(boxes)
    own, own_sides = _centre_and_sides(anchors)
    return jnp.concatenate([(centre - own) / own_sides, jnp.log(sides / own_sides)], axis=-1)


def apply_offsets(offsets: jax.Array, anchors: jax.Array) -> jax.Array:
    """The boxes that are so far from the anchors; the inverse of :func:`offsets_to`.

    >>> print(apply_offsets(jnp.array([0.5, 0.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 4.0, 4.0])))
    [2. 0. 6. 4.]
    """
    own, own_sides = _centre_and_sides(anchors)
    centre = own + offsets[..., :2] * own_sides
    half = own_sides * jnp.exp(jnp.minimum(offsets[..., 2:], MOST_GROWTH)) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def _centre_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
