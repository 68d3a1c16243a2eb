"""The residual block of the classifier and the detector in PyTorch, and its normalization."""

import torch
import torch.nn.functional as F
from torch import nn

from peers import workloads


class Block(nn.Module):
    def __init__(self, previous: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(previous), norm(width)
        self.conv1 = nn.Conv2d(previous, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        changes = previous != width or stride > 1
        self.shortcut = nn.Conv2d(previous, width, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(activated))))


def norm(channels: int) -> nn.Module:
    # PyTorch's momentum is the weight of the new batch.
    return nn.BatchNorm2d(channels, eps=workloads.BATCH_NORM_EPSILON, momentum=1 - workloads.BATCH_NORM_MOMENTUM)
