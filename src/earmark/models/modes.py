"""Where a model runs, and in which mode: changed for a while and restored exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["as_input", "device_of", "dtype_of", "evaluating", "frozen_batchnorm", "given", "is_batchnorm"]


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter; the CPU for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type that a model computes in: that of its first floating parameter, float32 without one."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def as_input(images: Tensor, model: nn.Module) -> Tensor:
    """Images, uint8 or float in [0, 1], as `model` takes them: float in [0, 1], on its device, in its own type.

    uint8 becomes float32 first, as it is for a judge's query: a model of any type sees the same 256 values.
    """
    images = images.to(device_of(model))
    return (images.float().div_(255) if images.dtype == torch.uint8 else images).to(dtype_of(model))


def is_batchnorm(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of its batches (batch norm of any rank, instance norm that tracks)."""
    return isinstance(module, _NormBase) and module.track_running_stats


def given(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """What a layer of one input was called on, as a hook sees it: `layer(x)` or `layer(input=x)`."""
    return next(iter((*args, *named.values())))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Run in eval mode; afterwards every submodule is back in the mode it had, even where they differed."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen_batchnorm(model: nn.Module) -> Iterator[nn.Module]:
    """Hold every batch norm still: statistics and affine parameters both (Hua & Teoh 2023, released code).

    The layers stay frozen through any `model.train()` inside the context, and come back as they were.
    """
    layers = [module for module in model.modules() if is_batchnorm(module)]
    modes = [(layer, layer.training) for layer in layers]
    wanted = [(p, p.requires_grad) for layer in layers for p in layer.parameters(recurse=False)]
    hooks = [layer.register_forward_pre_hook(_to_eval) for layer in layers]
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in modes:
            layer.training = mode
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)


def _to_eval(layer: nn.Module, _: object) -> None:
    layer.training = False
