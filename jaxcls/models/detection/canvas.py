"""What a detector says of a batch, together with the size of the canvas that it saw."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OnCanvas:
    """Outputs of which the canvas is known while they are traced, and with it the anchors.

    Attributes:
      outputs: "class_logits" (N, A, num_classes) and "box_deltas" (N, A, 4), of the anchors that
        :func:`jaxcls.models.detection.for_canvas` gives for the canvas, in their order.
      canvas: height and width in pixels. It is no leaf of the tree.
    """

    outputs: dict[str, jax.Array]
    canvas: tuple[int, int] = dataclasses.field(metadata={"static": True})
