"""Filters that remove what is fine: blur, median and fewer bits per pixel.

Xu, Evans & Qi 2018, "Feature Squeezing", use the last two, and smoothing, to undo what was added to an image. Each
works on single images by elementwise operations, so that an image is washed to the same bits in every batch. At the
borders the image goes on as its own mirror image, edge pixel included (d c b a | a b c d | d c b a), as often as it
takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from earmark.attacks.evasion.washer import Wash, Washer
from earmark.core import Data
from earmark.errors import BadInput, number, whole

__all__ = ["BitDepth", "Blur", "Median"]

REACH = 4.0  # standard deviations


@final
@dataclass(frozen=True)
class Blur(Washer):
    """A Gaussian filter over `sigma` pixels: weights exp(-k^2 / (2 sigma^2)) over their sum, |k| <= 4 sigma (rounded).

    Sigma 0 leaves every image as it is.

    Raises:
        BadInput: `sigma` outside 0 to 100.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        number("sigma", self.sigma, 0, 100)

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        weights = _gaussian(self.sigma)
        return lambda images: _filtered(_filtered(images, 2, weights), 3, weights).clamp_(0, 1)


@final
@dataclass(frozen=True)
class Median(Washer):
    """Each pixel becomes the median of the `size` x `size` pixels around it; size 1 leaves every image as it is.

    Raises:
        BadInput: a size that is even, or outside 1 to 15.
    """

    size: int = 3

    def __post_init__(self) -> None:
        if whole("size", self.size, 1, 15) % 2 == 0:
            raise BadInput(f"size: expected an odd number, so that the window has a middle, got {self.size}")

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        return lambda images: _median(_windows(images, self.size))


@final
@dataclass(frozen=True)
class BitDepth(Washer):
    """Each pixel is rounded to the nearest of 2^bits levels from 0 to 1; 8 bits leave an 8-bit image as it is.

    Raises:
        BadInput: `bits` outside 1 to 8.
    """

    bits: int = 3

    def __post_init__(self) -> None:
        whole("bits", self.bits, 1, 8)

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        top = 2**self.bits - 1
        return lambda images: images.mul(top).round_().div_(top)


def _gaussian(sigma: float) -> list[float]:
    """The weights at 0, 1, ... pixels from the middle."""
    sides = [math.exp(-((k / sigma) ** 2) / 2) for k in range(1, int(REACH * sigma + 0.5) + 1)]
    total = 1 + 2 * sum(sides)
    return [weight / total for weight in [1.0, *sides]]


def _filtered(images: Tensor, dim: int, weights: list[float]) -> Tensor:
    """The symmetric filter along one axis."""
    size, reach = images.shape[dim], len(weights) - 1
    wide = _mirrored(images, dim, reach)
    filtered = wide.narrow(dim, reach, size) * weights[0]
    for k in range(1, reach + 1):
        filtered += (wide.narrow(dim, reach - k, size) + wide.narrow(dim, reach + k, size)) * weights[k]
    return filtered


def _mirrored(images: Tensor, dim: int, reach: int) -> Tensor:
    """`reach` more pixels at both ends of an axis."""
    size = images.shape[dim]
    at = torch.arange(-reach, size + reach, device=images.device) % (2 * size)
    return images.index_select(dim, torch.minimum(at, 2 * size - 1 - at))


def _windows(images: Tensor, size: int) -> list[Tensor]:
    """The images shifted to each place of a `size` x `size` window."""
    height, width = images.shape[2:]
    wide = _mirrored(_mirrored(images, 2, size // 2), 3, size // 2)
    return [wide[:, :, top : top + height, left : left + width] for top in range(size) for left in range(size)]


def _median(values: list[Tensor]) -> Tensor:
    """The elementwise median of an odd number of tensors, by forgetting.

    Of more than half of all n values, the least and the greatest cannot be the median: both are dropped, and the next
    value joins. That is about n^2 / 2 elementwise minima and maxima, several times faster than sorting small windows.
    """
    first = len(values) // 2 + 2
    held, waiting = values[:first], values[first:]
    while len(held) > 1:
        for i in range(1, len(held)):
            held[0], held[i] = torch.minimum(held[0], held[i]), torch.maximum(held[0], held[i])
        for i in range(1, len(held) - 1):
            held[i], held[-1] = torch.minimum(held[i], held[-1]), torch.maximum(held[i], held[-1])
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
    return held[0]
