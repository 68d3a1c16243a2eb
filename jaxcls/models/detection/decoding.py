"""From what a detector says of every anchor to the few things that it found."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxcls.models.detection.boxes import area, clip
from jaxcls.models.detection.offsets import apply_offsets
from jaxcls.models.detection.suppression import suppress


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What counts as found; the values are RetinaNet's.

    Attributes:
      score_threshold: a class that is not likelier than this at an anchor is not there.
      candidates: of each level so many are kept before suppression, the likeliest.
      iou_threshold: of two of a class that overlap by more, one goes.
      most: things found in an image.
    """

    score_threshold: float = 0.05
    candidates: int = 1000
    iou_threshold: float = 0.5
    most: int = 100


def detections(
    class_logits: jax.Array,
    box_deltas: jax.Array,
    anchors: jax.Array,
    counts: tuple[int, ...],
    canvas: tuple[int, int],
    decoding: Decoding = Decoding(),
) -> dict[str, jax.Array]:
    """What was found in each image: a dict of "boxes" (N, D, 4), "scores" (N, D) and "classes" int32 (N, D).

    The surest come first. Images with fewer than D, that is ``decoding.most``, are padded: box and score 0, class -1.

    Args:
      class_logits: (N, A, K).
      box_deltas: (N, A, 4), offsets from the anchors.
      anchors: (A, 4).
      counts: how many of them belong to each level.
      canvas: height and width, to which boxes are clipped.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0]])
    >>> found = detections(jnp.full((1, 1, 3), -9.0).at[0, 0, 2].set(9.0), jnp.zeros((1, 1, 4)), anchors, (1,), (8, 8))
    >>> found["boxes"][0, 0].tolist(), found["classes"][0, :2].tolist()
    ([0.0, 0.0, 8.0, 8.0], [2, -1])
    """

    def of_image(class_logits: jax.Array, box_deltas: jax.Array) -> dict[str, jax.Array]:
        classes_in_all = class_logits.shape[1]
        scores = jax.nn.sigmoid(class_logits)
        scores = jnp.where(scores > decoding.score_threshold, scores, 0)
        likeliest, places, first = [], [], 0
        for count in counts:
            level = scores[first : first + count].reshape(-1)
            score, place = jax.lax.top_k(level, min(decoding.candidates, level.size))
            likeliest.append(score)
            places.append(place + first * classes_in_all)
            first += count
        score, place = jnp.concatenate(likeliest), jnp.concatenate(places)
        anchor, kind = place // classes_in_all, (place % classes_in_all).astype(jnp.int32)
        boxes = clip(apply_offsets(box_deltas[anchor], anchors[anchor]), *canvas)
        # Of a box outside of the canvas nothing is left.
        score = jnp.where(area(boxes) > 0, score, 0)
        chosen, kept = suppress(boxes, score, kind, iou_threshold=decoding.iou_threshold, most=decoding.most)
        return {
            "boxes": jnp.where(kept[:, None], boxes[chosen], 0),
            "scores": jnp.where(kept, score[chosen], 0),
            "classes": jnp.where(kept, kind[chosen], -1),
        }

    anchors = jnp.asarray(anchors)
    return jax.vmap(of_image)(class_logits.astype(jnp.float32), box_deltas.astype(jnp.float32))
