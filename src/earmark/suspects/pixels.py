"""From a trigger's pixels to what a model or a service takes: sizes, layouts, ranges, PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.errors import BadInput, unknown_name

__all__ = ["LAYOUTS", "Intake", "as_pixels", "png"]

LAYOUTS: Final = ("nchw", "nhwc")
LARGEST: Final = 8192


def as_pixels(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) from images in [0, 1]: exact for whatever was a PNG.

    Raises:
        BadInput: another shape or type, or values outside [0, 1].
    """
    if images.ndim != 4 or not images.is_floating_point() or images.shape[1] not in (1, 3):
        raise BadInput(
            f"expected float images (N, 1 or 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}; add the "
            "batch dimension, and divide pixels by 255"
        )
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        raise BadInput("expected images in [0, 1], got values outside; divide pixels by 255")
    return images.detach().cpu().mul(255).round().to(torch.uint8)


def png(pixels: Tensor) -> bytes:
    """One image, uint8 (C, H, W), as a PNG file that holds pixels and nothing else."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(out, "PNG")
    return out.getvalue()


@final
@dataclass(frozen=True)
class Intake:
    """How a model that takes arrays wants its images.

    Attributes:
        channels: 1 or 3; grey images are repeated for 3. None takes them as they are.
        size: (H, W) that images are brought to, bilinear with antialiasing; None takes them as they are.
        layout: `nchw` or `nhwc`.
        dtype: the type of the array's numbers.
        top: the value of white, 1 or 255.
        mean, std: per channel, in [0, 1], taken off and divided by before `top` is multiplied in.
    """

    channels: int | None = None
    size: tuple[int, int] | None = None
    layout: str = "nchw"
    dtype: str = "float32"
    top: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        shape: Sequence[int | None],
        dtype: str,
        *,
        layout: str | None = None,
        top: float | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> Intake:
        """What an input of this shape takes, batch first, None or a number below 1 for a free dimension.

        Raises:
            BadInput: no four dimensions, channels that are neither 1 nor 3, a layout that the shape leaves open.
        """
        dims = [None if dim is None or dim < 1 else dim for dim in shape]
        if len(dims) != 4:
            raise BadInput(f"its input has the shape {list(shape)}, expected four dimensions: batch, channels and size")
        if layout is not None and layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        places = {"nchw": dims[1], "nhwc": dims[3]}
        fits = [name for name, dim in places.items() if dim in (1, 3)] or [
            n for n, dim in places.items() if dim is None
        ]
        if layout is None and set(map(places.get, fits)) <= {1, 3} and len(fits) == 2:
            raise BadInput(f"its input {list(shape)} may be nchw or nhwc; say which with layout=")
        layout = layout or next(iter(fits), "nchw")
        channels, *size = [dims[1], *dims[2:]] if layout == "nchw" else [dims[3], *dims[1:3]]
        if channels not in (None, 1, 3):
            raise BadInput(f"its input {list(shape)} has {channels} channels, expected 1 or 3; say layout= if it has")
        height, width = size
        if (height is None) != (width is None) or max(height or 1, width or 1) > LARGEST:
            raise BadInput(f"its input {list(shape)} has a size that no image can be brought to")
        known = None if height is None or width is None else (height, width)
        white = top if top is not None else 255.0 if dtype == "uint8" else 1.0
        return cls(channels, known, layout, dtype, white, tuple(mean), tuple(std))

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, 1, 3) or any(not s > 0 for s in self.std):
            raise BadInput(
                f"expected mean and std of 1 or 3 numbers each, std above 0, got {self.mean} and {self.std}; give both"
            )

    def __call__(self, pixels: Tensor) -> NDArray[Any]:
        """uint8 pixels (N, C, H, W) as the model takes them.

        Raises:
            BadInput: colour images for a model that takes grey ones.
        """
        images = pixels.float().div_(255)
        if self.channels == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self.channels not in (None, images.shape[1]):
            raise BadInput(f"the suspect takes grey images and the mark's have {images.shape[1]} channels")
        if self.size is not None and self.size != tuple(images.shape[2:]):
            images = torch.nn.functional.interpolate(images, self.size, mode="bilinear", antialias=True).clamp_(0, 1)
        if self.mean:
            images = (images - _across(self.mean)) / _across(self.std)
        images = images * self.top
        if self.dtype == "uint8":
            images = images.round().clamp_(0, 255)
        array = images.numpy() if self.layout == "nchw" else images.permute(0, 2, 3, 1).numpy()
        return np.ascontiguousarray(array, dtype=self.dtype)

    @property
    def facts(self) -> dict[str, Any]:
        """What is done to images, as far as it is anything."""
        said: dict[str, Any] = {"layout": self.layout, "dtype": self.dtype}
        if self.size is not None:
            said["size"] = list(self.size)
        if self.mean:
            said |= {"mean": list(self.mean), "std": list(self.std)}
        return said


def _across(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
