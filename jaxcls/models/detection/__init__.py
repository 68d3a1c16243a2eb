"""Anchor-based object detection: boxes, anchors, matching and decoding as pure functions of fixed shapes.

Boxes are float32 (x1, y1, x2, y2) with x2 > x1 and y2 > y1, in pixels of the canvas to which images are padded.

Labels of N images are a dict: "boxes" (N, M, 4), "classes" int32 (N, M) and "crowd" bool (N, M), padded with class -1.
Detections are a dict: "boxes" (N, D, 4), "scores" (N, D) and "classes" int32 (N, D), in descending order of the scores,
padded with box 0, score 0 and class -1.
"""

from jaxcls.models.detection.anchors import IGNORED, NEGATIVE, Anchors, DetectorOutput, canvas_anchors, match
from jaxcls.models.detection.boxes import (
    area,
    clip,
    decode_boxes,
    encode_boxes,
    generalized_iou,
    intersection,
    iou,
    pairwise_iou,
)  # fmt: skip
from jaxcls.models.detection.decoding import Decoding, decode_detections, suppress

__all__ = [
    "IGNORED", "NEGATIVE", "Anchors", "Decoding", "DetectorOutput", "area", "canvas_anchors", "clip", "decode_boxes",
    "decode_detections", "encode_boxes", "generalized_iou", "intersection", "iou", "match", "pairwise_iou", "suppress",
]  # fmt: skip
