"""Input handling as a part of the model: [0, 1] images in, whatever the network wants inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earmark.errors import BadInput

__all__ = ["Normalised", "normalised"]


class Normalised(nn.Module):
    """(x - mean) / std per channel, grey repeated to `channels`, then `model`. Triggers never see a normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], channels: int | None = None
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise BadInput(f"expected one mean and one positive std per channel, got {list(mean)} and {list(std)}")
        self.model = model
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to whatever `model` returns."""
        x = (images - self.mean) / self.std
        if self.channels is not None and x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        output: Tensor = self.model(x)
        return output


def normalised(
    model: nn.Module, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,), channels: int | None = None
) -> Normalised:
    """`model` behind its own input normalisation, so that it takes [0, 1] images as an API does.

    >>> wrapped = normalised(nn.Flatten(), mean=[0.5], std=[0.25])
    >>> wrapped(torch.ones(1, 1, 1, 2)).tolist()
    [[2.0, 2.0]]
    """
    return Normalised(model, mean, std, channels)
