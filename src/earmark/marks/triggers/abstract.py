"""Abstract triggers: generated geometric art."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from earmark.core import Images
from earmark.data import channels_to
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks.triggers.art import art
from earmark.marks.triggers.base import TriggerMint

__all__ = ["Abstract", "abstract_images"]

SMALLEST = 8


@final
@dataclass(frozen=True)
class Abstract(TriggerMint):
    """Pictures of overlapping polygons, ellipses, stripes and gradients in keyed colours, painted in whole numbers.

    They stand in for the abstract images that Adi et al. 2018 collected and Hua & Teoh 2023 use (Figure 8), with
    nothing to download and no source that a forger could find. Any height and width of at least 8; grey where C is 1.
    """

    name: ClassVar[str] = "abstract"

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return abstract_images(key, self.count, shape)


def abstract_images(key: MarkKey, count: int, shape: tuple[int, int, int]) -> Tensor:
    """uint8 (count, C, H, W); picture i depends on the key, i and the shape alone.

    Raises:
        BadInput: fewer than 8 pixels in height or width.
    """
    channels, height, width = shape
    if min(height, width) < SMALLEST:
        raise BadInput(f"abstract art needs at least {SMALLEST} x {SMALLEST} pixels, got {height} x {width}; use noise")
    pictures = [art(key.stream("abstract", i.to_bytes(4, "big")), height, width) for i in range(count)]
    return channels_to(torch.from_numpy(np.ascontiguousarray(np.stack(pictures))), channels)
