"""The loss of an anchor-based detector: the classes at each anchor, and the offsets of boxes from anchors."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcls._utils.errors import unknown_name
from jaxcls._utils.fusion_barrier import fusion_barrier
from jaxcls.losses.shared import Normalizer, Terms, reduce, require
from jaxcls.losses.sigmoid import sigmoid_focal
from jaxcls.models.detection import IGNORED, decode_boxes, encode_boxes, generalized_iou, match

BoxLoss = Literal["smooth_l1", "giou"]


def detection_loss(
    outputs: Mapping[str, jax.Array],
    labels: Mapping[str, ArrayLike],
    *,
    anchors: ArrayLike,
    class_loss: Callable[..., jax.Array] = sigmoid_focal,
    box_loss: BoxLoss = "smooth_l1",
    loss_weights: tuple[float, float] = (1.0, 1.0),
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    normalizer: Normalizer = "positives",
    as_ratio: bool = False,
) -> jax.Array:
    """RetinaNet's loss: of the classes at all anchors that are not ignored, and of the boxes at the positive ones.

    :func:`jaxcls.models.detection.match` assigns anchors to boxes.

    Args:
      outputs: "class_logits" (N, A, K) and "box_deltas" (N, A, 4).
      labels: see :mod:`jaxcls.models.detection`.
      anchors: (A, 4).
      class_loss: a sigmoid loss, such as ``losses.get("focal_loss", "detection", gamma=2.0, alpha=0.25)``. It is summed
        over classes, not averaged.
      box_loss: "smooth_l1" of the four offsets, with beta 1/9, summed; or "giou", 1 - GIoU of the boxes.
      loss_weights: the factors of the class loss and the box loss.
      sample_weight, mask: (N,), one per image.
      normalizer: "positives" divides the sum over the batch by its number of positive anchors, at least 1. All others
        first divide the sum of each image by its own number of positive anchors, at least 1, as in the paper and in
        torchvision: "none" returns these values (N,), and "batch" and "weights" average them.
      as_ratio: see :class:`jaxcls.losses.Options`.

    Raises:
      InputError: shapes do not match, or a name is unknown.

    Source: Lin et al. 2017, arXiv:1708.02002.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [40.0, 40.0, 48.0, 48.0]])
    >>> outputs = {"class_logits": jnp.array([[[9.0], [-9.0]]]), "box_deltas": jnp.zeros((1, 2, 4))}
    >>> labels = {"boxes": anchors[None, :1], "classes": jnp.array([[0]]), "crowd": jnp.array([[False]])}
    >>> float(detection_loss(outputs, labels, anchors=anchors)) < 1e-6
    True
    """
    if box_loss not in get_args(BoxLoss):
        raise unknown_name("box loss", box_loss, get_args(BoxLoss))
    logits, deltas = (outputs[name].astype(jnp.float32) for name in ("class_logits", "box_deltas"))
    anchors = jnp.asarray(anchors)
    boxes, classes, crowd = (jnp.asarray(labels[name]) for name in ("boxes", "classes", "crowd"))
    count = anchors.shape[0]
    require(
        logits.ndim == 3 and logits.shape[1] == count and deltas.shape == (*logits.shape[:2], 4),
        f"class_logits {logits.shape} and box_deltas {deltas.shape} must be (N, {count}, K) and (N, {count}, 4), for "
        f"{count} anchors.",
    )

    matches = jax.vmap(match, in_axes=(None, 0, 0, 0))(anchors, boxes, classes, crowd)
    counted = jnp.ones(len(logits), bool) if mask is None else jnp.asarray(mask)
    positive = (matches >= 0) & counted[:, None]
    box_index = jnp.maximum(matches, 0)
    true_class = jnp.where(positive, jnp.take_along_axis(classes, box_index, axis=1), -1)
    target = (true_class[..., None] == jnp.arange(logits.shape[2])[None, None, :]).astype(jnp.float32)
    considered = jnp.broadcast_to(((matches != IGNORED) & counted[:, None])[..., None], logits.shape)
    # If each element's mask were looked up from its anchor's, exponentials and logarithms would not be vectorized.
    considered = lax.platform_dependent(considered, cpu=fusion_barrier, default=lambda mask: mask)
    class_terms = class_loss(logits, target, mask=considered, normalizer="none").sum(axis=1) * logits.shape[2]

    # Both are replaced before the operation, so that nothing flows into the gradient from anchors without an object.
    true_box = jnp.take_along_axis(boxes, box_index[..., None], axis=1)
    true_box = jnp.where(positive[..., None], true_box, anchors[None])
    deltas = jnp.where(positive[..., None], deltas, 0)
    if box_loss == "giou":
        box_losses = 1 - generalized_iou(decode_boxes(deltas, anchors[None]), true_box)
    else:
        box_losses = smooth_l1(deltas - encode_boxes(true_box, anchors[None])).sum(axis=-1)
    box_terms = jnp.where(positive, box_losses, 0).sum(axis=1)

    positives = positive.sum(axis=1).astype(jnp.float32)
    divisor = jnp.maximum(positives, 1)
    loss = loss_weights[0] * class_terms + loss_weights[1] * box_terms
    weight, elements = counted.astype(loss.dtype), jnp.where(counted, divisor, 0)
    terms = Terms(loss / divisor, weight, elements, positives)
    return reduce(terms, {"normalizer": normalizer, "sample_weight": sample_weight, "as_ratio": as_ratio})


# RetinaNet's authors set beta to 1/9 in Detectron.
def smooth_l1(difference: ArrayLike, beta: float = 1 / 9) -> jax.Array:
    """Huber's loss over beta: d² / (2 beta) up to beta, and abs(d) - beta / 2 beyond.

    >>> print(smooth_l1(jnp.array([0.5, -2.0]), beta=1.0))
    [0.125 1.5  ]
    """
    size = jnp.abs(jnp.asarray(difference))
    return jnp.where(size < beta, size * size / (2 * beta), size - beta / 2)
