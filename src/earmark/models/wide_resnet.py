"""The wide residual network of Zagoruyko & Komodakis 2016; WRN-28-10 is the CIFAR-100 net of Hua & Teoh 2023."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.models.restart import redraw_residual

__all__ = ["WideResNet"]


class _PreActivationBlock(nn.Module):
    """BN - ReLU - conv3x3 - BN - ReLU - conv3x3, plus the shortcut of the activated input where shapes differ."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        same = inside == outside and stride == 1
        self.shortcut = None if same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        around: Tensor = x if self.shortcut is None else self.shortcut(active)
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return around + inner


class WideResNet(nn.Module):
    """WRN-depth-widen: three stages of (depth - 4) / 6 pre-activation blocks, 16, 32 and 64 times `widen` channels.

    Args:
        classes: K, the number of classes.
        depth: 6 n + 4 layers.
        widen: the factor k on the channels; the penultimate feature has 64 k numbers (640 for WRN-28-10).
        channels: channels of the input.

    Raises:
        BadInput: a depth that is not 6 n + 4.
    """

    def __init__(self, classes: int = 100, depth: int = 28, widen: int = 10, channels: int = 3) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise BadInput(f"a wide residual network has 6 n + 4 layers (10, 16, 22, 28, ...), got {depth}")
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        stages = []
        for number, (inside, outside) in enumerate(pairwise(widths)):
            first = _PreActivationBlock(inside, outside, 1 if number == 0 else 2)
            stages.append(nn.Sequential(first, *(_PreActivationBlock(outside, outside, 1) for _ in range(blocks - 1))))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.out = nn.Linear(widths[-1], classes, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from the global generator."""
        redraw_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        x = F.relu(self.bn(self.stages(self.conv1(x))))
        logits: Tensor = self.out(x.mean(dim=(2, 3)))
        return logits
