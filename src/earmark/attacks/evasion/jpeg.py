"""JPEG: what an image loses on its way through the most common lossy format."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from earmark.attacks.evasion.washer import Wash, Washer
from earmark.core import Data
from earmark.errors import BadInput, whole

__all__ = ["Jpeg"]

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@final
@dataclass(frozen=True)
class Jpeg(Washer):
    """Each image is rounded to 8 bits, encoded as JPEG and decoded again.

    Attributes:
        quality: 1 to 100, as the IJG's encoder takes it; at 100 only rounding is lost, where colour keeps its
            resolution.
        subsampling: the resolution of colour: "4:2:0" halves it in both directions, "4:2:2" across, "4:4:4" keeps it.

    Raises:
        BadInput: another quality or subsampling; on images, channels that are neither 1 nor 3.
    """

    quality: int = 75
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"

    def __post_init__(self) -> None:
        whole("quality", self.quality, 1, 100)
        if self.subsampling not in _SUBSAMPLINGS:
            raise BadInput(f"subsampling: expected one of {', '.join(_SUBSAMPLINGS)}, got {self.subsampling!r:.80}")

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        def wash(images: Tensor) -> Tensor:
            if images.shape[1] not in (1, 3):
                raise BadInput(f"JPEG holds grey or colour images: expected 1 or 3 channels, got {images.shape[1]}")
            pixels = images.detach().mul(255).round_().clamp_(0, 255).to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
            decoded = np.empty_like(pixels)
            for image, into in zip(pixels, decoded, strict=True):
                into[:] = self._decoded(image)
            return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous().to(images).div_(255)

        return wash

    def _decoded(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (H, W, C) to the same."""
        file = io.BytesIO()
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.save(file, "JPEG", quality=self.quality, subsampling=self.subsampling)
        with Image.open(file) as decoded:
            return np.asarray(decoded).reshape(pixels.shape)
