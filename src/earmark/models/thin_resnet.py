"""The thin ResNet-18 of Hua & Teoh 2023 (Table 3 and the released code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from earmark.models.blocks import basic_stages
from earmark.models.restart import redraw_residual

__all__ = ["ThinResNet18"]


class ThinResNet18(nn.Module):
    """ResNet-18 with 16-32-64-128 channels, stride 1 after the stem, and a linear penultimate feature of any size.

    Stem: conv 7x7 (16, stride 1, padding 3), BN, ReLU, max-pool 3x3 stride 2. Four stages of two basic blocks, all of
    stride 1. Global average pool, `fc`: 128 -> d with bias and no activation (the penultimate feature z), `out`:
    d -> K without bias, whose rows are the prototypes W_P. Convolutions start from Kaiming-normal (fan out).

    Args:
        classes: K, the number of classes.
        features: d, the size of the penultimate feature (2, 3 or 64 in the paper).
        channels: channels of the input; the paper repeats grey images to 3.
        width: channels of the stem, 16 in the paper; all others follow.

    With d = 2 and K = 10 it has 702,374 parameters.
    """

    def __init__(self, classes: int = 10, features: int = 64, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = basic_stages((width, width, 2 * width, 4 * width, 8 * width), strides=(1, 1, 1, 1))
        self.fc = nn.Linear(8 * width, features)
        self.out = nn.Linear(features, classes, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from the global generator."""
        redraw_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, stride=2, padding=1)
        x = self.stages(x).mean(dim=(2, 3))
        logits: Tensor = self.out(self.fc(x))
        return logits
