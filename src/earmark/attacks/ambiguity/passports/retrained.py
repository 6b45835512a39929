"""An insider's forgery (fake3 of the paper): the owner's own passports, trained away from themselves to other bits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from earmark.attacks.ambiguity.passports.forgery import PassportForger, posed, weight_of
from earmark.attacks.ambiguity.passports.learnt import FORGING, LearntAffine, learnt
from earmark.attacks.ambiguity.passports.linear import spread
from earmark.attacks.needs import Needs
from earmark.attacks.removal.prune import share_of
from earmark.core import Data
from earmark.errors import number
from earmark.keys import MarkKey
from earmark.layers import Site, affine
from earmark.marks import Passports
from earmark.training import CrossEntropy, Settings, Step, sign_loss

__all__ = ["RetrainedPassports"]

NOISE = 1e-3
INSIDER = FORGING.but(clip=2.0)


@final
@dataclass(frozen=True)
class RetrainedPassports(PassportForger):
    """Passports learnt from the owner's, which the forger knows, with some of the owner's bits flipped.

    Fan et al. 2021, Section 5.2.3 and the released code: P starts as the owner's plus N(0, 10^-6), and minimises the
    cross entropy, the sign loss to the flipped bits and sum 1 / MSE(P, P_owner), which drives it away from what it was;
    the gradient's length is held to 2, and the weights stay.

    Attributes:
        mark: the owner's passports and bits. `layers` has no say.
        share: the share of each layer's bits that are flipped.
        settings: of the training.
        margin, ridge, sign: of the sign loss, as in `embed.PassportLayers`.

    Raises:
        BadInput: a share outside 0 to 1.
        CannotCarry: on the call, a model without the mark's layers.
    """

    mark: Passports = field(kw_only=True)
    share: float = 0.5
    settings: Settings = INSIDER
    margin: float = 0.1
    ridge: float = 1e-5
    sign: float = 0.1
    needs: ClassVar[Needs] = Needs(weights=True, data="labelled images", more="the owner's passports")

    def __post_init__(self) -> None:
        number("share", self.share, 0, 1)
        for what in ("margin", "ridge", "sign"):
            number(what, getattr(self, what), 0, 1e6)

    def _sites(self, model: nn.Module, data: Data) -> tuple[Site, ...]:
        self.mark.weights_in(model)
        return self.mark.sites

    def _forged(
        self, model: nn.Module, sites: tuple[Site, ...], key: MarkKey, data: Data, rng: torch.Generator
    ) -> tuple[Passports, nn.Module]:
        sources: dict[Site, _FromPassports] = {}
        for (site, pair), bits in zip(self.mark.layers().items(), self.mark.split(self.mark.bits), strict=True):
            wanted = bits.float()
            wanted[torch.randperm(len(bits), generator=rng)[: share_of(self.share, len(bits))]] *= -1
            sources[site] = _FromPassports(weight_of(model, site), site, torch.cat(pair), wanted, rng)
        terms = (CrossEntropy(), _Signs(self.margin, self.ridge, self.sign), _Away())
        learnt(copy.deepcopy(model), sources, data.train, terms, self.settings, rng)
        pairs = tuple((one[:1], one[1:]) for one in (s.passports.detach().cpu().float() for s in sources.values()))
        return posed(model, sites, pairs, data, rng), model


class _FromPassports(nn.Module):
    """The scale and shift that trainable passports (2, I, H, W) give with a weight that stays."""

    weight: Tensor
    spread: Tensor
    owners: Tensor
    wanted: Tensor

    def __init__(self, weight: Tensor, site: Site, owners: Tensor, wanted: Tensor, rng: torch.Generator) -> None:
        super().__init__()
        self.site = site
        for name, value in (("weight", weight), ("spread", spread(site)), ("owners", owners), ("wanted", wanted)):
            self.register_buffer(name, value.to(weight).clone())
        self.passports = nn.Parameter(self.owners + NOISE * torch.randn(owners.shape, generator=rng).to(weight))

    def forward(self) -> Tensor:
        means = self.passports.flatten(2) @ self.spread.t()
        return affine(self.weight, means.view(2, self.site.groups, *self.site.weight[1:]))


def _sources(step: Step) -> list[_FromPassports]:
    layers = (module.source for module in step.model.modules() if isinstance(module, LearntAffine))
    return [source for source in layers if isinstance(source, _FromPassports)]


@dataclass(frozen=True)
class _Signs:
    """The sign loss to the bits that the forger wants."""

    margin: float
    ridge: float
    weight: float
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "sign"

    def __call__(self, step: Step) -> Tensor:
        sources = _sources(step)
        scales, wanted = torch.cat([source()[0] for source in sources]), torch.cat([one.wanted for one in sources])
        return sign_loss(scales, wanted, self.margin, self.ridge, self.weight)


@dataclass(frozen=True)
class _Away:
    """sum 1 / MSE(P, P_owner) over all passports."""

    weight: float = 1.0
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "away"

    def __call__(self, step: Step) -> Tensor:
        apart = [(source.passports - source.owners).square().flatten(1).mean(1) for source in _sources(step)]
        return (1 / torch.cat(apart).clamp(min=1e-12)).sum()
