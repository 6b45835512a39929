"""ResNet-18 (He et al. 2016) for small images: the CIFAR-10 and Tiny-ImageNet nets of Wen et al. 2023."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import unknown_name
from earmark.models.blocks import basic_stages
from earmark.models.restart import redraw_residual
from earmark.models.sizes import require_positive

__all__ = ["ResNet18"]


class _Stem(NamedTuple):
    """The first convolution (stride 1), and the side of the square that the last feature map is averaged to."""

    kernel: int
    padding: int
    pooled: int


STEMS: Mapping[str, _Stem] = {"cifar": _Stem(3, 1, 1), "tiny": _Stem(7, 1, 2)}


class ResNet18(nn.Module):
    """ResNet-18 without a max-pool in its stem: four stages of two basic blocks, strides 1, 2, 2, 2, a linear layer.

    The stem is a convolution of stride 1 with BN and ReLU:

    * "cifar": 3x3, padding 1, and a global average pool at the end, so that the penultimate feature has 8w numbers.
      The customary net for 32x32.
    * "tiny": 7x7, padding 1, and an average pool to 2x2 at the end, so that the feature has 4 * 8w numbers. At 64x64 it
      computes what the released code of Wen et al. does, whose pool of 4x4 ties it to that size; 5x5 is the smallest.

    Convolutions start from Kaiming-normal (fan out).

    Args:
        classes: K, the number of classes.
        channels: channels of the input.
        width: w, channels of the stem and the first stage, 64 in the original; the others have 2w, 4w and 8w.
        stem: "cifar" or "tiny".

    It has 11,173,962 parameters with the CIFAR stem and K = 10, and 11,586,312 with the other and K = 200.

    Raises:
        BadInput: another stem, or a size below 1.
    """

    def __init__(self, classes: int = 10, channels: int = 3, width: int = 64, stem: str = "cifar") -> None:
        super().__init__()
        require_positive(classes=classes, channels=channels, width=width)
        if stem not in STEMS:
            raise unknown_name("stem", stem, STEMS)
        kernel, padding, self.pooled = STEMS[stem]
        self.conv1 = nn.Conv2d(channels, width, kernel, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = basic_stages((width, width, 2 * width, 4 * width, 8 * width), strides=(1, 2, 2, 2))
        self.out = nn.Linear(8 * width * self.pooled**2, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from the global generator."""
        redraw_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        x = self.stages(F.relu(self.bn1(self.conv1(x)), inplace=True))
        logits: Tensor = self.out(F.adaptive_avg_pool2d(x, self.pooled).flatten(1))
        return logits
