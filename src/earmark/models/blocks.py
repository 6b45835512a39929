"""The basic block of He et al. 2016, and the four stages that the ResNet-18s are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BasicBlock", "basic_stages"]


class BasicBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU; the first convolution has the stride.

    The shortcut is conv1x1 - BN where the shapes differ, and the identity elsewhere. It takes its stride by reading
    every stride-th pixel, which is the same: the backward pass of a strided 1x1 convolution of fewer than 8 channels in
    channels-last order writes beyond its memory on x86 (torch 2.13 with oneDNN).
    """

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if inside != outside or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        seen = x if self.stride == 1 else x[..., :: self.stride, :: self.stride]
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(seen), inplace=True)


def basic_stages(widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """Stages of two basic blocks, the first with the stage's stride; `widths` begins with the channels of the stem."""
    return nn.Sequential(
        *(
            nn.Sequential(BasicBlock(inside, outside, stride), BasicBlock(outside, outside))
            for (inside, outside), stride in zip(pairwise(widths), strides, strict=True)
        )
    )
