"""The loss of a detector by anchors: what is at each of them, and how far its box is from the anchor."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcls._utils.errors import unknown_name
from jaxcls._utils.fusion_barrier import fusion_barrier
from jaxcls.losses.sigmoid import sigmoid_focal
from jaxcls.losses.weighting import Normalizer, Terms, reduce, require
from jaxcls.models.detection import IGNORED, generalised_iou, match, offsets_to
from jaxcls.models.detection.offsets import apply_offsets

BoxLoss = Literal["smooth_l1", "giou"]
# Where smooth L1 turns from a parabola to a line: as in Detectron, the code of RetinaNet's authors.
BETA = 1 / 9


class ImageTerms(NamedTuple):
    """Of each image, (N,): the sums over its anchors, and how many of these are positive."""

    classes: jax.Array
    boxes: jax.Array
    positives: jax.Array


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
) -> jax.Array:
    """RetinaNet's loss: of the classes at all anchors but the ignored ones, and of the boxes at the positive ones.

    Anchors answer for boxes as :func:`jaxcls.models.detection.match` says.

    Args:
      outputs: "class_logits" (N, A, K) and "box_deltas" (N, A, 4).
      labels: see :mod:`jaxcls.models.detection`.
      anchors: (A, 4).
      class_loss: of the sigmoid family, its options bound, such as ``losses.get("focal_loss", gamma=2.0, alpha=0.25)``.
        Its classes are summed, not averaged.
      box_loss: smooth L1 of the four offsets, with beta 1/9, summed; or 1 - GIoU of the boxes.
      loss_weights: what the two terms, classes and boxes, are multiplied by.
      sample_weight, mask: of each image, (N,).
      normalizer: "positives" divides the sum over a batch by the number of positive anchors in it, at least 1; all
        others begin with an image's sum over its own positive anchors, at least 1, which the paper writes and
        torchvision does: "none" gives these, (N,), and "batch" and "weights" average them.

    Raises:
      InputError: shapes or a name are wrong.

    Source: Lin et al. 2017, arXiv:1708.02002.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [40.0, 40.0, 48.0, 48.0]])
    >>> outputs = {"class_logits": jnp.array([[[9.0], [-9.0]]]), "box_deltas": jnp.zeros((1, 2, 4))}
    >>> labels = {"boxes": anchors[None, :1], "classes": jnp.array([[0]]), "crowd": jnp.array([[False]])}
    >>> float(detection_loss(outputs, labels, anchors=anchors)) < 1e-6
    True
    """
    terms = image_terms(outputs, labels, anchors=anchors, class_loss=class_loss, box_loss=box_loss, mask=mask)
    of_classes, of_boxes = loss_weights
    counted = jnp.ones_like(terms.positives, bool) if mask is None else jnp.asarray(mask)
    divisor = jnp.maximum(terms.positives, 1)
    whole = of_classes * terms.classes + of_boxes * terms.boxes
    return reduce(
        Terms(
            loss=whole / divisor,
            weight=counted.astype(whole.dtype),
            elements=jnp.where(counted, divisor, 0),
            positives=terms.positives,
        ),
        {"normalizer": normalizer, "sample_weight": sample_weight},
    )


def image_terms(
    outputs: Mapping[str, jax.Array],
    labels: Mapping[str, ArrayLike],
    *,
    anchors: ArrayLike,
    class_loss: Callable[..., jax.Array] = sigmoid_focal,
    box_loss: BoxLoss = "smooth_l1",
    mask: ArrayLike | None = None,
) -> ImageTerms:
    """What :func:`detection_loss` adds up, image by image; masked ones have none."""
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
    own = jnp.maximum(matches, 0)
    truth = jnp.where(positive, jnp.take_along_axis(classes, own, axis=1), -1)
    wanted = (truth[..., None] == jnp.arange(logits.shape[2])[None, None, :]).astype(jnp.float32)
    considered = jnp.broadcast_to(((matches != IGNORED) & counted[:, None])[..., None], logits.shape)
    # Where each number's mask must be looked up from its anchor's, exponentials and logarithms are computed one by one.
    considered = lax.platform_dependent(considered, cpu=fusion_barrier, default=lambda mask: mask)
    of_classes = class_loss(logits, wanted, mask=considered, normalizer="none").sum(axis=1) * logits.shape[2]

    # Both are replaced before the operation: whatever stands where nothing is to be found has no gradient.
    target = jnp.take_along_axis(boxes, own[..., None], axis=1)
    target = jnp.where(positive[..., None], target, anchors[None])
    deltas = jnp.where(positive[..., None], deltas, 0)
    if box_loss == "giou":
        each = 1 - generalised_iou(apply_offsets(deltas, anchors[None]), target)
    else:
        each = smooth_l1(deltas - offsets_to(target, anchors[None])).sum(axis=-1)
    of_boxes = jnp.where(positive, each, 0).sum(axis=1)
    return ImageTerms(of_classes, of_boxes, positive.sum(axis=1).astype(jnp.float32))


def smooth_l1(difference: ArrayLike, beta: float = BETA) -> jax.Array:
    """Huber's loss over beta: d² / (2 beta) up to beta, from there on abs(d) - beta / 2.

    >>> print(smooth_l1(jnp.array([0.5, -2.0]), beta=1.0))
    [0.125 1.5  ]
    """
    size = jnp.abs(jnp.asarray(difference))
    return jnp.where(size < beta, size * size / (2 * beta), size - beta / 2)
