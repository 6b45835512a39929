"""The order in which a model's weights lie in memory, by which kernels are chosen, and so how results are rounded."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["plainly_laid_out"]


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


def _weights(model: nn.Module) -> chain[Tensor]:
    return chain(model.parameters(), model.buffers())


def _is_plain(weight: Tensor) -> bool:
    images = weight.layout is torch.strided and weight.ndim in (4, 5)
    return not images or weight.stride() == torch.empty(weight.shape, device="meta").stride()
