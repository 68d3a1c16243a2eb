"""Object detection: an image has boxes, each of a class; its scores are detections."""

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
from jaxcls.losses.detection import detection_loss
from jaxcls.metrics import detection as detection_metrics
from jaxcls.models import detection
from jaxcls.models.detection import DetectorOutput
from jaxcls.reports import detection_summary
from jaxcls.training import settings as settings_module
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems import Problem, Record, Request
from jaxcls.training.settings import LossOptions, Settings

PyTree = Any


def loss_on_canvas(outputs: DetectorOutput, labels: Mapping[str, jax.Array], **options: Any) -> jax.Array:
    """:func:`jaxcls.losses.detection_loss` at the anchors of the canvas: batches may have canvases of several sizes."""
    anchors = detection.canvas_anchors(*outputs.canvas).boxes(*outputs.canvas)
    return detection_loss(outputs.outputs, labels, anchors=anchors, **options)


def _decoded(outputs: DetectorOutput) -> dict[str, jax.Array]:
    """Decodes detections as the RetinaNet paper does (arXiv 1708.02002)."""
    anchors = detection.canvas_anchors(*outputs.canvas)
    return detection.decode_detections(
        outputs.outputs["class_logits"],
        outputs.outputs["box_deltas"],
        jnp.asarray(anchors.boxes(*outputs.canvas)),
        anchors.counts(*outputs.canvas),
        outputs.canvas,
    )


@dataclasses.dataclass(frozen=True)
class Detection(Problem):
    """Object detection."""

    class_names: Sequence[str]

    scores = staticmethod(_decoded)

    def check_settings(self, settings: Settings) -> None:
        if settings.monitor != "loss":
            detection_metrics.get(settings.monitor)
        # These options need labels that are a single array.
        for name in ("tune_threshold", "calibrate", "class_weight", "tau"):
            if getattr(settings, name) is not None:
                raise InputError(f"{flag(name)} is for classification; leave it out of a detection task.")
        weights = settings.loss_weights
        if weights is not None and not (len(weights) == 2 and min(weights) >= 0 < max(weights)):
            raise InputError(f"--loss-weights is {weights}; give two numbers, not negative, one above 0.")

    def check_labels(self, split: Split) -> None:
        boxes, classes, crowd = (split.labels[name] for name in ("boxes", "classes", "crowd"))
        if boxes.ndim != 3 or boxes.shape[2] != 4 or not classes.shape == crowd.shape == boxes.shape[:2]:
            raise InputError(
                f"boxes {boxes.shape}, classes {classes.shape} and crowd {crowd.shape} must be (N, M, 4), (N, M) and "
                "(N, M)."
            )
        good = np.isfinite(boxes).all(axis=2) & (boxes[..., 2:] > boxes[..., :2]).all(axis=2)
        for image, box in np.argwhere((classes >= 0) & ~good)[:1]:
            raise InputError(
                f"labels: row {image}, box {box} is {boxes[image, box].tolist()}; boxes are x1, y1, x2, y2, "
                "finite, with x2 > x1 and y2 > y1."
            )
        last = len(self.class_names) - 1
        for image, box in np.argwhere((classes < -1) | (classes > last))[:1]:
            raise InputError(
                f"labels: row {image}, box {box} has class {classes[image, box]}; classes lie in 0 to {last}, and -1 "
                "is padding."
            )

    def check_learnable(self, train: Split, validation: Split) -> None:
        for name, split in (("training", train), ("validation", validation)):
            if not np.any((split.labels["classes"] >= 0) & ~split.labels["crowd"]):
                raise InputError(
                    f"none of the {split.num_examples:,} {name} images has a box of a class; give some that do."
                )

    def objective(self, settings: Settings, train_labels: PyTree, metrics: Sequence[str]) -> OutputSpec:
        options = settings_module.select(settings, LossOptions)
        normalizer = options.pop("normalizer", "positives")
        loss = functools.partial(
            loss_on_canvas,
            class_loss=losses.get(settings.loss, "detection", **options),
            box_loss=settings.box_loss or "smooth_l1",
            loss_weights=settings.loss_weights or (1.0, 1.0),
            normalizer=normalizer,
        )
        return OutputSpec("detection", loss, {name: detection_metrics.get(name) for name in metrics}, scores=_decoded)

    def report(self, scores: PyTree, split: Split, thresholds: Any) -> Record:
        return detection_metrics.report(scores, split.labels, class_names=self.class_names, scale=split.inputs["scale"])

    def summarize(self, report: Record, scores: PyTree, splits: Mapping[str, Split], thresholds: Any) -> Record:
        return detection_summary.summarize(report, scores, splits, class_names=self.class_names, threshold=thresholds)

    def write(self, request: Request, examples: Unlabeled, scores: Callable[[], PyTree], thresholds: Any) -> str:
        if request.sample_submission is not None:
            raise InputError("--sample-submission is for classification; leave it out of a detection task.")
        if request.sets is not None:
            raise InputError("--coverage is for classification; leave it out of a detection task.")
        if request.draw is not None and request.draw.exists():
            raise InputError(f"--draw {request.draw} is there already; name a new folder.")
        detections, scale = scores(), examples.inputs["scale"]
        sizes = np.rint(examples.inputs["size"] / scale).astype(int)
        listed = coco.results(detections, examples.ids.tolist(), scale=scale, sizes=sizes)
        for result in listed:
            # An addition to COCO's format, which has numeric categories only.
            result["category"] = self.class_names[result["category_id"] - 1]
        files.write_atomically(request.output, json.dumps(listed, indent=1) + "\n")
        if request.draw is not None:
            for row, name in enumerate(examples.ids):
                source = request.input / name if request.input.is_dir() else request.input
                path = request.draw / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                one = {field: np.asarray(array[row]) for field, array in detections.items()}
                one["boxes"] = coco.to_original(one["boxes"], scale[row], sizes[row])
                draw_boxes.save(path, source, one, self.class_names, min_score=thresholds)
        return f"{len(listed):,} boxes in {len(examples.ids):,} images, predictions"
