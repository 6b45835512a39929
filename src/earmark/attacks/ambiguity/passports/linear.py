"""Passports for given scales: Avg(W * P) is linear in P, so they are the solution of linear equations.

With S_i = A P_i for each input channel i (A holds the convolution's padding, stride and dilation), gamma_o is
sum_i <W_oi, A P_i>: O equations in I times rank(A) unknowns, which are more wherever a kernel is larger than 1 x 1 or
the layer does not widen.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from earmark.layers import Site, windows

__all__ = ["solved", "spread"]

CHUNK = 256


def spread(site: Site) -> Tensor:
    """A with S_i = A P_i: float64 (kernel height * width, H * W), the same for every input channel.

    >>> spread(Site("conv", "norm", inputs=(3, 2, 2), outputs=1, kernel=(1, 1)))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    """
    _, height, width = site.inputs
    area, columns = height * width, []
    for at in range(0, area, CHUNK):
        some = min(CHUNK, area - at)
        maps = torch.zeros(some, area, dtype=torch.float64)
        maps[torch.arange(some), torch.arange(at, at + some)] = 1
        each = replace(site, inputs=(some, height, width), outputs=some, groups=some)
        columns.append(windows(maps.view(1, some, height, width), each).flatten(1))
    return torch.cat(columns).t()


def solved(weight: Tensor, site: Site, start: Tensor, target: Tensor) -> Tensor:
    """The passports nearest to `start` (in squares) whose scales are `target`, or come nearest to it.

    Args:
        weight: W, (O, I / groups, height, width).
        site: the convolution.
        start: p passports (p, I, H, W).
        target: what they are to give, (p, O).

    Returns:
        float64 (p, I, H, W).
    """
    left, sizes, right = torch.linalg.svd(spread(site), full_matrices=False)
    live = sizes > sizes[0] * 1e-10
    basis, forward = right[live], left[:, live] * sizes[live]
    filters = weight.detach().to("cpu", torch.float64).flatten(2) @ forward
    passports = start.to("cpu", torch.float64).flatten(2)
    values = (passports @ basis.t()).view(len(start), site.groups, -1)
    wanted = target.detach().to("cpu", torch.float64).view(len(start), site.groups, -1)
    moves = []
    for group, rows in enumerate(filters.view(site.groups, -1, *filters.shape[1:])):
        system = rows.flatten(1)
        gap = wanted[:, group] - values[:, group].flatten(1) @ system.t()
        moves.append(torch.linalg.lstsq(system, gap.t(), driver="gelsd").solution.t())
    move = torch.stack(moves, 1).view(len(passports), site.inputs[0], -1)
    found: Tensor = passports + move @ basis
    return found.view(len(start), *site.inputs)
