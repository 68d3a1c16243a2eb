"""The detector of `--task detection` in PyTorch: the network, and its loss for a batch."""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from peers import workloads
from peers.torch_residual import Block, norm

_IGNORED, _NEGATIVE = -2, -1


class RetinaNet(nn.Module):
    """Maps images (N, 1, 128, 128) to class logits (N, A, 10) and box offsets (N, A, 4) of all anchors."""

    def __init__(self) -> None:
        super().__init__()
        previous = workloads.STAGES[0]
        self.stem = nn.Conv2d(workloads.CANVAS[-1], previous, 7, 2, 3, bias=False)
        stages = []
        for stage, width in enumerate(workloads.STAGES):
            stages.append(Block(previous, width, 2 if stage else 1))
            previous = width
        self.stages = nn.ModuleList(stages)
        widths, features = workloads.STAGES[1:], workloads.TOWER
        self.norms = nn.ModuleList(norm(width) for width in widths)
        self.laterals = nn.ModuleList(nn.Conv2d(width, features, 1) for width in widths)
        self.outputs = nn.ModuleList(nn.Conv2d(features, features, 3, 1, 1) for _ in widths)
        self.class_tower = _Tower(workloads.ARTICLES, -math.log((1 - workloads.PRIOR) / workloads.PRIOR))
        self.box_tower = _Tower(4, 0.0)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.max_pool2d(self.stem(images), 2)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = [
            lateral(F.relu(norm(map))) for lateral, norm, map in zip(self.laterals, self.norms, maps[1:], strict=True)
        ]
        for level in reversed(range(len(merged) - 1)):
            merged[level] = merged[level] + F.interpolate(merged[level + 1], scale_factor=2)
        levels = [output(map) for output, map in zip(self.outputs, merged, strict=True)]
        return self.class_tower(levels), self.box_tower(levels)


class _Tower(nn.Module):
    def __init__(self, outputs: int, bias: float) -> None:
        super().__init__()
        features = workloads.TOWER
        self.hidden = nn.ModuleList(
            nn.Conv2d(features, features, 3, 1, 1, bias=False) for _ in range(workloads.TOWER_DEPTH)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(norm(features) for _ in workloads.PYRAMID) for _ in range(workloads.TOWER_DEPTH)
        )
        self.last = nn.Conv2d(features, workloads.ANCHORS_PER_POSITION * outputs, 3, 1, 1)
        self.size = outputs
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(self.last.bias, bias)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        for conv, norms in zip(self.hidden, self.norms, strict=True):
            maps = [F.relu(norm(conv(x))) for norm, x in zip(norms, maps, strict=True)]
        outputs = [self.last(x).permute(0, 2, 3, 1).flatten(1) for x in maps]
        return torch.cat(outputs, 1).unflatten(1, (-1, self.size))


def criterion() -> Callable[..., torch.Tensor]:
    """Returns the loss as a function of outputs, boxes and classes."""
    # NumPy arrays, computed once.
    from jaxcls.models.detection import canvas_anchors

    height, width, _ = workloads.CANVAS
    anchors = torch.from_numpy(canvas_anchors(height, width).boxes(height, width))
    return functools.partial(loss, anchors.to("cuda" if torch.cuda.is_available() else "cpu"))


def loss(
    anchors: torch.Tensor, outputs: tuple[torch.Tensor, torch.Tensor], boxes: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    """Focal loss of the classes plus smooth L1 of the boxes, divided by the number of positive anchors."""
    logits, deltas = (output.float() for output in outputs)
    matches = _match(anchors, boxes, classes)
    positive = matches >= 0
    matched = matches.clamp(min=0)
    truth = torch.where(positive, classes.long().gather(1, matched), -1)
    wanted = (truth[..., None] == torch.arange(logits.shape[2], device=truth.device)).float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = torch.sigmoid(torch.where(wanted > 0, -logits, logits))
    balance = torch.where(wanted > 0, workloads.ALPHA, 1 - workloads.ALPHA)
    of_classes = (balance * miss**workloads.GAMMA * entropy * (matches != _IGNORED)[..., None]).sum()

    target = boxes.gather(1, matched[..., None].expand(-1, -1, 4))
    target = torch.where(positive[..., None], target, anchors)
    distance = F.smooth_l1_loss(deltas, _offsets(target, anchors), beta=workloads.BETA, reduction="none")
    of_boxes = (distance * positive[..., None]).sum()
    return (of_classes + of_boxes) / positive.sum().clamp(min=1)


def _match(anchors: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The index of the box that each anchor is matched to, (N, A)."""
    corners = torch.maximum(anchors[:, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(anchors[:, None, 2:], boxes[:, None, :, 2:]) - corners).clamp(min=0)
    both = sides.prod(-1)
    union = _area(anchors)[:, None] + _area(boxes)[:, None, :] - both
    overlaps = torch.where((classes >= 0)[:, None, :], both / union, 0)
    overlap, matched = overlaps.max(2)
    best = overlaps.amax(1, keepdim=True)
    forced = ((overlaps == best) & (best > 0)).any(2)
    others = torch.where(overlap < 0.4, _NEGATIVE, _IGNORED)
    return torch.where((overlap >= 0.5) | forced, matched, others)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _offsets(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    sides, anchor_sides = boxes[..., 2:] - boxes[..., :2], anchors[:, 2:] - anchors[:, :2]
    centers, anchor_centers = (boxes[..., :2] + boxes[..., 2:]) / 2, (anchors[:, :2] + anchors[:, 2:]) / 2
    return torch.cat([(centers - anchor_centers) / anchor_sides, torch.log(sides / anchor_sides)], -1)
