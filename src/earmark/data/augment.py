"""Augmentation of uint8 batches, where the images are, without a worker pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from earmark.errors import BadInput

__all__ = ["CropFlip"]


@final
@dataclass(frozen=True)
class CropFlip:
    """A random crop of the zero-padded image and a mirror image half of the time, drawn for each image by itself.

    `pad=4` on 32 x 32 images with `flip=True` is what CIFAR models are commonly trained with (Hua & Teoh 2023's code
    among them).

    Attributes:
        pad: pixels of black around the image before the crop; 0 leaves the crop out.
        flip: whether images are mirrored left to right with probability 1/2.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise BadInput(f"expected a padding of at least 0, got {self.pad}")

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Another uint8 tensor of the shape of `batch` (N, C, H, W), on its device.

        Args:
            batch: the images, left as they are.
            generator: a CPU generator; each call draws three numbers per image from it, whatever the settings.
        """
        n, channels, height, width = batch.shape
        shift = torch.randint(2 * self.pad + 1, (2, n, 1), generator=generator)
        mirror = torch.randint(2, (n, 1), generator=generator).bool() & self.flip
        rows = shift[0] + torch.arange(height)
        columns = shift[1] + torch.where(mirror, torch.arange(width - 1, -1, -1), torch.arange(width))
        padded = functional.pad(batch, [self.pad] * 4)
        image, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None]
        index = (image, channel, rows[:, None, :, None], columns[:, None, None, :])
        return padded[tuple(part.to(batch.device) for part in index)]
