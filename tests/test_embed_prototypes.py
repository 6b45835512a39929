"""Regular polytopes: the inner products that define them."""

from __future__ import annotations

import math

import pytest
import torch

from earmark.embed import POLYTOPES, d_cube, d_orthoplex, d_simplex, prototypes, uniform_fan
from earmark.errors import BadInput


@pytest.mark.parametrize("shape", POLYTOPES)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_prototypes_are_distinct_unit_vectors(shape: str, classes: int) -> None:
    points = prototypes(shape, classes, 16)
    assert points.shape == (classes, 16)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(classes, dtype=torch.float64))
    assert float((points @ points.T - 2 * torch.eye(classes)).max()) < 1 - 1e-9


@pytest.mark.parametrize("classes", [2, 3, 7, 100])
def test_simplex_vertices_are_equally_far_apart(classes: int) -> None:
    gram = d_simplex(classes, classes - 1) @ d_simplex(classes, classes - 1).T
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(gram, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("classes", [2, 5, 8, 1000])
def test_cube_vertices_are_sign_vectors(classes: int) -> None:
    size = math.ceil(math.log2(classes)) or 1
    points = d_cube(classes, size) * math.sqrt(size)
    torch.testing.assert_close(points.abs(), torch.ones(classes, size, dtype=torch.float64))
    assert len(torch.unique(points.round(), dim=0)) == classes


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_orthoplex_vertices_are_orthogonal_or_opposite(classes: int) -> None:
    points = d_orthoplex(classes, math.ceil(classes / 2))
    products = (points @ points.T)[~torch.eye(classes, dtype=torch.bool)]
    assert set(products.round().tolist()) <= {0.0, -1.0}
    assert torch.equal(points[1], -points[0])


def test_the_fan_splits_the_plane_evenly() -> None:
    points = uniform_fan(10, 2)
    neighbours = (points * points.roll(1, dims=0)).sum(dim=1)
    torch.testing.assert_close(neighbours, torch.full((10,), math.cos(2 * math.pi / 10), dtype=torch.float64))


def test_figure_3_in_two_dimensions() -> None:
    """K = 3, 4, 4 and 10 in the plane: simplex, cube, orthoplex, fan, all maximally spread."""
    for shape, classes in (("simplex", 3), ("cube", 4), ("orthoplex", 4), ("fan", 10)):
        points = prototypes(shape, classes, 2)
        angles = torch.sort(torch.atan2(points[:, 1], points[:, 0])).values
        torch.testing.assert_close(
            angles.diff(), torch.full((classes - 1,), 2 * math.pi / classes, dtype=torch.float64)
        )


def test_a_feature_that_is_too_small_is_an_error() -> None:
    for shape, needed in (("simplex", 9), ("cube", 4), ("orthoplex", 5), ("fan", 2)):
        with pytest.raises(BadInput, match=f"at least {needed}"):
            prototypes(shape, 10, needed - 1)
    with pytest.raises(BadInput, match="'cube'"):
        prototypes("cubes", 10, 4)
