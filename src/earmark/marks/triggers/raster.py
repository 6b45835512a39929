"""Shapes on a grid in whole numbers only, so that every machine paints the same pixels.

Positions are in units of which the longer side of the image has `SPAN`; angles in sixty-fourths of a turn, by a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPAN", "TURN", "Canvas", "Colours", "Grid", "Mask", "Whole", "cosine", "sine"]

SPAN = 1024
TURN = 64
OPAQUE = 256
_SINE = (0, 100, 200, 297, 392, 483, 569, 650, 724, 792, 851, 903, 946, 980, 1004, 1019, 1024)  # 1024 sin(pi k / 32)

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
Colours = NDArray[np.int32]


def sine(angle: int) -> int:
    """round(1024 sin(2 pi angle / 64)).

    >>> sine(0), sine(16), sine(32), sine(48)
    (0, 1024, 0, -1024)
    """
    quarter, step = divmod(angle % TURN, 16)
    size = _SINE[step] if quarter % 2 == 0 else _SINE[16 - step]
    return size if quarter < 2 else -size


def cosine(angle: int) -> int:
    """round(1024 cos(2 pi angle / 64))."""
    return sine(angle + TURN // 4)


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """The centres of the sub-pixels of an image: x, y and the extent of the image, all in units of SPAN."""

    x: Whole
    y: Whole
    width: int
    height: int

    @classmethod
    def of(cls, height: int, width: int) -> Grid:
        longer = max(height, width)
        y, x = np.mgrid[0:height, 0:width].astype(np.int64)
        x, y = ((2 * axis + 1) * SPAN // (2 * longer) for axis in (x, y))
        return cls(x, y, SPAN * width // longer, SPAN * height // longer)

    def along(self, angle: int, x: int = 0, y: int = 0) -> Whole:
        """The distance from the point (x, y) in the direction of `angle`, rounded down."""
        return ((self.x - x) * cosine(angle) + (self.y - y) * sine(angle)) // 1024

    def polygon(self, points: Sequence[tuple[int, int]]) -> Mask:
        """Inside by the even-odd rule, so that lines which cross leave holes."""
        inside = np.zeros(self.x.shape, bool)
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            cross = (self.x - x1) * (y2 - y1) - (x2 - x1) * (self.y - y1)
            inside ^= ((y1 > self.y) != (y2 > self.y)) & ((cross < 0) == (y2 > y1))
        return inside

    def ellipse(self, x: int, y: int, long: int, short: int, angle: int) -> Mask:
        """Half axes `long` in the direction of `angle` and `short` across."""
        u, v = self.along(angle, x, y), self.along(angle + TURN // 4, x, y)
        inside: Mask = (u * short) ** 2 + (v * long) ** 2 <= (long * short) ** 2
        return inside

    def distance(self, x: int, y: int) -> Whole:
        """The distance from a point, rounded down: the square root of a whole number below 2^52 is exact in float64."""
        square = (self.x - x) ** 2 + (self.y - y) ** 2
        return np.floor(np.sqrt(square.astype(np.float64))).astype(np.int64)


@final
class Canvas:
    """A colour image under construction, with 3 x 3 sub-pixels a pixel (2 x 2 above 64 pixels a side)."""

    def __init__(self, height: int, width: int) -> None:
        self._fine = 3 if max(height, width) <= 64 else 2
        self.grid = Grid.of(height * self._fine, width * self._fine)
        self._pixels = np.zeros((*self.grid.x.shape, 3), np.int32)

    def paint(self, mask: Mask, colours: Colours, alpha: int = OPAQUE) -> None:
        """Lay colours, (3,) or one per sub-pixel, over what is there; alpha 0 is clear, 256 opaque."""
        here, new = self._pixels[mask], colours if colours.ndim == 1 else colours[mask]
        self._pixels[mask] = here + (new - here) * alpha // OPAQUE

    def image(self) -> NDArray[np.uint8]:
        """uint8 (3, H, W): the mean of each pixel's sub-pixels, rounded half up."""
        fine = self._fine
        height, width = (size // fine for size in self._pixels.shape[:2])
        sums = self._pixels.reshape(height, fine, width, fine, 3).sum((1, 3))
        means: NDArray[np.uint8] = ((sums + fine * fine // 2) // (fine * fine)).astype(np.uint8)
        return means.transpose(2, 0, 1)
