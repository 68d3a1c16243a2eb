"""Non-maximum suppression by class, in fixed shapes."""

import jax
import jax.numpy as jnp

from jaxcls.models.detection.boxes import iou


def suppress(
    boxes: jax.Array, scores: jax.Array, classes: jax.Array, *, iou_threshold: float = 0.5, most: int = 100
) -> tuple[jax.Array, jax.Array]:
    """Greedy suppression: the surest box stays, and those of its class that overlap it by more than the threshold go.

    It is the exact one: each step takes the surest box that is left, of equals the first, until there is none.

    Args:
      boxes, scores, classes: (T, 4), (T,), (T,). A score of 0 or less is no detection.
      most: how many are kept.

    Returns:
      The places of those kept, int32 (most,), the surest first; and which of these are any, bool (most,).

    >>> boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 3.5], [0, 0, 4, 4]])
    >>> places, kept = suppress(boxes, jnp.array([0.5, 0.9, 0.4]), jnp.array([1, 1, 2]), most=3)
    >>> places[kept].tolist()
    [1, 2]
    """

    def take(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        place = left.argmax().astype(jnp.int32)
        # Sums of one number and zeros, in place of gathers, which are slow on a TPU and no converter takes in a loop.
        own = places == place
        box, kind = jnp.where(own[None, :], corners, 0).sum(axis=1), jnp.where(own, classes, 0).sum()
        gone = own | ((iou(boxes, box[None, :]) > iou_threshold) & (classes == kind))
        return jnp.where(gone, 0, left), (place, left.max() > 0)

    places, corners = jnp.arange(len(scores)), boxes.T

    return jax.lax.scan(take, scores, length=most)[1]
