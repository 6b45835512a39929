"""A copy of a network that has learned nothing yet."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from earmark.models.modes import device_of

__all__ = ["built", "redraw_residual", "reinitialised"]


def reinitialised(model: nn.Module, rng: torch.Generator) -> nn.Module:
    """A copy of `model` with freshly drawn parameters; the global random state is left alone.

    They are drawn on the CPU, so that every device starts alike. Each module draws by its own `reset_parameters`, the
    outermost one that has it deciding for all below it. Parameters that no such method reaches (class tokens, position
    embeddings) are drawn from N(0, 0.02^2), the customary start of transformers; a network that needs something else
    should define `reset_parameters`.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    fresh = copy.deepcopy(model).cpu()
    fresh.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        _reset(fresh)
    return fresh.to(device_of(model))


def built(build: Callable[[], nn.Module], rng: torch.Generator) -> nn.Module:
    """What `build` makes with a seed from `rng`; the global random state is left alone."""
    seed = int(torch.randint(2**62, (), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def redraw_residual(network: nn.Module) -> None:
    """Draw the parameters of a residual network anew, from the global generator.

    Convolutions from Kaiming-normal (fan out; He et al. 2015), all other layers as PyTorch does.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.Linear)):
            module.reset_parameters()


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        nn.init.normal_(parameter, std=0.02)
    for child in module.children():
        _reset(child)
