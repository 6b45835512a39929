"""Pruning: a share of the weights becomes zero and every shape stays.

Hua & Teoh 2023, Table 8, prune 20 % and 50 % of a marked model without saying which weights; the customary readings are
all here. Only weights of convolutions and fully connected layers are touched: biases are kept (but for those of a whole
channel that goes), and so are norm layers; buffers, too, unless batch norm is recalibrated.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.recalibrate import recalibrated
from earmark.attacks.removal.surgery import WeightLayer, by_filter, distinct_weights, head_of, weight_layers
from earmark.core import Data
from earmark.data import drawn
from earmark.errors import BadInput

__all__ = ["PruneChannels", "PruneGlobal", "PruneLayers", "PruneRandom", "share_of", "smallest"]


def share_of(share: float, count: int) -> int:
    """floor(share * count), with `share` taken as the decimal number that it prints as.

    >>> share_of(0.29, 100), int(0.29 * 100)
    (29, 28)
    """
    return int(Fraction(str(share)) * count)


def smallest(scores: Tensor, k: int) -> Tensor:
    """A mask of the `k` smallest of a flat tensor of scores; among equal ones those that come first.

    >>> smallest(torch.tensor([2.0, 1.0, 2.0, 2.0]), 3)
    tensor([ True,  True,  True, False])
    """
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(k).values
    mask = scores < threshold
    ties = (scores == threshold).nonzero().flatten()
    mask[ties[: k - int(mask.sum())]] = True
    return mask


@dataclass(frozen=True)
class _Prune(ABC):
    """Copies the model, finds its layers, and leaves to `_zero` which of their weights go.

    Attributes:
        share: the share of weights (or of channels) that become zero.
        exclude_head: the last linear layer stays as it is.
        head: the name of that layer, where the search for it cannot tell.
        recalibrate: on how many of the thief's training images, drawn at random, batch norm takes its running
            statistics anew afterwards (see `recalibrated`); 0 leaves them as they are.

    Raises:
        BadInput: a share outside 0 to 1, or statistics of a single image; on the call, a model without weights of its
            own to prune, or fewer images than asked for.
    """

    share: float = 0.2
    exclude_head: bool = False
    head: str | None = None
    recalibrate: int = 0

    @property
    def needs(self) -> Needs:
        """The weights, and images where batch norm is recalibrated."""
        return Needs(weights=True, data="images" if self.recalibrate else "nothing")

    def __post_init__(self) -> None:
        if self.recalibrate < 0 or self.recalibrate == 1:
            raise BadInput(f"recalibrate: expected 0 or at least 2 images, got {self.recalibrate}")
        if not 0 <= self.share <= 1:
            raise BadInput(f"share: expected the share of weights to prune, 0 to 1, got {self.share}")

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        pruned = copy.deepcopy(model)
        layers = weight_layers(pruned)
        kept = head_of(pruned, data, self.head).weight if self.exclude_head else None
        with torch.no_grad():
            self._zero([layer for layer in layers if layer.weight is not kept], rng)
        return recalibrated(pruned, drawn(data.train, self.recalibrate, rng)) if self.recalibrate else pruned

    @abstractmethod
    def _zero(self, layers: list[WeightLayer], rng: torch.Generator) -> None: ...


@final
@dataclass(frozen=True)
class PruneGlobal(_Prune):
    """The floor(share * N) smallest |w| among all N weights of the model become zero: one threshold for all layers."""

    def _zero(self, layers: list[WeightLayer], rng: torch.Generator) -> None:
        weights = distinct_weights(layers)
        scores = torch.cat([weight.abs().flatten().cpu() for weight in weights])
        _zero_where(weights, smallest(scores, share_of(self.share, len(scores))))


@final
@dataclass(frozen=True)
class PruneLayers(_Prune):
    """In each layer of n weights the floor(share * n) smallest |w| become zero."""

    def _zero(self, layers: list[WeightLayer], rng: torch.Generator) -> None:
        for weight in distinct_weights(layers):
            _zero_where([weight], smallest(weight.abs().flatten(), share_of(self.share, weight.numel())))


@final
@dataclass(frozen=True)
class PruneRandom(_Prune):
    """floor(share * N) of the model's N weights, drawn from `rng`, become zero."""

    def _zero(self, layers: list[WeightLayer], rng: torch.Generator) -> None:
        weights = distinct_weights(layers)
        scores = torch.rand(sum(weight.numel() for weight in weights), generator=rng)
        _zero_where(weights, smallest(scores, share_of(self.share, len(scores))))


@final
@dataclass(frozen=True)
class PruneChannels(_Prune):
    """In each layer of n outputs the floor(share * n) filters of least L1 norm become zero, and their biases with them
    (Li et al. 2017, "Pruning Filters for Efficient ConvNets"). The head's outputs are the classes, so it is left alone.
    """

    exclude_head: bool = True

    def _zero(self, layers: list[WeightLayer], rng: torch.Generator) -> None:
        for layer in layers:
            filters = by_filter(layer)
            norms = filters.abs().flatten(2).sum(2)
            gone = smallest(norms.flatten(), share_of(self.share, norms.numel()))
            filters[gone.view_as(norms)] = 0
            if layer.bias is not None:
                layer.bias[gone] = 0


def _zero_where(weights: list[Tensor], gone: Tensor) -> None:
    for weight, mask in zip(weights, torch.split(gone, [weight.numel() for weight in weights]), strict=True):
        weight.masked_fill_(mask.view_as(weight).to(weight.device), 0)
