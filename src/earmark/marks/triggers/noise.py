"""Noise triggers: independent normal noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput, number
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint

__all__ = ["Noise"]


def to_pixels(values: Tensor) -> Tensor:
    """clip(round(255 v), 0, 255) as uint8, halves to even."""
    return values.mul(255).round().clamp(0, 255).to(torch.uint8)


@final
@dataclass(frozen=True)
class Noise(TriggerMint):
    """Independent normal noise: pixel = clip(round(255 (mean + std N(0, 1)))).

    Hua & Teoh 2023 use "100 noise patterns from the normal distribution". The default std of 0.25 is about one standard
    deviation of natural images, so the triggers have about unit variance after the usual normalisation.

    Attributes:
        std: standard deviation in units of the whole range, before clipping.
        mean: the grey that the noise lies around; 0.5 is the middle.
        colour: independent noise in each channel; otherwise one plane copied to all channels, as the paper's code does.
    """

    name: ClassVar[str] = "noise"
    std: float = 0.25
    mean: float = 0.5
    colour: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "std", float(number("noise std", self.std, 0.01, 10)))
        object.__setattr__(self, "mean", float(number("noise mean", self.mean, 0, 1)))
        if not isinstance(self.colour, bool):
            raise BadInput(f"noise colour: expected True or False, got {self.colour!r:.80}")

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        channels, height, width = shape
        planes = channels if self.colour else 1
        normals = key.stream("noise").normals(self.count * planes * height * width)
        values = self.mean + self.std * normals.reshape(self.count, planes, height, width)
        return to_pixels(values).expand(self.count, channels, height, width).contiguous()
