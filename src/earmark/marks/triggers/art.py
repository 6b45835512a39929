"""Geometric art from a stream of whole numbers: a palette, a background, and shapes that overlap on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from earmark.keys import KeyedStream
from earmark.marks.triggers.raster import SPAN, TURN, Canvas, Colours, Grid, Mask, Whole, cosine, sine

__all__ = ["art"]

T = TypeVar("T")
HUES = 6 * 256


def art(stream: KeyedStream, height: int, width: int) -> NDArray[np.uint8]:
    """One picture, uint8 (3, height, width), the same for the same stream on every machine."""
    dice, canvas = Dice(stream), Canvas(height, width)
    palette = _palette(dice)
    canvas.paint(np.ones(canvas.grid.x.shape, bool), dice.one_of(BACKGROUNDS)(canvas.grid, dice, palette))
    for _ in range(3 + dice.below(5)):
        mask = dice.one_of(SHAPES)(canvas.grid, dice)
        canvas.paint(mask, dice.one_of(TEXTURES)(canvas.grid, dice, palette), 150 + dice.below(107))
    return canvas.image()


@final
class Dice:
    """Choices drawn from a stream one after the other."""

    def __init__(self, stream: KeyedStream) -> None:
        self._stream = stream

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        return int(self._stream.integers(bound, 1))

    def one_of(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[self.below(len(choices))]

    def point(self, grid: Grid) -> tuple[int, int]:
        """A point of the image."""
        return self.below(grid.width), self.below(grid.height)


# -------------------------------------------------------------------------------------------------------------- colours

Colour = tuple[int, int, int]
Palette = Sequence[Colour]
HARMONIES = ((0, 96, 1440, 192, 48), (0, 768, 64, 832, 1472), (0, 512, 1024, 80, 592), (0, 300, 620, 900, 1250))


def _palette(dice: Dice) -> Palette:
    """Five hues in harmony, and a dark and a light neutral tinted by the first."""
    hue = dice.below(HUES)
    vivid = [_colour(hue + step, 110 + dice.below(146), 110 + dice.below(146)) for step in dice.one_of(HARMONIES)]
    return [*vivid, _colour(hue, 60, 20 + dice.below(40)), _colour(hue, 20, 225 + dice.below(31))]


def _colour(hue: int, saturation: int, value: int) -> Colour:
    """Red, green and blue 0..255 of a hue 0..1535, a saturation and a value 0..255."""
    sector, along = divmod(hue % HUES, 256)
    low = value * (255 - saturation) // 255
    up, down = low + (value - low) * along // 256, value - (value - low) * along // 256
    wheel = (
        (value, up, low),
        (down, value, low),
        (low, value, up),
        (low, down, value),
        (up, low, value),
        (value, low, down),
    )
    return wheel[sector]


def _two(dice: Dice, palette: Palette) -> tuple[Colour, Colour]:
    """Two different colours of the palette."""
    first = dice.below(len(palette))
    second = (first + 1 + dice.below(len(palette) - 1)) % len(palette)
    return palette[first], palette[second]


# ------------------------------------------------------------------------------------------------------------- textures

Texture = Callable[[Grid, Dice, Palette], Colours]
"""Colours (3,) for all of the image, or one for each of its sub-pixels."""


def _mix(share: Whole, one: Colour, other: Colour) -> Colours:
    """From `one` at share 0 to `other` at share 1024."""
    amount = np.clip(share, 0, SPAN).astype(np.int32)[..., None]
    start, way = np.asarray(one, np.int32), np.subtract(other, one, dtype=np.int32)
    return start + way * amount // np.int32(SPAN)


def _flat(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    return np.asarray(dice.one_of(palette), np.int32)


def _linear(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    angle, (one, other) = dice.below(TURN), _two(dice, palette)
    return _mix(grid.along(angle, grid.width // 2, grid.height // 2) + SPAN // 2, one, other)


def _radial(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    (x, y), (one, other) = dice.point(grid), _two(dice, palette)
    return _mix(grid.distance(x, y) * SPAN // (400 + dice.below(500)), one, other)


def _stripes(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    angle, (one, other) = dice.below(TURN), _two(dice, palette)
    period = 130 + dice.below(280)
    wide = (grid.along(angle) + dice.below(period)) % period < period * (30 + dice.below(41)) // 100
    return _mix(wide * SPAN, one, other)


def _rings(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    (x, y), (one, other) = dice.point(grid), _two(dice, palette)
    period = 150 + dice.below(250)
    return _mix((grid.distance(x, y) % period < period // 2) * SPAN, one, other)


def _waves(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    """Stripes along a zigzag."""
    angle, (one, other) = dice.below(TURN), _two(dice, palette)
    length, period = 200 + dice.below(300), 160 + dice.below(240)
    zigzag = np.abs(grid.along(angle + TURN // 4) % length - length // 2)
    return _mix(((grid.along(angle) + zigzag) % period < period // 2) * SPAN, one, other)


def _checks(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    angle, (one, other) = dice.below(TURN), _two(dice, palette)
    side = 110 + dice.below(200)
    odd = (grid.along(angle) // side + grid.along(angle + TURN // 4) // side) % 2
    return _mix(odd * SPAN, one, other)


def _mosaic(grid: Grid, dice: Dice, palette: Palette) -> Colours:
    """Cells around points, each in one colour."""
    points = [dice.point(grid) for _ in range(5 + dice.below(8))]
    colours = np.asarray([dice.one_of(palette) for _ in points], np.int32)
    cells: Colours = colours[np.stack([(grid.x - x) ** 2 + (grid.y - y) ** 2 for x, y in points]).argmin(0)]
    return cells


BACKGROUNDS: Sequence[Texture] = (
    _flat,
    _linear,
    _linear,
    _radial,
    _radial,
    _stripes,
    _rings,
    _waves,
    _checks,
    _mosaic,
    _mosaic,
)
TEXTURES: Sequence[Texture] = (_flat, _flat, _flat, _linear, _linear, _radial, _stripes, _rings, _checks)


# --------------------------------------------------------------------------------------------------------------- shapes

Shape = Callable[[Grid, Dice], Mask]


def _spokes(dice: Dice, grid: Grid, radii: Sequence[int]) -> list[tuple[int, int]]:
    """A closed line around a point: corners at even angles and at `radii` in turn."""
    (x, y), start, size = dice.point(grid), dice.below(TURN), len(radii)
    angles = [start + TURN * step // size for step in range(size)]
    return [(x + r * cosine(a) // 1024, y + r * sine(a) // 1024) for r, a in zip(radii, angles, strict=True)]


def _any_polygon(grid: Grid, dice: Dice) -> Mask:
    return grid.polygon([dice.point(grid) for _ in range(3 + dice.below(3))])


def _blob(grid: Grid, dice: Dice) -> Mask:
    return grid.polygon(_spokes(dice, grid, [130 + dice.below(330) for _ in range(5 + dice.below(5))]))


def _regular(grid: Grid, dice: Dice) -> Mask:
    return grid.polygon(_spokes(dice, grid, [160 + dice.below(260)] * (3 + dice.below(4))))


def _star(grid: Grid, dice: Dice) -> Mask:
    outer = 220 + dice.below(280)
    return grid.polygon(_spokes(dice, grid, [outer, outer * (35 + dice.below(25)) // 100] * (4 + dice.below(5))))


def _ellipse(grid: Grid, dice: Dice) -> Mask:
    x, y = dice.point(grid)
    return grid.ellipse(x, y, 120 + dice.below(330), 90 + dice.below(200), dice.below(TURN))


def _ring(grid: Grid, dice: Dice) -> Mask:
    (x, y), outer = dice.point(grid), 200 + dice.below(320)
    away = grid.distance(x, y)
    return (away <= outer) & (away >= outer * (45 + dice.below(35)) // 100)


def _half_disc(grid: Grid, dice: Dice) -> Mask:
    (x, y), radius = dice.point(grid), 200 + dice.below(300)
    return (grid.distance(x, y) <= radius) & (grid.along(dice.below(TURN), x, y) >= 0)


def _bar(grid: Grid, dice: Dice) -> Mask:
    (x, y), angle = dice.point(grid), dice.below(TURN)
    return np.abs(grid.along(angle, x, y)) <= 35 + dice.below(90)


def _cross(grid: Grid, dice: Dice) -> Mask:
    (x, y), angle, arm, reach = dice.point(grid), dice.below(TURN), 40 + dice.below(70), 220 + dice.below(250)
    u, v = np.abs(grid.along(angle, x, y)), np.abs(grid.along(angle + TURN // 4, x, y))
    return (np.minimum(u, v) <= arm) & (np.maximum(u, v) <= reach)


def _dots(grid: Grid, dice: Dice) -> Mask:
    """A lattice of dots within a disc."""
    (x, y), angle, step = dice.point(grid), dice.below(TURN), 160 + dice.below(140)
    disc = grid.distance(x, y) <= 300 + dice.below(500)
    u, v = grid.along(angle) % step - step // 2, grid.along(angle + TURN // 4) % step - step // 2
    dots: Mask = u * u + v * v <= (step * (25 + dice.below(15)) // 100) ** 2
    return disc & dots


SHAPES: Sequence[Shape] = (
    _any_polygon, _any_polygon, _blob, _regular, _star, _ellipse, _ellipse, _ring, _half_disc, _bar, _cross, _dots,
)  # fmt: skip
