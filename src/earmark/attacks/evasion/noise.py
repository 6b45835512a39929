"""Noise that drowns a trigger, and a filter that then brings the object back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from earmark.attacks.evasion.chance import chances, new_key
from earmark.attacks.evasion.filters import Median
from earmark.attacks.evasion.washer import Wash, Washer, require_washer
from earmark.core import Data
from earmark.errors import number

__all__ = ["NoiseDenoise"]


@final
@dataclass(frozen=True)
class NoiseDenoise(Washer):
    """Normal noise with standard deviation `std` is added, the sum clipped to [0, 1] and given to `denoiser`.

    The noise of an image is a function of the image's pixels and of the generator's state when the washing is made
    (`chances`). With a median of one pixel for the denoiser it is plain noise.

    Raises:
        BadInput: `std` outside 0 to 10, or a denoiser that is no washer.
    """

    std: float = 0.1
    denoiser: Washer = field(default_factory=Median)

    def __post_init__(self) -> None:
        number("std", self.std, 0, 10)
        require_washer("denoiser", self.denoiser)

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        key = new_key(rng)
        denoise = self.denoiser.washing(data, rng)
        return lambda images: denoise((images + self.std * _noise(images, key)).clamp_(0, 1))


def _noise(images: Tensor, key: bytes) -> Tensor:
    """Standard normal, one image after the other."""
    noise = torch.empty(images.shape)
    for drawn, generator in zip(noise, chances(images, key), strict=True):
        drawn.normal_(generator=generator)
    return noise.to(images)
