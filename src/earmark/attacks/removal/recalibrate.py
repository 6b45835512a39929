"""Batch norm's running statistics taken anew, as a thief does after pruning has shifted what the layers see."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from earmark.core import Images
from earmark.errors import BadInput
from earmark.models import as_input, evaluating
from earmark.models.modes import given

__all__ = ["recalibrated"]


class _Moments(NamedTuple):
    """Of one batch of activations: how many there are of a channel, and each channel's mean and biased variance."""

    size: int
    mean: Tensor
    variance: Tensor


def recalibrated(model: nn.Module, images: Images, batch_size: int = 256) -> nn.Module:
    """A copy whose batch norm layers hold the mean and the unbiased variance of what reaches them from `images`.

    One pass in batches of nearly equal size, normalised by their own statistics as in training, all else in eval mode.
    The moments of the batches are pooled, so that they are those of all the activations that a layer saw. A layer that
    saw none, or that keeps no statistics, stays as it is, and so does a model without batch norm.

    Args:
        model: any network, left as it is.
        images: two or more; their labels have no part in it.
        batch_size: images at once, at most (but never one alone).

    Raises:
        BadInput: fewer than two images.
    """
    if len(images) < 2:
        raise BadInput(f"{images.name}: statistics need two images or more, got {len(images)}")
    copied = copy.deepcopy(model)
    layers = [m for m in copied.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    seen: dict[nn.Module, list[_Moments]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, args: Any, named: Any) -> None:
        seen[layer].append(_moments(given(args, named)))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    batches = min(math.ceil(len(images) / batch_size), len(images) // 2)
    try:
        with evaluating(copied), torch.no_grad():
            for layer in layers:
                layer.train()
            for pixels in torch.tensor_split(images.pixels, batches):
                copied(as_input(pixels, copied))
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        _store(layer, seen[layer])
    return copied


def _moments(x: Tensor) -> _Moments:
    """Of activations (N, C, ...)."""
    rows = x.detach().float().transpose(0, 1).flatten(1)
    variance, mean = torch.var_mean(rows, dim=1, correction=0)
    return _Moments(rows.shape[1], mean.cpu().double(), variance.cpu().double())


def _store(layer: _BatchNorm, parts: list[_Moments]) -> None:
    """Variance within the batches plus variance between them, as running statistics of the layer."""
    if not parts or layer.running_mean is None or layer.running_var is None:
        return
    counts = torch.tensor([part.size for part in parts], dtype=torch.float64).unsqueeze(1)
    means, variances = torch.stack([part.mean for part in parts]), torch.stack([part.variance for part in parts])
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    squares = (counts * (variances + (means - mean).square())).sum(0)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(squares / (total - 1).clamp(min=1))
