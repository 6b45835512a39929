"""Scales and shifts that a forger learns from data, with all else frozen, and then solves for passports that give them.

Two ways to find them: as free numbers (fake2 of Fan et al. 2021, Section 5.2.2), and through a block behind random
passports (Chen et al. 2023, "Effective ambiguity attack against passport-based DNN intellectual property protection
schemes through fully connected layer substitution", CVPR).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from earmark.attacks.ambiguity.passports.drawn import uniform
from earmark.attacks.ambiguity.passports.forgery import PassportForger, posed, public_affine, weight_of
from earmark.attacks.ambiguity.passports.solved import solved_pairs
from earmark.attacks.needs import Needs
from earmark.attacks.removal.prune import share_of
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, number
from earmark.keys import MarkKey
from earmark.layers import Site, affine, windows
from earmark.marks import Passports
from earmark.models import built, dissect
from earmark.training import CrossEntropy, Settings, Term, fit

__all__ = ["CERB", "FORGING", "LearntAffine", "ReverseScales", "learnt"]

FORGING = Settings(
    epochs=100,
    batch_size=64,
    lr=0.01,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    batchnorm="train",
    triggers_per_batch=0,
)
"""The released code's run of its attacks on CIFAR."""


class LearntAffine(nn.Module):
    """A norm whose scale and shift, (2, O), another module makes."""

    def __init__(self, norm: nn.Module, source: nn.Module) -> None:
        super().__init__()
        self.norm, self.source = norm, source

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.source()
        # PyTorch 2.13 crashes where group norm learns from channels-last maps without a gradient. Maps of one pixel
        # count as contiguous in either order, so only a copy is sure to be in the default one.
        x = x.clone(memory_format=torch.contiguous_format)
        seen: Tensor = functional_call(self.norm, {"weight": scale, "bias": shift}, (x,))
        return seen


def learnt(
    model: nn.Module,
    sources: Mapping[Site, nn.Module],
    images: Images,
    terms: Sequence[Term],
    settings: Settings,
    rng: torch.Generator,
) -> list[Tensor]:
    """Train the sources of scales and shifts, and nothing else of a network, in place; what they make then, (2, O)."""
    head = dissect(model, images.sample(1).pixels)
    for site, source in sources.items():
        model.set_submodule(site.norm, LearntAffine(model.get_submodule(site.norm), source))
    own = tuple(f"{site.norm}.source." for site in sources)

    def trainable(network: nn.Module, _: object) -> set[str]:
        return {name for name, _ in network.named_parameters() if name.startswith(own)}

    fit(model, images, terms, settings, rng, trainable=trainable, head=head, title="forging passports")
    with torch.no_grad():
        return [source().detach().cpu() for source in sources.values()]


@dataclass(frozen=True)
class _Learning(PassportForger):
    """Learns scales and shifts by the cross entropy on some of the training images, then solves for passports.

    Attributes:
        images: the share of the training images that the forger has.
        settings: of the training.

    Raises:
        BadInput: a share outside 0 to 1, or one that leaves no image.
    """

    images: float = 1.0
    settings: Settings = field(default=FORGING, kw_only=True)
    needs: ClassVar[Needs] = Needs(weights=True, data="labelled images")

    def __post_init__(self) -> None:
        number("images", self.images, 0, 1)

    def _forged(
        self, model: nn.Module, sites: tuple[Site, ...], key: MarkKey, data: Data, rng: torch.Generator
    ) -> tuple[Passports, nn.Module]:
        count = int(self.images * len(data.train))
        if not count:
            raise BadInput(f"images: {self.images} of {len(data.train)} training images are none; take a larger share")
        some = data.train if count == len(data.train) else drawn(data.train, count, rng)
        sources = {site: self._source(model, site, rng) for site in sites}
        found = learnt(copy.deepcopy(model), sources, some, (CrossEntropy(),), self.settings, rng)
        return posed(model, sites, solved_pairs(model, sites, found, rng), data, rng), model

    @abstractmethod
    def _source(self, model: nn.Module, site: Site, rng: torch.Generator) -> nn.Module:
        """What makes a site's scale and shift, as training begins."""


@final
@dataclass(frozen=True)
class ReverseScales(_Learning):
    """Scales with some of the public signs reversed, learnt as free numbers: fake2 of the paper.

    |gamma| starts at 1 and beta at 0, and no sign is held; nothing but those of the protected layers is trained.

    Attributes:
        share: the share of the public scales' signs that are reversed at the start, in each layer.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("share", self.share, 0, 1)

    def _source(self, model: nn.Module, site: Site, rng: torch.Generator) -> nn.Module:
        signs = public_affine(model, site)[0].sign()
        signs[torch.randperm(len(signs), generator=rng)[: share_of(self.share, len(signs))]] *= -1
        return _Free(torch.stack([signs, torch.zeros_like(signs)]))


@final
@dataclass(frozen=True)
class CERB(_Learning):
    """Chen et al. 2023: random passports with an enhanced residual block behind them, gamma' = gamma + f(gamma).

    f is linear - LeakyReLU - linear with O / 8 hidden numbers, one for gamma and one for beta of each layer, learnt on
    a tenth of the data. The network of the paper keeps the blocks; here passports are solved for that give what came
    out of them, so that nothing is left of the attack but a mark.
    """

    images: float = 0.1

    def _source(self, model: nn.Module, site: Site, rng: torch.Generator) -> nn.Module:
        ((scale, shift),) = uniform((site,), rng)
        weight = weight_of(model, site)
        start = affine(weight.cpu().double(), torch.stack([windows(scale, site), windows(shift, site)]))
        return built(lambda: _Enhanced(start.to(weight)), rng).to(weight)


class _Free(nn.Module):
    """A scale and a shift that are parameters themselves."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.both = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        return self.both


class _Enhanced(nn.Module):
    """A fixed scale and shift with a residual block behind each."""

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        width = start.shape[1]
        hidden = max(1, width // 8)
        self.register_buffer("start", start)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, width)) for _ in start
        )

    def forward(self) -> Tensor:
        return torch.stack([one + block(one) for one, block in zip(self.start, self.blocks, strict=True)])
