"""The detector in PyTorch: the network of `--task detection`, and its loss, of a whole batch at once."""

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
    """(N, 1, 128, 128) to what it says of every anchor: of the classes (N, A, 10), and of the boxes (N, A, 4)."""

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
        for place in reversed(range(len(merged) - 1)):
            merged[place] = merged[place] + F.interpolate(merged[place + 1], scale_factor=2)
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
        self.last = nn.Conv2d(features, workloads.ANCHORS_PER_PLACE * outputs, 3, 1, 1)
        self.size = outputs
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(self.last.bias, bias)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        for conv, norms in zip(self.hidden, self.norms, strict=True):
            maps = [F.relu(norm(conv(x))) for norm, x in zip(norms, maps, strict=True)]
        said = [self.last(x).permute(0, 2, 3, 1).flatten(1) for x in maps]
        return torch.cat(said, 1).unflatten(1, (-1, self.size))


def criterion() -> Callable[..., torch.Tensor]:
    """The loss of outputs, boxes and classes."""
    # Numbers alone, made by NumPy.
    from jaxcls.models.detection import for_canvas

    height, width, _ = workloads.CANVAS
    return functools.partial(loss, torch.from_numpy(for_canvas(height, width).boxes(height, width)))


def loss(
    anchors: torch.Tensor, outputs: tuple[torch.Tensor, torch.Tensor], boxes: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    """Focal loss of the classes and smooth L1 of the boxes, over the number of positive anchors."""
    logits, deltas = (said.float() for said in outputs)
    matches = _match(anchors, boxes, classes)
    positive = matches >= 0
    own = matches.clamp(min=0)
    truth = torch.where(positive, classes.long().gather(1, own), -1)
    wanted = (truth[..., None] == torch.arange(logits.shape[2])).float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = torch.sigmoid(torch.where(wanted > 0, -logits, logits))
    balance = torch.where(wanted > 0, workloads.ALPHA, 1 - workloads.ALPHA)
    of_classes = (balance * miss**workloads.GAMMA * entropy * (matches != _IGNORED)[..., None]).sum()

    target = boxes.gather(1, own[..., None].expand(-1, -1, 4))
    target = torch.where(positive[..., None], target, anchors)
    distance = F.smooth_l1_loss(deltas, _offsets(target, anchors), beta=workloads.BETA, reduction="none")
    of_boxes = (distance * positive[..., None]).sum()
    return (of_classes + of_boxes) / positive.sum().clamp(min=1)


def _match(anchors: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """(N, A): the number of the box that an anchor answers for."""
    corners = torch.maximum(anchors[:, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(anchors[:, None, 2:], boxes[:, None, :, 2:]) - corners).clamp(min=0)
    both = sides.prod(-1)
    union = _area(anchors)[:, None] + _area(boxes)[:, None, :] - both
    overlaps = torch.where((classes >= 0)[:, None, :], both / union, 0)
    most, own = overlaps.max(2)
    best = overlaps.amax(1, keepdim=True)
    forced = ((overlaps == best) & (best > 0)).any(2)
    others = torch.where(most < 0.4, _NEGATIVE, _IGNORED)
    return torch.where((most >= 0.5) | forced, own, others)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _offsets(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    sides, own_sides = boxes[..., 2:] - boxes[..., :2], anchors[:, 2:] - anchors[:, :2]
    centres, own = (boxes[..., :2] + boxes[..., 2:]) / 2, (anchors[:, :2] + anchors[:, 2:]) / 2
    return torch.cat([(centres - own) / own_sides, torch.log(sides / own_sides)], -1)
