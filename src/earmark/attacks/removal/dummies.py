"""Channels that do nothing: the network is wider, answers as before, and has no layer of the mark's shape."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from earmark.attacks.removal.permute import shuffled
from earmark.attacks.removal.rearrange import Consumer, Norm, Rearrange, per_channel, selected
from earmark.errors import number

__all__ = ["DummyChannels"]


@final
@dataclass(frozen=True)
class DummyChannels(Rearrange):
    """Add pairs of equal channels whose outgoing weights cancel, and shuffle them among the others.

    A new filter is an old one with its inputs in another order, and its norm's numbers and outgoing weights are those
    of the old one: nothing tells it from the others but its twin. Behind group norm whole groups are added, so that the
    statistics of the others stay.

    Attributes:
        share: how many pairs are added, as a share of a layer's channels (of its groups); one at least.

    Raises:
        BadInput: a share outside 0 to 1.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        number("share", self.share, 0, 1)

    def _change(
        self, conv: nn.Conv2d, norm: nn.Module, reader: Consumer | None, rng: torch.Generator
    ) -> Sequence[nn.Module] | None:
        assert reader is not None, "the layer that reads the channels changes with them"
        if conv.groups > 1 or not isinstance(norm, Norm):
            return None
        old = conv.out_channels
        blocks = norm.num_groups if isinstance(norm, nn.GroupNorm) else old
        count = max(1, int(self.share * blocks))
        chosen = torch.randperm(blocks, generator=rng)[:count]
        copied = torch.arange(old).view(blocks, -1)[chosen].flatten()
        order = torch.cat([torch.arange(old), copied, copied]).to(conv.weight.device)
        weight = selected(reader, order, old)
        if weight is None:
            return None
        weight = weight.clone(memory_format=torch.contiguous_format)
        weight.view(len(weight), len(order), -1)[:, -len(copied) :].neg_()
        shuffle = torch.randperm(conv.in_channels, generator=rng).to(conv.weight.device)
        filters = torch.cat([conv.weight, conv.weight[order[old:]][:, shuffle]])
        return _shuffled(_wider(conv, filters, order), _wider_norm(norm, order), _reading(reader, weight), rng)


def _shuffled(conv: nn.Conv2d, norm: nn.Module, reader: Consumer, rng: torch.Generator) -> Sequence[nn.Module]:
    """The layers with the channels between them in a random order that their groups allow, in place."""
    blocks = norm.num_groups if isinstance(norm, nn.GroupNorm) else 1
    order = shuffled(conv.out_channels, blocks, True, rng).to(conv.weight.device)
    weight = selected(reader, order, conv.out_channels)
    assert weight is not None, "a reader of all channels"
    reader.weight.copy_(weight.clone())
    for tensor in (conv.weight, conv.bias, *per_channel(norm)):
        if tensor is not None:
            tensor.copy_(tensor[order].clone())
    return conv, norm, reader


def _wider(conv: nn.Conv2d, filters: Tensor, order: Tensor) -> nn.Conv2d:
    wide = copy.deepcopy(conv)
    wide.out_channels, wide.weight = len(filters), _like(conv.weight, filters)
    if conv.bias is not None:
        wide.bias = _like(conv.bias, conv.bias[order])
    return wide


def _wider_norm(norm: Norm, order: Tensor) -> nn.Module:
    wide = copy.deepcopy(norm)
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(wide, name, _like(parameter, parameter[order]))
    for name, buffer in norm.named_buffers(recurse=False):
        if buffer.ndim:
            setattr(wide, name, buffer[order].clone())
    if isinstance(wide, nn.GroupNorm):
        wide.num_groups = wide.num_groups * len(order) // wide.num_channels
        wide.num_channels = len(order)
    else:
        wide.num_features = len(order)
    return wide


def _reading(consumer: Consumer, weight: Tensor) -> Consumer:
    wide = copy.deepcopy(consumer)
    wide.weight = _like(consumer.weight, weight)
    if isinstance(wide, nn.Conv2d):
        wide.in_channels = weight.shape[1]
    else:
        wide.in_features = weight.shape[1]
    return wide


def _like(old: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=old.requires_grad)
