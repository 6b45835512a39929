"""Passports solved for: attacker's bits on the stolen weights, with exact fidelity, in a second and without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from earmark.attacks.ambiguity.passports.drawn import uniform
from earmark.attacks.ambiguity.passports.forgery import Pairs, PassportForger, posed, public_affine, weight_of
from earmark.attacks.ambiguity.passports.linear import solved
from earmark.attacks.removal.channels import block_signs, negated
from earmark.core import Data
from earmark.keys import MarkKey
from earmark.layers import Site
from earmark.marks import Passports

__all__ = ["SolvedPassports", "solved_pairs"]


@final
@dataclass(frozen=True)
class SolvedPassports(PassportForger):
    """The passports nearest to random ones with which gamma' and beta' are the network's public scale and shift.

    The network with them is the public network, so that fidelity is exact. Its bits are the signs of the public scales,
    nearly all positive. With `flips`, filters are negated together with scales first (`FlipSigns`), which changes no
    answer: behind batch norm every bit is then the forger's choice, behind group norm one bit of each group.

    Neither the paper's argument that forged passports cost fidelity (Proposition 2) nor data, training or an owner's
    passport stands in the way: gamma is linear in the passport. A layer of 1 x 1 kernels that widens has more equations
    than unknowns, and there the passports come as near as they can.

    Attributes:
        flips: whether bits are chosen, uniformly at random, by flipping signs.
    """

    flips: bool = True

    def _forged(
        self, model: nn.Module, sites: tuple[Site, ...], key: MarkKey, data: Data, rng: torch.Generator
    ) -> tuple[Passports, nn.Module]:
        if self.flips:
            for site in sites:
                wanted = 2.0 * torch.randint(2, (site.outputs,), generator=rng) - 1
                _choose(model, site, wanted)
        targets = [public_affine(model, site) for site in sites]
        return posed(model, sites, solved_pairs(model, sites, targets, rng), data, rng), model


def solved_pairs(model: nn.Module, sites: tuple[Site, ...], targets: list[Tensor], rng: torch.Generator) -> Pairs:
    """Passports near random ones with which a network's sites have these scales and shifts, (2, O) each."""
    found = []
    for site, start, target in zip(sites, uniform(sites, rng), targets, strict=True):
        scale, shift = solved(weight_of(model, site), site, torch.cat(start), target).float().unsqueeze(1)
        found.append((scale, shift))
    return tuple(found)


def _choose(model: nn.Module, site: Site, wanted: Tensor) -> None:
    """Flip a site's channels so that the signs of its public scales are the wanted ones, as far as its norm allows."""
    conv, norm = model.get_submodule(site.conv), model.get_submodule(site.norm)
    assert isinstance(conv, nn.Conv2d), "sites have convolutions"
    have = public_affine(model, site)[0].sign()
    negated(conv, norm, block_signs(norm, wanted.to(have) * have))
