"""The order in which a model's weights lie in memory, by which kernels are chosen, and so how results are rounded."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from earmark.models.bank import Bank

__all__ = ["plainly_laid_out", "trains_channels_last"]

CHANNELS = 8
"""From so many input channels on, the kernel below is sound."""


def plainly_laid_out(model: nn.Module) -> nn.Module:
    """`model` where all its weights lie in the order of their dimensions, as files have them, or else a copy that does.

    Equal weights in two layouts (channels-last beside contiguous) give features that differ in their last bits; the
    features of two models are comparable bit for bit only in one layout. Strides are compared, not contiguity: a 1 x 1
    kernel is contiguous in either layout.
    """
    if all(map(_is_plain, _weights(model))):
        return model
    copied = copy.deepcopy(model)
    for weight in _weights(copied):
        if not _is_plain(weight):
            weight.data = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device).copy_(weight.data)
    return copied


def trains_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Whether `model` can be trained in the channels-last order on `device`.

    On the CPU, PyTorch 2.13 writes past its buffers in the backward pass of a 1 x 1 convolution with a stride, of fewer
    than 8 channels, in that order: the process dies. Thin residual networks have such shortcuts. It dies, too, in that
    of a group norm that learns and whose input has no gradient: one that reads the images, or that stands above frozen
    layers. The stacked weights of a `Bank` have an axis too many for that order.
    """
    if any(isinstance(module, Bank) for module in model.modules()):
        return False
    if device.type == "cpu" and _learns_first_in_group_norm(model):
        return False
    pointwise = (m for m in model.modules() if isinstance(m, nn.Conv2d) and set(m.kernel_size) == {1})
    return device.type != "cpu" or not any(max(m.stride) > 1 and m.in_channels < CHANNELS for m in pointwise)


def _learns_first_in_group_norm(model: nn.Module) -> bool:
    """Whether nothing that learns comes before some group norm that does, in the order in which layers are listed."""
    learning = (m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False)))
    return isinstance(next(learning, None), nn.GroupNorm)


def _weights(model: nn.Module) -> chain[Tensor]:
    return chain(model.parameters(), model.buffers())


def _is_plain(weight: Tensor) -> bool:
    images = weight.layout is torch.strided and weight.ndim in (4, 5)
    return not images or weight.stride() == torch.empty(weight.shape, device="meta").stride()
