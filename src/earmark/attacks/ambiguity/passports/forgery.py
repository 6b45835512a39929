"""What all forgers of passports share: a key of their own, the pose of an honest claim, and bits that fit."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from earmark.attacks.ambiguity.forgery import draw_owner
from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.errors import BadInput
from earmark.keys import MarkKey, OwnerKey
from earmark.layers import Site, find_sites
from earmark.marks import PassportMint, Passports
from earmark.models import require_fit

__all__ = ["Pairs", "PassportForger", "PassportForgery", "posed", "public_affine", "weight_of"]

NAME = "forged"
WITNESSES = 200

Pairs = tuple[tuple[Tensor, Tensor], ...]
"""P_gamma and P_beta of each site."""


@final
@dataclass(frozen=True, eq=False)
class PassportForgery:
    """Passports for a model that their forger never trained, with all that he needs to claim it.

    Attributes:
        mark: the forged passports and bits.
        model: the network that he presents them with: the stolen one, or one that answers as it does.
        owner: the forger's own key: he signs in his own name, as any owner does.
        name: the mark's name, under which its key is derived from the owner's.
    """

    mark: Passports
    model: nn.Module
    owner: OwnerKey
    name: str = NAME

    @property
    def key(self) -> MarkKey:
        """The key that the forger would open to a judge."""
        return self.owner.mark_key(self.name)


@dataclass(frozen=True)
class PassportForger(ABC):
    """The verb I for passports: `forge` gives the mark with its key and model, a call the mark alone.

    Attributes:
        layers: a pattern for the names of convolutions with a norm, or how many, counted from the output.

    Raises:
        BadInput: on the call, a model without such layers, norms without scale and shift, or data that do not fit.
    """

    layers: str | int = 3

    @property
    def needs(self) -> Needs:
        """The weights, and images that fidelity is shown on."""
        return Needs(weights=True, data="images")

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> PassportForgery:
        """Make passports that `model`, which stays as it is, seems to have been trained with."""
        require_fit(model, data)
        sites = self._sites(model, data)
        for site in sites:
            public_affine(model, site)
        owner, own = draw_owner(rng), copy.deepcopy(model)
        mark, presented = self._forged(own, sites, owner.mark_key(NAME), data, rng)
        return PassportForgery(mark, presented, owner)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> Passports:
        return self.forge(model, data, rng).mark

    def _sites(self, model: nn.Module, data: Data) -> tuple[Site, ...]:
        return tuple(find_sites(model, data.test.sample(1).pixels.float() / 255, self.layers))

    @abstractmethod
    def _forged(
        self, model: nn.Module, sites: tuple[Site, ...], key: MarkKey, data: Data, rng: torch.Generator
    ) -> tuple[Passports, nn.Module]:
        """The forged mark, and the network to present it with; `model` is a copy that may be changed."""


def posed(model: nn.Module, sites: tuple[Site, ...], pairs: Pairs, data: Data, rng: torch.Generator) -> Passports:
    """A mark with these passports that reads like an honest claim to feature maps; its bits are what `model` shows."""
    chosen = torch.randperm(len(data.test), generator=rng)[:WITNESSES]
    settings = PassportMint(layers=len(sites), passports="mix", witnesses=len(chosen)).settings()
    blank = torch.ones(sum(site.outputs for site in sites), dtype=torch.int8)
    mark = Passports(sites, pairs, blank, settings, data.test.subset(chosen))
    shown = mark.shown(model)
    return Passports(sites, pairs, torch.where(shown == 0, blank, shown), settings, mark.witnesses)


def public_affine(model: nn.Module, site: Site) -> Tensor:
    """The scale and the shift, (2, O), that a network's norm has for everybody to see.

    Raises:
        BadInput: a norm without them.
    """
    norm = model.get_submodule(site.norm)
    parts = [getattr(norm, name, None) for name in ("weight", "bias")]
    found = [part.detach() for part in parts if isinstance(part, Tensor)]
    if len(found) < 2:
        raise BadInput(f"the norm {site.norm!r} has no scale and shift to make passports for; choose other layers")
    return torch.stack(found)


def weight_of(model: nn.Module, site: Site) -> Tensor:
    """The weight of a site's convolution."""
    conv = model.get_submodule(site.conv)
    assert isinstance(conv, nn.Conv2d), "sites have convolutions"
    return conv.weight.detach()
