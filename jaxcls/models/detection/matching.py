"""Which anchor answers for which object."""

import jax
import jax.numpy as jnp

from jaxcls.models.detection.boxes import area, intersection, pairwise_iou

# In place of the number of a box: an anchor that should say that nothing is there, and one that may say anything.
NEGATIVE, IGNORED = -1, -2
# Of two overlaps that differ by less, either may be the greater: fused loops round differently.
_ROUNDING = 1e-5


def match(
    anchors: jax.Array,
    boxes: jax.Array,
    classes: jax.Array,
    crowd: jax.Array,
    *,
    positive: float = 0.5,
    negative: float = 0.4,
) -> jax.Array:
    """The number of the box that each anchor answers for in one image, int32 (A,), or NEGATIVE, or IGNORED.

    An anchor answers for the box that it overlaps most (of equals the first), if their IoU is ``positive`` or more,
    or if no anchor overlaps some box more than it does: so, as in Detectron2 and torchvision, a box that all anchors
    overlap little is learned too. Of the others those whose IoU with every box is below ``negative`` are negative, and
    so are all anchors of an image without boxes. Those between, and negative ones that lie by half or more in a
    crowd, are ignored.

    Args:
      anchors: (A, 4).
      boxes, classes, crowd: (M, 4), (M,), (M,); those of class -1 are padding.

    Source: Lin et al. 2017, arXiv:1708.02002; what is done with crowds is MMDetection's ``ignore_iof_thr``.

    >>> anchors = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2], [8, 8, 12, 12], [20, 20, 24, 24]])
    >>> boxes = jnp.array([[0.0, 0, 4, 3.5], [8, 8, 9, 9]])
    >>> print(match(anchors, boxes, jnp.array([3, 5]), jnp.array([False, False])))
    [ 0  0  1 -1]
    """
    overlaps = pairwise_iou(anchors, boxes)
    overlaps = jnp.where(((classes >= 0) & ~crowd)[None, :], overlaps, 0)
    most, own = overlaps.max(axis=1), overlaps.argmax(axis=1).astype(jnp.int32)
    best = overlaps.max(axis=0, keepdims=True)
    forced = ((overlaps >= best * (1 - _ROUNDING)) & (best > 0)).any(axis=1)
    within = intersection(anchors[:, None, :], boxes[None, :, :]) / area(anchors)[:, None]
    crowded = ((within >= 0.5) & ((classes >= 0) & crowd)[None, :]).any(axis=1)
    others = jnp.where((most < negative) & ~crowded, NEGATIVE, IGNORED)
    return jnp.where((most >= positive) | forced, own, others)
