"""A small convolutional classifier for any input shape and class count."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PlainCNN"]


class PlainCNN(nn.Module):
    """Two or three 3x3 convolutions with batch norm, global average pool, a hidden layer and a linear head.

    Args:
        shape: (C, H, W) of the input.
        classes: K, the number of classes.
        width: channels of the first convolution; the second has twice as many, the third (inputs of 16 pixels or
            more) four times.
        features: size of the penultimate feature.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 16, features: int = 64) -> None:
        super().__init__()
        channels, height, width_in = shape
        deep = min(height, width_in) >= 16
        widths = [width, 2 * width, 4 * width] if deep else [width, 2 * width]
        layers: list[nn.Module] = []
        for i, outside in enumerate(widths):
            layers += [nn.Conv2d(channels, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < len(widths) - 1 else []
            channels = outside
        self.trunk = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, features), nn.ReLU()
        )
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.head(self.trunk(x))
        return logits
