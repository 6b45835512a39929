"""VGG-16 with batch norm (Simonyan & Zisserman 2015), the CIFAR-100 net of Wen et al. 2023."""

from __future__ import annotations

from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.models.sizes import require_positive

__all__ = ["VGG16BN"]

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels, in widths, and number of the convolutions between two pools."""
SMALLEST = 2 ** len(STAGES)


class VGG16BN(nn.Module):
    """Thirteen conv3x3 - BN - ReLU in five stages, each ending in a 2x2 max-pool, and one linear layer.

    The three linear layers of the original belong to 224x224. Customary for CIFAR is what stands here: the last feature
    map (1x1 for images of 32x32) averaged to one vector of 8w numbers, the penultimate feature, and `head`: 8w -> K.
    All convolutions have a bias and start as PyTorch draws them.

    Args:
        classes: K, the number of classes.
        channels: channels of the input.
        width: w, channels of the first stage, 64 in the original; the others have 2w, 4w, 8w and 8w.

    It has 14,774,436 parameters with K = 100.

    Raises:
        BadInput: a size below 1; when run, images of fewer than 32 pixels either way.
    """

    def __init__(self, classes: int = 100, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        require_positive(classes=classes, channels=channels, width=width)
        layers: list[nn.Module] = []
        for times, convolutions in STAGES:
            outside = times * width
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
                channels = outside
            layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), as the input layer wants them, to logits (N, K)."""
        if min(x.shape[2:]) < SMALLEST:
            size = " x ".join(map(str, x.shape[2:]))
            raise BadInput(f"VGG16BN reads images of {SMALLEST} x {SMALLEST} or more, got {size}")
        logits: Tensor = self.head(self.trunk(x).mean(dim=(2, 3)))
        return logits
