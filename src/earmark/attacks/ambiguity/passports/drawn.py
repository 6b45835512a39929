"""Passports that fit nothing (fake1 of the paper): drawn, or feature maps of the stolen network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from earmark.attacks.ambiguity.passports.forgery import Pairs, PassportForger, posed
from earmark.core import Data
from earmark.errors import unknown_name, whole
from earmark.keys import MarkKey
from earmark.layers import Site
from earmark.marks import Passports
from earmark.marks.features import PASSPORTS, passports_of_images

__all__ = ["RandomPassports", "uniform"]


@final
@dataclass(frozen=True)
class RandomPassports(PassportForger):
    """Passports at random, with the bits that the network happens to show under them: all right, and without fidelity.

    Fan et al. 2021, Section 5.2.1, assigns uniform ones; the released code takes feature maps of test images, which
    look genuine. Either way the network with them answers by chance, so that fidelity gives the forger away.

    Attributes:
        passports: "random", uniform on [-1, 1]; or "image", "shuffle" and "mix" as in `marks.PassportMint`.
        images: how many images feature maps are chosen from.

    Raises:
        BadInput: another kind of passports, or fewer images than asked for.
    """

    passports: Literal["random", "image", "shuffle", "mix"] = "random"
    images: int = 20

    def __post_init__(self) -> None:
        if self.passports not in PASSPORTS:
            raise unknown_name("kind of passports", str(self.passports), PASSPORTS)
        whole("images", self.images, 1, 10_000)

    def _forged(
        self, model: nn.Module, sites: tuple[Site, ...], key: MarkKey, data: Data, rng: torch.Generator
    ) -> tuple[Passports, nn.Module]:
        how = self.passports
        maps = None if how == "random" else passports_of_images(how, self.images, key, model, data, sites)
        pairs = uniform(sites, rng) if maps is None else maps
        return posed(model, sites, pairs, data, rng), model


def uniform(sites: tuple[Site, ...], rng: torch.Generator) -> Pairs:
    """Two passports for each site, uniform on [-1, 1]."""

    def draw(site: Site) -> Tensor:
        return 2 * torch.rand(1, *site.inputs, generator=rng) - 1

    return tuple((draw(site), draw(site)) for site in sites)
