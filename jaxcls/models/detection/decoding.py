"""From the outputs of a detector for all anchors to detections."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxcls.models.detection.boxes import area, clip, decode_boxes, iou


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
