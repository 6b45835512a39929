"""Signs and scale of channels, changed so that the network's function stays and its weights show chance."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from earmark.attacks.removal.rearrange import Consumer, Rearrange, selected
from earmark.core import Data
from earmark.errors import CannotCarry, number
from earmark.marks import Passports

__all__ = [
    "FlipSigns",
    "FoldNorm",
    "MarkByFlips",
    "RescaleChannels",
    "block_signs",
    "negated",
]


@final
@dataclass(frozen=True)
class FlipSigns(Rearrange):
    """W_o -> -W_o with the norm's scale and mean negated too: gamma norm(W_o * x) + beta stays, <W_o, S> changes sign.

    Batch and instance norm allow it channel by channel, group norm for whole groups, whose mean the channels share.

    Attributes:
        share: the chance of each channel (or group) to be flipped.

    Raises:
        BadInput: a share outside 0 to 1.
    """

    share: float = 0.5
    consumed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number("share", self.share, 0, 1)

    def _change(
        self, conv: nn.Conv2d, norm: nn.Module, reader: Consumer | None, rng: torch.Generator
    ) -> Sequence[nn.Module] | None:
        blocks = norm.num_groups if isinstance(norm, nn.GroupNorm) else conv.out_channels
        drawn = torch.rand(blocks, generator=rng) < self.share
        negated(conv, norm, (1 - 2 * drawn.float()).repeat_interleave(conv.out_channels // blocks))
        return conv, norm


def block_signs(norm: nn.Module, wanted: Tensor) -> Tensor:
    """The signs (O,) nearest to the wanted ones that a norm allows: equal ones for all channels of a group."""
    if not isinstance(norm, nn.GroupNorm):
        return wanted
    votes = wanted.view(norm.num_groups, -1).sum(1)
    signs = torch.where(votes < 0, -torch.ones_like(votes), torch.ones_like(votes))
    return signs.repeat_interleave(len(wanted) // norm.num_groups)


@torch.no_grad()
def negated(conv: nn.Conv2d, norm: nn.Module, signs: Tensor) -> None:
    """Multiply filters by signs (O,), and the norm's scale and mean with them, in place."""
    signs = torch.where(signs < 0, -1.0, 1.0).to(conv.weight)
    conv.weight.mul_(signs.view(-1, 1, 1, 1))
    for tensor in (conv.bias, getattr(norm, "weight", None), getattr(norm, "running_mean", None)):
        if isinstance(tensor, Tensor):
            tensor.mul_(signs)


@final
@dataclass(frozen=True)
class MarkByFlips:
    """Embed passports in a network that somebody else has trained, without training: flip channels to show the bits.

    The verb E as a thief plays it (`Overwrite`): no answer changes, and behind batch norm every bit is right at once.
    Nothing but the date tells such a copy from the network that it was made of.
    """

    def __call__(self, host: nn.Module, mark: Passports, data: Data, rng: torch.Generator) -> nn.Module:
        """A copy of `host` that shows the mark's bits, as many as its norms allow.

        Raises:
            CannotCarry: a host without the mark's layers, or bits that are signs of products, which no flip changes.
        """
        if mark.scale == "product":
            raise CannotCarry("the bits are signs of private times public scales, which a flip leaves as they are")
        shown = mark.split(mark.shown(host))
        marked = copy.deepcopy(host)
        for site, have, wanted in zip(mark.sites, shown, mark.split(mark.bits), strict=True):
            conv, norm = marked.get_submodule(site.conv), marked.get_submodule(site.norm)
            assert isinstance(conv, nn.Conv2d), "marks are for convolutions"
            negated(conv, norm, block_signs(norm, (have * wanted).float()))
        return marked


@final
@dataclass(frozen=True)
class RescaleChannels(Rearrange):
    """Multiply what a norm writes by a positive number for each channel, and divide it out again in the next layer.

    Piecewise linear activations let it through. The signs of the layer itself stay; those of the next layer, whose
    weights are W_oi / a_i, are read from a few of its inputs alone.

    Attributes:
        spread: a is drawn from 1 / spread to spread, its logarithm uniformly.

    Raises:
        BadInput: a spread below 1.
    """

    spread: float = 30.0

    def __post_init__(self) -> None:
        number("spread", self.spread, 1, 1e4)

    def _change(
        self, conv: nn.Conv2d, norm: nn.Module, reader: Consumer | None, rng: torch.Generator
    ) -> Sequence[nn.Module] | None:
        assert reader is not None, "the layer that reads the channels changes with them"
        channels = conv.out_channels
        drawn = self.spread ** (2 * torch.rand(channels, generator=rng) - 1)
        by = drawn.to(reader.weight)
        weight = selected(reader, torch.arange(channels, device=by.device), channels)
        if weight is None or getattr(norm, "weight", None) is None:
            return None
        reader.weight.copy_((weight.reshape(len(weight), channels, -1) / by.view(1, -1, 1)).view_as(weight))
        for tensor in (norm.weight, norm.bias):
            tensor.mul_(by)  # type: ignore[operator]
        return conv, norm, reader


@final
@dataclass(frozen=True)
class FoldNorm(Rearrange):
    """Batch norm written into the convolution before it, as deployment tools do, and an identity in its place.

    W'_o = W_o gamma_o / sqrt(var_o + eps), b'_o = (b_o - mean_o) gamma_o / sqrt(var_o + eps) + beta_o. Where the public
    scale is negative, the sign of <W_o, S> changes; of a network that has the passport's scales in its norms (V1), all
    become positive.
    """

    consumed: ClassVar[bool] = False

    def _change(
        self, conv: nn.Conv2d, norm: nn.Module, reader: Consumer | None, rng: torch.Generator
    ) -> Sequence[nn.Module] | None:
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
            return None
        factor = (norm.running_var + norm.eps).rsqrt()
        bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        if norm.affine:
            factor = factor * norm.weight
        shift = bias * factor + (norm.bias if norm.affine else 0)
        conv.weight.mul_(factor.view(-1, 1, 1, 1))
        conv.bias = nn.Parameter(shift.detach().clone(), requires_grad=conv.weight.requires_grad)
        return conv, nn.Identity()
