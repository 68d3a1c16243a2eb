"""The geometry of detectors by anchors, as pure functions of fixed shapes: boxes, anchors, matches, detections.

A box is (x1, y1, x2, y2), absolute pixels of the canvas that an image is padded to, float32, with x2 > x1 and y2 > y1.
Labels of N images are a dict: "boxes" (N, M, 4), "classes" int32 (N, M) and "crowd" bool (N, M), padded with class -1
to the most boxes of an image. Detections are a dict: "boxes" (N, D, 4), "scores" (N, D) and "classes" int32 (N, D), the
surest first, padded with score 0 and class -1.
"""

from jaxcls.models.detection.anchors import Anchors, for_canvas
from jaxcls.models.detection.boxes import area, clip, generalised_iou, intersection, iou, pairwise_iou
from jaxcls.models.detection.canvas import OnCanvas
from jaxcls.models.detection.decoding import Decoding, detections
from jaxcls.models.detection.matching import IGNORED, NEGATIVE, match
from jaxcls.models.detection.offsets import apply_offsets, offsets_to
from jaxcls.models.detection.suppression import suppress

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "Anchors",
    "Decoding",
    "OnCanvas",
    "apply_offsets",
    "area",
    "clip",
    "detections",
    "for_canvas",
    "generalised_iou",
    "intersection",
    "iou",
    "match",
    "offsets_to",
    "pairwise_iou",
    "suppress",
]
