"""Small changes of where things are: a mirror image, a small turn, a cut that is stretched again.

Lukas et al. 2022 flip images; turns and cuts are what a trigger that is learnt by heart, place by place, may not stand.
Pixels between others are weighted means of the four around them, and beyond the border the edge goes on. Each image is
moved by elementwise operations, so that it comes out the same to the last bit in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from earmark.attacks.evasion.chance import chances, new_key
from earmark.attacks.evasion.washer import Wash, Washer
from earmark.core import Data
from earmark.errors import number

__all__ = ["Crop", "Flip", "Rotate", "sampled"]


@final
@dataclass(frozen=True)
class Flip(Washer):
    """Every image becomes its mirror image, left to right. Where left and right mean something, that costs accuracy."""

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        return lambda images: images.flip(3)


@final
@dataclass(frozen=True)
class Rotate(Washer):
    """Each image is turned about its middle by an angle of its own, uniform from -degrees to degrees.

    The angle is a function of the image's pixels and of the generator's state when the washing is made (`chances`).
    Degrees 0 leave every image as it is.

    Raises:
        BadInput: `degrees` outside 0 to 180.
    """

    degrees: float = 10.0

    def __post_init__(self) -> None:
        number("degrees", self.degrees, 0, 180)

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        key = new_key(rng)

        def wash(images: Tensor) -> Tensor:
            angles = (2 * _uniform(images, key, 1)[:, 0] - 1).mul(self.degrees).deg2rad().view(-1, 1, 1)
            rows, columns = _grid(images)
            middle_row, middle_column = (images.shape[2] - 1) / 2, (images.shape[3] - 1) / 2
            down, right = rows - middle_row, columns - middle_column
            cosine, sine = angles.cos(), angles.sin()
            return sampled(
                images, down * cosine - right * sine + middle_row, down * sine + right * cosine + middle_column
            )

        return wash


@final
@dataclass(frozen=True)
class Crop(Washer):
    """Each image is cut to a window of its own, which is stretched to the image's size.

    Height and width of the window are 1 - share of the image's, and its place is uniform among those inside, a function
    of the image's pixels and of the generator's state when the washing is made (`chances`). Share 0 leaves every image
    as it is.

    Raises:
        BadInput: a share outside 0 to 0.9.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        number("share", self.share, 0, 0.9)

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        key = new_key(rng)

        def wash(images: Tensor) -> Tensor:
            drawn = _uniform(images, key, 2)
            rows, columns = (
                (grid + 0.5) * (1 - self.share) - 0.5 + self.share * size * drawn[:, axis].view(-1, 1, 1)
                for axis, (grid, size) in enumerate(zip(_grid(images), images.shape[2:], strict=True))
            )
            return sampled(images, rows, columns)

        return wash


def sampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images[n, :, rows[n, i, j], columns[n, i, j]], bilinear between pixels, the edge beyond the border.

    Args:
        images: (N, C, H, W).
        rows: where each pixel of the result comes from, float64 (N, H, W) or what expands to it, in pixels.
        columns: likewise.

    >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> sampled(image, torch.full((1, 2, 2), 0.5), torch.tensor([[[0.0, 0.5], [1.0, 9.0]]])).tolist()
    [[[[1.0, 1.5], [2.0, 2.0]]]]
    """
    n, channels, height, width = images.shape
    rows, columns = (
        where.clamp(0, size - 1).expand(n, height, width) for where, size in ((rows, height), (columns, width))
    )
    top, left = rows.floor().long(), columns.floor().long()
    down, right = ((rows - top).to(images).unsqueeze(1), (columns - left).to(images).unsqueeze(1))
    flat = images.detach().reshape(n, channels, height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row.clamp(max=height - 1) * width + column.clamp(max=width - 1)).reshape(n, 1, height * width)
        return flat.gather(2, index.expand(n, channels, -1)).view(n, channels, height, width)

    above = at(top, left) * (1 - right) + at(top, left + 1) * right
    below = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return above * (1 - down) + below * down


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """The row and the column of every pixel, float64 (1, H, W)."""
    rows, columns = (torch.arange(size, dtype=torch.float64, device=images.device) for size in images.shape[2:])
    down, right = torch.meshgrid(rows, columns, indexing="ij")
    return down.unsqueeze(0), right.unsqueeze(0)


def _uniform(images: Tensor, key: bytes, count: int) -> Tensor:
    """`count` numbers from 0 to 1 for each image, float64 (N, count)."""
    drawn = torch.empty(len(images), count, dtype=torch.float64)
    for row, generator in zip(drawn, chances(images, key), strict=True):
        row.uniform_(generator=generator)
    return drawn.to(images.device)
