"""Detection: an image has boxes, each of a class; its scores are what was found in it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls import losses
from jaxcls._utils import files
from jaxcls._utils.errors import InputError, flag
from jaxcls.data import draw_boxes
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.data.formats import coco
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.losses.detection import detection_loss
from jaxcls.metrics import detection as judged
from jaxcls.models import detection
from jaxcls.models.detection import Decoding, OnCanvas
from jaxcls.reports import detection_summary
from jaxcls.training import settings
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems.base import Request
from jaxcls.training.settings import LossOptions, Settings

PyTree = Any

# What a class loss takes; the others are of problems whose labels stand in one array.
_REFUSED = ("class_weight", "tau")


_DECODING = Decoding()


@dataclasses.dataclass(frozen=True)
class Detection:
    """The problem of detection; what counts as found is as in the paper of RetinaNet."""

    def check_settings(self, resolved: Settings) -> None:
        if resolved.monitor != "loss":
            judged.get(resolved.monitor)
        for name in ("tune_threshold", *_REFUSED):
            if getattr(resolved, name) is not None:
                raise InputError(f"{flag(name)} is for classification; leave it out of a detection task.")
        weights = resolved.loss_weights
        if weights is not None and not (len(weights) == 2 and min(weights) >= 0 < max(weights)):
            raise InputError(f"--loss-weights is {weights}; give two numbers, not negative, one above 0.")

    def check_labels(self, part: Split, class_names: Sequence[str]) -> None:
        boxes, classes, crowd = (part.labels[name] for name in ("boxes", "classes", "crowd"))
        if boxes.ndim != 3 or boxes.shape[2] != 4 or not classes.shape == crowd.shape == boxes.shape[:2]:
            raise InputError(
                f"boxes {boxes.shape}, classes {classes.shape} and crowd {crowd.shape} must be (N, M, 4), (N, M) and "
                "(N, M)."
            )
        real = classes >= 0
        good = np.isfinite(boxes).all(axis=2) & (boxes[..., 2:] > boxes[..., :2]).all(axis=2)
        for image, place in np.argwhere(real & ~good)[:1]:
            raise InputError(
                f"labels: row {image}, box {place} is {boxes[image, place].tolist()}; boxes are x1, y1, x2, y2, "
                "finite, with x2 > x1 and y2 > y1."
            )
        for image, place in np.argwhere((classes < -1) | (classes >= len(class_names)))[:1]:
            raise InputError(
                f"labels: row {image}, box {place} has class {classes[image, place]}; classes lie in 0 to "
                f"{len(class_names) - 1}, and -1 is padding."
            )

    def check_learnable(self, train: Split, validation: Split) -> None:
        for name, part in (("training", train), ("validation", validation)):
            if not np.any((part.labels["classes"] >= 0) & ~part.labels["crowd"]):
                raise InputError(
                    f"none of the {part.num_examples:,} {name} images has a box of a class; give some that do."
                )

    def head(
        self,
        resolved: Settings,
        preprocessor: Preprocessor,
        *,
        class_names: Sequence[str],
        train_labels: PyTree,
        metrics: Sequence[str],
    ) -> OutputSpec:
        chosen = settings.select(resolved, LossOptions)
        normalizer = chosen.pop("normalizer", "positives")
        loss = functools.partial(
            loss_on_canvas,
            class_loss=losses.get(resolved.loss, "detection", **chosen),
            box_loss=resolved.box_loss or "smooth_l1",
            loss_weights=resolved.loss_weights or (1.0, 1.0),
            normalizer=normalizer,
        )
        return OutputSpec(
            "detection",
            loss,
            {name: judged.get(name) for name in metrics},
            scores=self.scores(preprocessor, class_names),
        )

    def scores(self, preprocessor: Preprocessor, class_names: Sequence[str]) -> Callable[[PyTree], PyTree]:
        return _found

    def thresholds(self, resolved: Settings, scores: Callable[[], PyTree], validation: Split) -> float:
        return 0.5

    def report(self, scores: PyTree, part: Split, *, class_names: Sequence[str], thresholds: Any) -> dict[str, Any]:
        return judged.report(scores, part.labels, class_names=class_names, scale=part.inputs["scale"])

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: PyTree,
        parts: Mapping[str, Split],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> dict[str, Any]:
        return detection_summary.summarize(report, scores, parts, class_names=class_names, threshold=thresholds)

    def write(
        self,
        request: Request,
        queries: Unlabeled,
        scores: Callable[[], PyTree],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> str:
        if request.sample_submission is not None:
            raise InputError("--sample-submission is for classification; leave it out of a detection task.")
        if request.draw is not None and request.draw.exists():
            raise InputError(f"--draw {request.draw} is there already; name a new folder.")
        seen = scores()
        scale = queries.inputs["scale"]
        sizes = np.rint(queries.inputs["size"] / scale).astype(int)
        listed = coco.results(seen, queries.ids.tolist(), scale=scale, sizes=sizes)
        for result in listed:
            # Beside what the format asks for, which has numbers alone.
            result["category"] = class_names[result["category_id"] - 1]
        files.write_atomically(request.output, json.dumps(listed, indent=1) + "\n")
        if request.draw is not None:
            for row, name in enumerate(queries.ids):
                source = request.input / name if request.input.is_dir() else request.input
                path = request.draw / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                one = {field: np.asarray(array[row]) for field, array in seen.items()}
                one["boxes"] = coco.to_original(one["boxes"], scale[row], sizes[row])
                draw_boxes.save(path, source, one, class_names, min_score=thresholds)
        return f"{len(listed):,} boxes in {len(queries.ids):,} images, predictions"


def loss_on_canvas(said: OnCanvas, labels: Mapping[str, jax.Array], **options: Any) -> jax.Array:
    """:func:`jaxcls.losses.detection_loss` at the anchors of the canvas: batches may have canvases of several sizes."""
    anchors = detection.for_canvas(*said.canvas).boxes(*said.canvas)
    return detection_loss(said.outputs, labels, anchors=anchors, **options)


def _found(said: OnCanvas) -> dict[str, jax.Array]:
    anchors = detection.for_canvas(*said.canvas)
    return detection.detections(
        said.outputs["class_logits"],
        said.outputs["box_deltas"],
        jnp.asarray(anchors.boxes(*said.canvas)),
        anchors.counts(*said.canvas),
        said.canvas,
        _DECODING,
    )
