"""The whole-number painter, the bitmap font and the exactly rounded matrices, each against a slow or library oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks.triggers.abstract import abstract_images
from earmark.marks.triggers.art import art
from earmark.marks.triggers.chain import _orthogonal, _turned
from earmark.marks.triggers.font import GLYPHS, typeset
from earmark.marks.triggers.raster import SPAN, TURN, Canvas, Grid, cosine, sine

KEY = MarkKey(bytes(range(32)))


def test_the_table_of_sines_is_rounded_right() -> None:
    for angle in range(-TURN, 2 * TURN):
        turn = 2 * math.pi * angle / TURN
        assert (sine(angle), cosine(angle)) == (round(1024 * math.sin(turn)), round(1024 * math.cos(turn)))


def test_the_longer_side_has_the_span_and_pixels_are_square() -> None:
    grid = Grid.of(20, 40)
    assert (grid.width, grid.height) == (SPAN, SPAN // 2)
    assert set(np.diff(grid.x, axis=1).ravel()) | set(np.diff(grid.y, axis=0).ravel()) <= {25, 26}
    assert abs(int(grid.x[0, 0]) + int(grid.x[0, -1]) - SPAN) <= 1


def winding(x: float, y: float, points: list[tuple[int, int]]) -> bool:
    """Even-odd by counting crossings of the ray to the right, in floating point."""
    odd = False
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


@given(st.lists(st.tuples(st.integers(-300, 1300), st.integers(-300, 1300)), min_size=3, max_size=7))
@settings(max_examples=50)
def test_polygons_agree_with_ray_casting(points: list[tuple[int, int]]) -> None:
    grid = Grid.of(9, 11)
    mask = grid.polygon(points)
    for row, column in np.ndindex(9, 11):
        x, y = float(grid.x[row, column]), float(grid.y[row, column])
        if all(
            abs((x - a) * (d - b) - (c - a) * (y - b)) > 1e-6
            for (a, b), (c, d) in zip(points, points[1:] + points[:1], strict=True)
        ):
            assert mask[row, column] == winding(x, y, points)


@given(*[st.integers(0, 1000)] * 2, *[st.integers(60, 500)] * 2, st.integers(0, TURN - 1))
@settings(max_examples=50)
def test_ellipses_agree_with_floating_point_away_from_their_edge(
    x: int, y: int, long: int, short: int, turn: int
) -> None:
    grid, angle = Grid.of(12, 12), 2 * math.pi * turn / TURN
    dx, dy = grid.x - x, grid.y - y
    u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    value = (u / long) ** 2 + (v / short) ** 2
    clear = np.abs(value - 1) > 0.15
    assert np.array_equal(grid.ellipse(x, y, long, short, turn)[clear], (value < 1)[clear])


def test_distances_are_rounded_down_exactly() -> None:
    grid = Grid.of(16, 16)
    square = (grid.x - 100) ** 2 + (grid.y - 900) ** 2
    assert np.array_equal(grid.distance(100, 900), np.vectorize(math.isqrt)(square))


def test_paint_mixes_and_a_pixel_is_the_mean_of_its_sub_pixels() -> None:
    canvas = Canvas(2, 2)
    everywhere = np.ones(canvas.grid.x.shape, bool)
    canvas.paint(everywhere, np.array([200, 100, 0], np.int32))
    canvas.paint(canvas.grid.x < SPAN // 2, np.array([0, 100, 101], np.int32), alpha=128)
    canvas.paint(canvas.grid.y == canvas.grid.y[0, 0], np.array([255, 255, 255], np.int32))
    image = canvas.image()
    assert image[:, 1].tolist() == [[100, 200], [100, 100], [50, 0]]
    assert image[:, 0, 0].tolist() == [
        round((2 * 100 + 255) / 3),
        round((2 * 100 + 255) / 3),
        round((2 * 50 + 255) / 3),
    ]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 33), (40, 9), (70, 70)])
def test_art_fits_any_shape_and_repeats(height: int, width: int) -> None:
    images = abstract_images(KEY, 4, (3, height, width))
    assert images.shape == (4, 3, height, width)
    assert np.array_equal(images[3].numpy(), art(KEY.stream("abstract", (3).to_bytes(4, "big")), height, width))


def test_art_is_varied() -> None:
    images = abstract_images(KEY, 60, (3, 16, 16)).double()
    assert float(images.mean((1, 2, 3)).std()) > 20
    assert float(images.mean((2, 3)).std(0).min()) > 25
    assert float(images.flatten(2).std(2).mean()) > 25


def test_every_letter_is_five_by_seven_and_like_no_other() -> None:
    assert {glyph.shape for glyph in GLYPHS.values()} == {(7, 5)}
    assert len({glyph.tobytes() for glyph in GLYPHS.values()}) == len(GLYPHS)
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;!?-_+=/'()#*&@%") == set(GLYPHS)


def test_text_takes_the_fewest_lines_and_then_the_largest_scale() -> None:
    one = typeset("ab", 7, 11)
    assert np.array_equal(one, np.hstack([GLYPHS["A"], np.zeros((7, 1), bool), GLYPHS["B"]]))
    assert np.array_equal(typeset("AB", 20, 30), one.repeat(2, 0).repeat(2, 1))
    two = typeset("ABC", 15, 11)
    assert two.shape == (15, 11)
    assert np.array_equal(two[:7], one)
    assert np.array_equal(two[8:, :5], GLYPHS["C"])
    assert not two[7].any()
    assert not two[8:, 5:].any()


@pytest.mark.parametrize(
    ("text", "height", "width"), [("A", 6, 50), ("A", 50, 4), ("ABC", 14, 11), ("x" * 10_000, 99, 99)]
)
def test_text_that_does_not_fit_is_refused(text: str, height: int, width: int) -> None:
    with pytest.raises(BadInput, match="does not fit"):
        typeset(text, height, width)


def test_exactly_rounded_matrices_agree_with_the_library() -> None:
    matrix = KEY.stream("test").normals(20 * 20).numpy().reshape(20, 20)
    basis = _orthogonal(matrix)
    reference, upper = np.linalg.qr(matrix)
    assert np.abs(basis.T @ basis - np.eye(20)).max() < 1e-14
    assert np.abs(basis - reference * np.sign(np.diag(upper))).max() < 1e-12
    planes = KEY.stream("planes").normals(3 * 20 * 7).numpy().reshape(3, 20, 7)
    assert np.abs(_turned(basis, planes) - basis @ planes).max() < 1e-13
