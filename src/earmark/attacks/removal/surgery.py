"""Which layers of a model an attack may touch, found by their type and never by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from earmark.core import Data
from earmark.errors import BadInput
from earmark.models import dissect

__all__ = ["WeightLayer", "by_filter", "distinct_weights", "head_of", "weight_layers"]

WeightLayer: TypeAlias = _ConvNd | nn.Linear
"""A convolution (plain or transposed, 1-D to 3-D) or a fully connected layer."""


def weight_layers(model: nn.Module) -> list[WeightLayer]:
    """The convolutions and fully connected layers in `model.modules()` order. Norm layers, embeddings and buffers never
    appear.

    Raises:
        BadInput: there is none, or a weight is computed from other tensors instead of being a parameter of its layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, WeightLayer)]
    if not layers:
        raise BadInput("expected a model with convolutions or fully connected layers to attack, found none")
    for layer in layers:
        if "weight" not in layer._parameters:
            raise BadInput(
                f"the weight of {layer} is computed from other tensors (weight norm, pruning mask, parametrisation); "
                "make it a plain parameter first, with torch.nn.utils.parametrize.remove_parametrizations or its like"
            )
    return layers


def distinct_weights(layers: Sequence[WeightLayer]) -> list[Tensor]:
    """The layers' weights, a weight that several layers share once."""
    return list({id(layer.weight): layer.weight for layer in layers}.values())


def by_filter(layer: WeightLayer) -> Tensor:
    """The layer's weight as a view (groups, outputs per group, fan-in ...): [g, j] is one output channel's filter.

    >>> by_filter(nn.ConvTranspose2d(6, 4, 3, groups=2)).shape
    torch.Size([2, 2, 3, 3, 3])
    """
    if isinstance(layer, nn.Linear):
        return layer.weight.unsqueeze(0)
    grouped = torch.unflatten(layer.weight, 0, (layer.groups, -1))
    return grouped.transpose(1, 2) if layer.transposed else grouped


def head_of(model: nn.Module, data: Data, name: str | None = None) -> nn.Linear:
    """The layer that makes the logits: the one called `name`, or found by asking `model` one test image."""
    return dissect(model, data.test.sample(1).pixels, name).linear(model)
