"""Signs of a network's scales negated, without any repair: how much accuracy hangs on them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.prune import share_of
from earmark.core import Data
from earmark.errors import BadInput, number
from earmark.layers import find_sites

__all__ = ["FlipScales"]


@final
@dataclass(frozen=True)
class FlipScales:
    """Negate floor(share * n) of the n scales behind the protected convolutions, drawn over all layers jointly.

    Fan et al. 2021, Figures 14 and 15: nothing is trained, and the accuracy falls. The passports are left as they are:
    what weights show does not change.

    Attributes:
        share: the share of scales that are negated.
        layers: a pattern for the names of convolutions, or how many, counted from the output.

    Raises:
        BadInput: a share outside 0 to 1; on the call, layers that are not there, or norms without scales.
    """

    share: float = 0.5
    layers: str | int = 3
    needs: ClassVar[Needs] = Needs(weights=True)

    def __post_init__(self) -> None:
        number("share", self.share, 0, 1)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        flipped = copy.deepcopy(model)
        sites = find_sites(flipped, data.test.sample(1).pixels.float() / 255, self.layers)
        scales = [getattr(flipped.get_submodule(site.norm), "weight", None) for site in sites]
        found = [scale for scale in scales if isinstance(scale, Tensor)]
        if len(found) < len(scales):
            raise BadInput("a norm behind the chosen layers has no scale to negate; choose layers whose norms have one")
        n = sum(map(len, found))
        signs = torch.ones(n)
        signs[torch.randperm(n, generator=rng)[: share_of(self.share, n)]] = -1
        with torch.no_grad():
            for scale, part in zip(found, torch.split(signs, [len(scale) for scale in found]), strict=True):
                scale.mul_(part.to(scale))
        return flipped
