"""Fixed prototypes: the vertices of regular polytopes (Pernici et al. 2022; Hua & Teoh 2023, Section 4.1 and Figure 3).

Each function gives K unit vectors as rows (K, d), float64. A polytope that lives in fewer dimensions than d is put into
the first ones, the rest being zero, so that any penultimate feature that is large enough can use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from earmark.errors import BadInput, unknown_name

__all__ = ["POLYTOPES", "d_cube", "d_orthoplex", "d_simplex", "prototypes", "uniform_fan"]


def d_simplex(classes: int, features: int) -> Tensor:
    """The K vertices of the regular simplex in K - 1 dimensions: all inner products are -1 / (K - 1).

    Raises:
        BadInput: `features` is below K - 1.

    >>> bool(torch.allclose(d_simplex(3, 2) @ d_simplex(3, 2).T, torch.eye(3).double() * 1.5 - 0.5))
    True
    """
    _fits("d-simplex", classes, classes - 1, features)
    corner = (1 - math.sqrt(classes)) / (classes - 1)
    points = torch.cat(
        [torch.eye(classes - 1, dtype=torch.float64), torch.full((1, classes - 1), corner, dtype=torch.float64)]
    )
    points -= points.mean(dim=0)
    return _padded(points, features)


def d_cube(classes: int, features: int) -> Tensor:
    """K of the 2^D vertices (+-1, ..., +-1) / sqrt(D) of the cube in D = ceil(log2 K) dimensions, in binary order.

    Raises:
        BadInput: `features` is below D.
    """
    needed = max(1, math.ceil(math.log2(classes)))
    _fits("d-cube", classes, needed, features)
    bits = torch.arange(classes).unsqueeze(1) >> torch.arange(needed)
    return _padded((1 - 2 * (bits & 1)).double(), features)


def d_orthoplex(classes: int, features: int) -> Tensor:
    """K of the 2 D vertices +e_1, -e_1, +e_2, ... of the orthoplex in D = ceil(K / 2) dimensions.

    Raises:
        BadInput: `features` is below D.
    """
    needed = math.ceil(classes / 2)
    _fits("d-orthoplex", classes, needed, features)
    axes = torch.eye(needed, dtype=torch.float64)
    return _padded(torch.stack([axes, -axes], dim=1).reshape(2 * needed, needed)[:classes], features)


def uniform_fan(classes: int, features: int) -> Tensor:
    """K directions at equal angles 2 pi k / K in the plane (Figure 3 d).

    Raises:
        BadInput: `features` is below 2.
    """
    _fits("fan", classes, 2, features)
    angles = 2 * math.pi * torch.arange(classes, dtype=torch.float64) / classes
    return _padded(torch.stack([angles.cos(), angles.sin()], dim=1), features)


POLYTOPES: Mapping[str, Callable[[int, int], Tensor]] = {
    "simplex": d_simplex,
    "cube": d_cube,
    "orthoplex": d_orthoplex,
    "fan": uniform_fan,
}


def prototypes(shape: str, classes: int, features: int) -> Tensor:
    """The prototypes (K, d) of the polytope called `shape`: simplex, cube, orthoplex or fan."""
    if shape not in POLYTOPES:
        raise unknown_name("polytope", shape, POLYTOPES)
    return POLYTOPES[shape](classes, features)


def _fits(name: str, classes: int, needed: int, features: int) -> None:
    if features < needed:
        raise BadInput(
            f"the {name} for {classes} classes needs a penultimate feature of at least {needed} numbers, this one has "
            f"{features}; choose another polytope or a wider penultimate layer"
        )


def _padded(points: Tensor, features: int) -> Tensor:
    unit = points / points.norm(dim=1, keepdim=True)
    return torch.nn.functional.pad(unit, (0, features - unit.shape[1]))
